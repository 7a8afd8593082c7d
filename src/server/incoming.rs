//! The body of a request that goes to its handler while it arrives.
//!
//! Owns the place in such a body: whether its handler wants more, whether the peer has to be asked
//! for it, and what is thrown away when nobody does. Refuses to hold bytes: a piece is lent to the
//! handler as it lies in the input. While the handler rests, nothing is parsed, so the peer is held
//! back by TCP.
//!
//! What the loop over requests calls here is marked cold: inlined, it would cost every GET a dozen
//! instructions (callgrind, 2026-11).

use std::ops::Range;

use super::connection::{Connection, Recv};
use super::handler::{Body, BodyPiece, ExchangeId, Flow, Handler, Unread};
use super::held::Source;
use super::input::Shared;
use super::pace::{Demand, Pace};
use super::worker::Worker;
use crate::protocol::encode::CONTINUE;
use crate::protocol::{CloseReason, Framing, Limits, ProtocolError, StreamFraming};

/// A body on its way. Boxed: most requests have none.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The number of its exchange.
    pub sequence: u32,
    reading: Reading,
    pub interim: Interim,
    /// How fast the peer sends it.
    pace: Pace,
}

/// Who reads the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Nobody, until the handler asks.
    Rests,
    /// The handler.
    Wanted,
    /// Nobody any more. So many bytes may be thrown away for the sake of the next request.
    Discarded { bytes_left: u64 },
}

/// What became of `Expect: 100-continue` (RFC 9110 10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interim {
    /// The peer waits for nothing.
    Settled,
    /// The peer sends the body when it is told to.
    Expected,
    /// The handler wants the body, but the peer is told behind the answers before this one.
    Owed,
}

impl Worker {
    /// Asks for (more of) a streamed request body: `Handler::on_body` follows as it arrives,
    /// perhaps before this returns. A peer that waits for a 100 is told to send it. Of no effect
    /// when it was asked for already, or nobody can get it any more.
    pub fn read_body<H: Handler>(&mut self, exchange: ExchangeId, handler: &mut H) {
        let shared = &mut self.shared;
        let Some(connection) = self
            .connections
            .get_mut(exchange.slot as usize)
            .filter(|connection| connection.generation == exchange.generation)
        else {
            return;
        };
        let Some(incoming) = connection.incoming.as_deref_mut().filter(|incoming| {
            incoming.sequence == exchange.sequence && incoming.reading == Reading::Rests
        }) else {
            return;
        };
        incoming.reading = Reading::Wanted;
        incoming.pace = shared.body_pace();
        if incoming.interim == Interim::Expected {
            // A peer that sent some of the body does not wait.
            let waits = connection.carry.is_empty();
            incoming.interim = if waits {
                Interim::Owed
            } else {
                Interim::Settled
            };
            connection.ask_for_body(shared);
        }
        connection.read_on(exchange.slot, shared, handler);
        self.mark(exchange.slot);
    }
}

impl Incoming {
    /// Whether parsing has to wait for the handler.
    pub(super) fn rests(&self) -> bool {
        self.reading == Reading::Rests
    }

    /// Whether nobody reads it any more.
    pub(super) fn is_discarded(&self) -> bool {
        matches!(self.reading, Reading::Discarded { .. })
    }

    /// Until when the peer is waited for, if it is.
    pub(super) fn waits_until_ms(&self) -> Option<u64> {
        let asked = self.interim != Interim::Owed && !self.rests();
        asked.then_some(self.pace.until_ms())
    }
}

impl Connection {
    /// Parsing goes on where it paused, if there is no more reason to rest.
    pub(super) fn read_on<H: Handler>(&mut self, slot: u32, shared: &mut Shared, handler: &mut H) {
        self.begin_turn(shared.turn);
        if self.paused && !self.rests(&shared.limits) {
            self.paused = false;
            self.on_input(&[], slot, shared, handler);
            if self.recv == Recv::Ended && !self.paused {
                self.on_end_of_input(slot, shared, handler);
            }
        }
    }

    /// Calls the handler of a request whose body has not arrived.
    #[cold]
    pub(super) fn begin_incoming<H: Handler>(
        &mut self,
        input: &[u8],
        head: Range<usize>,
        slot: u32,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        let sequence = self.queue.next_sequence();
        let waits = shared.head.expects_continue && head.end == input.len();
        let length = match shared.head.framing {
            Framing::Length(bytes) => Some(bytes),
            Framing::None | Framing::Chunked => None,
        };
        let unread = if waits {
            Unread::ByAny
        } else if self.leaves_too_much(&shared.limits) {
            Unread::ByWhole
        } else {
            Unread::Nothing
        };
        let (known, _, desk) = shared.at_hand(shared.now_us);
        let request = (known, &input[head], Body::Arriving { length });
        self.dispatch(request, unread, slot, desk, Source::Received(None), handler);
        shared.counters.requests_total += 1;
        shared.counters.bodies_streamed_total += 1;
        // An answer that has begun leaves no room for a 100 before it.
        let asks = waits && !self.queue.is_streaming(sequence);
        self.incoming = Some(Box::new(Incoming {
            sequence,
            reading: Reading::Rests,
            interim: if asks {
                Interim::Expected
            } else {
                Interim::Settled
            },
            pace: shared.body_pace(),
        }));
        if !self.queue.is_open(sequence) {
            if self.queue.next_sequence() == sequence {
                self.queue.skip();
            }
            self.leave_body(shared);
        }
    }

