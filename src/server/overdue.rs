//! Handlers that take too long.
//!
//! Owns the time that a handler has which answered "later", and what follows: it is told once, so
//! that it can be cancelled and answer for itself; if it does not, the peer gets a 503 and the
//! connection ends. A handler that never gives up the thread cannot be told anything, and one whose
//! answer has begun is bound by the peer alone. Refuses to know how a handler is cancelled.

use super::handler::{ExchangeId, Handler};
use super::incoming::Incoming;
use super::queue::{Awaited, Queue};
use super::worker::Worker;
use crate::protocol::{Answer, CloseReason, Limits, Payload};

/// When the next of the awaited answers of a connection is late. The handler that a body is on its
/// way to waits for the peer: its time begins when the body is complete.
pub(super) fn next_at_ms(
    queue: &Queue,
    incoming: Option<&Incoming>,
    limits: &Limits,
) -> Option<u64> {
    if limits.handler_timeout_ms == 0 {
        return None;
    }
    queue
        .awaited()
        .filter(|(sequence, _)| !is_arriving(*sequence, incoming))
        .map(|(_, awaited)| due_ms(awaited, limits))
        .min()
}

impl Worker {
    /// Tells the handlers of a connection that are late; ends those that were told before.
    pub(super) fn on_overdue<H: Handler>(&mut self, slot: u32, handler: &mut H) {
        let now_ms = self.shared.now_ms;
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        let generation = connection.generation;
        let due: Vec<(u32, Awaited)> = connection
            .queue
            .awaited()
            .filter(|(sequence, _)| !is_arriving(*sequence, connection.incoming.as_deref()))
            .filter(|(_, awaited)| due_ms(*awaited, &self.shared.limits) <= now_ms)
            .collect();
        for (sequence, awaited) in due {
            let exchange = ExchangeId {
                slot,
                generation,
                sequence,
            };
            if awaited.is_overdue {
                self.give_up(exchange, handler);
            } else {
                self.tell(exchange, handler);
            }
        }
        self.mark(slot);
    }

    fn tell<H: Handler>(&mut self, exchange: ExchangeId, handler: &mut H) {
        let connection = self.connections.get_mut(exchange.slot as usize);
        let awaited = connection.and_then(|c| c.queue.awaited_mut(exchange.sequence));
        if let Some(awaited) = awaited {
            awaited.is_overdue = true;
            awaited.since_ms = self.shared.now_ms;
            self.shared.counters.handlers_overdue_total += 1;
            handler.on_overdue(exchange);
        }
    }

    fn give_up<H: Handler>(&mut self, exchange: ExchangeId, handler: &mut H) {
        let connection = self.connections.get_mut(exchange.slot as usize);
        if connection.is_some_and(|c| c.queue.context(exchange.sequence).is_some()) {
            self.respond(exchange, &UNAVAILABLE, handler);
            handler.on_abandoned(exchange, CloseReason::HandlerDeadline);
        }
    }
}

fn is_arriving(sequence: u32, incoming: Option<&Incoming>) -> bool {
    incoming.is_some_and(|incoming| incoming.sequence == sequence)
}

fn due_ms(awaited: Awaited, limits: &Limits) -> u64 {
    let timeout_ms = limits.handler_timeout_ms;
    let time_ms = if awaited.is_overdue {
        timeout_ms.min(CANCELLED_MS_MAX)
    } else {
        timeout_ms
    };
    awaited.since_ms.saturating_add(time_ms)
}

/// The answer in place of a handler's that does not end.
const UNAVAILABLE: Answer<'static> = Answer {
    status: 503,
    content_type: Some(b"text/plain; charset=utf-8"),
    fields: b"",
    payload: Payload::Whole(b"Service unavailable"),
    close: true,
};

/// How long a handler that was cancelled may take to answer, at most; else as long as it had. It
/// has to roll back a transaction, not to finish its work. 5 s is arbitrary.
const CANCELLED_MS_MAX: u64 = 5_000;
