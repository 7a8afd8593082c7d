//! The seam between the worker and the application: a request goes up, an answer comes down.
//!
//! Owns the `Handler` trait and what passes through it. Refuses to know how an answer is made: a
//! Rust closure, a Python function and a constant are the same to the worker.

use std::net::IpAddr;
use std::os::fd::RawFd;

use super::held::Source;
use super::preface::{Opening, Proxied};
use super::record::{Record, Sender};
use crate::protocol::date::DateLine;
use crate::protocol::encode::{self, Context};
use crate::protocol::{
    Answer, CloseReason, ConnectionField, ProtocolError, RequestHead, StreamFraming,
};

/// Which exchange of which connection a late answer belongs to. Unique among exchanges whose answer
/// is late or streamed, or whose request body is; any other, which begins and ends in one call,
/// shares its number with the next. Stays valid, and harmless, after the connection is gone.
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
    /// The body, as far as it is here.
    pub body: Body<'a>,
    /// Who owns the bytes of a whole body.
    pub source: Source<'a>,
    /// What an answer given later refers to.
    pub exchange: ExchangeId,
    /// The connection's socket, for asking who the peer is. Only valid during the call.
    pub socket: RawFd,
    /// Whether the connection goes on after this exchange, as far as is known now.
    pub keep_alive: bool,
}

/// The body of a request at the moment its handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// The request had no body framing at all.
    Absent,
    /// All of it, decoded.
    Whole(&'a [u8]),
    /// It follows through `Handler::on_body`, once `Worker::read_body` asked for it.
    Arriving {
        /// How many bytes it will have, where the head says so.
        length: Option<u64>,
    },
}

/// How a handler wants the body of a request, decided when only its head is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyPlan {
    /// When the handler is called.
    pub delivery: Delivery,
    /// Largest body; `None` stands for the limit of the worker.
    pub bytes_max: Option<u64>,
}

/// When a handler is called for a request with a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// When the body is complete.
    #[default]
    Gathered,
    /// At once; the body follows in pieces.
    Streamed,
}

/// What arrived of a streamed request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPiece<'a> {
    /// More of it; never empty.
    Bytes(&'a [u8]),
    /// That was all.
    End,
    /// It will never be complete: the peer broke a rule, was too slow, or stopped sending. The
    /// answer of this exchange is the connection's last.
    Failed(ProtocolError),
}

/// Whether a producer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// There is room for more.
    Go,
    /// Nothing more for now. A response goes on after `Handler::on_writable`, a request body after
    /// `Worker::read_body`.
    Wait,
    /// Nobody wants any of it any more.
    Gone,
}

/// Takes the answer of one exchange. Consumed by use, so an exchange is answered once or declared
/// late.
#[derive(Debug)]
pub struct Responder<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) context: Context,
    pub(super) date: &'a DateLine,
    pub(super) unread: Unread,
}

/// Which answers end the connection, because they leave too much of a request's body unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Nothing,
    /// Whole ones. While an answer is streamed, the body can still be read.
    ByWhole,
    /// All of them: the peer waits for a 100, for which it is too late then.
    ByAny,
}

