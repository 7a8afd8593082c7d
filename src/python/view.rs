//! `request.body_view`: a request's body without a copy.
//!
//! Owns the object behind the memoryview, which keeps the bytes alive, and the way back of receive
//! buffers: one that is let go of waits for the turn, because the reactor may be using its group
//! on another thread at that moment. Refuses to know what the body means.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

use super::raw::GilCell;
use super::request::{Attribute, Request};
use super::shared::Shared;
use crate::server::{self, HeldBody};

/// Bytes of a body, for the buffer protocol (`raw.rs` has its entry point).
#[pyclass(frozen, module = "anel._core")]
pub struct BodyBytes(GilCell<View>);

struct View {
    held: Option<HeldBody>,
    shared: Rc<Shared>,
}

/// Receive buffers that views hold, and those that views have let go of.
#[derive(Default)]
pub struct Views {
    held: Cell<usize>,
    held_max: usize,
    returned: RefCell<Vec<HeldBody>>,
}

impl Views {
    /// Views may hold a quarter of the receive buffers; beyond that they copy, so that a handler
    /// that collects views cannot stop the worker from receiving.
    pub fn new(buffers: usize) -> Self {
        Self {
            held_max: buffers / 4,
            ..Self::default()
        }
    }

    /// Gives the buffers back that views have let go of. Called on the worker's thread, with the
    /// GIL, outside of a wait.
    pub fn release(&self) {
        let returned = std::mem::take(&mut *self.returned.borrow_mut());
        self.held.set(self.held.get() - returned.len());
        drop(returned);
    }
}

impl BodyBytes {
    /// The bytes. They neither move nor change as long as the object lives.
    pub fn look<R>(&self, py: Python<'_>, look: impl FnOnce(&[u8]) -> R) -> R {
        look(self.0.borrow(py).held.as_deref().unwrap_or_default())
    }

    fn new(py: Python<'_>, shared: &Rc<Shared>, mut held: HeldBody) -> PyResult<Py<Self>> {
        let views = &shared.views;
        if held.holds_buffer() && views.held.get() >= views.held_max {
            held = HeldBody::copied(&held);
        }
        if held.holds_buffer() {
            views.held.set(views.held.get() + 1);
        }
        let view = View {
            held: Some(held),
            shared: Rc::clone(shared),
        };
        Py::new(py, Self(GilCell::new(view)))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(held) = self.held.take().filter(HeldBody::holds_buffer) {
            self.shared.views.returned.borrow_mut().push(held);
        }
    }
}

impl Request {
    /// A view of the body; None when there is no body.
    pub(super) fn make_view<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let request = slf.get();
        let Some(held) = request.hold_body(py) else {
            // Absent, streamed, or bytes by now: what `body` says holds for its view.
            let body = Self::body(slf)?.into_bound(py);
            return if body.is_none() {
                Ok(body)
            } else {
                Ok(PyMemoryView::from(&body)?.into_any())
            };
        };
        let shared = request.shared(py);
        let bytes = BodyBytes::new(py, &shared, held)?;
        Ok(PyMemoryView::from(bytes.bind(py))?.into_any())
    }

    /// The whole body, kept alive, unless it is absent, streamed, or a bytes object by now.
    fn hold_body(&self, py: Python<'_>) -> Option<HeldBody> {
        let state = self.state.borrow(py);
        if state.made.values[Attribute::Body as usize].is_some() {
            return None;
        }
        let lent = |request: Option<&server::Request<'_>>| request.map(server::Request::hold_body);
        match self.loan.borrow(py).with(lent) {
            Some(held) => held,
            None => state.kept.as_ref()?.body.clone(),
        }
    }
}
