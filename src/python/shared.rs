//! What all requests of one worker share on the Python side.
//!
//! Owns the routes, the spare objects, what was ordered between two turns and the exchanges that
//! are not over (`orders`, `pending`). Refuses to know the reactor and the connections: it outlives
//! both, because a request that a user keeps outlives both.

use std::cell::{Cell, RefCell};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::access_log::AccessLog;
use super::answer;
use super::context::{self, Contexts};
use super::guest::Guest;
use super::headers::Names;
use super::measures::Measures;
use super::orders::Order;
use super::peers::Peers;
use super::pending::Pending;
use super::raw;
use super::request::Request;
use super::response::Response;
use super::routes::{Kind, Routes, lone_handler};
use super::view::Views;

/// State of one worker that Python objects refer to.
pub struct Shared {
    pub app: Py<PyAny>,
    pub routes: Routes,
    /// Answers requests that no route matches, in the place of a handler.
    pub fallback: Option<(Py<PyAny>, Kind)>,
    logger: Option<Py<PyAny>>,
    /// Records exchanges, if that is wanted.
    pub access_log: Option<AccessLog>,
    /// The application's own answer to requests that are not HTTP, if it has one.
    pub refusal_handler: Option<Py<PyAny>>,
    pub async_support: RefCell<Option<AsyncSupport>>,
    pub names: Names,
    /// What request handlers may set without each other's knowledge.
    pub contexts: Contexts,
    /// Objects that nobody else holds, ready to be filled again. One of each: a handler that
    /// answers at once gives back what it took before the next one begins.
    request: Cell<Option<Py<Request>>>,
    response: Cell<Option<Py<Response>>>,
    /// Who is at the other end of the connections.
    pub peers: Peers,
    /// To be done by the next step of the turn.
    pub orders: RefCell<Vec<Order>>,
    /// Exchanges that outlive the call of their handler.
    pub pending: Pending,
    /// Receive buffers that views of bodies hold.
    pub views: Views,
    /// Whether a handler is cancelled when its client goes away.
    pub cancel_on_disconnect: bool,
    /// Whether the worker has ended, so that no order will be carried out.
    pub stopped: Cell<bool>,
    /// An exception that ends the server.
    pub fatal: Cell<Option<PyErr>>,
    /// Whether Python code ran since the turn last looked.
    pub python_ran: Cell<bool>,
    /// What the loop that waits in our place is asked through.
    pub guest: Guest,
    /// What is measured, for a worker that publishes it.
    pub measures: Option<Box<Measures>>,
}

/// What starting a task needs, looked up once.
pub struct AsyncSupport {
    pub task_class: Py<PyAny>,
    pub task_options: Py<PyDict>,
}

impl Shared {
    pub fn new(
        app: &Bound<'_, PyAny>,
        routes: Routes,
        views: Views,
        measures: Option<Box<Measures>>,
        access_log: Option<AccessLog>,
    ) -> PyResult<Self> {
        let hook = |name| -> PyResult<Option<Py<PyAny>>> {
            let hook = app.getattr(name)?;
            Ok((!hook.is_none()).then(|| hook.unbind()))
        };
        Ok(Self {
            app: app.clone().unbind(),
            routes,
            fallback: lone_handler(app.getattr("_fallback")?)?,
            logger: hook("_request_logger")?,
            access_log,
            refusal_handler: hook("_refusal_handler")?,
            async_support: RefCell::default(),
            names: Names::default(),
            contexts: Contexts::new(app.py())?,
            views,
            request: Cell::default(),
            response: Cell::default(),
            peers: Peers::new(app)?,
            orders: RefCell::default(),
            pending: Pending::default(),
            cancel_on_disconnect: app
                .getattr_opt("_cancel_on_disconnect")?
                .map_or(Ok(true), |choice| choice.is_truthy())?,
            stopped: Cell::new(false),
            fatal: Cell::new(None),
            python_ran: Cell::new(false),
            guest: Guest::default(),
            measures,
        })
    }

    /// A copy of the caller's context, if code of the user is to run in it at the end of the
    /// exchange.
    pub fn context_of_ending(&self, request: &Bound<'_, Request>) -> Option<Py<PyAny>> {
        let py = request.py();
        if !self.has_ending(request) {
            return None;
        }
        context::current(py)
            .inspect_err(|error| error.clone_ref(py).write_unraisable(py, None))
            .ok()
            .map(Bound::unbind)
    }

    /// Whether something is to be run when the request has been answered.
    #[inline]
    pub fn has_ending(&self, request: &Bound<'_, Request>) -> bool {
        self.logger.is_some() || request.get().has_ending(request.py())
    }

    /// Tells the request log of an answered request, if it is on.
    pub fn log(&self, request: &Bound<'_, Request>) {
        let py = request.py();
        if let Some(logger) = &self.logger
            && let Err(error) = logger.call1(py, (request,))
        {
            error.write_unraisable(py, Some(request));
        }
    }

    /// Logs what user code raised where nobody can catch it. An exception that ends the program is
    /// raised by the turn instead.
    pub fn log_failure(&self, request: &Bound<'_, Request>, event: &str, error: PyErr) {
        let py = request.py();
        if answer::ends_program(py, &error) {
            self.fatal.replace(Some(error));
            return;
        }
        let arguments = (event, request, error.into_value(py));
        let logged = py
            .import("anel.request")
            .and_then(|module| module.call_method1("log_failure", arguments));
        if let Err(failure) = logged {
            failure.write_unraisable(py, Some(request));
        }
    }

    pub fn take_request(&self) -> Option<Py<Request>> {
        self.request.take()
    }

    /// Keeps a request object for the next request. The caller holds the only reference.
    pub fn recycle_request(&self, request: Py<Request>) {
        self.request.set(Some(request));
    }

    pub fn take_response(&self) -> Option<Py<Response>> {
        self.response.take()
    }

    /// Keeps a response object for the next `request.Response(...)`, if nobody else holds it.
    #[inline(always)] // Called for every request.
    pub fn recycle_response(&self, response: Bound<'_, Response>) {
        if raw::is_only_ours(&response) {
            response.get().empty(response.py());
            self.response.set(Some(response.unbind()));
        }
    }

    /// The worker has ended: ends what nothing will end any more, and breaks the cycles between
    /// this state and the objects that refer to it.
    pub fn stop(&self, py: Python<'_>) {
        self.stopped.set(true);
        for order in self.orders.take() {
            if let Order::Leave(exchange) = order {
                self.leave(py, exchange);
            }
        }
        self.finish_all(py);
        let spares = (self.request.take(), self.response.take());
        drop(spares);
        self.guest.leave();
        if let Some(log) = &self.access_log {
            log.close(py);
        }
    }
}
