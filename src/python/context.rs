//! The contexts (PEP 567) that requests are handled in.
//!
//! Owns the rule that no request sees what another one has set: each starts from the context that
//! the worker was made in. Refuses to know what runs. One copy is entered for all the requests of a
//! step, and a fresh one takes its place as soon as something was set in it, which few handlers do.
//! A task copies the context it is started in, so it begins with what its own request has set.

use std::cell::RefCell;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

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
        let start = current(py)?;
        Ok(Self {
            start_is_empty: raw::is_empty_mapping(&start),
            work: RefCell::new(copy(&start)?.unbind()),
            start: start.unbind(),
        })
    }

    /// Lets no later request see what this one has set.
    #[inline]
    pub fn renew(&self, py: Python<'_>) {
        if !self.is_clean(py) {
            self.replace(py);
        }
    }

    /// The context of this request, if something was set in it. It will not be used for another.
    pub fn changed(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        (!self.is_clean(py)).then(|| self.work.borrow().clone_ref(py))
    }

    /// Whether this is the context of the request that is being handled.
    pub fn is_entered(&self, context: &Py<PyAny>) -> bool {
        self.work.borrow().is(context)
    }

    #[inline]
    fn is_clean(&self, py: Python<'_>) -> bool {
        self.start_is_empty && raw::is_empty_mapping(self.work.borrow().bind(py))
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

/// Runs code in a context, or where it is called if there is none.
pub fn within<R>(py: Python<'_>, context: Option<Bound<'_, PyAny>>, run: impl FnOnce() -> R) -> R {
    let entered = context.map(|context| Within::enter(&context));
    if let Some(Err(error)) = &entered {
        error.clone_ref(py).write_unraisable(py, None);
    }
    run()
}

/// Runs code in a context; not at all if that cannot be entered.
#[inline]
pub fn try_within<R>(context: &Bound<'_, PyAny>, run: impl FnOnce() -> R) -> PyResult<R> {
    let _within = Within::enter(context)?;
    Ok(run())
}

/// A context that is left on every way out.
struct Within<'py>(Bound<'py, PyAny>);

impl<'py> Within<'py> {
    fn enter(context: &Bound<'py, PyAny>) -> PyResult<Self> {
        raw::enter_context(context)?;
        Ok(Self(context.clone()))
    }
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        if let Err(error) = raw::exit_context(&self.0) {
            error.write_unraisable(self.0.py(), None);
        }
    }
}

/// A copy of the context of the caller.
pub fn current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static COPY_CONTEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    COPY_CONTEXT
        .import(py, "contextvars", "copy_context")?
        .call0()
}

fn copy<'py>(context: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    context.call_method0(intern!(context.py(), "copy"))
}
