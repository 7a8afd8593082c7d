//! The seam between the worker and the application: a request goes up, an answer comes down.
//!
//! Owns the `Handler` trait and what passes through it. Refuses to know how an answer is made: a
//! Rust closure, a Python function and a constant are the same to the worker.

use std::os::fd::RawFd;

use crate::protocol::date::DateLine;
use crate::protocol::encode::{self, Context};
use crate::protocol::{Answer, CloseReason, ConnectionField, ProtocolError, RequestHead};

/// Which exchange of which connection a late answer belongs to. Unique among exchanges that are
/// answered late; one that is answered at once shares its number with the next. Stays valid, and
/// harmless, after the connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeId {
    /// The connection's slot.
    pub slot: u32,
    /// The slot's generation at the time of the request.
    pub generation: u32,
    /// The exchange's number on its connection.
    pub sequence: u32,
}

/// A complete request, lent for the length of one call.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The parsed head; its spans are relative to `head_bytes`.
    pub head: &'a RequestHead,
    /// The head as it arrived.
    pub head_bytes: &'a [u8],
    /// The decoded body; `None` when the request had no body framing at all.
    pub body: Option<&'a [u8]>,
    /// What an answer given later refers to.
    pub exchange: ExchangeId,
    /// The connection's socket, for asking who the peer is. Only valid during the call.
    pub socket: RawFd,
    /// Whether the connection goes on after this exchange, as far as is known now.
    pub keep_alive: bool,
}

/// Takes the answer of one exchange. Consumed by use, so an exchange is answered once or declared
/// late.
#[derive(Debug)]
pub struct Responder<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) context: Context,
    pub(super) date: &'a DateLine,
}

impl Responder<'_> {
    /// Serialises the answer behind what the connection already owes.
    pub fn respond(self, answer: &Answer<'_>) -> Verdict {
        let mut context = self.context;
        if answer.close {
            context.connection = ConnectionField::Close;
        }
        encode::encode(self.out, answer, context, self.date);
        Verdict(Decision::Answered {
            close: answer.close,
        })
    }

    /// The answer follows through `Worker::respond`; requests behind it go on meanwhile.
    pub fn later(self) -> Verdict {
        Verdict(Decision::Later)
    }
}

/// What a handler did with a request. Only a `Responder` makes one.
#[derive(Debug)]
pub struct Verdict(pub(super) Decision);

#[derive(Debug)]
pub(super) enum Decision {
    Answered { close: bool },
    Later,
}

/// Answers requests.
pub trait Handler {
    /// A request is complete. It is answered through the responder, now or later.
    fn on_request(&mut self, request: Request<'_>, responder: Responder<'_>) -> Verdict;

    /// A peer sent something that is refused. Writes the whole response; the connection ends after
    /// it.
    fn on_refusal(&mut self, error: ProtocolError, date: &DateLine, out: &mut Vec<u8>) {
        encode::refusal(out, error, date);
    }

    /// The connection ended before a late answer was given; nobody can receive it any more.
    fn on_abandoned(&mut self, _exchange: ExchangeId, _reason: CloseReason) {}
}
