//! One asyncio future that waits for the turn.
//!
//! Owns the future until it is woken; refuses to know what for.

use pyo3::intern;
use pyo3::prelude::*;

use super::raw::GilCell;

/// Place for a future. A second one takes the place of the first, which is woken.
pub struct Waiter(GilCell<Option<Py<PyAny>>>);

impl Default for Waiter {
    fn default() -> Self {
        Self(GilCell::new(None))
    }
}

impl Waiter {
    /// Keeps a future for the next `wake`.
    pub fn wait(&self, future: Bound<'_, PyAny>) {
        let py = future.py();
        self.wake(py);
        *self.0.borrow_mut(py) = Some(future.unbind());
    }

    /// Gives the future its result, None, unless it was cancelled meanwhile.
    pub fn wake(&self, py: Python<'_>) {
        let Some(future) = self.0.borrow_mut(py).take() else {
            return;
        };
        let future = future.bind(py);
        let woken = future
            .call_method0(intern!(py, "done"))
            .and_then(|done| done.is_truthy())
            .and_then(|done| match done {
                true => Ok(()),
                false => future
                    .call_method1(intern!(py, "set_result"), (py.None(),))
                    .map(drop),
            });
        if let Err(error) = woken {
            // The loop is closed: nobody waits any more.
            error.write_unraisable(py, Some(future));
        }
    }
}