impl Responder<'_> {
    /// Serialises the answer behind what the connection already owes. When its body is streamed
    /// and `wants_body` says that it is wanted, the exchange goes on with `Worker::send_body`.
    #[inline]
    pub fn respond(self, answer: &Answer<'_>) -> Verdict {
        if let Some(framing) = StreamFraming::of(answer, self.context) {
            return self.begin_stream(answer, framing);
        }
        if answer.close || self.unread != Unread::Nothing {
            return self.respond_last(answer);
        }
        encode::encode(self.out, answer, self.context, self.date);
        Verdict(Decision::Answered { close: None })
    }

    /// With a whole answer behind which the connection ends.
    #[cold]
    fn respond_last(self, answer: &Answer<'_>) -> Verdict {
        let close = self.reason_to_close(answer, None);
        self.encode(answer, close);
        Verdict(Decision::Answered { close })
    }

    #[cold]
    fn begin_stream(self, answer: &Answer<'_>, framing: StreamFraming) -> Verdict {
        let close = self.reason_to_close(answer, Some(framing));
        self.encode(answer, close);
        Verdict(Decision::Streaming { framing, close })
    }

    fn encode(self, answer: &Answer<'_>, close: Option<CloseReason>) {
        let mut context = self.context;
        if close.is_some() {
            context.connection = ConnectionField::Close;
        }
        encode::encode(self.out, answer, context, self.date);
    }

    fn reason_to_close(
        &self,
        answer: &Answer<'_>,
        framing: Option<StreamFraming>,
    ) -> Option<CloseReason> {
        if answer.close || framing == Some(StreamFraming::UntilClose) {
            return Some(CloseReason::HandlerAsked);
        }
        match self.unread {
            Unread::Nothing => None,
            Unread::ByWhole => framing.is_none().then_some(CloseReason::BodyUnread),
            Unread::ByAny => Some(CloseReason::BodyUnread),
        }
    }

    /// Whether the peer will read a body behind the head of this answer. If not (the method is
    /// HEAD, or the status has no body), the answer is whole even if it is streamed, and nothing
    /// may be produced for it.
    #[must_use]
    pub fn wants_body(&self, answer: &Answer<'_>) -> bool {
        encode::sends_body(answer.status, self.context)
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
    Answered {
        close: Option<CloseReason>,
    },
    Streaming {
        framing: StreamFraming,
        close: Option<CloseReason>,
    },
    Later,
}

/// Answers requests.
pub trait Handler {
    /// A connection was accepted: how does it begin?
    fn on_accept(&mut self, _socket: RawFd) -> Opening {
        Opening::Request
    }

    /// A connection that begins with a header of the PROXY protocol has sent it.
    fn on_proxy_header(&mut self, _proxied: Proxied) {}

    /// A request with a body has begun: how is it wanted? Not asked for requests without one.
    fn on_head(&mut self, _head: &RequestHead, _head_bytes: &[u8]) -> BodyPlan {
        BodyPlan::default()
    }

    /// A request is complete, or has begun and its body is streamed. It is answered through the
    /// responder, now or later.
    fn on_request(&mut self, request: Request<'_>, responder: Responder<'_>) -> Verdict;

    /// A peer sent something that is refused. Writes the whole response; the connection ends after
    /// it.
    fn on_refusal(&mut self, error: ProtocolError, date: &DateLine, out: &mut Vec<u8>) {
        encode::refusal(out, error, date);
    }

    /// More of a streamed request body is here. Called only after `Worker::read_body`, again and
    /// again until the answer is `Wait`, or `Gone` for a handler that wants no more of it. After
    /// `End`, `Failed` and the end of the answer there is no further call.
    fn on_body(&mut self, _exchange: ExchangeId, _piece: BodyPiece<'_>) -> Flow {
        Flow::Gone
    }

    /// There is room again for the response body that `Worker::send_body` asked to wait.
    fn on_writable(&mut self, _exchange: ExchangeId) {}

    /// The answer of this exchange takes longer than `Limits::handler_timeout_ms`: what works on it
    /// is to be cancelled, and may still answer. If it does not within a while, it is abandoned.
    fn on_overdue(&mut self, _exchange: ExchangeId) {}

    /// The connection ended before a late or streamed answer was complete; nobody can receive it
    /// any more. The last call for this exchange.
    fn on_abandoned(&mut self, _exchange: ExchangeId, _reason: CloseReason) {}

    /// Who sent a request that is recorded.
    fn client(&mut self, _sender: Sender<'_>) -> Option<IpAddr> {
        None
    }

    /// An exchange is over that was recorded: its answer has left, or will never. Exchanges of one
    /// connection come in their order, except for those that end together.
    fn on_record(&mut self, _record: &Record<'_>) {}
}