    /// More of the body is here.
    #[cold]
    pub(super) fn on_piece<H: Handler>(
        &mut self,
        piece: &[u8],
        slot: u32,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        let generation = self.generation;
        let Some(incoming) = self.incoming.as_deref_mut() else {
            return;
        };
        incoming.interim = Interim::Settled;
        let demand = Demand::on_body(&shared.limits);
        incoming.pace.on_bytes(piece.len(), shared.now_ms, demand);
        if let Reading::Discarded { bytes_left } = &mut incoming.reading {
            match bytes_left.checked_sub(piece.len() as u64) {
                Some(left) => *bytes_left = left,
                None => self.give_up_body(),
            }
            return;
        }
        let exchange = ExchangeId {
            slot,
            generation,
            sequence: incoming.sequence,
        };
        match handler.on_body(exchange, BodyPiece::Bytes(piece)) {
            Flow::Go => {}
            Flow::Wait => incoming.reading = Reading::Rests,
            Flow::Gone => self.leave_body(shared),
        }
    }

    /// The body is complete.
    #[cold]
    pub(super) fn on_body_end<H: Handler>(&mut self, slot: u32, now_ms: u64, handler: &mut H) {
        self.take_incoming(slot, BodyPiece::End, now_ms, handler);
    }

    /// The body will never be complete: the answer of its exchange is the last.
    #[cold]
    pub(super) fn fail_body<H: Handler>(
        &mut self,
        error: ProtocolError,
        reason: CloseReason,
        slot: u32,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        shared.counters.refusals_total += 1;
        self.closing = Some(reason);
        self.unread_input = true;
        if let Some(incoming) = &self.incoming {
            self.queue.close_behind(incoming.sequence);
        }
        self.take_incoming(slot, BodyPiece::Failed(error), shared.now_ms, handler);
    }

    /// The exchange is answered, or its handler wants no more: the rest of the body is thrown away
    /// if it is little and the connection goes on.
    pub(super) fn leave_body(&mut self, shared: &Shared) {
        let bytes_left = u64::from(shared.limits.linger_bytes_max);
        if self.closing.is_some() || self.leaves_too_much(&shared.limits) {
            self.give_up_body();
        } else if let Some(incoming) = &mut self.incoming {
            incoming.reading = Reading::Discarded { bytes_left };
            incoming.pace = shared.body_pace();
        }
    }

    /// Whether the body of this exchange is on its way.
    pub(super) fn is_incoming(&self, sequence: u32) -> bool {
        let incoming = self.incoming.as_ref();
        incoming.is_some_and(|incoming| incoming.sequence == sequence)
    }

    /// Asks the peer for the body, if it waits for that and every earlier answer is complete.
    pub(super) fn ask_for_body(&mut self, shared: &Shared) {
        if let Some(incoming) = &mut self.incoming
            && incoming.interim == Interim::Owed
            && self.queue.is_first(incoming.sequence)
        {
            incoming.interim = Interim::Settled;
            incoming.pace = shared.body_pace();
            self.out.extend_from_slice(CONTINUE);
        }
    }

    /// Why an answer that is given before the body of its request is complete ends the connection,
    /// if it does.
    pub(super) fn unread_by(
        &self,
        framing: Option<StreamFraming>,
        limits: &Limits,
    ) -> Option<CloseReason> {
        let incoming = self.incoming.as_ref()?;
        let is_whole = framing.is_none();
        let waits = match incoming.interim {
            Interim::Settled => false,
            Interim::Expected => self.carry.is_empty(),
            // The 100 can still be sent before the head of an answer that is held back.
            Interim::Owed => is_whole,
        };
        if waits || is_whole && self.leaves_too_much(limits) {
            return Some(CloseReason::BodyUnread);
        }
        self.draining.then_some(CloseReason::Draining)
    }

    /// Whether the rest of the body is known to be more than is worth throwing away.
    fn leaves_too_much(&self, limits: &Limits) -> bool {
        let left = self.protocol.body_bytes_left();
        left.is_some_and(|bytes| bytes > u64::from(limits.linger_bytes_max))
    }

    /// Too much would have to be thrown away: the connection ends behind the answer instead.
    fn give_up_body(&mut self) {
        if let Some(incoming) = &self.incoming {
            self.queue.close_behind(incoming.sequence);
        }
        self.stop_reading(CloseReason::BodyUnread);
    }

    fn take_incoming<H: Handler>(
        &mut self,
        slot: u32,
        last: BodyPiece<'_>,
        now_ms: u64,
        handler: &mut H,
    ) {
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        // Until now its handler may have waited for the peer.
        if let Some(awaited) = self.queue.awaited_mut(incoming.sequence) {
            awaited.since_ms = now_ms;
        }
        if incoming.reading == Reading::Wanted {
            let exchange = ExchangeId {
                slot,
                generation: self.generation,
                sequence: incoming.sequence,
            };
            handler.on_body(exchange, last);
        }
    }
}
