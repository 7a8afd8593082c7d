//! The life of a request object: lent, kept, ended, used again.
//!
//! Owns the transitions; what the object shows meanwhile is `request`'s. An object stands for one
//! request while its handler's call runs. If nobody holds it then, it is reset for the next one;
//! else it copies what it shows, and lives on until its exchange is over or its last holder lets
//! go.

use std::rc::Rc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::raw::{GilCell, Loan};
use super::reader::BodyReader;
use super::request::{Kept, Made, Request, State};
use super::shared::Shared;
use crate::router::Params;
use crate::server::{self, CloseReason, ExchangeId};

impl Request {
    /// An object for the first of many requests.
    pub fn new(py: Python<'_>, shared: Rc<Shared>) -> PyResult<Py<Self>> {
        let exchange = ExchangeId {
            slot: 0,
            generation: 0,
            sequence: 0,
        };
        let state = State {
            shared,
            exchange,
            keep_alive: false,
            route: None,
            params: Params::new(),
            responded: false,
            kept: None,
            made: Made::default(),
        };
        let request = Self {
            loan: GilCell::new(Loan::default()),
            state: GilCell::new(state),
        };
        Py::new(py, request)
    }

    /// Makes the object stand for this request while `call` runs.
    pub fn during<R>(
        &self,
        py: Python<'_>,
        request: &server::Request<'_>,
        (route, params): (Option<usize>, &mut Params),
        call: impl FnOnce() -> R,
    ) -> R {
        let mut state = self.state.borrow_mut(py);
        state.exchange = request.exchange;
        state.keep_alive = request.keep_alive;
        state.route = route;
        if !params.is_empty() {
            // Those of an earlier request may stay: a route without placeholders does not ask.
            std::mem::swap(&mut state.params, params);
        }
        drop(state);
        self.loan.borrow(py).during(request, call)
    }

    /// Forgets the request: for an object that nobody else holds.
    pub fn reset(&self, py: Python<'_>) {
        let mut state = self.state.borrow_mut(py);
        state.responded = false;
        if state.made.any {
            // What is dropped here may run code that looks at us: the borrow ends before.
            let made = std::mem::take(&mut state.made);
            drop(state);
            drop(made);
        }
    }

    /// Copies what the loan shows: for an object that somebody holds beyond the call. The exchange
    /// goes on if its answer is not complete yet.
    pub fn keep(&self, py: Python<'_>, goes_on: bool) {
        let socket = self.socket(py);
        // The peer is asked now: later, its descriptor may be another's.
        let peer = self.peer(py);
        let kept = self.loan.borrow(py).with(|request| {
            request.map(|request| {
                Box::new(Kept {
                    head: request.head.clone(),
                    head_bytes: request.head_bytes.to_vec(),
                    body: request.keep_body(),
                    peer,
                })
            })
        });
        let mut state = self.state.borrow_mut(py);
        state.kept = kept;
        state.made.any = true;
        state.made.ended = !goes_on;
        state.made.socket = socket.filter(|_| goes_on);
    }

    /// The body will be read through this.
    pub fn begin_body(&self, py: Python<'_>, reader: Py<BodyReader>) {
        let made = &mut self.state.borrow_mut(py).made;
        made.any = true;
        made.reader = Some(reader);
    }

    /// What the body is read through, if it is streamed.
    pub fn reader<'py>(&self, py: Python<'py>) -> Option<Bound<'py, BodyReader>> {
        let state = self.state.borrow(py);
        Some(state.made.reader.as_ref()?.bind(py).clone())
    }

    /// The worker that the request came to.
    pub fn shared(&self, py: Python<'_>) -> Rc<Shared> {
        self.state.borrow(py).shared.clone()
    }

    /// Whether something is to be done at the end of the exchange.
    #[inline]
    pub fn has_ending(&self, py: Python<'_>) -> bool {
        let made = &self.state.borrow(py).made;
        made.any && (made.reader.is_some() || !made.callbacks.is_empty())
    }

    /// The connection has ended before the exchange.
    pub fn disconnect(&self, py: Python<'_>, reason: CloseReason) {
        let mut state = self.state.borrow_mut(py);
        state.made.any = true;
        state.made.disconnect = Some(reason);
        state.made.socket = None;
        drop(state);
        if let Some(reader) = self.reader(py) {
            reader.get().on_gone(py);
        }
    }

    /// The exchange is over: calls the done callbacks, once.
    pub fn finish(slf: &Bound<'_, Self>) {
        let py = slf.py();
        let mut state = slf.get().state.borrow_mut(py);
        state.made.any = true;
        state.made.ended = true;
        let callbacks = std::mem::take(&mut state.made.callbacks);
        drop(state);
        for callback in callbacks {
            if let Err(error) = callback.call1(py, (slf,)) {
                let shared = slf.get().shared(py);
                shared.log_failure(slf, "exception in a done callback", error);
            }
        }
        slf.get().state.borrow_mut(py).made.socket = None;
        if let Some(reader) = slf.get().reader(py) {
            reader.get().on_over(py);
        }
    }

    /// Makes the response of this request, unless one was made before.
    #[inline]
    pub fn respond_once<R>(
        &self,
        py: Python<'_>,
        make: impl FnOnce(&Shared) -> PyResult<R>,
    ) -> PyResult<R> {
        let mut state = self.state.borrow_mut(py);
        if state.responded {
            return Err(PyRuntimeError::new_err(
                "request.Response can only be called once per request; use anel.Response for more",
            ));
        }
        let response = make(&state.shared)?;
        state.responded = true;
        Ok(response)
    }

    /// Allows another response: the handler has failed, and what it made will not be sent.
    pub fn allow_response(&self, py: Python<'_>) {
        self.state.borrow_mut(py).responded = false;
    }
}
