//! Handlers that await: from a coroutine to a result, now or later.
//!
//! Owns the start of tasks and what happens when they are done. Refuses to know connections: a late
//! answer is ordered under its exchange, and the next turn sends it in its place.

use std::rc::Rc;

use pyo3::exceptions::asyncio::CancelledError;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use super::answer;
use super::raw::{self, GilCell, Sent};
use super::request::Request;
use super::response::Response;
use super::shared::{AsyncSupport, Shared};
use super::stream;
use crate::server::ExchangeId;

/// The answer of a task that did not suspend.
pub struct Early<'py> {
    pub response: Bound<'py, Response>,
    /// A copy of the task's, if something is to be run in it when the answer is sent.
    pub context: Option<Bound<'py, PyAny>>,
}

/// Runs a coroutine that cannot suspend. Inside it there is no current task.
pub fn run_to_end<'py>(coroutine: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match raw::send_none(coroutine)? {
        Sent::Returned(result) => Ok(result),
        Sent::Yielded(_) => {
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
/// handler that does not suspend is done when this returns. `None`: the answer comes later.
pub fn start<'py>(
    shared: &Rc<Shared>,
    request: &Bound<'py, Request>,
    exchange: ExchangeId,
    coroutine: Bound<'py, PyAny>,
) -> PyResult<Option<Early<'py>>> {
    let py = request.py();
    let (class, options) = {
        let support = shared.async_support.borrow();
        let Some(support) = support.as_ref() else {
            return Err(PyRuntimeError::new_err("no event loop is running"));
        };
        let (class, options) = (support.task_class.bind(py), support.task_options.bind(py));
        (class.clone(), options.clone())
    };
    let run = HandlerCoroutine {
        shared: GilCell::new(shared.clone()),
        request: request.clone().unbind(),
        exchange,
        coroutine: as_coroutine(coroutine)?.unbind(),
        phase: GilCell::new(Phase::Starting),
    };
    let run = Bound::new(py, run)?;
    let task = class.call((&run,), Some(&options))?;
    match run.get().phase.borrow_mut(py).suspend() {
        Some((response, context)) => Ok(Some(Early {
            response: response.into_bound(py),
            context: context.map(|context| context.into_bound(py)),
        })),
        None => {
            shared.begin_task(request, exchange, task.unbind());
            Ok(None)
        }
    }
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

/// What a task runs: a handler's coroutine, and the making of its answer as the last step.
///
/// So a task needs no done callback, for which asyncio would go round once more, and error handlers
/// run in the task's context. It is a `collections.abc.Coroutine`; what it does not define is the
/// handler's coroutine's (`cr_frame`, `cr_await`, `__qualname__`, ...). Its result is None: the
/// answer is on its way. Failures have been answered too; only a cancellation, and what ends the
/// program, are the task's own business.
#[pyclass(frozen, module = "anel._core")]
struct HandlerCoroutine {
    shared: GilCell<Rc<Shared>>,
    request: Py<Request>,
    exchange: ExchangeId,
    coroutine: Py<PyAny>,
    phase: GilCell<Phase>,
}

/// Where the end of the coroutine finds it.
enum Phase {
    /// In the first step of an eager task: `start` waits for the answer.
    Starting,
    /// There it is.
    Answered(Py<Response>, Option<Py<PyAny>>),
    /// In a later step: the next turn waits.
    Suspended,
}

impl Phase {
    /// Ends the start; what it has come to, if the coroutine is done.
    fn suspend(&mut self) -> Option<(Py<Response>, Option<Py<PyAny>>)> {
        match std::mem::replace(self, Self::Suspended) {
            Self::Answered(response, context) => Some((response, context)),
            Self::Starting | Self::Suspended => None,
        }
    }
}

#[pymethods]
impl HandlerCoroutine {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match raw::send_none(self.coroutine.bind(py)) {
            Ok(Sent::Yielded(value)) => Ok(Some(value)),
            Ok(Sent::Returned(result)) => self.end(py, Ok(result)).map(|()| None),
            Err(error) => self.end(py, Err(error)).map(|()| None),
        }
    }

    fn send<'py>(&self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.go_on(py, intern!(py, "send"), PyTuple::new(py, [value])?)
    }

    #[pyo3(signature = (*arguments))]
    fn throw<'py>(
        &self,
        py: Python<'py>,
        arguments: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.go_on(py, intern!(py, "throw"), arguments)
    }

    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.coroutine.bind(py).call_method0(intern!(py, "close"))
    }

    fn __getattr__<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.coroutine.bind(py).getattr(name)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<anel handler {}>",
            self.coroutine.bind(py).repr()?
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.request)?;
        visit.call(&self.coroutine)
    }
}

impl HandlerCoroutine {
    /// A step that is not `__next__`: its end is a `StopIteration`.
    fn go_on<'py>(
        &self,
        py: Python<'py>,
        method: &Bound<'py, PyString>,
        arguments: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.coroutine.bind(py).call_method1(method, arguments) {
            Ok(value) => return Ok(value),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                let result = error.value(py).getattr(intern!(py, "value"))?;
                self.end(py, Ok(result))?;
            }
            Err(error) => self.end(py, Err(error))?,
        }
        Err(PyStopIteration::new_err(()))
    }

    /// The coroutine has returned or raised: makes the answer. An error is the task's.
    fn end<'py>(&self, py: Python<'py>, result: PyResult<Bound<'py, PyAny>>) -> PyResult<()> {
        let shared = self.shared.borrow(py).clone();
        let request = self.request.bind(py);
        let raised = match &result {
            Err(error) if answer::ends_program(py, error) => {
                shared.end_task(self.exchange);
                return result.map(drop);
            }
            Err(error) if error.is_instance_of::<CancelledError>(py) => Err(error.clone_ref(py)),
            _ => Ok(()),
        };
        if matches!(*self.phase.borrow(py), Phase::Suspended) {
            shared.complete(request, self.exchange, result);
            return raised;
        }
        let response = answer::from_outcome(&shared, request, result);
        let context = shared
            .context_of_ending(request)
            .or_else(|| stream::context_of(&response));
        *self.phase.borrow_mut(py) = Phase::Answered(response.unbind(), context);
        raised
    }
}
