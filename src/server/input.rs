//! Bytes of one connection to requests, requests to answers.
//!
//! Owns the loop that drives `protocol` over received bytes and gathers bodies. Refuses to know
//! where the bytes come from and where answers go: it fills `Connection::out` or the queue.

use std::ops::Range;

use super::connection::{Connection, Gathering};
use super::counters::Counters;
use super::handler::{Body, Decision, Handler, Request, Responder};
use crate::protocol::date::DateLine;
use crate::protocol::encode::{CONTINUE, Context};
use crate::protocol::{
    CloseReason, ConnectionField, Framing, Limits, ProtocolError, RequestHead, Step, Version,
};

/// What all connections of a worker share while input is read.
#[derive(Debug)]
pub(super) struct Shared {
    pub limits: Limits,
    pub date: DateLine,
    /// Reused for every head, so that idle connections own none.
    pub head: RequestHead,
    pub counters: Counters,
    pub now_ms: u64,
    /// Empty vectors with capacity, for send buffers.
    pub spares: Vec<Vec<u8>>,
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
        if self.closing.is_some() {
            self.unread_input |= !input.is_empty();
            return;
        }
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
        if self.closing.is_some() && !self.carry.is_empty() {
            self.unread_input = true;
            self.carry = Vec::new();
        }
        self.note_head_start(shared.now_ms);
    }

    /// The peer will send nothing more: says how the connection ends. What was asked is still
    /// answered.
    pub(super) fn on_end_of_input<H: Handler>(&mut self, shared: &mut Shared, handler: &mut H) {
        if self.closing.is_some() {
            return;
        }
        match self.protocol.end_of_input(self.carry.len()) {
            Some(error) => {
                self.refuse(error, shared, handler);
                self.closing = Some(CloseReason::PeerClosedEarly);
            }
            None => self.closing = Some(CloseReason::PeerClosed),
        }
    }

    /// Writes the answer to something refused, in its turn, and ends the connection behind it.
    pub(super) fn refuse<H: Handler>(
        &mut self,
        error: ProtocolError,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        shared.counters.refusals_total += 1;
        self.gathering = None;
        self.closing = Some(CloseReason::Refused(error));
        self.unread_input = true;
        if self.queue.is_empty() {
            handler.on_refusal(error, &shared.date, &mut self.out);
        } else {
            let mut bytes = Vec::new();
            handler.on_refusal(error, &shared.date, &mut bytes);
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
        while self.closing.is_none() {
            if current.is_none() && self.gathering.is_none() && self.owes_too_much(&shared.limits) {
                self.paused = true;
                shared.counters.pauses_total += 1;
                return at;
            }
            let (used, step) = self.protocol.advance(&mut shared.head, &input[at..]);
            let begin = at;
            at += used;
            match step {
                Step::Head => {
                    // What follows is another head, with a deadline of its own.
                    self.head_since_ms = None;
                    let head_at = at - shared.head.bytes as usize;
                    current = Some(Current {
                        head_at,
                        body: None,
                    });
                    self.on_head(input, at, &mut current, shared);
                }
                Step::Body(range) => {
                    let range = begin + range.start..begin + range.end;
                    self.on_body(input, range, &mut current, shared);
                }
                Step::End => self.on_end(input, slot, current.take(), shared, handler),
                Step::NeedMore => {
                    if let Some(current) = current.take() {
                        self.gather(input, current, shared);
                    }
                    return at;
                }
                Step::Paused => return at,
                Step::Refused(error) => self.refuse(error, shared, handler),
            }
        }
        at
    }

    fn on_head(
        &mut self,
        input: &[u8],
        at: usize,
        current: &mut Option<Current>,
        shared: &mut Shared,
    ) {
        let head = &shared.head;
        let announced = !matches!(head.framing, Framing::None | Framing::Length(0));
        let wanted = announced && !self.protocol.refuses_body();
        if head.expects_continue && wanted && at == input.len() {
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
            started_ms: shared.now_ms,
        });
        if let Some(range) = current.body {
            gathering.body.extend_from_slice(&input[range]);
        }
        self.gathering = Some(gathering);
    }

    fn on_end<H: Handler>(
        &mut self,
        input: &[u8],
        slot: u32,
        current: Option<Current>,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        if let Some(current) = current {
            let head = &shared.head;
            let head_end = current.head_at + head.bytes as usize;
            let request = (
                head,
                &input[current.head_at..head_end],
                current.body.map_or(&[][..], |range| &input[range]),
            );
            self.dispatch(request, slot, (&shared.date, &mut shared.counters), handler);
        } else if let Some(gathering) = self.gathering.take() {
            let request = (
                &gathering.head,
                &gathering.head_bytes[..],
                &gathering.body[..],
            );
            self.dispatch(request, slot, (&shared.date, &mut shared.counters), handler);
        }
        shared.counters.requests_total += 1;
    }

    fn dispatch<H: Handler>(
        &mut self,
        (head, head_bytes, body): (&RequestHead, &[u8], &[u8]),
        slot: u32,
        (date, counters): (&DateLine, &mut Counters),
        handler: &mut H,
    ) {
        let close = head
            .close
            .or(self.draining.then_some(CloseReason::Draining));
        let context = Context {
            version: head.version,
            head_only: head.method.of(head_bytes) == b"HEAD",
            connection: connection_field(head.version, close),
        };
        let request = Request {
            head,
            head_bytes,
            body: match head.framing {
                Framing::None => Body::Absent,
                _ => Body::Whole(body),
            },
            exchange: self.next_exchange(slot),
            socket: self.socket,
            keep_alive: close.is_none(),
        };
        self.closing = close;
        let direct = self.queue.is_empty();
        let mut held_back = Vec::new();
        let out = if direct {
            &mut self.out
        } else {
            &mut held_back
        };
        let responder = Responder { out, context, date };
        match handler.on_request(request, responder).0 {
            Decision::Answered { close } => {
                if close && self.closing.is_none() {
                    self.closing = Some(CloseReason::HandlerAsked);
                }
                if !direct {
                    self.queue.push_ready(held_back);
                }
            }
            Decision::Streaming { framing, close } => {
                if close && self.closing.is_none() {
                    self.closing = Some(CloseReason::HandlerAsked);
                }
                self.queue.push_streaming(framing, held_back);
                counters.streams_total += 1;
            }
            Decision::Later => self.queue.push_awaiting(context),
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

fn connection_field(version: Version, close: Option<CloseReason>) -> ConnectionField {
    match (version, close) {
        (Version::Http11, None) | (Version::Http10, Some(_)) => ConnectionField::Omitted,
        (Version::Http11, Some(_)) => ConnectionField::Close,
        (Version::Http10, None) => ConnectionField::KeepAlive,
    }
}
