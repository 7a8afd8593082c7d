//! The contexts (PEP 567) that requests are handled in.
//!
//! Owns the rule that no request sees what another one has set: each starts from the context that
//! the worker was made in. Refuses to know what runs. One copy is entered for all the requests of a
//! step, and a fresh one takes its place as soon as something was set in it, which few handlers do.
//! A task copies the context it is started in, so it begins with what its own request has set.

use std::cell::RefCell;

use pyo3::intern;
use pyo3::prelude::*;

use super::raw;

/// The contexts of one worker.
pub struct Contexts {
    start: Py<PyAny>,
    /// Then "something was set" is a matter of counting. Else it is not decided, but assumed:
    /// contexts can only be compared by the values in them, and equal is not identical.
    start_is_empty: bool,
    /// The copy for requests; clean between two of them.
    work: RefCell<Py<PyAny>>,
}

impl Contexts {
    /// Begins with the context of the caller.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let start = py
            .import("contextvars")?
            .call_method0(intern!(py, "copy_context"))?;
        Ok(Self {
            start_is_empty: start.len()? == 0,
            work: RefCell::new(copy(&start)?.unbind()),
            start: start.unbind(),
        })
    }

    /// Lets no later request see what this one has set.
    #[inline]
    pub fn renew(&self, py: Python<'_>) {
        if self.start_is_empty && self.work.borrow().bind(py).len().is_ok_and(|set| set == 0) {
            return;
        }
        self.replace(py);
    }

    fn replace(&self, py: Python<'_>) {
        let fresh = match copy(self.start.bind(py)) {
            Ok(fresh) => fresh.unbind(),
            Err(error) => return error.write_unraisable(py, None),
        };
        self.leave(py);
        let stale = self.work.replace(fresh);
        self.enter(py);
        // What is dropped with it may run code of the user: in the fresh context.
        drop(stale);
    }

    fn enter(&self, py: Python<'_>) {
        if let Err(error) = raw::enter_context(self.work.borrow().bind(py)) {
            error.write_unraisable(py, None);
        }
    }

    fn leave(&self, py: Python<'_>) {
        if let Err(error) = raw::exit_context(self.work.borrow().bind(py)) {
            error.write_unraisable(py, None);
        }
    }
}

/// The context of requests, entered until this is dropped.
pub struct Entered<'a, 'py> {
    contexts: &'a Contexts,
    py: Python<'py>,
}

impl<'a, 'py> Entered<'a, 'py> {
    pub fn new(py: Python<'py>, contexts: &'a Contexts) -> Self {
        contexts.enter(py);
        Self { contexts, py }
    }
}

impl Drop for Entered<'_, '_> {
    fn drop(&mut self) {
        self.contexts.leave(self.py);
    }
}

fn copy<'py>(context: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    context.call_method0(intern!(context.py(), "copy"))
}
