//! Exchanges that outlive the call of their handler.
//!
//! Owns which they are, what works on each of them, and their end: done callbacks run once, when
//! nothing of the exchange is left to do. Refuses to know how answers are made and sent. An entry
//! begins with a task, a streamed response or a streamed request body, whichever comes first; it
//! stays until the task is done, even if the client is gone by then.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

use pyo3::exceptions::asyncio::CancelledError;
use pyo3::intern;
use pyo3::prelude::*;

use super::answer;
use super::context;
use super::errors::is_client_disconnected;
use super::measures::Answered;
use super::orders::Order;
use super::reader::BodyReader;
use super::request::Request;
use super::shared::Shared;
use super::stream::{self, Producer};
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
    /// The handler's or the producer's, as long as it runs.
    task: Option<Py<PyAny>>,
    /// What makes the body of a streamed response.
    producer: Option<Producer>,
    /// What the handler has set is to be seen at the end too. None: nothing.
    context: Option<Py<PyAny>>,
    /// When its handler was called, until it has ended; for a worker that measures it.
    called: Option<Instant>,
    /// Whether the connection has ended.
    gone: bool,
}

impl Shared {
    /// Whether something of this exchange is still to be done after its handler's call.
    pub fn is_pending(&self, exchange: ExchangeId) -> bool {
        self.pending.0.borrow().contains_key(&exchange)
    }

    /// How many there are.
    pub fn requests_pending(&self) -> usize {
        self.pending.0.borrow().len()
    }

    /// The handler of an exchange has suspended that was called then.
    pub fn called_at(&self, exchange: ExchangeId, called: Instant) {
        if let Some(entry) = self.pending.0.borrow_mut().get_mut(&exchange) {
            entry.called = Some(called);
        }
    }

    /// A handler has suspended: its answer will come from this task, through `complete`.
    pub fn begin_task(&self, request: &Bound<'_, Request>, exchange: ExchangeId, task: Py<PyAny>) {
        self.begin(request, exchange, |entry| entry.task = Some(task));
    }

    /// A request has begun whose body will be streamed.
    pub fn begin_body(&self, request: &Bound<'_, Request>, exchange: ExchangeId) {
        let py = request.py();
        match Py::new(py, BodyReader::new(request.get().shared(py), exchange)) {
            Ok(reader) => request.get().begin_body(py, reader),
            Err(error) => return error.write_unraisable(py, Some(request)),
        }
        self.begin(request, exchange, |_entry| ());
    }

    /// The body of a streamed response is going to be made.
    pub fn begin_producer(
        &self,
        request: &Bound<'_, Request>,
        exchange: ExchangeId,
        producer: Producer,
    ) {
        self.begin(request, exchange, |entry| entry.producer = Some(producer));
    }

