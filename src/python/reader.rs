//! What a handler reads the streamed body of its request through.
//!
//! Owns the bytes that arrived and were not read, and how the body ended. Refuses to know the wire.
//! Nothing arrives before it is asked for, and the core rests while the buffer is full, so that a
//! client can send no faster than the handler reads.

use std::rc::Rc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::errors::anel_error;
use super::orders::Order;
use super::raw::GilCell;
use super::shared::Shared;
use super::waiter::Waiter;
use crate::protocol::ProtocolError;
use crate::server::{BodyPiece, ExchangeId, Flow};

/// The body of one streamed request, for `anel.request`.
#[pyclass(frozen, module = "anel._core")]
pub struct BodyReader {
    state: GilCell<State>,
    waiter: Waiter,
}

struct State {
    shared: Rc<Shared>,
    exchange: ExchangeId,
    buffer: Vec<u8>,
    /// Whether the core was asked for more and has not been told to rest since.
    asked: bool,
    /// Whether somebody reads, or has read.
    claimed: bool,
    end: Option<End>,
}

/// How the body ended.
#[derive(Clone, Copy)]
enum End {
    Complete,
    Failed(ProtocolError),
    /// The client is gone.
    Gone,
    /// The exchange was over before the body was read.
    Over,
}

#[pymethods]
impl BodyReader {
    /// Begins to read. RuntimeError the second time: what was read is not kept. A body that failed
    /// fails again.
    fn claim(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state.borrow_mut(py);
        if state.claimed && !matches!(state.end, Some(End::Failed(_) | End::Gone)) {
            return Err(PyRuntimeError::new_err(
                "the body of this request was streamed already; it can be read once",
            ));
        }
        state.claimed = true;
        Ok(())
    }

    /// What is there; None when that is nothing yet, `b""` at the end. Raises BodyError when the
    /// body will never be complete, ClientDisconnected when the client is gone, RuntimeError when
    /// the exchange is over.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut state = self.state.borrow_mut(py);
        if state.end.is_none() && !state.asked {
            state.asked = true;
            state.shared.order(Order::ReadBody(state.exchange));
        }
        if !state.buffer.is_empty() {
            let bytes = PyBytes::new(py, &state.buffer);
            state.buffer.clear();
            return Ok(Some(bytes));
        }
        match state.end {
            None => Ok(None),
            Some(End::Complete) => Ok(Some(PyBytes::new(py, b""))),
            Some(End::Failed(error)) => {
                let arguments = (error.status(), error.token());
                Err(anel_error(py, "BodyError", arguments))
            }
            Some(End::Gone) => {
                let reason = "the client went away while its request was read";
                Err(anel_error(py, "ClientDisconnected", (reason,)))
            }
            Some(End::Over) => Err(PyRuntimeError::new_err(
                "the request was answered before its body was read",
            )),
        }
    }

    /// Has a future's result set when `take` may have more to give.
    fn wait(&self, future: Bound<'_, PyAny>) {
        self.waiter.wait(future);
    }
}

impl BodyReader {
    pub fn new(shared: Rc<Shared>, exchange: ExchangeId) -> Self {
        Self {
            state: GilCell::new(State {
                shared,
                exchange,
                buffer: Vec::new(),
                asked: false,
                claimed: false,
                end: None,
            }),
            waiter: Waiter::default(),
        }
    }

    /// More has arrived, or the body has ended.
    pub fn on_piece(&self, py: Python<'_>, piece: BodyPiece<'_>) -> Flow {
        let mut state = self.state.borrow_mut(py);
        if state.end.is_some() {
            return Flow::Gone;
        }
        match piece {
            BodyPiece::Bytes(bytes) => state.buffer.extend_from_slice(bytes),
            BodyPiece::End => state.end = Some(End::Complete),
            BodyPiece::Failed(error) => state.end = Some(End::Failed(error)),
        }
        let full = state.buffer.len() >= BUFFER_BYTES_MAX;
        state.asked = !full;
        drop(state);
        self.waiter.wake(py);
        if full { Flow::Wait } else { Flow::Go }
    }

    /// The client is gone; what arrived can still be read.
    pub fn on_gone(&self, py: Python<'_>) {
        self.state.borrow_mut(py).end.get_or_insert(End::Gone);
        self.waiter.wake(py);
    }

    /// The exchange is over: lets go of what was not read.
    pub fn on_over(&self, py: Python<'_>) {
        let mut state = self.state.borrow_mut(py);
        state.end = Some(End::Over);
        state.buffer = Vec::new();
        drop(state);
        self.waiter.wake(py);
    }
}

/// Bytes that may wait for the handler, beyond which the core rests. A receive buffer more may come
/// on top. 256 KiB is what a connection may owe its peer in the other direction.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
