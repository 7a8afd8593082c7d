//! One attempt at a socket that is, or may be, ready.
//!
//! Owns what the results of recv and send mean for an op. Refuses to know registrations and slots.

use std::os::fd::RawFd;

use super::calls;
use crate::reactor::buffers::{Group, Lease};
use crate::reactor::counters::Counters;
use crate::reactor::errors::Errno;
use crate::reactor::seam::{Completion, Outcome, SendBuffer, Token};

/// Receives per connection and wait, as long as each fills its buffer. The ring does up to 32.
const RECEIVES_MAX: usize = 8;

/// What a receive needs, apart from the connection's own state.
pub(super) struct Receive<'a> {
    pub token: Token,
    pub group: &'a Group,
    pub spare: &'a mut Option<Lease>,
    pub counters: &'a mut Counters,
}

/// How a run of receives left the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Empty: epoll reports what comes next.
    Nothing,
    /// There may be more, which epoll will not report again.
    Perhaps,
    /// Like `Perhaps`, and the op has had its last completion.
    Over,
}

impl Receive<'_> {
    /// Receives what is there. `short_is_all`: a buffer that is not filled proves that the socket
    /// is empty, which saves the call that says so.
    pub(super) fn run(
        &mut self,
        socket: RawFd,
        short_is_all: bool,
        completions: &mut Vec<Completion>,
    ) -> Left {
        for _ in 0..RECEIVES_MAX {
            let Some(mut lease) = self.spare.take().or_else(|| self.group.take()) else {
                self.counters.starved += 1;
                return self.end(Outcome::Starved, completions);
            };
            self.counters.calls += 1;
            match lease.fill(|buffer| calls::receive(socket, buffer)) {
                Ok(0) => {
                    *self.spare = Some(lease);
                    return self.end(Outcome::EndOfInput, completions);
                }
                Ok(_) => {
                    let full = lease.is_full();
                    let outcome = Outcome::Received(lease);
                    completions.push(Completion {
                        token: self.token,
                        more: true,
                        outcome,
                    });
                    if !full && short_is_all {
                        return Left::Nothing;
                    }
                }
                Err(errno) => {
                    *self.spare = Some(lease);
                    match errno.0 {
                        libc::EAGAIN => return Left::Nothing,
                        libc::EINTR => {}
                        _ => return self.end(Outcome::Failed(errno, None), completions),
                    }
                }
            }
        }
        Left::Perhaps
    }

    fn end(&self, outcome: Outcome, completions: &mut Vec<Completion>) -> Left {
        completions.push(Completion {
            token: self.token,
            more: false,
            outcome,
        });
        Left::Over
    }
}

/// How a send came to its end.
pub(super) enum SendEnd {
    /// The kernel took some or all of it.
    Sent,
    /// It failed; the buffer comes home all the same.
    Broken(Errno),
}

impl SendEnd {
    pub(super) fn completion(self, token: Token, buffer: SendBuffer) -> Completion {
        let outcome = match self {
            Self::Sent => Outcome::Sent(buffer),
            Self::Broken(errno) => Outcome::Failed(errno, Some(buffer)),
        };
        Completion {
            token,
            more: false,
            outcome,
        }
    }
}

/// Sends what fits. `None`: the socket has no room.
pub(super) fn send_some(socket: RawFd, buffer: &mut SendBuffer) -> Option<SendEnd> {
    loop {
        match calls::send(socket, buffer.remaining()) {
            Ok(sent) => {
                buffer.sent += sent;
                return Some(SendEnd::Sent);
            }
            Err(Errno(libc::EAGAIN)) => return None,
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Some(SendEnd::Broken(errno)),
        }
    }
}
