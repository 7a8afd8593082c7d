//! Bytes of one connection to requests, requests to answers.
//!
//! Owns the loop that drives `protocol` over received bytes and gathers bodies. Refuses to know
//! where the bytes come from and where answers go: it fills `Connection::out` or the queue.

use std::ops::Range;
use std::rc::Rc;

use super::connection::{Connection, Gathering};
use super::counters::Counters;
use super::exchange::Desk;
use super::handler::{Body, Delivery, Handler, Unread};
use super::held::Source;
use super::journal::Recorder;
use super::pace::{Demand, Pace};
use crate::protocol::date::DateLine;
use crate::protocol::encode::CONTINUE;
use crate::protocol::{CloseReason, Framing, Limits, ProtocolError, RequestHead, Step};
use crate::reactor::Lease;

/// What all connections of a worker share while input is read.
#[derive(Debug)]
pub(super) struct Shared {
    pub limits: Limits,
    pub date: DateLine,
    /// Reused for every head, so that idle connections own none.
    pub head: RequestHead,
    pub counters: Counters,
    pub now_ms: u64,
    pub now_us: u64,
    /// Counts the turns, so that each connection has a share of every one.
    pub turn: u32,
    /// The receive buffer that is being read.
    pub lease: Option<Lease>,
    /// Empty vectors with capacity, for send buffers.
    pub spares: Vec<Vec<u8>>,
    /// Records exchanges, if that is wanted.
    pub recorder: Option<Box<Recorder>>,
}

impl Shared {
    /// The head that was read last, the buffer that it lies in, and what its request, or one whose
    /// head was complete at another time, is answered with.
    #[inline]
    pub(super) fn at_hand(&mut self, begun_us: u64) -> (&RequestHead, Option<&Lease>, Desk<'_>) {
        let desk = Desk {
            date: &self.date,
            counters: &mut self.counters,
            now_ms: self.now_ms,
            recorder: self.recorder.as_deref_mut(),
            begun_us,
        };
        (&self.head, self.lease.as_ref(), desk)
    }

    /// The time that a peer has for a body from now on.
    pub(super) fn body_pace(&self) -> Pace {
        Pace::new(self.now_ms, Demand::on_body(&self.limits))
    }
}

/// Where the bytes of the current request are within this input.
#[derive(Debug, Default)]
struct Current {
    head_at: usize,
    body: Option<Range<usize>>,
}

impl Connection {
    /// Takes bytes from the peer and answers every request they complete.
    pub(super) fn on_input<H: Handler>(
        &mut self,
        input: &[u8],
        slot: u32,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        if self.awaits_proxy_header {
            return self.on_preface(input, slot, shared, handler);
        }
        if !self.reads_on() {
            self.unread_input |= !input.is_empty();
            return;
        }
        self.begin_turn(shared.turn);
        if self.out.capacity() == 0 {
            self.out = shared.spares.pop().unwrap_or_default();
        }
        if self.carry.is_empty() {
            let used = self.parse(input, slot, shared, handler);
            self.carry.extend_from_slice(&input[used..]);
        } else {
            let mut bytes = std::mem::take(&mut self.carry);
            bytes.extend_from_slice(input);
            let used = self.parse(&bytes, slot, shared, handler);
            if used == bytes.len() {
                bytes = Vec::new();
            } else {
                bytes.drain(..used);
            }
            self.carry = bytes;
        }
        if !self.reads_on() && !self.carry.is_empty() {
            self.unread_input = true;
            self.carry = Vec::new();
        }
        self.note_head_start(shared.now_ms);
    }

    /// The peer will send nothing more: says how the connection ends. What was asked is still
    /// answered.
    pub(super) fn on_end_of_input<H: Handler>(
        &mut self,
        slot: u32,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        if !self.reads_on() {
            return;
        }
        if self.awaits_proxy_header {
            return self.on_end_of_preface();
        }
        match self.protocol.end_of_input(self.carry.len()) {
            Some(error) if self.incoming.is_some() => {
                self.fail_body(error, CloseReason::PeerClosedEarly, slot, shared, handler);
            }
            Some(error) => {
                let carry = std::mem::take(&mut self.carry);
                self.refuse(error, &carry, slot, shared, handler);
                self.closing = Some(CloseReason::PeerClosedEarly);
            }
            None => self.closing = Some(CloseReason::PeerClosed),
        }
    }

