//! Handlers that await: from a coroutine to a result, now or later.
//!
//! Owns the start of tasks and what happens when they are done. Refuses to know connections: a late
//! answer is ordered under its exchange, and the next turn sends it in its place.

use std::rc::Rc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use super::raw::{self, GilCell, Sent};
use super::request::Request;
use super::shared::{AsyncSupport, Shared};
use crate::server::ExchangeId;

/// A result, or the promise of one.
pub enum Progress<'py> {
    Done(PyResult<Bound<'py, PyAny>>),
    Later,
}

/// Runs a coroutine that cannot suspend. Inside it there is no current task.
pub fn run_to_end<'py>(coroutine: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match raw::send_none(coroutine)? {
        Sent::Returned(result) => Ok(result),
        Sent::Yielded => {
            coroutine.call_method0(intern!(coroutine.py(), "close"))?;
            Err(PyRuntimeError::new_err(
                "a coroutine without an await has suspended; was its function changed?",
            ))
        }
    }
}

/// Whether a sync handler's result has to be awaited: some decorators hide a coroutine function.
pub fn is_awaitable(result: &Bound<'_, PyAny>) -> bool {
    result
        .hasattr(intern!(result.py(), "__await__"))
        .unwrap_or(false)
}

/// Runs an awaitable as a task. With eager start (3.12) the first step happens here and now, and a
/// handler that does not suspend is done when this returns.
pub fn start<'py>(
    shared: &Rc<Shared>,
    request: &Bound<'py, Request>,
    exchange: ExchangeId,
    coroutine: Bound<'py, PyAny>,
) -> PyResult<Progress<'py>> {
    let py = request.py();
    let task = {
        let support = shared.async_support.borrow();
        let Some(support) = support.as_ref() else {
            return Err(PyRuntimeError::new_err("no event loop is running"));
        };
        let (class, options) = (support.task_class.bind(py), support.task_options.bind(py));
        (class.clone(), options.clone())
    };
    let task = task.0.call((as_coroutine(coroutine)?,), Some(&task.1))?;
    if task.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(Progress::Done(task.call_method0(intern!(py, "result"))));
    }
    let completion = Completion {
        shared: GilCell::new(shared.clone()),
        request: request.clone().unbind(),
        exchange,
    };
    let callback = Py::new(py, completion)?;
    task.call_method1(intern!(py, "add_done_callback"), (callback,))?;
    shared.begin_task(request, exchange, task.unbind());
    Ok(Progress::Later)
}

/// A task takes coroutines only: a future, or an object with `__await__`, is wrapped in one.
fn as_coroutine(awaitable: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    static COROUTINE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = awaitable.py();
    if awaitable
        .get_type()
        .is(COROUTINE.import(py, "types", "CoroutineType")?)
    {
        return Ok(awaitable);
    }
    py.import("anel.handlers")?
        .call_method1("as_coroutine", (awaitable,))
}

/// Looks up what tasks are made of. `loop` is the one that runs.
pub fn support(event_loop: &Bound<'_, PyAny>) -> PyResult<AsyncSupport> {
    let py = event_loop.py();
    let options = PyDict::new(py);
    options.set_item("loop", event_loop)?;
    if py.version_info() >= (3, 12) {
        options.set_item("eager_start", true)?;
    }
    let task_class = py.import("asyncio")?.getattr("Task")?;
    Ok(AsyncSupport {
        task_class: task_class.unbind(),
        task_options: options.unbind(),
    })
}

/// Called by asyncio when a handler's task is done.
#[pyclass(frozen, module = "anel._core")]
struct Completion {
    shared: GilCell<Rc<Shared>>,
    request: Py<Request>,
    exchange: ExchangeId,
}

#[pymethods]
impl Completion {
    fn __call__(&self, py: Python<'_>, task: &Bound<'_, PyAny>) {
        let shared = self.shared.borrow(py).clone();
        let result = task.call_method0(intern!(py, "result"));
        shared.complete(self.request.bind(py), self.exchange, result);
    }
}
