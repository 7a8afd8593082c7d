//! Payloads of sends without copying: the experiment `send_zc`.
//!
//! Owns each of them until the kernel's notification that nothing refers to its pages any more
//! (invariant R2), which may be long after the send has its result: a peer that does not read holds
//! them. So the worker is not kept waiting: the op ends with the result, and after a short send a
//! copy comes home. Refuses to know queues.

use io_uring::cqueue;
use slab::Slab;

use super::entries;
use crate::reactor::errors::Errno;
use crate::reactor::seam::{Outcome, SendBuffer, Token};

#[derive(Default)]
pub(super) struct Lent {
    payloads: Slab<Payload>,
}

struct Payload {
    buffer: SendBuffer,
    /// The op, until it has its result.
    op: Option<Token>,
}

impl Lent {
    /// Keeps a payload. Returns the token under which the kernel speaks of it, which is its own: a
    /// connection may have several that wait for their notification.
    pub(super) fn keep(&mut self, op: Token, buffer: SendBuffer) -> (Token, &[u8]) {
        let place = self.payloads.vacant_entry();
        let token = entries::lent(place.key() as u32);
        let op = Some(op);
        (
            token,
            place.insert(Payload { buffer, op }).buffer.remaining(),
        )
    }

    /// The kernel's name of an op that has no result yet; cold, for cancels.
    pub(super) fn token_of(&self, op: Token) -> Option<Token> {
        let mut payloads = self.payloads.iter();
        let (key, _) = payloads.find(|(_, payload)| payload.op == Some(op))?;
        Some(entries::lent(key as u32))
    }

    /// What an entry means for the op it is about; `None` for a notification, after which the
    /// payload is free.
    pub(super) fn on_entry(
        &mut self,
        token: Token,
        result: i32,
        flags: u32,
    ) -> Option<(Token, Outcome)> {
        let key = token.slot() as usize;
        let payload = self.payloads.get_mut(key)?;
        if cqueue::notif(flags) {
            self.payloads.remove(key);
            return None;
        }
        let op = payload.op.take()?;
        payload.buffer.sent += result.max(0) as usize;
        let home = if payload.buffer.remaining().is_empty() {
            SendBuffer::default()
        } else {
            SendBuffer {
                bytes: payload.buffer.bytes.clone(),
                sent: payload.buffer.sent,
            }
        };
        if !cqueue::more(flags) {
            self.payloads.remove(key);
        }
        let outcome = match result {
            0.. => Outcome::Sent(home),
            _ => Outcome::Failed(Errno(-result), Some(home)),
        };
        Some((op, outcome))
    }

    /// Forgets the payloads that the kernel did not give back: it may still read them.
    pub(super) fn leak(&mut self) {
        for payload in self.payloads.drain() {
            std::mem::forget(payload);
        }
    }
}
