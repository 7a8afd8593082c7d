//! What asyncio would do next, seen from within a turn.
//!
//! Owns the look into the loop that runs on this thread, so that turns follow each other without it
//! while it has nothing to do. Refuses to run any of it.

use pyo3::intern;
use pyo3::prelude::*;

use super::coroutine;
use super::shared::Shared;

/// What asyncio would do if the turn ended now.
pub struct AsyncioView<'py> {
    event_loop: Option<Bound<'py, PyAny>>,
    next_timer: Option<usize>,
}

impl<'py> AsyncioView<'py> {
    /// The loop that runs on this thread, if any.
    pub fn new(py: Python<'py>, shared: &Shared) -> PyResult<Self> {
        let event_loop = py.import(intern!(py, "asyncio.events"))?;
        let event_loop = event_loop.call_method0(intern!(py, "_get_running_loop"))?;
        if event_loop.is_none() {
            return Ok(Self {
                event_loop: None,
                next_timer: None,
            });
        }
        if shared.async_support.borrow().is_none() {
            *shared.async_support.borrow_mut() = Some(coroutine::support(&event_loop)?);
        }
        let mut view = Self {
            event_loop: Some(event_loop),
            next_timer: None,
        };
        view.next_timer = view.first_timer();
        Ok(view)
    }

    /// Whether the loop has callbacks to run, is to stop, or has got an earlier timer than the one
    /// that the turn's timeout was made from. The attributes are private, the same since Python
    /// 3.4; a loop without them gets control back after every wait.
    pub fn has_work(&self) -> bool {
        let Some(event_loop) = &self.event_loop else {
            return false;
        };
        let py = event_loop.py();
        let ready = event_loop
            .getattr(intern!(py, "_ready"))
            .and_then(|ready| ready.len());
        let stopping = event_loop
            .getattr(intern!(py, "_stopping"))
            .and_then(|s| s.is_truthy());
        match (ready, stopping) {
            (Ok(0), Ok(false)) => self.first_timer() != self.next_timer,
            _ => true,
        }
    }

    /// Identity of the earliest timer.
    fn first_timer(&self) -> Option<usize> {
        let event_loop = self.event_loop.as_ref()?;
        let timers = event_loop
            .getattr(intern!(event_loop.py(), "_scheduled"))
            .ok()?;
        let first = timers.get_item(0).ok()?;
        Some(first.as_ptr() as usize)
    }
}
