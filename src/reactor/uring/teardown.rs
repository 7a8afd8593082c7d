//! The end of a ring, in the one order that is sound.
//!
//! Owns: cancel everything, drain until nothing is in flight, take the buffers back, close the
//! ring, free what the kernel could touch (invariant R3). Refuses to wait for ever: what the kernel
//! does not give back in time is leaked on purpose, because freeing it would let the kernel write
//! into somebody else's memory.

use std::mem::{self, ManuallyDrop};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::entries;
use super::experiments::Batch;
use super::ring::Ring;
use crate::reactor::net;
use crate::reactor::seam::{Completion, Outcome};

/// Time for the kernel to end cancelled ops. Sockets take microseconds; a second is patience for a
/// machine that swaps.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);
/// Pause after which everything is cancelled again.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            // A forked child has neither the ops nor the mappings, and what is mapped at their
            // addresses by now may be somebody else's. It only gives its copy of the descriptor
            // back.
            net::close(self.io.as_raw_fd());
            return;
        }
        let retired = self.drain() && self.provided.retire(&self.io).is_ok();
        // SAFETY: `io` is not used after this line, and dropped nowhere else (invariant R3).
        unsafe { ManuallyDrop::drop(&mut self.io) };
        // Not waited for: a peer that does not read may hold them as long as it likes.
        self.ledger.lent.leak();
        if retired {
            // SAFETY: the kernel has let go of the pages (invariants B2, R3).
            unsafe { ManuallyDrop::drop(&mut self.provided) };
            return;
        }
        self.ledger.leak_payloads();
        mem::forget(self.ledger.group.clone());
    }
}

impl Ring {
    /// Whether the kernel gave everything back.
    fn drain(&mut self) -> bool {
        let mut completions: Vec<Completion> = self.early.drain(..).collect();
        let deadline = Instant::now() + DRAIN_PATIENCE;
        loop {
            // Also submits what is still queued; a queued close must not be lost.
            self.push(&entries::cancel_everything());
            if self.enter(Some(DRAIN_PAUSE), Batch::ONE).is_err() {
                return false;
            }
            self.reap(&mut completions);
            abandon(&mut completions);
            if self.ledger.in_flight == 0 {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
        }
    }
}

/// Connections that nobody will see are closed; buffers and payloads are dropped.
fn abandon(completions: &mut Vec<Completion>) {
    for completion in completions.drain(..) {
        if let Outcome::Accepted(socket) = completion.outcome {
            net::close(socket);
        }
    }
}
