//! One request to its handler, and what it answers to where answers go.
//!
//! Owns the context that an answer takes over from its request, and its place: in the send buffer,
//! or in the queue behind others. Refuses to know where the bytes of the request are, and why there
//! is a request now.

use super::connection::Connection;
use super::counters::Counters;
use super::handler::{Body, Decision, Handler, Request, Responder, Unread};
use super::held::Source;
use super::journal::Recorder;
use crate::protocol::date::DateLine;
use crate::protocol::encode::Context;
use crate::protocol::{CloseReason, ConnectionField, RequestHead, Version};

/// What a request is answered with, besides what it is made of: both are parts of `Shared`.
pub(super) struct Desk<'a> {
    pub date: &'a DateLine,
    pub counters: &'a mut Counters,
    pub now_ms: u64,
    pub recorder: Option<&'a mut Recorder>,
    /// When the head was complete.
    pub begun_us: u64,
}

impl Connection {
    /// Calls the handler of a request.
    #[inline(always)] // Called for every request, from one hot place and two cold ones.
    pub(super) fn dispatch<H: Handler>(
        &mut self,
        request: (&RequestHead, &[u8], Body<'_>),
        unread: Unread,
        slot: u32,
        desk: Desk<'_>,
        source: Source<'_>,
        handler: &mut H,
    ) {
        // Two functions: where nothing is recorded, nothing has to be remembered for it (callgrind,
        // 2026-11).
        if desk.recorder.is_some() {
            self.hand_on_recorded(request, unread, slot, desk, source, handler);
        } else {
            self.hand_on::<H, false>(request, unread, slot, desk, source, handler);
        }
    }

    #[inline(never)]
    fn hand_on_recorded<H: Handler>(
        &mut self,
        request: (&RequestHead, &[u8], Body<'_>),
        unread: Unread,
        slot: u32,
        desk: Desk<'_>,
        source: Source<'_>,
        handler: &mut H,
    ) {
        self.hand_on::<H, true>(request, unread, slot, desk, source, handler);
    }

    #[inline(always)]
    fn hand_on<H: Handler, const RECORDS: bool>(
        &mut self,
        (head, head_bytes, body): (&RequestHead, &[u8], Body<'_>),
        unread: Unread,
        slot: u32,
        desk: Desk<'_>,
        source: Source<'_>,
        handler: &mut H,
    ) {
        let close = head
            .close
            .or(self.draining.then_some(CloseReason::Draining));
        let context = context(head, head_bytes, close);
        let request = Request {
            head,
            head_bytes,
            body,
            source,
            exchange: self.next_exchange(slot),
            socket: self.socket,
            keep_alive: close.is_none(),
        };
        self.closing = close;
        self.turn_requests += 1;
        let direct = self.queue.is_empty();
        let begin = self.out.len();
        let mut held = Vec::new();
        let out = if direct { &mut self.out } else { &mut held };
        let responder = Responder {
            out,
            context,
            date: desk.date,
            unread,
        };
        let decision = handler.on_request(request, responder).0;
        if RECORDS && let Some(recorder) = desk.recorder {
            let written = if direct { &self.out[begin..] } else { &held };
            let begins_at = direct.then(|| self.output_at() - written.len() as u64);
            if let Some((written, chosen)) = recorder.choose(written) {
                let answer = (written, chosen, begins_at);
                let recorder = (recorder, desk.begun_us);
                let request = (self.next_exchange(slot), head, head_bytes);
                self.record_request(request, &decision, answer, recorder, handler);
            }
        }
        match decision {
            Decision::Answered { close } => {
                if close.is_some() {
                    self.closing = self.closing.or(close);
                }
                if !direct {
                    self.queue.push_ready(held);
                }
            }
            Decision::Streaming { framing, close } => {
                self.closing = self.closing.or(close);
                self.note_framing(framing);
                self.queue.push_streaming(framing, held);
                desk.counters.streams_total += 1;
            }
            Decision::Later => self.queue.push_awaiting(context, desk.now_ms),
        }
    }
}

/// What the answer takes over from its request.
#[inline]
fn context(head: &RequestHead, head_bytes: &[u8], close: Option<CloseReason>) -> Context {
    Context {
        version: head.version,
        head_only: head.method.of(head_bytes) == b"HEAD",
        connection: connection_field(head.version, close),
    }
}

#[inline]
fn connection_field(version: Version, close: Option<CloseReason>) -> ConnectionField {
    match (version, close) {
        (Version::Http11, None) | (Version::Http10, Some(_)) => ConnectionField::Omitted,
        (Version::Http11, Some(_)) => ConnectionField::Close,
        (Version::Http10, None) => ConnectionField::KeepAlive,
    }
}
