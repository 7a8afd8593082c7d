//! What all requests of one worker share on the Python side.
//!
//! Owns the routes, the spare objects, the answers that came in between two turns and the tasks
//! that are still running. Refuses to know the reactor and the connections: it outlives both,
//! because a request that a user keeps outlives both.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::headers::Names;
use super::raw;
use super::request::Request;
use super::response::Response;
use super::routes::{Kind, Routes, lone_handler};
use crate::reactor::peer_name;
use crate::server::ExchangeId;

/// State of one worker that Python objects refer to.
pub struct Shared {
    pub app: Py<PyAny>,
    pub routes: Routes,
    /// Answers requests that no route matches, in the place of a handler.
    pub fallback: Option<(Py<PyAny>, Kind)>,
    logger: Option<Py<PyAny>>,
    /// The application's own answer to requests that are not HTTP, if it has one.
    pub refusal_handler: Option<Py<PyAny>>,
    pub async_support: RefCell<Option<AsyncSupport>>,
    pub names: Names,
    /// Objects that nobody else holds, ready to be filled again. One of each: a handler that
    /// answers at once gives back what it took before the next one begins.
    request: Cell<Option<Py<Request>>>,
    response: Cell<Option<Py<Response>>>,
    /// Addresses of peers that were asked for, by slot, with the generation they belong to.
    peers: RefCell<Vec<Option<Peer>>>,
    /// Late answers, to be sent by the next turn.
    pub inbox: RefCell<Vec<(ExchangeId, Py<Response>)>>,
    /// Tasks of exchanges that are not answered yet.
    pub tasks: RefCell<HashMap<ExchangeId, Py<PyAny>>>,
    /// An exception that ends the server.
    pub fatal: Cell<Option<PyErr>>,
    /// Whether Python code ran since the turn last looked.
    pub python_ran: Cell<bool>,
}

/// An address, and the generation of the slot it belongs to.
type Peer = (u32, Py<PyString>);

/// What starting a task needs, looked up once.
pub struct AsyncSupport {
    pub task_class: Py<PyAny>,
    pub task_options: Py<PyDict>,
}

impl Shared {
    pub fn new(app: &Bound<'_, PyAny>, routes: Routes) -> PyResult<Self> {
        let hook = |name| -> PyResult<Option<Py<PyAny>>> {
            let hook = app.getattr(name)?;
            Ok((!hook.is_none()).then(|| hook.unbind()))
        };
        Ok(Self {
            app: app.clone().unbind(),
            routes,
            fallback: lone_handler(app.getattr("_fallback")?)?,
            logger: hook("_request_logger")?,
            refusal_handler: hook("_refusal_handler")?,
            async_support: RefCell::default(),
            names: Names::default(),
            request: Cell::default(),
            response: Cell::default(),
            peers: RefCell::default(),
            inbox: RefCell::default(),
            tasks: RefCell::default(),
            fatal: Cell::new(None),
            python_ran: Cell::new(false),
        })
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
    pub fn recycle_response(&self, response: Bound<'_, Response>) {
        if raw::is_only_ours(&response) {
            response.get().empty(response.py());
            self.response.set(Some(response.unbind()));
        }
    }

    /// The address of the peer of an exchange. `socket` is asked once per connection, as long as it
    /// is known to be open.
    pub fn peer<'py>(
        &self,
        py: Python<'py>,
        exchange: ExchangeId,
        socket: Option<RawFd>,
    ) -> Option<Bound<'py, PyString>> {
        let index = exchange.slot as usize;
        if let Some(Some((generation, address))) = self.peers.borrow().get(index)
            && *generation == exchange.generation
        {
            return Some(address.bind(py).clone());
        }
        let address = peer_name(socket?).ok()?.ip().to_canonical().to_string();
        let address = PyString::new(py, &address);
        let mut peers = self.peers.borrow_mut();
        if peers.len() <= index {
            peers.resize_with(index + 1, || None);
        }
        peers[index] = Some((exchange.generation, address.clone().unbind()));
        Some(address)
    }

    /// Breaks the cycles between this state and the spare objects that refer to it.
    pub fn clear(&self) {
        let spares = (self.request.take(), self.response.take());
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        let inbox = std::mem::take(&mut *self.inbox.borrow_mut());
        drop((spares, tasks, inbox));
    }
}
