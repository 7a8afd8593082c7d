//! One accepted socket: what it has sent, what it is owed, and how it will end.
//!
//! Owns the carried-over input, the send buffer, the queue of answers and the state of both
//! directions. Refuses to know the reactor: bytes come in through `on_input` and leave through
//! `take_output`, and nowhere else, so a byte filter (TLS) has exactly two places to sit. What the
//! bytes mean is decided by `protocol`, the one field another protocol replaces after an upgrade.

use std::os::fd::RawFd;

use super::handler::ExchangeId;
use super::incoming::Incoming;
use super::journal::Journal;
use super::overdue;
use super::pace::{Demand, Pace};
use super::queue::Queue;
use crate::protocol::{CloseReason, Http1, Limits, RequestHead, StreamFraming};

/// State of the receiving direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recv {
    /// Nothing armed: reading is paused, or not begun.
    Idle,
    /// A receive is armed.
    Armed,
    /// A receive is armed and a cancel is on its way.
    Cancelling,
    /// The last receive found no buffer; it is re-armed when some are free.
    Starved,
    /// The peer has sent FIN, or the socket is shut down.
    Ended,
}

/// How far the end of the connection has come.
///
/// ```text
///  Open --(answered, sent)--> ShutDown --(recv ended, send home)--> closed
///    \--(input unread)--> Lingering --(FIN, deadline, limit)--^
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// FIN sent; the peer's bytes are drained so that a reset does not destroy our last answer.
    Lingering {
        until_ms: u64,
        bytes_left: u32,
    },
    /// Both directions are shut down; waiting for what the kernel still holds.
    ShutDown,
}

/// A request whose body is still arriving. Boxed: most requests have none.
#[derive(Debug)]
pub(super) struct Gathering {
    pub head: RequestHead,
    pub head_bytes: Vec<u8>,
    pub body: Vec<u8>,
    pub begun_us: u64,
    pub pace: Pace,
}

/// Whether the peer can tell from its bytes that the last answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    Plain,
    /// No: it ends with the connection, as HTTP/1.0 has it.
    Bare,
    /// No, and it is not complete: a reset instead of FIN says so (RFC 9112 8).
    Broken,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub socket: RawFd,
    pub generation: u32,
    pub protocol: Http1,
    /// Bytes received and not yet consumed: a partial head, or what follows a pause.
    pub carry: Vec<u8>,
    pub gathering: Option<Box<Gathering>>,
    /// The body that is being handed on, instead; its exchange is the last in the queue, or was
    /// answered.
    pub incoming: Option<Box<Incoming>>,
    /// Bytes owed and not yet handed to the reactor.
    pub out: Vec<u8>,
    /// Bytes of the send in flight.
    pub in_flight_bytes: usize,
    /// Bytes that the kernel has taken since the connection began.
    pub sent_bytes: u64,
    pub sending: bool,
    pub queue: Queue,
    /// What is recorded of exchanges whose answers have not left.
    pub journal: Option<Box<Journal>>,
    pub recv: Recv,
    pub phase: Phase,
    pub tail: Tail,
    /// Set once: the connection ends when everything owed has left.
    pub closing: Option<CloseReason>,
    /// Whether parsing stopped: too much is owed, or a handler rests in the middle of a body.
    pub paused: bool,
    /// Whether bytes arrived that nobody will read (after the last request, or after a refusal).
    pub unread_input: bool,
    /// How much of that was thrown away while an answer is awaited.
    pub discarded_bytes: usize,
    /// Whether there may be bytes that no receive was armed for: it starved, was cancelled, or is
    /// to be the first.
    pub declined: bool,
    /// Whether the slot is in the worker's list of connections to flush.
    pub dirty: bool,
    /// Whether the header of the PROXY protocol comes before the first request.
    pub awaits_proxy_header: bool,
    /// Whether every request from here on gets `Connection: close`.
    pub draining: bool,
    /// The turn that `turn_requests` were handed on in.
    pub turn: u32,
    pub turn_requests: u32,
    pub idle_since_ms: u64,
    pub head_since_ms: Option<u64>,
    /// How fast the peer takes what is being sent.
    pub send_pace: Pace,
    /// The earliest entry of this connection in the deadline heap.
    pub check_at_ms: u64,
}