    /// Writes the answer to something refused, in its turn, and ends the connection behind it.
    /// `unused` begins with the head that is refused, unless that is gathered.
    #[cold]
    pub(super) fn refuse<H: Handler>(
        &mut self,
        error: ProtocolError,
        unused: &[u8],
        slot: u32,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        shared.counters.refusals_total += 1;
        let gathering = self.gathering.take();
        let known = gathering.as_ref().map(|begun| &begun.head);
        let head = gathering.as_ref().map_or(unused, |begun| &begun.head_bytes);
        self.closing = Some(CloseReason::Refused(error));
        self.unread_input = true;
        let mut bytes = Vec::new();
        handler.on_refusal(error, &shared.date, &mut bytes);
        if asks_for_head(head)
            && let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n")
        {
            // RFC 9110 9.3.2: no body, whatever the answer says.
            bytes.truncate(end + 4);
        }
        if let Some(recorder) = shared.recorder.as_deref_mut() {
            let begun_us = match (&gathering, self.head_since_ms) {
                (Some(begun), _) => begun.begun_us,
                (None, Some(since_ms)) => since_ms * 1_000,
                (None, None) => shared.now_us,
            };
            let at = self.queue.is_empty().then(|| self.output_at());
            let answer = (recorder.read(&bytes), at);
            let place = (slot, begun_us);
            self.record_refusal(error, (known, head), answer, place, recorder, handler);
        }
        if self.queue.is_empty() {
            self.out.append(&mut bytes);
        } else {
            self.queue.push_ready(bytes);
        }
    }

    fn parse<H: Handler>(
        &mut self,
        input: &[u8],
        slot: u32,
        shared: &mut Shared,
        handler: &mut H,
    ) -> usize {
        let mut at = 0;
        let mut current: Option<Current> = None;
        // Where the head that `shared.head` describes ends, if it is in this input.
        let mut head_end = 0;
        while self.reads_on() {
            if current.is_none() && self.rests(&shared.limits) {
                self.pause(shared);
                return at;
            }
            let (before, unread) = (&input[..head_end], &input[at..]);
            let (used, step) = self
                .protocol
                .advance_behind(before, &mut shared.head, unread);
            let begin = at;
            at += used;
            match step {
                Step::Head => {
                    // What follows is another head, with a deadline of its own.
                    self.head_since_ms = None;
                    head_end = at;
                    let head_at = at - shared.head.bytes as usize;
                    let begun = Current {
                        head_at,
                        body: None,
                    };
                    if self.protocol.end_bodiless() {
                        // Most requests: no further step, and no body to be asked for.
                        self.on_request(input, slot, begun, shared, handler);
                    } else {
                        current = Some(begun);
                        self.on_head(input, &mut current, slot, shared, handler);
                    }
                }
                Step::Body(range) => {
                    let range = begin + range.start..begin + range.end;
                    if self.incoming.is_some() {
                        self.on_piece(&input[range], slot, shared, handler);
                    } else {
                        self.on_body(input, range, &mut current, shared);
                    }
                }
                Step::End => match current.take() {
                    Some(begun) => self.on_request(input, slot, begun, shared, handler),
                    None => self.on_late_end(slot, shared, handler),
                },
                Step::NeedMore => {
                    if let Some(current) = current.take() {
                        self.gather(input, current, shared);
                    }
                    return at;
                }
                Step::Paused => return at,
                Step::Refused(error) => {
                    let begun = current.take();
                    self.on_mistake(error, begun, (input, at), slot, shared, handler);
                }
            }
        }
        at
    }

    /// What the peer sent at this place of the input ends the connection.
    #[cold]
    fn on_mistake<H: Handler>(
        &mut self,
        error: ProtocolError,
        begun: Option<Current>,
        (input, at): (&[u8], usize),
        slot: u32,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        if self.incoming.is_some() {
            let reason = CloseReason::Refused(error);
            return self.fail_body(error, reason, slot, shared, handler);
        }
        if let Some(begun) = begun {
            // With the head that it could read.
            self.gather(input, begun, shared);
        }
        self.refuse(error, &input[at..], slot, shared, handler);
    }

    /// Parsing rests: for the sake of the others, until the peer has taken some of what it is owed,
    /// or until the handler wants more of a body.
    #[cold]
    fn pause(&mut self, shared: &mut Shared) {
        self.paused = true;
        if self.incoming.is_some() {
            return;
        }
        if self.owes_too_much(&shared.limits) {
            shared.counters.pauses_total += 1;
        } else {
            shared.counters.shares_total += 1;
        }
    }

