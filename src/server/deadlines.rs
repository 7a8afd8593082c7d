//! When to look at which connection again.
//!
//! Owns a heap with about one entry per connection; refuses to know what a deadline means. Entries
//! are lazy: a deadline that moves later costs nothing, the entry is re-checked when it comes up;
//! only one that moves earlier pushes another. So a busy connection costs no heap operation per
//! request. What short connections leave behind is swept out before it outnumbers the others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A connection as the heap knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Check {
    pub at_ms: u64,
    pub slot: u32,
    pub generation: u32,
}

/// Points in time at which a connection has to be looked at.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<Check>>,
}

impl Deadlines {
    pub(super) fn push(&mut self, check: Check) {
        self.heap.push(Reverse(check));
    }

    /// Whether most entries are left over: without a sweep, each of 20,000 connections a second
    /// would stay for its idle timeout.
    pub(super) fn is_overgrown(&self, connections: usize) -> bool {
        self.heap.len() > SWEEP_MIN + SWEEP_FACTOR * connections
    }

    /// Forgets the entries that nobody waits for.
    pub(super) fn sweep(&mut self, mut is_live: impl FnMut(&Check) -> bool) {
        self.heap.retain(|Reverse(check)| is_live(check));
    }

    pub(super) fn next_at_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(check)| check.at_ms)
    }

    /// The earliest check that is due, removed.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<Check> {
        if self.next_at_ms()? > now_ms {
            return None;
        }
        self.heap.pop().map(|Reverse(check)| check)
    }
}

/// Entries below which nothing is swept, and how many a connection may have beyond. Both are
/// arbitrary; they make a sweep cost each entry a few steps once.
const SWEEP_MIN: usize = 256;
const SWEEP_FACTOR: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_is_swept_out_when_it_is_most() {
        let mut deadlines = Deadlines::default();
        for slot in 0..1_000 {
            deadlines.push(Check {
                at_ms: 5,
                slot,
                generation: 0,
            });
        }

        assert!(!deadlines.is_overgrown(1_000) && deadlines.is_overgrown(1));
        deadlines.sweep(|check| check.slot == 7);

        assert!(!deadlines.is_overgrown(1));
        assert_eq!(deadlines.take_due(5).map(|c| c.slot), Some(7));
        assert_eq!(deadlines.take_due(5), None);
    }

    #[test]
    fn checks_come_out_in_time_order_and_not_early() {
        let mut deadlines = Deadlines::default();
        for at_ms in [30, 10, 20] {
            deadlines.push(Check {
                at_ms,
                slot: at_ms as u32,
                generation: 0,
            });
        }

        assert_eq!(deadlines.take_due(9), None);
        assert_eq!(deadlines.take_due(20).map(|c| c.slot), Some(10));
        assert_eq!(deadlines.take_due(20).map(|c| c.slot), Some(20));
        assert_eq!(deadlines.take_due(20), None);
        assert_eq!(deadlines.next_at_ms(), Some(30));
    }
}