impl Connection {
    pub(super) fn new(socket: RawFd, generation: u32, limits: &Limits, now_ms: u64) -> Self {
        Self {
            socket,
            generation,
            protocol: Http1::new(*limits),
            carry: Vec::new(),
            gathering: None,
            incoming: None,
            out: Vec::new(),
            in_flight_bytes: 0,
            sent_bytes: 0,
            sending: false,
            queue: Queue::default(),
            journal: None,
            recv: Recv::Idle,
            phase: Phase::Open,
            tail: Tail::Plain,
            closing: None,
            paused: false,
            unread_input: false,
            discarded_bytes: 0,
            declined: true,
            dirty: false,
            awaits_proxy_header: false,
            draining: false,
            turn: 0,
            turn_requests: 0,
            idle_since_ms: now_ms,
            head_since_ms: None,
            send_pace: Pace::new(now_ms, Demand::on_send(limits)),
            check_at_ms: u64::MAX,
        }
    }

    /// Whether parsing has to wait until some of what is owed has left.
    pub(super) fn owes_too_much(&self, limits: &Limits) -> bool {
        // What is recorded of requests may be more than the answers: it waits for the peer, too.
        let recorded = self.journal.as_ref().map_or(0, |journal| journal.bytes());
        let owed = self.out.len() + self.in_flight_bytes + self.queue.ready_bytes() + recorded;
        self.queue.len() >= limits.pipeline_depth_max as usize
            || owed >= limits.owed_bytes_max as usize
    }

    /// Whether parsing has to pause, between two requests or within a body that is handed on.
    #[inline]
    pub(super) fn rests(&self, limits: &Limits) -> bool {
        if let Some(incoming) = &self.incoming {
            return incoming.rests();
        }
        self.gathering.is_none() && (self.is_spent(limits) || self.owes_too_much(limits))
    }

    /// Whether it has had as many requests answered in this turn as one connection may: it goes on
    /// in the next, and the others are not kept waiting.
    #[inline]
    pub(super) fn is_spent(&self, limits: &Limits) -> bool {
        self.turn_requests >= limits.pipeline_depth_max
    }

    /// A new turn has a new share.
    #[inline]
    pub(super) fn begin_turn(&mut self, turn: u32) {
        if self.turn != turn {
            self.turn = turn;
            self.turn_requests = 0;
        }
    }

    /// Whether what the peer sends is looked at: to the end of a body that is handed on, also
    /// when its answer will be the last.
    pub(super) fn reads_on(&self) -> bool {
        self.closing.is_none() || self.incoming.is_some()
    }

    /// Whether the peer has sent as much as is worth throwing away, and an answer is awaited still:
    /// the rest stays with the peer.
    pub(super) fn has_heard_enough(&self, limits: &Limits) -> bool {
        !self.reads_on() && self.discarded_bytes >= limits.linger_bytes_max as usize
    }

    /// Whether nothing is owed, in flight or awaited.
    pub(super) fn owes_nothing(&self) -> bool {
        self.out.is_empty() && !self.sending && self.queue.is_empty()
    }

    /// Whether a part of a request was received and not yet handed on.
    pub(super) fn holds_input(&self) -> bool {
        !self.carry.is_empty() || self.gathering.is_some() || self.incoming.is_some()
    }

    /// A streamed answer has begun.
    pub(super) fn note_framing(&mut self, framing: StreamFraming) {
        if framing == StreamFraming::UntilClose {
            self.tail = Tail::Bare;
        }
    }

    /// The answer in progress will not be complete.
    pub(super) fn break_off(&mut self) {
        if self.tail == Tail::Bare {
            self.tail = Tail::Broken;
        }
    }