    /// A request has begun; one with a body has to be asked for.
    fn on_head<H: Handler>(
        &mut self,
        input: &[u8],
        current: &mut Option<Current>,
        slot: u32,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        let head = &shared.head;
        let head_at = match (current.as_ref(), head.framing) {
            (None, _) | (_, Framing::None | Framing::Length(0)) => return,
            (Some(current), _) => current.head_at,
        };
        let head_end = head_at + head.bytes as usize;
        let plan = handler.on_head(head, &input[head_at..head_end]);
        let bytes_max = match plan.delivery {
            Delivery::Gathered => shared.limits.body_bytes_max,
            Delivery::Streamed => shared.limits.stream_bytes_max,
        };
        self.protocol
            .set_body_bytes_max(plan.bytes_max.unwrap_or(bytes_max));
        if self.protocol.refuses_body() {
            // The next step says so.
            return;
        }
        if plan.delivery == Delivery::Streamed {
            *current = None;
            return self.begin_incoming(input, head_at..head_end, slot, shared, handler);
        }
        if head.expects_continue && head_end == input.len() {
            // RFC 9110 10.1.1: the peer waits for this before it sends the body. Nothing of the
            // body has arrived, so it is still worth sending; behind answers that are owed, it
            // waits its turn.
            if self.queue.is_empty() {
                self.out.extend_from_slice(CONTINUE);
            } else {
                self.queue.push_ready(CONTINUE.to_vec());
            }
        }
        if head.framing == Framing::Chunked
            && let Some(current) = current.take()
        {
            // Decoded chunks are not contiguous in the input.
            self.gather(input, current, shared);
        }
    }

    fn on_body(
        &mut self,
        input: &[u8],
        range: Range<usize>,
        current: &mut Option<Current>,
        shared: &mut Shared,
    ) {
        if let Some(begun) = current {
            if shared.head.framing == Framing::Length(range.len() as u64) {
                begun.body = Some(range);
                return;
            }
            if let Some(begun) = current.take() {
                self.gather(input, begun, shared);
            }
        }
        if let Some(gathering) = &mut self.gathering {
            let demand = Demand::on_body(&shared.limits);
            gathering.pace.on_bytes(range.len(), shared.now_ms, demand);
            gathering.body.extend_from_slice(&input[range]);
        }
    }

    /// Moves a request out of the input: the rest of its body comes with later bytes.
    fn gather(&mut self, input: &[u8], current: Current, shared: &mut Shared) {
        let head_end = current.head_at + shared.head.bytes as usize;
        let mut gathering = Box::new(Gathering {
            head: shared.head.clone(),
            head_bytes: input[current.head_at..head_end].to_vec(),
            body: Vec::new(),
            begun_us: shared.now_us,
            pace: shared.body_pace(),
        });
        if let Some(range) = current.body {
            gathering.body.extend_from_slice(&input[range]);
        }
        self.gathering = Some(gathering);
    }

    /// All of a request lies in the input.
    #[inline]
    fn on_request<H: Handler>(
        &mut self,
        input: &[u8],
        slot: u32,
        current: Current,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        let (head, lease, desk) = shared.at_hand(shared.now_us);
        let head_end = current.head_at + head.bytes as usize;
        let body = match current.body {
            None if head.framing == Framing::None => Body::Absent,
            None => Body::Whole(&[]),
            Some(range) => Body::Whole(&input[range]),
        };
        let request = (head, &input[current.head_at..head_end], body);
        let source = Source::Received(lease);
        self.dispatch(request, Unread::Nothing, slot, desk, source, handler);
        shared.counters.requests_total += 1;
    }

    /// A body that did not come with its head is complete.
    #[cold]
    fn on_late_end<H: Handler>(&mut self, slot: u32, shared: &mut Shared, handler: &mut H) {
        if let Some(mut gathering) = self.gathering.take() {
            let body = Rc::new(std::mem::take(&mut gathering.body));
            let request = (
                &gathering.head,
                &gathering.head_bytes[..],
                match gathering.head.framing {
                    Framing::None => Body::Absent,
                    _ => Body::Whole(&body),
                },
            );
            let (_, _, desk) = shared.at_hand(gathering.begun_us);
            let source = Source::Gathered(&body);
            self.dispatch(request, Unread::Nothing, slot, desk, source, handler);
            shared.counters.requests_total += 1;
        } else {
            self.on_body_end(slot, shared.now_ms, handler);
        }
    }

    fn note_head_start(&mut self, now_ms: u64) {
        if self.carry.is_empty() || self.paused || self.gathering.is_some() {
            self.head_since_ms = None;
            if self.gathering.is_none() {
                self.idle_since_ms = now_ms;
            }
        } else if self.head_since_ms.is_none() {
            self.head_since_ms = Some(now_ms);
        }
    }
}

/// Whether a head that may be incomplete or malformed has the method HEAD.
fn asks_for_head(bytes: &[u8]) -> bool {
    let blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    let skipped = bytes.iter().take_while(blank).count();
    bytes[skipped..].starts_with(b"HEAD ")
}
