//! A single connection to a peer that has written everything it will ever write.
//!
//! Owns the peer's bytes, cut by chance, what it was sent, and the ops in flight. Keeps the
//! promises of the seam: short sends, receives that end early or starve, but no reset and no loss.
//! Refuses to know HTTP. What the seam forbids is a panic.

use std::os::fd::RawFd;

use anel::reactor::{
    Completion, Errno, Group, Half, Kind, Lease, Op, Outcome, SendBuffer, Submit, Token,
};

use super::wire::Random;

/// The descriptors of the only listener and of the only connection.
pub const LISTENER: RawFd = 3;
const SOCKET: RawFd = 4;

pub struct Line<'a> {
    unread: &'a [u8],
    pub sent: Vec<u8>,
    pub is_closed: bool,
    random: Random,
    group: Group,
    /// Longest piece that arrives at once.
    piece_bytes_max: usize,
    /// How often things go less well than they could, in percent.
    faults: usize,
    accepting: Option<Token>,
    is_accepted: bool,
    receiving: Option<Token>,
    is_cancelled: bool,
    sending: Option<(Token, SendBuffer)>,
    /// The directions that our side shut down.
    shut: Option<Half>,
}

impl<'a> Line<'a> {
    pub fn new(wire: &'a [u8], mut random: Random) -> Self {
        let piece_bytes_max = 1 << random.below(13);
        let buffers = 1 + random.below(3) as u16;
        Self {
            unread: wire,
            sent: Vec::new(),
            is_closed: false,
            group: Group::heap(buffers, piece_bytes_max as u32),
            piece_bytes_max,
            faults: [0, 10, 60][random.below(3)],
            random,
            accepting: None,
            is_accepted: false,
            receiving: None,
            is_cancelled: false,
            sending: None,
            shut: None,
        }
    }

    /// What has happened since the last time.
    pub fn completions(&mut self) -> Vec<Completion> {
        let mut completions = Vec::new();
        if let Some(token) = self.accepting.filter(|_| !self.is_accepted) {
            self.is_accepted = true;
            completions.push(complete(token, true, Outcome::Accepted(SOCKET)));
        }
        completions.extend(self.receive());
        completions.extend(self.send());
        completions
    }

    fn receive(&mut self) -> Option<Completion> {
        let token = self.receiving?;
        let (more, outcome) = if self.is_cancelled {
            (false, Outcome::Failed(Errno(ECANCELED), None))
        } else if self.hears_nothing() || self.unread.is_empty() {
            (false, Outcome::EndOfInput)
        } else if self.fails() {
            (false, Outcome::Starved)
        } else {
            (!self.fails(), Outcome::Received(self.lease()?))
        };
        if !more {
            self.receiving = None;
            self.is_cancelled = false;
        }
        Some(complete(token, more, outcome))
    }

    /// Whether our side receives nothing more.
    fn hears_nothing(&self) -> bool {
        self.shut.is_some_and(|half| half != Half::Write)
    }

    fn lease(&mut self) -> Option<Lease> {
        let longest = self.piece_bytes_max.min(self.unread.len());
        let (piece, rest) = self.unread.split_at(1 + self.random.below(longest));
        let lease = self.group.lend(piece)?;
        self.unread = rest;
        Some(lease)
    }

    fn send(&mut self) -> Option<Completion> {
        if self.fails() {
            return None;
        }
        let (token, mut buffer) = self.sending.take()?;
        let mut taken = buffer.remaining().len();
        if self.fails() {
            taken = 1 + self.random.below(taken);
        }
        self.sent.extend_from_slice(&buffer.remaining()[..taken]);
        buffer.sent += taken;
        Some(complete(token, false, Outcome::Sent(buffer)))
    }

    fn fails(&mut self) -> bool {
        self.random.below(100) < self.faults
    }
}

impl Submit for Line<'_> {
    fn submit(&mut self, token: Token, op: Op) {
        match op {
            Op::Accept { listener } => {
                assert_eq!((listener, self.accepting), (LISTENER, None));
                self.accepting = Some(token);
            }
            Op::Recv { socket, .. } => {
                assert_eq!((socket, self.receiving), (SOCKET, None), "one receive");
                assert!(!self.is_closed);
                self.receiving = Some(token);
            }
            Op::Send { socket, buffer } => {
                assert!(socket == SOCKET && self.sending.is_none(), "one send");
                assert!(!buffer.remaining().is_empty() && self.shut.is_none());
                self.sending = Some((token, buffer));
            }
            Op::Shutdown { socket, half } => {
                assert!(socket == SOCKET && !self.is_closed);
                assert!(self.sending.is_none(), "an answer is cut off");
                self.shut = Some(half);
            }
            Op::Close { socket } => {
                assert!(socket == SOCKET && !self.is_closed);
                assert!(self.sending.is_none() && self.receiving.is_none());
                self.is_closed = true;
            }
            Op::Cancel { target } => {
                assert_eq!(target.kind(), Kind::Recv);
                self.is_cancelled = self.receiving == Some(target);
            }
            Op::Readable { .. } => panic!("the worker waits for no descriptor"),
        }
    }

    fn free_buffers(&self) -> usize {
        self.group.free()
    }
}

fn complete(token: Token, more: bool, outcome: Outcome) -> Completion {
    Completion {
        token,
        more,
        outcome,
    }
}

/// What a cancelled receive ends with on Linux.
const ECANCELED: i32 = 125;
