//! What the loop is to call soon: asyncio's `Handle` and `call_soon`, natively.
//!
//! Owns the handles of `ReactorLoop` outside of debug mode. Refuses to know when they run: they are
//! in asyncio's own queue, among its own handles, and asyncio takes them out. Every step of a task
//! and every done callback of a future goes through here.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use super::answer::ends_program;
use super::context;
use super::raw::GilCell;

/// A shorter way into the queue of callbacks of a loop.
#[pyclass(frozen, module = "anel._core")]
pub struct ReadyQueue {
    event_loop: Py<PyAny>,
    append: Py<PyAny>,
}

#[pymethods]
impl ReadyQueue {
    #[new]
    fn new(event_loop: Py<PyAny>, append: Py<PyAny>) -> Self {
        Self { event_loop, append }
    }

    /// Has the loop call something in its next iteration; what asyncio's method of this name does.
    #[pyo3(signature = (callback, *args, context=None))]
    fn call_soon<'py>(
        slf: &Bound<'py, Self>,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Handle>> {
        let py = slf.py();
        let context = match context {
            Some(context) => context,
            None => context::current(py)?,
        };
        let handle = Handle {
            queue: slf.clone().unbind(),
            context: context.unbind(),
            call: GilCell::new(Some(Call {
                callback: callback.unbind(),
                args: args.unbind(),
            })),
        };
        let handle = Bound::new(py, handle)?;
        slf.get().append.bind(py).call1((&handle,))?;
        Ok(handle)
    }

    /// False: in debug mode the loop does not use this object.
    #[pyo3(name = "get_debug")]
    #[allow(clippy::unused_self)] // It takes the place of a method.
    fn is_debugging(&self) -> bool {
        false
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.append)
    }
}

/// An `asyncio.Handle` in all but layout: `isinstance` says so, and so do its attributes.
#[pyclass(frozen, weakref, module = "anel._core")]
pub struct Handle {
    queue: Py<ReadyQueue>,
    context: Py<PyAny>,
    /// None once it is cancelled.
    call: GilCell<Option<Call>>,
}

/// What a handle calls.
struct Call {
    callback: Py<PyAny>,
    args: Py<PyTuple>,
}

#[pymethods]
impl Handle {
    /// Makes sure that the callback is not called, if it has not been.
    fn cancel(&self, py: Python<'_>) {
        let call = self.call.borrow_mut(py).take();
        drop(call);
    }

    /// Whether it was cancelled.
    fn cancelled(&self, py: Python<'_>) -> bool {
        self.call.borrow(py).is_none()
    }

    /// The context that the callback is called in.
    #[pyo3(name = "get_context")]
    fn context(&self, py: Python<'_>) -> Py<PyAny> {
        self.context.clone_ref(py)
    }

    /// Calls the callback. What it raises is reported to the loop, unless it ends the program.
    fn _run(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let handle = slf.get();
        let Some((callback, args)) = handle.bound(py) else {
            return Ok(());
        };
        let called = context::try_within(handle.context.bind(py), || callback.call1(args))
            .and_then(|called| called);
        match called {
            Ok(_) => Ok(()),
            Err(error) if ends_program(py, &error) => Err(error),
            Err(error) => {
                let report = py.import("anel.loop")?.getattr("report")?;
                report.call1((slf, error.into_value(py))).map(drop)
            }
        }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let describe = slf.py().import("anel.loop")?.getattr("describe")?;
        describe.call1((slf,)).map(Bound::unbind)
    }

    #[getter]
    fn __class__(slf: &Bound<'_, Self>) -> PyResult<Py<PyType>> {
        static HANDLE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = slf.py();
        Ok(HANDLE.import(py, "asyncio", "Handle")?.clone().unbind())
    }

    #[getter]
    fn _callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.bound(py).map(|(callback, _)| callback.unbind())
    }

    #[getter]
    fn _args(&self, py: Python<'_>) -> Option<Py<PyTuple>> {
        self.bound(py).map(|(_, args)| args.unbind())
    }

    #[getter]
    fn _cancelled(&self, py: Python<'_>) -> bool {
        self.cancelled(py)
    }

    #[getter]
    fn _context(&self, py: Python<'_>) -> Py<PyAny> {
        self.context(py)
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.queue.get().event_loop.clone_ref(py)
    }

    /// None: tracebacks of where a handle was made are debug mode's.
    #[getter]
    fn _source_traceback(&self) -> Option<Py<PyAny>> {
        None
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.queue)?;
        visit.call(&self.context)?;
        if let Some(Some(call)) = self.call.visit().as_deref() {
            visit.call(&call.callback)?;
            visit.call(&call.args)?;
        }
        Ok(())
    }

    fn __clear__(&self, py: Python<'_>) {
        self.cancel(py);
    }
}

impl Handle {
    fn bound<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let call = self.call.borrow(py);
        let call = call.as_ref()?;
        Some((call.callback.bind(py).clone(), call.args.bind(py).clone()))
    }
}
