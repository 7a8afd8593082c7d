//! Time as an argument: one reading per turn, taken by whoever drives the worker.
//!
//! Owns nothing; refuses to read a clock itself, so that a simulation can live through an hour in a
//! millisecond.

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Microseconds of a clock that never goes back; its zero is arbitrary. Deadlines are measured
    /// on it in milliseconds.
    pub monotonic_us: u64,
    /// Seconds since 1970-01-01 UTC; only the `Date` field uses it.
    pub unix_s: u64,
}

impl Clock {
    /// The same in milliseconds.
    #[must_use]
    pub fn monotonic_ms(&self) -> u64 {
        self.monotonic_us / 1_000
    }
}
