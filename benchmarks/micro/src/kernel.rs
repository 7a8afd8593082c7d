//! A kernel with one connection, which accepts everything at once and never fails.
//!
//! Owns the receive buffers and the ops that the worker has submitted; answers each with one
//! completion. Refuses to know HTTP and what is measured.

use std::os::fd::RawFd;

use anel::reactor::{Completion, Group, Op, Outcome, Submit, Token};

/// The descriptor of the listener; the kernel of this file has no other meaning for it.
pub const LISTENER: RawFd = 3;

const CONNECTION: RawFd = 4;

/// A worker's view of the world: what it submitted, and what became of it.
pub struct Kernel {
    group: Group,
    /// What every receive brings.
    batch: Vec<u8>,
    accept: Option<Token>,
    recv: Option<Token>,
    completions: Vec<Completion>,
    /// Everything that was sent.
    pub bytes_sent: u64,
}

impl Kernel {
    /// One whose connection always receives these bytes.
    pub fn new(batch: Vec<u8>) -> Self {
        Self {
            group: Group::heap(16, 8192),
            batch,
            accept: None,
            recv: None,
            completions: Vec::new(),
            bytes_sent: 0,
        }
    }

    /// A peer connects, if the worker accepts one.
    pub fn connect(&mut self) {
        self.complete(self.accept, Outcome::Accepted(CONNECTION));
    }

    /// The batch arrives, if the worker receives.
    pub fn receive(&mut self) {
        if let (Some(_), Some(lease)) = (self.recv, self.group.lend(&self.batch)) {
            self.complete(self.recv, Outcome::Received(lease));
        }
    }

    /// Appends what completed since the last call.
    pub fn take(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.completions);
    }

    fn complete(&mut self, token: Option<Token>, outcome: Outcome) {
        self.completions.extend(token.map(|token| Completion {
            token,
            more: !matches!(outcome, Outcome::Sent(_)),
            outcome,
        }));
    }
}

impl Submit for Kernel {
    fn submit(&mut self, token: Token, op: Op) {
        match op {
            Op::Accept { .. } => self.accept = Some(token),
            Op::Recv { .. } => self.recv = Some(token),
            Op::Send { mut buffer, .. } => {
                self.bytes_sent += buffer.remaining().len() as u64;
                buffer.sent = buffer.bytes.len();
                self.complete(Some(token), Outcome::Sent(buffer));
            }
            // Nothing here ends, so nothing is shut down, closed, cancelled or waited for.
            _ => {}
        }
    }

    fn free_buffers(&self) -> usize {
        self.group.free()
    }
}
