//! A peer that follows a script: what it writes when, how it reads, how it leaves.
//!
//! Owns its place in the script and its inbox. Refuses to know the worker: it has a socket, like
//! any peer.

use std::collections::{HashMap, VecDeque};

use crate::inbox::Inbox;
use crate::prng::Prng;
use crate::socket::{End, Socket};
use crate::trace::Trace;

/// What a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// So many answers have come.
    Answers(usize),
    /// So many 100s have come (or the connection is known to end).
    Continues(usize),
}

#[derive(Clone, Debug)]
pub struct Write {
    pub gate: Gate,
    pub gap_ms: u64,
    pub bytes: Vec<u8>,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// When everything asked for was answered.
    WhenSatisfied,
    /// Sends FIN behind the last byte, reads to the end.
    HalfClose,
    /// Never by itself: the server's deadlines decide.
    Never,
    /// Resets the connection at some time.
    ResetAt(u64),
    /// Closes at some time, answered or not.
    CloseAt(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Prompt,
    /// So many bytes each so many milliseconds.
    Slow(usize, u64),
    Never,
}

pub struct Client {
    pub number: usize,
    pub connect_at_ms: u64,
    pub socket: Option<usize>,
    pub window: usize,
    pub writes: VecDeque<Write>,
    pub leaving: Leaving,
    pub reading: Reading,
    pub inbox: Inbox,
    /// How long it stays after the server's FIN.
    pub stays_ms: u64,
    /// Whether it behaves well, and has a right to every answer.
    pub is_strict: bool,
    /// Where each request ends in what it sends; empty when that tells nothing about memory.
    pub request_ends: Vec<usize>,
    /// Where the bodies begin that come in pieces and have a length, by the number of the request.
    pub arrivals: HashMap<usize, usize>,
    /// The first request behind which nothing is read.
    pub closing_at: Option<usize>,
    pub end: Option<End>,
    pub is_gone: bool,
    write_at_ms: Option<u64>,
    read_at_ms: u64,
    half_closed: bool,
    end_at_ms: Option<u64>,
}

impl Client {
    pub fn new(number: usize) -> Self {
        Self {
            number,
            connect_at_ms: 0,
            socket: None,
            window: 64 * 1024,
            writes: VecDeque::new(),
            leaving: Leaving::WhenSatisfied,
            reading: Reading::Prompt,
            inbox: Inbox::new(number),
            stays_ms: 0,
            is_strict: true,
            request_ends: Vec::new(),
            arrivals: HashMap::new(),
            closing_at: None,
            end: None,
            is_gone: false,
            write_at_ms: None,
            read_at_ms: 0,
            half_closed: false,
            end_at_ms: None,
        }
    }

    /// When it does something even if nothing happens to it.
    pub fn next_act_ms(&self, socket: Option<&Socket>) -> Option<u64> {
        if self.is_gone {
            return None;
        }
        let Some(socket) = socket else {
            return Some(self.connect_at_ms);
        };
        let leave = match self.leaving {
            Leaving::ResetAt(at_ms) | Leaving::CloseAt(at_ms) => Some(at_ms),
            _ => None,
        };
        let read = (matches!(self.reading, Reading::Slow(..)) && !socket.inbox.is_empty())
            .then_some(self.read_at_ms);
        let end = self.end.and(self.end_at_ms);
        [leave, read, end, self.write_at_ms]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due; says whether it did anything.
    pub fn act(&mut self, socket: &mut Socket, now_ms: u64, prng: &mut Prng, trace: Trace) -> bool {
        if self.is_gone {
            return false;
        }
        let mut acted = self.read(socket, now_ms, prng);
        match self.leaving {
            Leaving::ResetAt(at_ms) if at_ms <= now_ms => {
                trace.say(now_ms, || format!("== client {} resets", self.number));
                socket.peer_reset();
                self.is_gone = true;
                return true;
            }
            Leaving::CloseAt(at_ms) if at_ms <= now_ms => return self.leave(socket, now_ms, trace),
            _ => {}
        }
        if self.end.is_none()
            && let Some(end) = socket.peer_end()
            && self.reading != Reading::Never
        {
            trace.say(now_ms, || format!("== client {} sees {end:?}", self.number));
            self.end = Some(end);
            self.inbox.on_end(end, socket.faulted || !self.is_strict);
            self.end_at_ms = Some(now_ms + self.stays_ms);
        }
        if self.end == Some(End::Reset) || self.end_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return self.leave(socket, now_ms, trace);
        }
        acted |= self.write(socket, now_ms, trace);
        if self.writes.is_empty() {
            acted |= self.finish(socket, now_ms, trace);
        }
        // A peer that never reads learns of a reset when it is over.
        if self.reading == Reading::Never && socket.closed {
            return self.leave(socket, now_ms, trace);
        }
        acted
    }

    fn finish(&mut self, socket: &mut Socket, now_ms: u64, trace: Trace) -> bool {
        match self.leaving {
            Leaving::HalfClose if !self.half_closed => {
                trace.say(now_ms, || format!("== client {} half-closes", self.number));
                self.half_closed = true;
                socket.peer_half_close();
                true
            }
            Leaving::WhenSatisfied if self.inbox.is_satisfied() && !self.inbox.closed => {
                self.leave(socket, now_ms, trace)
            }
            _ => false,
        }
    }

    fn leave(&mut self, socket: &mut Socket, now_ms: u64, trace: Trace) -> bool {
        trace.say(now_ms, || format!("== client {} closes", self.number));
        socket.peer_close();
        self.is_gone = true;
        true
    }

    fn read(&mut self, socket: &mut Socket, now_ms: u64, prng: &mut Prng) -> bool {
        let bytes_max = match self.reading {
            Reading::Prompt => usize::MAX,
            Reading::Slow(bytes, gap_ms) if self.read_at_ms <= now_ms => {
                self.read_at_ms = now_ms + 1 + prng.between(0, gap_ms);
                bytes
            }
            _ => 0,
        };
        let bytes = socket.peer_read(bytes_max);
        self.inbox.read(&bytes);
        !bytes.is_empty()
    }

    fn write(&mut self, socket: &mut Socket, now_ms: u64, trace: Trace) -> bool {
        let mut acted = false;
        while let Some(next) = self.writes.front() {
            let open = match next.gate {
                Gate::Open => true,
                Gate::Answers(count) => self.inbox.answers >= count,
                Gate::Continues(count) => self.inbox.continues >= count,
            };
            if self.inbox.closed && !open {
                // Nobody will answer any more.
                self.writes.clear();
                break;
            }
            if !open || socket.peer_room() < next.bytes.len() {
                self.write_at_ms = None;
                break;
            }
            let at_ms = *self.write_at_ms.get_or_insert(now_ms + next.gap_ms);
            if at_ms > now_ms {
                return acted;
            }
            self.write_at_ms = None;
            let write = self.writes.pop_front().expect("looked at just now");
            trace.say(now_ms, || {
                let text = String::from_utf8_lossy(&write.bytes).into_owned();
                format!("== client {} sends {text:?}", self.number)
            });
            socket.peer_send(&write.bytes);
            acted = true;
        }
        acted
    }
}
