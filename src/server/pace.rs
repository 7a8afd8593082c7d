//! Whether a peer keeps up: it may pause, but neither for ever nor again and again.
//!
//! Owns the time that a peer has left. It begins with all of its patience, every byte gives it a
//! little back, and it never has more than all. So a slow peer that moves on is left alone, one
//! that stops has one patience, and one that sends a byte now and then gains nothing. Refuses to
//! know what the bytes are and which way they go.

use crate::protocol::Limits;

/// The time that a peer has left for a body, or for taking what it is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// In microseconds, so that single bytes count for what they are worth.
    until_us: u64,
}

/// What is demanded of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// How long it may pause when it has kept up so far.
    pub patience_ms: u64,
    /// What buys it a second; 0: any byte buys it all of its patience.
    pub bytes_per_s_min: u32,
}

impl Demand {
    /// For the body of a request.
    pub(super) fn on_body(limits: &Limits) -> Self {
        Self {
            patience_ms: limits.body_timeout_ms,
            bytes_per_s_min: limits.body_bytes_per_s_min,
        }
    }

    /// For taking what is owed.
    pub(super) fn on_send(limits: &Limits) -> Self {
        Self {
            patience_ms: limits.send_timeout_ms,
            bytes_per_s_min: limits.send_bytes_per_s_min,
        }
    }
}

impl Pace {
    pub(super) fn new(now_ms: u64, demand: Demand) -> Self {
        Self {
            until_us: now_ms
                .saturating_add(demand.patience_ms)
                .saturating_mul(1_000),
        }
    }

    /// The peer has moved so many bytes.
    pub(super) fn on_bytes(&mut self, bytes: usize, now_ms: u64, demand: Demand) {
        let all = Self::new(now_ms, demand);
        if demand.bytes_per_s_min == 0 {
            *self = all;
            return;
        }
        let bought_us =
            (bytes as u64).saturating_mul(1_000_000) / u64::from(demand.bytes_per_s_min);
        self.until_us = self.until_us.saturating_add(bought_us).min(all.until_us);
    }

    /// When its time is up.
    pub(super) fn until_ms(self) -> u64 {
        self.until_us.div_ceil(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand {
        patience_ms: 1_000,
        bytes_per_s_min: 100,
    };

    /// The time at which a peer that moves so many bytes every so often is given up.
    fn given_up_at_ms(bytes: usize, every_ms: u64, demand: Demand) -> Option<u64> {
        let mut pace = Pace::new(0, demand);
        for round in 1..10_000 {
            let now_ms = round * every_ms;
            if pace.until_ms() <= now_ms {
                return Some(pace.until_ms());
            }
            pace.on_bytes(bytes, now_ms, demand);
        }
        None
    }

    #[test]
    fn who_stops_has_one_patience() {
        let mut pace = Pace::new(500, DEMAND);
        pace.on_bytes(1_000_000, 700, DEMAND);

        assert_eq!(pace.until_ms(), 1_700);
    }

    #[test]
    fn who_keeps_up_is_left_alone() {
        assert_eq!(given_up_at_ms(10, 100, DEMAND), None);
        assert_eq!(given_up_at_ms(100, 999, DEMAND), None);
    }

    #[test]
    fn a_byte_now_and_then_buys_what_it_is_worth() {
        let at_ms = given_up_at_ms(1, 500, DEMAND).unwrap();
        assert!((1_000..1_100).contains(&at_ms), "{at_ms}");
        assert_eq!(given_up_at_ms(9, 100, DEMAND), Some(9_100));
    }

    #[test]
    fn without_a_rate_any_byte_buys_all_of_the_patience() {
        let demand = Demand {
            bytes_per_s_min: 0,
            ..DEMAND
        };

        assert_eq!(given_up_at_ms(1, 999, demand), None);
        assert_eq!(given_up_at_ms(1, 1_001, demand), Some(1_000));
    }
}
