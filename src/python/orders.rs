//! What Python code wants of the core, written down until the core is free.
//!
//! Owns the queue of such orders and how each is carried out. Handlers, tasks and callbacks run
//! within a turn or between two; in both cases the core is not theirs to call. The next step of the
//! turn carries out what they ordered, in the order of asking. Refuses to know who asked.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::dispatch::Dispatch;
use super::response::Response;
use super::shared::Shared;
use super::stream::{self, Producer};
use crate::server::{ExchangeId, Given, Worker};

/// Something to be done by the next step of the turn.
pub enum Order {
    /// Send the answer of an exchange whose handler had suspended; a stream goes on in the
    /// handler's context.
    Answer(ExchangeId, Py<Response>, Option<Py<PyAny>>),
    /// Take more from the sync iterator of a streamed response.
    Pull(ExchangeId),
    /// Send a piece of a streamed response.
    Piece(ExchangeId, Py<PyBytes>),
    /// The body of a streamed response is complete.
    EndBody(ExchangeId),
    /// It will never be: end the connection.
    AbortBody(ExchangeId),
    /// Go on with the body of a streamed request.
    ReadBody(ExchangeId),
    /// End what works for a client that is gone.
    Leave(ExchangeId),
    /// Cancel the handler of an exchange whose time is up.
    Hurry(ExchangeId),
}

impl Shared {
    /// Has the next step of the turn do this.
    pub fn order(&self, py: Python<'_>, order: Order) {
        self.orders.borrow_mut().push(order);
        self.guest.ask_for_turn(py);
    }

    /// Whether the next step has something to do before it may wait.
    pub fn has_orders(&self) -> bool {
        !self.orders.borrow().is_empty()
    }

    /// Does what was ordered until now. What is ordered meanwhile waits for the next call, so that
    /// nothing that orders itself anew can keep the turn.
    pub fn carry_out(&self, worker: &mut Worker, dispatch: &mut Dispatch<'_, '_>) {
        if !self.has_orders() {
            return;
        }
        let py = dispatch.py;
        dispatch.enter();
        for order in self.orders.take() {
            match order {
                Order::Answer(exchange, response, context) => {
                    let response = (response.into_bound(py), context);
                    self.send_answer(exchange, response, worker, dispatch);
                }
                Order::Pull(exchange) => self.pull(exchange, worker, dispatch),
                Order::Piece(exchange, piece) => {
                    let piece = piece.bind(py).as_bytes();
                    let flow = worker.send_body(exchange, piece);
                    if let Some((_, Producer::Written(writer))) = self.producer(py, exchange) {
                        writer.get().on_taken(py, piece.len(), flow);
                    }
                }
                Order::EndBody(exchange) => self.end_body(exchange, worker, dispatch),
                Order::AbortBody(exchange) => self.abort_body(exchange, worker, dispatch),
                Order::ReadBody(exchange) => worker.read_body(exchange, dispatch),
                Order::Leave(exchange) => self.leave(py, exchange),
                Order::Hurry(exchange) => self.hurry(py, exchange),
            }
            self.contexts.renew(py);
        }
    }

    fn send_answer<'py>(
        &self,
        exchange: ExchangeId,
        (response, context): (Bound<'py, Response>, Option<Py<PyAny>>),
        worker: &mut Worker,
        dispatch: &mut Dispatch<'_, 'py>,
    ) {
        let py = dispatch.py;
        let Some(request) = self.request_of(py, exchange) else {
            return;
        };
        let (response, opened) = stream::opened(self, &request, response, context);
        let (status, given) = response.get().with_answer(py, |answer| {
            (answer.status, worker.respond(exchange, answer, dispatch))
        });
        if let Some(measures) = &self.measures
            && given != Given::Gone
        {
            measures.on_response(status);
        }
        self.recycle_response(response);
        match opened {
            Some(opened) if given == Given::Streaming => {
                return self.begin_stream(&request, exchange, opened);
            }
            Some(opened) => opened.discard(self, &request),
            None => {}
        }
        self.finish(&request, exchange);
    }
}
