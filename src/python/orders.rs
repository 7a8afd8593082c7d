//! What Python code wants of the core, written down until the core is free.
//!
//! Owns the queue of such orders and how each is carried out. Handlers, tasks and callbacks run
//! within a turn or between two; in both cases the core is not theirs to call. The next step of the
//! turn carries out what they ordered, in the order of asking. Refuses to know who asked.

use pyo3::prelude::*;

use super::dispatch::Dispatch;
use super::response::Response;
use super::shared::Shared;
use crate::reactor::Submit;
use crate::server::{ExchangeId, Worker};

/// Something to be done by the next step of the turn.
pub enum Order {
    /// Send the answer of an exchange whose handler had suspended.
    Answer(ExchangeId, Py<Response>),
    /// End what works for a client that is gone.
    Leave(ExchangeId),
}

impl Shared {
    /// Has the next step of the turn do this.
    pub fn order(&self, order: Order) {
        self.orders.borrow_mut().push(order);
    }

    /// Whether the next step has something to do before it may wait.
    pub fn has_orders(&self) -> bool {
        !self.orders.borrow().is_empty()
    }

    /// Does what was ordered until now. What is ordered meanwhile waits for the next call, so that
    /// nothing that orders itself anew can keep the turn.
    pub fn carry_out<S: Submit>(
        &self,
        worker: &mut Worker,
        _submit: &mut S,
        dispatch: &mut Dispatch<'_, '_>,
    ) {
        if !self.has_orders() {
            return;
        }
        let py = dispatch.py;
        dispatch.enter();
        for order in self.orders.take() {
            match order {
                Order::Answer(exchange, response) => {
                    let response = response.into_bound(py);
                    response.get().with_answer(py, |answer| {
                        worker.respond(exchange, answer, dispatch);
                    });
                    self.recycle_response(response);
                    self.finish_exchange(py, exchange);
                }
                Order::Leave(exchange) => self.leave(py, exchange),
            }
            self.contexts.renew(py);
        }
    }
}
