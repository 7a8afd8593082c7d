//! Exchanges that outlive the call of their handler.
//!
//! Owns which they are, what works on each of them, and their end: done callbacks run once, when
//! nothing of the exchange is left to do. Refuses to know how answers are made and sent. An entry
//! begins with a task, a streamed response or a streamed request body, whichever comes first; it
//! stays until the task is done, even if the client is gone by then.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use pyo3::exceptions::asyncio::CancelledError;
use pyo3::intern;
use pyo3::prelude::*;

use super::answer;
use super::context;
use super::orders::Order;
use super::request::Request;
use super::shared::Shared;
use crate::server::{CloseReason, ExchangeId};

/// The exchanges of a worker that are not over.
#[derive(Default)]
pub struct Pending(RefCell<HashMap<ExchangeId, Exchange, BuildHasherDefault<Mixer>>>);

/// Hashes the numbers of an exchange. They are counted here, not chosen by a peer, so they need no
/// protection against collisions, which costs more than the rest of the table.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio: consecutive numbers end far apart.
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// One of them.
struct Exchange {
    request: Py<Request>,
    /// The handler's, as long as it runs.
    task: Option<Py<PyAny>>,
    /// What the handler has set is to be seen at the end too. None: nothing.
    context: Option<Py<PyAny>>,
    /// Whether the connection has ended.
    gone: bool,
}

impl Shared {
    /// Whether something of this exchange is still to be done after its handler's call.
    pub fn is_pending(&self, exchange: ExchangeId) -> bool {
        self.pending.0.borrow().contains_key(&exchange)
    }

    /// A handler has suspended: its answer will come from this task, through `complete`.
    pub fn begin_task(&self, request: &Bound<'_, Request>, exchange: ExchangeId, task: Py<PyAny>) {
        self.begin(request, exchange, |entry| entry.task = Some(task));
    }

    /// The task of a handler has come to an end that is no answer.
    pub fn release_task(&self, exchange: ExchangeId) {
        let mut pending = self.pending.0.borrow_mut();
        let task = pending
            .get_mut(&exchange)
            .and_then(|entry| entry.task.take());
        drop(pending);
        drop(task);
    }

    /// The task of a handler has come to its end. Its answer leaves with the next turn.
    pub fn complete<'py>(
        &self,
        request: &Bound<'py, Request>,
        exchange: ExchangeId,
        result: PyResult<Bound<'py, PyAny>>,
    ) {
        let py = request.py();
        let gone = match self.pending.0.borrow_mut().get_mut(&exchange) {
            Some(entry) => {
                entry.task = None;
                entry.gone
            }
            None => true,
        };
        let was_cancelled = |error: &PyErr| error.is_instance_of::<CancelledError>(py);
        if gone && result.as_ref().is_err_and(was_cancelled) {
            // Nobody waits for an answer, and nobody is told of the cancellation.
            return self.finish(request, exchange);
        }
        let response = answer::from_outcome(self, request, result);
        if self.stopped.get() {
            return self.finish(request, exchange);
        }
        if let Some(context) = self.context_of_ending(request)
            && let Some(entry) = self.pending.0.borrow_mut().get_mut(&exchange)
        {
            entry.context = Some(context);
        }
        self.order(Order::Answer(exchange, response.unbind()));
        if !gone {
            self.log(request);
        }
    }

    /// The connection of an exchange has ended. What follows from that is done by the next turn:
    /// user code must not run in the middle of the core's work.
    pub fn abandon(&self, py: Python<'_>, exchange: ExchangeId, reason: CloseReason) {
        if let Some(entry) = self.pending.0.borrow_mut().get_mut(&exchange) {
            entry.gone = true;
            entry.request.get().disconnect(py, reason);
        }
        self.order(Order::Leave(exchange));
    }

    /// Ends what works on an exchange that nobody waits for any more.
    pub fn leave(&self, py: Python<'_>, exchange: ExchangeId) {
        let task = match self.pending.0.borrow().get(&exchange) {
            Some(entry) => entry.task.as_ref().map(|task| task.clone_ref(py)),
            None => return,
        };
        if let Some(task) = task
            && self.cancel_on_disconnect
            && let Err(error) = task.call_method0(py, intern!(py, "cancel"))
        {
            error.write_unraisable(py, None);
        }
    }

    /// Cancels everything that is not over, as at the deadline of a drain. False when there is
    /// nothing that an open connection waits for.
    pub fn cancel_pending(&self, py: Python<'_>) -> PyResult<bool> {
        let mut awaited = false;
        let mut tasks = Vec::new();
        for entry in self.pending.0.borrow().values() {
            awaited |= !entry.gone;
            tasks.extend(entry.task.as_ref().map(|task| task.clone_ref(py)));
        }
        for task in tasks {
            task.call_method0(py, intern!(py, "cancel"))?;
        }
        Ok(awaited)
    }

    /// Ends the exchange: the request's done callbacks run, unless they have.
    pub fn finish(&self, request: &Bound<'_, Request>, exchange: ExchangeId) {
        let entry = self.pending.0.borrow_mut().remove(&exchange);
        let context = entry.and_then(|entry| entry.context);
        let context = context.map(|context| context.into_bound(request.py()));
        context::within(request.py(), context, || Request::finish(request));
    }

    /// `finish`, for who knows only the exchange. Nothing happens when that is over.
    pub fn finish_exchange(&self, py: Python<'_>, exchange: ExchangeId) {
        if let Some(request) = self.request_of(py, exchange) {
            self.finish(&request, exchange);
        }
    }

    /// The request of an exchange that is not over.
    pub fn request_of<'py>(
        &self,
        py: Python<'py>,
        exchange: ExchangeId,
    ) -> Option<Bound<'py, Request>> {
        let pending = self.pending.0.borrow();
        Some(pending.get(&exchange)?.request.bind(py).clone())
    }

    /// Ends every exchange that no task works on: the worker has stopped, and what was ordered will
    /// not be done. The others end with their tasks.
    pub fn finish_all(&self, py: Python<'_>) {
        let pending = self.pending.0.borrow();
        let over = pending.iter().filter(|(_, entry)| entry.task.is_none());
        let over: Vec<ExchangeId> = over.map(|(exchange, _)| *exchange).collect();
        drop(pending);
        for exchange in over {
            self.finish_exchange(py, exchange);
        }
    }

    fn begin(
        &self,
        request: &Bound<'_, Request>,
        exchange: ExchangeId,
        change: impl FnOnce(&mut Exchange),
    ) {
        let mut pending = self.pending.0.borrow_mut();
        change(pending.entry(exchange).or_insert_with(|| Exchange {
            request: request.clone().unbind(),
            task: None,
            context: self.contexts.changed(request.py()),
            gone: false,
        }));
    }
}