    /// What makes the body of a streamed response, while it does.
    pub fn producer<'py>(
        &self,
        py: Python<'py>,
        exchange: ExchangeId,
    ) -> Option<(Bound<'py, Request>, Producer)> {
        let pending = self.pending.0.borrow();
        let entry = pending.get(&exchange)?;
        let producer = entry.producer.as_ref()?.clone();
        Some((entry.request.bind(py).clone(), producer))
    }

    /// The task of a handler has come to its end. Its answer leaves with the next turn.
    pub fn complete<'py>(
        &self,
        request: &Bound<'py, Request>,
        exchange: ExchangeId,
        result: PyResult<Bound<'py, PyAny>>,
    ) {
        let py = request.py();
        let gone = self.end_task(exchange);
        let tells_the_same = |error: &PyErr| {
            error.is_instance_of::<CancelledError>(py) || is_client_disconnected(py, error)
        };
        if gone && result.as_ref().is_err_and(tells_the_same) {
            // Nobody waits for an answer, and nobody is told of what every client may do.
            return self.finish(request, exchange);
        }
        let response = answer::from_outcome(self, request, result);
        if self.stopped.get() {
            return self.finish(request, exchange);
        }
        if let Some(context) = self.context_of_ending(request) {
            self.end_in(exchange, context);
        }
        let context = stream::context_of(&response);
        self.order(py, Order::Answer(exchange, response.unbind(), context));
        if !gone {
            self.log(request);
        }
    }

    /// Chooses the context for what is done at the end of an exchange.
    pub fn end_in(&self, exchange: ExchangeId, context: Py<PyAny>) {
        if let Some(entry) = self.pending.0.borrow_mut().get_mut(&exchange) {
            entry.context = Some(context);
        }
    }

    /// The task of an exchange has nothing more to do. True when the client is gone.
    pub fn end_task(&self, exchange: ExchangeId) -> bool {
        match self.pending.0.borrow_mut().get_mut(&exchange) {
            Some(entry) => {
                entry.task = None;
                if let (Some(measures), Some(called)) = (&self.measures, entry.called.take()) {
                    measures.on_handled(Answered::Later, called.elapsed());
                }
                entry.gone
            }
            None => true,
        }
    }

    /// The connection of an exchange has ended. What follows from that is done by the next turn:
    /// user code must not run in the middle of the core's work.
    pub fn abandon(&self, py: Python<'_>, exchange: ExchangeId, reason: CloseReason) {
        if let Some(entry) = self.pending.0.borrow_mut().get_mut(&exchange) {
            entry.gone = true;
            entry.request.get().disconnect(py, reason);
        }
        self.order(py, Order::Leave(exchange));
    }

    /// Ends what works on an exchange that nobody waits for any more.
    pub fn leave(&self, py: Python<'_>, exchange: ExchangeId) {
        let producer = match self.producer(py, exchange) {
            Some((_, Producer::Pulled(_))) => return self.close_producer(py, exchange),
            Some((_, Producer::Written(writer))) => Some(writer),
            None => None,
        };
        if let Some(writer) = &producer {
            writer.get().on_gone(py);
        }
        let pending = self.pending.0.borrow();
        let task = pending.get(&exchange).and_then(|entry| entry.task.as_ref());
        let task = task.map(|task| task.clone_ref(py));
        drop(pending);
        // A producer has nothing to do but to serve the client; a handler may.
        if let Some(task) = task
            && (producer.is_some() || self.cancel_on_disconnect)
            && let Err(error) = task.call_method0(py, intern!(py, "cancel"))
        {
            error.write_unraisable(py, None);
        }
    }

    /// The time of a handler is up. What it raises when it is cancelled is answered as any failure.
    pub fn hurry(&self, py: Python<'_>, exchange: ExchangeId) {
        let pending = self.pending.0.borrow();
        let Some(entry) = pending.get(&exchange) else {
            return;
        };
        let request = entry.request.bind(py).clone();
        let task = entry.task.as_ref().map(|task| task.clone_ref(py));
        drop(pending);
        let Some(task) = task else { return };
        let told = py
            .import("anel.request")
            .and_then(|module| module.call_method1("log_overdue", (request,)));
        let cancelled = task.call_method0(py, intern!(py, "cancel"));
        for error in [told.err(), cancelled.err()].into_iter().flatten() {
            error.write_unraisable(py, None);
        }
    }

    /// Cancels everything that is not over, as at the deadline of a drain. False when there is
    /// nothing that an open connection waits for.
    pub fn cancel_pending(&self, py: Python<'_>) -> PyResult<bool> {
        let mut awaited = false;
        let mut tasks = Vec::new();
        for (exchange, entry) in self.pending.0.borrow().iter() {
            awaited |= !entry.gone;
            tasks.extend(entry.task.as_ref().map(|task| task.clone_ref(py)));
            if let Some(Producer::Pulled(_)) = entry.producer {
                self.order(py, Order::AbortBody(*exchange));
            }
        }
        for task in tasks {
            task.call_method0(py, intern!(py, "cancel"))?;
        }
        Ok(awaited)
    }

    /// Ends the exchange: the request's done callbacks run, unless they have.
    pub fn finish(&self, request: &Bound<'_, Request>, exchange: ExchangeId) {
        let entry = self.pending.0.borrow_mut().remove(&exchange);
        let py = request.py();
        // An exchange that ends within the call of its handler is in its context still.
        let context = entry
            .and_then(|entry| entry.context)
            .filter(|context| !self.contexts.is_entered(context))
            .map(|context| context.into_bound(py));
        context::within(py, context, || Request::finish(request));
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
            self.close_producer(py, exchange);
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
        let entry = pending.entry(exchange).or_insert_with(|| Exchange {
            request: request.clone().unbind(),
            task: None,
            producer: None,
            context: None,
            called: None,
            gone: false,
        });
        if entry.context.is_none() {
            // A request body begins before its handler has set anything.
            entry.context = self.contexts.changed(request.py());
        }
        change(entry);
    }
}
