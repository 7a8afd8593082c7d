//! The load of a worker, told to whoever acts on it.
//!
//! Owns the meter and the callable that is asked; refuses to know what it does. It is called twice
//! a second at most.

use pyo3::prelude::*;

use crate::server::{Load, LoadMeter};

/// What a worker tells of its load.
pub(super) struct Scheduling {
    meter: LoadMeter,
    /// Takes whether the load is heavy; None where nobody wants to know.
    on_load: Option<Py<PyAny>>,
}

impl Scheduling {
    pub(super) fn new(on_load: Option<Py<PyAny>>) -> Self {
        Self {
            meter: LoadMeter::default(),
            on_load,
        }
    }

    /// Takes what a wait has brought.
    #[inline]
    pub(super) fn on_wait(&mut self, py: Python<'_>, completions: usize, now_ms: u64) {
        if let Some(on_load) = &self.on_load
            && let Some(load) = self.meter.on_wait(completions, now_ms)
        {
            tell(py, on_load, load);
        }
    }
}

#[cold]
fn tell(py: Python<'_>, on_load: &Py<PyAny>, load: Load) {
    if let Err(error) = on_load.call1(py, (load == Load::Heavy,)) {
        error.write_unraisable(py, None);
    }
}
