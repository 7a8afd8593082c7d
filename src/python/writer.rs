//! What an async producer writes the body of its response through.
//!
//! Owns how much of it is on its way and when the producer has to wait. Refuses to know what it
//! writes: pieces are ordered, and the turn sends them.

use std::cell::Cell;
use std::rc::Rc;

use pyo3::prelude::*;

use super::errors::anel_error;
use super::orders::Order;
use super::raw::GilCell;
use super::shared::Shared;
use super::stream::Pieces;
use super::waiter::Waiter;
use crate::server::{ExchangeId, Flow};

/// The body of one streamed response, for `anel.streaming`.
#[pyclass(frozen, module = "anel._core")]
pub struct BodyWriter {
    state: GilCell<State>,
    waiter: Waiter,
}

struct State {
    shared: Rc<Shared>,
    exchange: ExchangeId,
    pieces: Pieces,
    /// Bytes ordered and not yet taken by the core.
    ordered_bytes: Cell<usize>,
    /// Whether the core has asked for a rest.
    rests: Cell<bool>,
    gone: Cell<bool>,
    ended: Cell<bool>,
}

#[pymethods]
impl BodyWriter {
    /// Sends a piece, bytes or str. False when the producer should wait until `has_room`. Raises
    /// TypeError, ValueError when that is more than the length, ClientDisconnected when nobody
    /// reads it any more.
    fn write(&self, piece: Bound<'_, PyAny>) -> PyResult<bool> {
        let py = piece.py();
        let state = self.state.borrow(py);
        if state.gone.get() || state.ended.get() {
            let reason = "the client of a streamed response is gone";
            return Err(anel_error(py, "ClientDisconnected", (reason,)));
        }
        let piece = state.pieces.take(piece)?;
        let length = piece.as_bytes().len();
        if length > 0 {
            state.ordered_bytes.set(state.ordered_bytes.get() + length);
            state
                .shared
                .order(Order::Piece(state.exchange, piece.unbind()));
        }
        Ok(state.has_room())
    }

    /// Whether more may be written.
    fn has_room(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).has_room()
    }

    /// Has a future's result set when there may be room again.
    fn wait(&self, future: Bound<'_, PyAny>) {
        self.waiter.wait(future);
    }

    /// The body is complete. Raises ValueError when it is shorter than its length.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.state.borrow(py).pieces.finish()?;
        self.settle(py, Order::EndBody);
        Ok(())
    }

    /// Ends the connection, unless the body has ended: for everything that goes wrong.
    fn abort(&self, py: Python<'_>) {
        self.settle(py, Order::AbortBody);
    }
}

impl BodyWriter {
    pub fn new(shared: Rc<Shared>, exchange: ExchangeId, pieces: Pieces) -> Self {
        Self {
            state: GilCell::new(State {
                shared,
                exchange,
                pieces,
                ordered_bytes: Cell::new(0),
                rests: Cell::new(false),
                gone: Cell::new(false),
                ended: Cell::new(false),
            }),
            waiter: Waiter::default(),
        }
    }

    /// The core has taken so many bytes.
    pub fn on_taken(&self, py: Python<'_>, bytes: usize, flow: Flow) {
        let state = self.state.borrow(py);
        let ordered_bytes = state.ordered_bytes.get().saturating_sub(bytes);
        state.ordered_bytes.set(ordered_bytes);
        state.rests.set(flow == Flow::Wait);
        self.wake_if_room(py);
    }

    /// The core has room again.
    pub fn on_writable(&self, py: Python<'_>) {
        self.state.borrow(py).rests.set(false);
        self.wake_if_room(py);
    }

    /// The connection has ended.
    pub fn on_gone(&self, py: Python<'_>) {
        self.state.borrow(py).gone.set(true);
        self.waiter.wake(py);
    }

    fn wake_if_room(&self, py: Python<'_>) {
        if self.state.borrow(py).has_room() {
            self.waiter.wake(py);
        }
    }

    /// Ends the body one way or the other, once.
    fn settle(&self, py: Python<'_>, order: impl FnOnce(ExchangeId) -> Order) {
        let state = self.state.borrow(py);
        if state.ended.replace(true) {
            return;
        }
        let (shared, exchange) = (state.shared.clone(), state.exchange);
        drop(state);
        shared.end_task(exchange);
        if shared.stopped.get() {
            shared.finish_exchange(py, exchange);
        } else {
            shared.order(order(exchange));
        }
    }
}

impl State {
    fn has_room(&self) -> bool {
        let waits = self.rests.get() || self.ordered_bytes.get() >= ORDERED_BYTES_MAX;
        self.gone.get() || !waits
    }
}

/// Bytes that a producer may be ahead of the core: as much as the core takes at once
/// (`stream_owed_bytes_max`).
const ORDERED_BYTES_MAX: usize = 64 * 1024;
