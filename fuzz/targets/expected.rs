//! What has to be answered, derived from what the protocol makes of the whole input.
//!
//! Owns the rules by which an application of ours answers a request: they depend on the request
//! alone, so that how the bytes were cut cannot matter. Refuses to know the worker.

use anel::protocol::{Framing, ProtocolError, RequestHead, Version};

use super::wire::{Ending, Outcome, Seen};

/// How a request is answered. Its path chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The body is wanted in pieces, if there is one: the path has a `b`.
    pub arrives: bool,
    pub shape: Shape,
}

/// The last byte of the path says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// At once and whole. A body that comes in pieces is not waited for.
    Whole,
    /// `s`: at once, in pieces. With a body that comes in pieces, those are its pieces.
    Streamed,
    /// `l`: later and whole, when the body is there.
    Later,
    /// `z`: later, in pieces.
    LaterStreamed,
}

impl Plan {
    pub fn of(path: &[u8]) -> Self {
        let shape = match path.last() {
            Some(b's') => Shape::Streamed,
            Some(b'l') => Shape::Later,
            Some(b'z') => Shape::LaterStreamed,
            _ => Shape::Whole,
        };
        Self {
            arrives: path.contains(&b'b'),
            shape,
        }
    }

    pub fn is_streamed(self) -> bool {
        matches!(self.shape, Shape::Streamed | Shape::LaterStreamed)
    }
}

/// The beginning of what an answer says; the body of its request follows.
pub fn description(method: &[u8], target: &[u8], fields: usize) -> Vec<u8> {
    let counted = format!(" {fields}\n");
    [method, b" ", target, counted.as_bytes()].concat()
}

/// What an answer says of a body that broke off.
pub const FAILED: &[u8] = b"failed";

/// The length that an answer in pieces announces: every other one does.
pub fn announced(content: &[u8]) -> Option<u64> {
    content
        .len()
        .is_multiple_of(2)
        .then_some(content.len() as u64)
}

/// Whether a head has a body that a handler can be given in pieces.
pub fn has_pieces(head: &RequestHead) -> bool {
    !matches!(head.framing, Framing::None | Framing::Length(0))
}

/// An answer that has to come.
#[derive(Clone, Debug)]
pub struct Expected {
    pub status: u16,
    pub content: Vec<u8>,
    pub head_only: bool,
    pub is_http10: bool,
    pub may_continue: bool,
    /// Nobody was asked: the protocol said no.
    pub is_refusal: bool,
    pub ends: Ends,
}

/// What an answer does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    Keeps,
    Closes,
    /// Says so or not, because it came before all of the request's body.
    Perhaps,
    /// It is the last, whatever it says.
    Silently,
    /// It breaks off.
    Cut,
}

/// All answers, in their order.
pub fn expected(outcome: &Outcome) -> Vec<Expected> {
    let mut all: Vec<Expected> = outcome.requests.iter().map(answer).collect();
    let error = match outcome.ending {
        Ending::Idle | Ending::Paused => return all,
        Ending::WantsMore(error) | Ending::Refused(error) => error,
    };
    let handled = outcome
        .begun
        .as_ref()
        .filter(|begun| is_handled(begun, error));
    let may_continue = outcome.begun.as_ref().is_some_and(|b| b.expects_continue);
    all.push(match handled {
        Some(begun) => broken_answer(begun),
        None => Expected {
            status: error.status(),
            content: error.token().as_bytes().to_vec(),
            head_only: false,
            is_http10: false,
            may_continue,
            is_refusal: true,
            ends: Ends::Closes,
        },
    });
    all
}

fn answer(request: &Seen) -> Expected {
    let plan = Plan::of(&request.path);
    let head_only = request.method == b"HEAD";
    let is_http10 = request.version == Version::Http10;
    let mut content = description(&request.method, &request.target, request.fields.len());
    let in_pieces = plan.arrives && arrives(request);
    let begins_early = matches!(plan.shape, Shape::Whole | Shape::Streamed);
    let is_pipe = in_pieces && plan.shape == Shape::Streamed && !head_only;
    if !in_pieces || is_pipe || !begins_early {
        content.extend_from_slice(request.body.as_deref().unwrap_or_default());
    }
    let has_length = !is_pipe && announced(&content).is_some();
    let until_close = plan.is_streamed() && !has_length && is_http10 && !head_only;
    let ends = match () {
        () if !request.keep_alive || until_close => Ends::Closes,
        () if in_pieces && begins_early => Ends::Perhaps,
        () => Ends::Keeps,
    };
    Expected {
        status: 200,
        content,
        head_only,
        is_http10,
        may_continue: request.expects_continue,
        is_refusal: false,
        ends,
    }
}

/// The answer to a request whose handler was called, and whose body then broke off.
fn broken_answer(request: &Seen) -> Expected {
    let answer = answer(request);
    match Plan::of(&request.path).shape {
        Shape::Whole => Expected {
            ends: Ends::Silently,
            ..answer
        },
        Shape::Streamed if answer.head_only => Expected {
            ends: Ends::Silently,
            ..answer
        },
        Shape::Streamed => Expected {
            ends: Ends::Cut,
            ..answer
        },
        Shape::Later | Shape::LaterStreamed => Expected {
            content: FAILED.to_vec(),
            ends: Ends::Closes,
            ..answer
        },
    }
}

/// Whether a request that was cut short had come to its handler.
fn is_handled(begun: &Seen, error: ProtocolError) -> bool {
    // A length that is too large is seen before anybody is called.
    let is_announced = length(begun).is_some() && error == ProtocolError::BodyTooLarge;
    Plan::of(&begun.path).arrives && arrives(begun) && !is_announced
}

fn arrives(request: &Seen) -> bool {
    request.body.is_some() && length(request) != Some(0)
}

fn length(request: &Seen) -> Option<u64> {
    let is_length = |name: &[u8]| name.eq_ignore_ascii_case(b"content-length");
    let found = request.fields.iter().find(|(name, _)| is_length(name));
    let text = std::str::from_utf8(&found?.1).ok()?;
    text.parse().ok()
}
