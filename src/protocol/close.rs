//! Why a connection ends. Keep-alive is `Option<CloseReason>`: `None` means the connection goes on.
//!
//! Owns the list of reasons and their words; refuses to know sockets or time. Every connection ends
//! with exactly one of these.

use super::error::ProtocolError;

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The request said `Connection: close` (RFC 9112 9.6).
    ClientAsked,
    /// HTTP/1.0 without `Connection: keep-alive` (RFC 9112 9.3).
    Http10,
    /// The response said `Connection: close`, or its body ends with the connection.
    HandlerAsked,
    /// A streamed answer was aborted, or had fewer bytes than announced.
    AnswerIncomplete,
    /// A streamed answer had more bytes than announced; they were not sent.
    AnswerTooLong,
    /// The answer did not wait for the body of its request, and too much of that was still to come.
    BodyUnread,
    /// The request was refused; what follows it cannot be trusted.
    Refused(ProtocolError),
    /// The peer closed between two requests: the ordinary end.
    PeerClosed,
    /// The peer closed in the middle of a request.
    PeerClosedEarly,
    /// The peer reset the connection, or a send found it gone.
    PeerReset,
    /// No request began within the idle time.
    IdleDeadline,
    /// A request head took too long to arrive in full.
    HeadDeadline,
    /// A request body took too long to arrive in full.
    BodyDeadline,
    /// The peer did not take its responses in time.
    SendDeadline,
    /// The handler did not answer in time, nor end when it was cancelled.
    HandlerDeadline,
    /// The header of the PROXY protocol is malformed, or something else came in its place.
    ProxyHeaderInvalid,
    /// The header of the PROXY protocol took too long to arrive in full.
    ProxyHeaderDeadline,
    /// Only proxies may connect, and the peer is none of them.
    PeerNotTrusted,
    /// The worker is shutting down.
    Draining,
    /// The drain deadline passed with the connection still busy.
    DrainDeadline,
    /// The kernel refused an operation on the socket.
    SocketError,
}

impl CloseReason {
    /// One word for programs: the name in snake case.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::ClientAsked => "client_asked",
            Self::Http10 => "http10",
            Self::HandlerAsked => "handler_asked",
            Self::AnswerIncomplete => "answer_incomplete",
            Self::AnswerTooLong => "answer_too_long",
            Self::BodyUnread => "body_unread",
            Self::Refused(_) => "refused",
            Self::PeerClosed => "peer_closed",
            Self::PeerClosedEarly => "peer_closed_early",
            Self::PeerReset => "peer_reset",
            Self::IdleDeadline => "idle_deadline",
            Self::HeadDeadline => "head_deadline",
            Self::BodyDeadline => "body_deadline",
            Self::SendDeadline => "send_deadline",
            Self::HandlerDeadline => "handler_deadline",
            Self::ProxyHeaderInvalid => "proxy_header_invalid",
            Self::ProxyHeaderDeadline => "proxy_header_deadline",
            Self::PeerNotTrusted => "peer_not_trusted",
            Self::Draining => "draining",
            Self::DrainDeadline => "drain_deadline",
            Self::SocketError => "socket_error",
        }
    }

    /// One readable line for logs; never used for a decision.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::ClientAsked => "client sent Connection: close",
            Self::Http10 => "HTTP/1.0 without keep-alive",
            Self::HandlerAsked => "response asked to close",
            Self::AnswerIncomplete => "streamed answer is incomplete",
            Self::AnswerTooLong => "streamed answer exceeds its announced length",
            Self::BodyUnread => "answered before the request body was read",
            Self::Refused(error) => error.explain(),
            Self::PeerClosed => "peer closed",
            Self::PeerClosedEarly => "peer closed in the middle of a request",
            Self::PeerReset => "peer reset the connection",
            Self::IdleDeadline => "idle for too long",
            Self::HeadDeadline => "request head took too long",
            Self::BodyDeadline => "request body took too long",
            Self::SendDeadline => "peer does not read its responses",
            Self::HandlerDeadline => "handler took too long",
            Self::ProxyHeaderInvalid => "PROXY header is missing or malformed",
            Self::ProxyHeaderDeadline => "PROXY header took too long",
            Self::PeerNotTrusted => "peer is not a trusted proxy",
            Self::Draining => "server is shutting down",
            Self::DrainDeadline => "still busy when the drain deadline passed",
            Self::SocketError => "socket error",
        }
    }
}
