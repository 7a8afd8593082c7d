//! How often something was how large.
//!
//! Owns the counting; refuses to know of what, and who reads it. Adding is a search among a few
//! bounds and two additions on the worker's own thread.

use std::cell::Cell;

/// Buckets that each end at a bound, which belongs to it; one more has what is above the last.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    buckets: [Cell<u64>; BUCKETS_MAX],
    sum: Cell<u64>,
}

impl Histogram {
    /// At most `BUCKETS_MAX - 1` bounds, rising.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() < BUCKETS_MAX, "too many bounds");
        Self {
            bounds,
            buckets: Default::default(),
            sum: Cell::new(0),
        }
    }

    /// Counts a value.
    #[inline]
    pub fn add(&self, value: u64) {
        // From below: nearly everything is in the first few.
        let above = self.bounds.iter().position(|bound| value <= *bound);
        let bucket = &self.buckets[above.unwrap_or(self.bounds.len())];
        bucket.set(bucket.get() + 1);
        self.sum.set(self.sum.get().saturating_add(value));
    }

    /// The counts of the buckets, one more of them than bounds, and the sum of all values.
    pub fn values(&self) -> impl Iterator<Item = u64> {
        let buckets = self.buckets[..=self.bounds.len()].iter().map(Cell::get);
        buckets.chain([self.sum.get()])
    }
}

/// Room for the longest of ours and what is above it. Fixed, so that counting follows no pointer.
const BUCKETS_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn values(histogram: &Histogram) -> Vec<u64> {
        histogram.values().collect()
    }

    #[test]
    fn counts_a_value_at_a_bound_below_it() {
        let histogram = Histogram::new(&[10, 20]);

        histogram.add(10);
        histogram.add(11);

        assert_eq!(values(&histogram), [1, 1, 0, 21]);
    }

    #[test]
    fn counts_what_is_above_all_bounds() {
        let histogram = Histogram::new(&[10, 20]);

        histogram.add(u64::MAX);
        histogram.add(u64::MAX);

        assert_eq!(values(&histogram), [0, 0, 2, u64::MAX]);
    }

    #[test]
    #[should_panic(expected = "bounds")]
    fn refuses_more_bounds_than_there_is_room_for() {
        let _ = Histogram::new(&[1; BUCKETS_MAX]);
    }
}