    /// Whether no request is in progress in any stage, as far as was looked.
    pub(super) fn is_idle(&self) -> bool {
        self.owes_nothing()
            && !self.holds_input()
            && !self.declined
            && self.protocol.is_between_requests()
    }

    /// Whether a drain may end it: it is idle, or all that comes is a body nobody reads.
    pub(super) fn is_at_rest(&self) -> bool {
        let discards = |incoming: &Incoming| incoming.is_discarded() && self.queue.is_empty();
        self.is_idle() || self.incoming.as_deref().is_some_and(discards)
    }

    /// Whether the peer sent what nobody will read, as far as is known.
    pub(super) fn leaves_input_unread(&self) -> bool {
        self.unread_input || self.declined
    }

    /// Whether the answer with this number is the last one that a draining connection gives.
    pub(super) fn is_last_of_drain(&self, sequence: u32) -> bool {
        self.draining
            && self.closing.is_none()
            && !self.paused
            && !self.holds_input()
            && self.queue.is_last(sequence)
    }

    /// The last answer was given: nothing of what else the peer sent will be looked at.
    pub(super) fn stop_reading(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
        self.unread_input |= self.holds_input() || (self.paused && self.recv != Recv::Armed);
        self.carry = Vec::new();
        self.gathering = None;
        self.incoming = None;
        self.head_since_ms = None;
        self.paused = false;
    }

    /// Whether the kernel holds nothing of this connection any more.
    pub(super) fn is_released(&self) -> bool {
        !self.sending && !matches!(self.recv, Recv::Armed | Recv::Cancelling)
    }

    /// The id of the exchange that comes next in line.
    pub(super) fn next_exchange(&self, slot: u32) -> ExchangeId {
        ExchangeId {
            slot,
            generation: self.generation,
            sequence: self.queue.next_sequence(),
        }
    }

    /// When the connection has to be looked at if nothing happens, and what it ends with then.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(u64, CloseReason)> {
        if let Phase::Lingering { until_ms, .. } = self.phase {
            return Some((until_ms, self.closing.unwrap_or(CloseReason::PeerClosed)));
        }
        if self.phase == Phase::ShutDown {
            return None;
        }
        let sending = self
            .sending
            .then(|| (self.send_pace.until_ms(), CloseReason::SendDeadline));
        if self.incoming.is_some() || !self.queue.is_empty() {
            return self.deadline_of_exchange(limits, sending);
        }
        if sending.is_some() {
            return sending;
        }
        if self.paused {
            return None;
        }
        if let Some(gathering) = &self.gathering {
            // It begins anew behind earlier answers: the peer's 100 may have waited for them.
            let anew = self.idle_since_ms.saturating_add(limits.body_timeout_ms);
            let at = gathering.pace.until_ms().max(anew);
            return Some((at, CloseReason::BodyDeadline));
        }
        if let Some(since_ms) = self.head_since_ms {
            let reason = if self.awaits_proxy_header {
                CloseReason::ProxyHeaderDeadline
            } else {
                CloseReason::HeadDeadline
            };
            return Some((since_ms + limits.head_timeout_ms, reason));
        }
        Some((
            self.idle_since_ms + limits.idle_timeout_ms,
            CloseReason::IdleDeadline,
        ))
    }

    /// The earliest of what peer and handlers owe while a request is in progress: the peer sends
    /// and receives at the same time, and has to go on with either.
    fn deadline_of_exchange(
        &self,
        limits: &Limits,
        sending: Option<(u64, CloseReason)>,
    ) -> Option<(u64, CloseReason)> {
        let body = self
            .incoming
            .as_ref()
            .and_then(|incoming| incoming.waits_until_ms())
            .map(|at| (at, CloseReason::BodyDeadline));
        let handler = overdue::next_at_ms(&self.queue, self.incoming.as_deref(), limits)
            .map(|at| (at, CloseReason::HandlerDeadline));
        let all = sending.into_iter().chain(body).chain(handler);
        all.min_by_key(|(at, _)| *at)
    }

    /// Everything owed so far, to be sent as one piece.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}
