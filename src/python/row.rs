//! What a worker publishes: a row of numbers in memory that other processes read.
//!
//! Owns the order of the numbers in the row, and how they are written: all of them before every
//! wait, so that a handler that never returns keeps nobody from reading what was counted until
//! then. Refuses to know whose memory it is. A reader may meet a row half written, but each number
//! is aligned and copied as a whole, so no total goes back.

use std::cell::RefCell;
use std::time::Instant;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PySlice;

use super::measures::Measures;
use super::settings::Snapshot;
use super::shared::Shared;

/// The worker's own place to write to.
pub struct Row {
    cells: PyBuffer<u64>,
    /// The one of them that is written after a wait, too.
    awake_since_ns: PyBuffer<u64>,
    /// Where a row is put together.
    values: RefCell<Vec<u64>>,
    opened: Instant,
    /// What Python's monotonic clock said then.
    opened_ns: u64,
}

impl Row {
    /// Takes a memoryview of format "Q" that has the numbers of `row_layout` first, and may have
    /// others behind them.
    pub fn new(row: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = row.py();
        let part = |from: usize, len: usize| -> PyResult<PyBuffer<u64>> {
            let slice = PySlice::new(py, from as isize, (from + len) as isize, 1);
            PyBuffer::get(&row.get_item(slice)?)
        };
        let cells = part(0, layout_len())?;
        if cells.readonly() || !cells.is_c_contiguous() || cells.item_count() != layout_len() {
            return Err(PyValueError::new_err(format!(
                "a row must be writable and have {} numbers or more",
                layout_len()
            )));
        }
        Ok(Self {
            cells,
            awake_since_ns: part(AWAKE_AT, 1)?,
            values: RefCell::default(),
            opened: Instant::now(),
            opened_ns: py.import("time")?.call_method0("monotonic_ns")?.extract()?,
        })
    }

    /// The worker has work to do from now on, until it waits again.
    pub fn wake(&self, py: Python<'_>) {
        let now_ns = self.opened_ns + self.opened.elapsed().as_nanos() as u64;
        write(py, &self.awake_since_ns, &[now_ns]);
    }

    /// Writes everything, before a wait.
    pub fn publish(&self, py: Python<'_>, snapshot: &Snapshot, shared: &Shared) {
        let Some(measures) = &shared.measures else {
            return;
        };
        let own = [AWAKE_NOT, shared.requests_pending() as u64];
        let mut values = self.values.borrow_mut();
        values.clear();
        values.extend(snapshot.values());
        values.extend(own);
        values.extend(measures.values());
        write(py, &self.cells, &values);
    }
}

/// The buffer was checked when it was taken, so it has room.
fn write(py: Python<'_>, cells: &PyBuffer<u64>, values: &[u64]) {
    if let Err(error) = cells.copy_from_slice(py, values) {
        error.write_unraisable(py, None);
    }
}

/// What the numbers of a row are, from the first: the names of those that stand for themselves,
/// then of each histogram its name and its bounds, for which the row has the buckets, one more for
/// what is above the last bound, and the sum.
#[pyfunction]
pub fn row_layout() -> (Vec<&'static str>, Vec<(&'static str, Vec<u64>)>) {
    let numbers = Snapshot::NAMES.into_iter().chain(OWN_NAMES);
    let histograms = Measures::HISTOGRAMS.map(|(name, bounds)| (name, bounds.to_vec()));
    (numbers.chain(Measures::TOTALS).collect(), histograms.into())
}

fn layout_len() -> usize {
    let (numbers, histograms) = row_layout();
    let histograms = histograms.iter().map(|(_, bounds)| bounds.len() + 2);
    numbers.len() + histograms.sum::<usize>()
}

/// What is counted by nobody else: since when, on Python's monotonic clock, the worker has not come
/// round to a wait (0 within one), and exchanges that outlive the call of their handler.
const OWN_NAMES: [&str; 2] = ["awake_since_ns", "requests_in_progress"];

/// Where the first of them is.
const AWAKE_AT: usize = Snapshot::NAMES.len();

/// It waits.
const AWAKE_NOT: u64 = 0;
