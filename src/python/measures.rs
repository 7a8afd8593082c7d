//! What is measured around Python code, for a worker that publishes it (`row`).
//!
//! Owns what is counted in histograms, with their bounds, and the responses by their status.
//! Refuses to know the clock, and who reads the numbers. A worker that publishes nothing has no
//! measures and asks no clock for them.

use std::cell::Cell;
use std::time::Duration;

use crate::protocol::ProtocolError;
use crate::server::Histogram;

/// Everything that is measured, since the start.
pub struct Measures {
    /// Responses by the first digit of their status, from 2.
    responses: [Cell<u64>; STATUS_CLASSES],
    /// Completions that one wait brought.
    completions: Histogram,
    /// Time from the end of a wait until this thread had the GIL again, in nanoseconds.
    gil: Histogram,
    /// Time of handlers that answered within their call, in nanoseconds.
    calls: Histogram,
    /// Time of those that suspended, from the call until the answer, in nanoseconds.
    tasks: Histogram,
}

/// How a handler came to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Within its call: the worker did nothing else meanwhile.
    AtOnce,
    /// As a task that suspended.
    Later,
}

impl Measures {
    pub fn new() -> Self {
        Self {
            responses: Default::default(),
            completions: Histogram::new(&COMPLETIONS),
            gil: Histogram::new(&GIL_NS),
            calls: Histogram::new(&HANDLER_NS),
            tasks: Histogram::new(&HANDLER_NS),
        }
    }

    #[inline]
    pub fn on_response(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(2);
        if let Some(responses) = self.responses.get(class) {
            responses.set(responses.get() + 1);
        }
    }

    /// A refusal was written: by the application, which need not write HTTP, or by the core.
    pub fn on_refusal(&self, error: ProtocolError, written: &[u8]) {
        let status = written
            .strip_prefix(b"HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok());
        self.on_response(status.unwrap_or_else(|| error.status()));
    }

    /// A wait is over.
    pub fn on_wait(&self, completions: usize, until_gil: Duration) {
        self.completions.add(completions as u64);
        self.gil.add(until_gil.as_nanos() as u64);
    }

    #[inline]
    pub fn on_handled(&self, answered: Answered, time: Duration) {
        match answered {
            Answered::AtOnce => &self.calls,
            Answered::Later => &self.tasks,
        }
        .add(time.as_nanos() as u64);
    }

    /// Names of the numbers that stand for themselves.
    pub const TOTALS: [&'static str; STATUS_CLASSES] = [
        "responses_2xx_total",
        "responses_3xx_total",
        "responses_4xx_total",
        "responses_5xx_total",
    ];

    /// Names and bounds of the histograms, in the order of `values`.
    pub const HISTOGRAMS: [(&'static str, &'static [u64]); 4] = [
        ("wait_completions", &COMPLETIONS),
        ("gil_wait_ns", &GIL_NS),
        ("handler_call_ns", &HANDLER_NS),
        ("handler_task_ns", &HANDLER_NS),
    ];

    /// All numbers: the totals, then of each histogram the buckets and the sum.
    pub fn values(&self) -> impl Iterator<Item = u64> {
        let histograms = [&self.completions, &self.gil, &self.calls, &self.tasks];
        let totals = self.responses.iter().map(Cell::get);
        totals.chain(histograms.into_iter().flat_map(Histogram::values))
    }
}

/// 2xx to 5xx: what an application may answer.
const STATUS_CLASSES: usize = 4;

/// Powers of two: whether waits bring one completion or many is a matter of magnitude. The queue
/// has room for 4096; batches beyond 256 are as good as those.
const COMPLETIONS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// An uncontended GIL takes well under 10 us. Another thread gives it up after a switch interval,
/// 5 ms by default, and a C call that keeps it does so for any time.
const GIL_NS: [u64; 8] = [
    10_000,
    100_000,
    1_000_000,
    5_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// Half a decade each, so that a quantile is as exact everywhere: from a handler that only makes a
/// response (about 1 us) to one that waits for somebody slow.
const HANDLER_NS: [u64; 13] = [
    10_000,
    30_000,
    100_000,
    300_000,
    1_000_000,
    3_000_000,
    10_000_000,
    30_000_000,
    100_000_000,
    300_000_000,
    1_000_000_000,
    3_000_000_000,
    10_000_000_000,
];
