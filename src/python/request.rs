//! The request object: a window on the bytes that arrived, opened where the handler looks.
//!
//! Owns Japronto's attributes, each made on first access and then kept. Refuses to know who calls
//! the handler. While the handler runs, the object reads the core's request in place (the loan);
//! one that somebody still holds afterwards owns a copy. An object that nobody holds is used again
//! for the next request.

use std::cell::Ref;
use std::os::fd::RawFd;
use std::rc::Rc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::headers::{Headers, latin1};
use super::peers::Peer;
use super::raw::{GilCell, Loan};
use super::reader::BodyReader;
use super::routes::convert_values;
use super::shared::Shared;
use crate::protocol::percent::decode_path;
use crate::protocol::{RequestHead, Version};
use crate::router::Params;
use crate::server::{Body, CloseReason, ExchangeId, HeldBody};

/// A request, as a handler receives it.
///
/// Attributes are read-only and made on first access. An object may be kept after the handler has
/// returned.
#[pyclass(frozen, module = "anel")]
pub struct Request {
    pub(super) loan: GilCell<Loan>,
    pub(super) state: GilCell<State>,
}

/// What belongs to the current request.
pub(super) struct State {
    pub(super) shared: Rc<Shared>,
    pub(super) exchange: ExchangeId,
    pub(super) keep_alive: bool,
    pub(super) route: Option<usize>,
    pub(super) params: Params,
    pub(super) responded: bool,
    pub(super) kept: Option<Box<Kept>>,
    pub(super) made: Made,
}

/// A request that outlives its call.
pub(super) struct Kept {
    pub(super) head: RequestHead,
    pub(super) head_bytes: Vec<u8>,
    /// Until `body` has made a bytes object of it.
    pub(super) body: Option<HeldBody>,
    pub(super) peer: Option<Peer>,
}

/// What was asked of the current request.
#[derive(Default)]
pub(super) struct Made {
    pub(super) any: bool,
    /// Attributes.
    pub(super) values: [Option<Py<PyAny>>; ATTRIBUTES],
    pub(super) callbacks: Vec<Py<PyAny>>,
    /// What a streamed body is read through.
    pub(super) reader: Option<Py<BodyReader>>,
    /// The connection's socket, while it is known to be open after the handler's call.
    pub(super) socket: Option<RawFd>,
    /// Whether the exchange is over and the callbacks have been taken.
    pub(super) ended: bool,
    /// How the connection ended, if it ended before the exchange.
    pub(super) disconnect: Option<CloseReason>,
}

/// Places in `Made`.
#[derive(Clone, Copy)]
pub(super) enum Attribute {
    Method,
    Path,
    Query,
    Headers,
    MatchDict,
    Body,
    BodyView,
    Text,
    Json,
    Extra,
    Memo,
}
const ATTRIBUTES: usize = Attribute::Memo as usize + 1;

/// Said by `body` and what is made of it.
const UNREAD: &str = "the body of this request is streamed: use `await request.read()` or \
`request.stream()`, or register the route with stream=False";

#[pymethods]
impl Request {
    /// The method as sent, e.g. `"GET"`.
    #[getter]
    fn method(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Method, |py| {
            let method = slf
                .get()
                .read(py, |head, bytes| latin1(head.method.of(bytes)))?;
            Ok(PyString::intern(py, &method).into_any())
        })
    }

    /// The path, percent-decoded as UTF-8, without the query. Bytes that are not UTF-8 become
    /// U+FFFD.
    #[getter]
    fn path(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Path, |py| {
            let path = slf.get().read(py, |head, bytes| {
                String::from_utf8_lossy(&decode_path(head.path.of(bytes))).into_owned()
            })?;
            Ok(PyString::new(py, &path).into_any())
        })
    }

    /// What follows the first `?` of the target, as sent; None when there is none.
    #[getter]
    fn query_string(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.read(py, |head, bytes| {
            head.query.map(|query| latin1(query.of(bytes)))
        })
    }

    /// The query's parameters: a dict of the last value of each name, with `getall(name)`.
    #[getter]
    fn query(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Query, |py| {
            let query = slf.get().query_string(py)?.unwrap_or_default();
            py.import("anel.encoding")?
                .getattr("parse_query")?
                .call1((query,))
        })
    }

    /// `"1.0"` or `"1.1"`.
    #[getter]
    fn version(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.read(py, |head, _| match head.version {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        })
    }

    /// The header fields; names ignore case.
    #[getter]
    fn headers(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Headers, |py| {
            let shared = slf.get().state.borrow(py).shared.clone();
            let headers = slf.get().read(py, |head, bytes| {
                Headers::from_head(py, &shared.names, head, bytes)
            })??;
            Ok(headers.into_any())
        })
    }

    /// What the route's placeholders matched, as their types say; str without one.
    #[getter]
    fn match_dict(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::MatchDict, |py| {
            let dict = PyDict::new(py);
            let request = slf.get();
            let state = request.state.borrow(py);
            let Some(route) = state.route else {
                return Ok(dict.into_any());
            };
            let shared = state.shared.clone();
            let placeholders = shared.routes.table.pattern(route).placeholders();
            request.read(py, |head, bytes| -> PyResult<()> {
                let path = decode_path(head.path.of(bytes));
                for (placeholder, value) in placeholders.iter().zip(state.params.values(&path)) {
                    dict.set_item(&placeholder.name, String::from_utf8_lossy(value))?;
                }
                Ok(())
            })??;
            // Making values may run Python code; it must not find the state borrowed.
            drop(state);
            convert_values(placeholders, &dict)?;
            Ok(dict.into_any())
        })
    }

    /// The body; None when the request had none at all, `b""` when it was empty.
    #[getter]
    pub(super) fn body(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Body, |py| {
            let request = slf.get();
            if request.reader(py).is_some() {
                return Err(PyRuntimeError::new_err(UNREAD));
            }
            let body = match request.lent_body(py) {
                Some(body) => body,
                None => {
                    let mut state = request.state.borrow_mut(py);
                    let held = state.kept.as_mut().and_then(|kept| kept.body.take());
                    held.map(|held| PyBytes::new(py, &held))
                }
            };
            body.into_pyobject(py).map_err(Into::into)
        })
    }

    /// The body as a read-only memoryview on the bytes as they were received; None when the request
    /// had none. Where they came in one piece, a live view keeps a receive buffer in use.
    #[getter]
    fn body_view(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::BodyView, |_| Self::make_view(slf))
    }

    /// The body as text in `encoding`, or UTF-8; None when there is no body. Raises TextError, a
    /// UnicodeDecodeError, and CharsetError, a LookupError.
    #[getter]
    pub(super) fn text(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Text, |_| Self::make_text(slf))
    }

    /// The body's JSON value; None when there is no body. Raises JSONError, which is a
    /// json.JSONDecodeError, and what `text` raises.
    #[getter]
    fn json(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Json, |_| Self::make_json(slf))
    }

    /// The media type of the body without parameters, or None.
    #[getter]
    fn mime_type(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let value = self.content_type(py)?;
        let mime_type = value.as_deref().and_then(|value| value.split(';').next());
        Ok(mime_type.map(|mime_type| mime_type.trim().to_ascii_lowercase()))
    }

    /// The charset that Content-Type names, or None.
    #[getter]
    pub(super) fn encoding(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let value = self.content_type(py)?.unwrap_or_default();
        let charset = value.split(';').skip(1).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("charset")
                .then(|| value.trim().trim_matches('"').to_owned())
        });
        Ok(charset.filter(|charset| !charset.is_empty()))
    }

    /// Whether the connection goes on after this exchange.
    #[getter]
    fn keep_alive(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).keep_alive
    }

    /// The client's IP address: the peer's, or what a trusted proxy says. None when it is not known
    /// any more.
    #[getter]
    fn remote_addr(&self, py: Python<'_>) -> PyResult<Option<Py<PyString>>> {
        self.client(py)
    }

    /// The host that was asked for, of this server or of a trusted proxy, without port;
    /// internationalised names are decoded. None when none was.
    #[getter]
    fn hostname(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let Some((host, _)) = self.host(py)? else {
            return Ok(None);
        };
        if let Some(address) = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            return Ok(Some(address.to_owned()));
        }
        if !host
            .split('.')
            .any(|label| label.to_ascii_lowercase().starts_with("xn--"))
        {
            return Ok(Some(host));
        }
        // The codec knows its prefix in lower case only; names ignore case (RFC 4343).
        let lower = host.to_ascii_lowercase();
        let decoded = PyBytes::new(py, lower.as_bytes()).call_method1("decode", ("idna",));
        Ok(Some(
            decoded.and_then(|name| name.extract()).unwrap_or(host),
        ))
    }

    /// The port that was asked for; None when none was said.
    #[getter]
    fn port(&self, py: Python<'_>) -> PyResult<Option<u16>> {
        Ok(self.host(py)?.and_then(|(_, port)| port.parse().ok()))
    }

    /// The route that matched; None when none did.
    #[getter]
    fn route(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let state = self.state.borrow(py);
        Some(state.shared.routes.route_objects[state.route?].clone_ref(py))
    }

    /// The application that serves.
    #[getter]
    fn app(&self, py: Python<'_>) -> Py<PyAny> {
        self.state.borrow(py).shared.app.clone_ref(py)
    }

    /// A dict for whatever belongs to this request.
    #[getter]
    fn extra(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Extra, |py| Ok(PyDict::new(py).into_any()))
    }

    /// Where attributes that are written in Python keep what they made.
    #[getter]
    fn _memo(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Memo, |py| Ok(PyDict::new(py).into_any()))
    }

    /// What a streamed body is read through; None for a body that was gathered or is absent.
    #[getter]
    fn _reader<'py>(&self, py: Python<'py>) -> Option<Bound<'py, BodyReader>> {
        self.reader(py)
    }

    /// Makes a streamed body, read to its end, what `body` gives.
    fn _keep_body(slf: &Bound<'_, Self>, body: Bound<'_, PyBytes>) -> PyResult<()> {
        Self::make(slf, Attribute::Body, |_| Ok(body.into_any())).map(drop)
    }

    /// Has `callback(request)` called once, when the exchange is over: the response was rendered, a
    /// streamed one has ended, or the client is gone and the handler's task is done. Callbacks are
    /// called in order of registration. One that raises is logged.
    ///
    /// Raises TypeError for what is not callable or async, RuntimeError when the exchange is over.
    fn add_done_callback(slf: &Bound<'_, Self>, callback: Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        py.import("anel.request")?
            .call_method1("check_callback", (&callback,))?;
        let mut state = slf.get().state.borrow_mut(py);
        if state.made.ended {
            return Err(PyRuntimeError::new_err(
                "add_done_callback() came too late: the exchange is over",
            ));
        }
        state.made.any = true;
        state.made.callbacks.push(callback.unbind());
        Ok(())
    }

    /// How the connection ended, if it did before the exchange was over, e.g. `"peer_reset"`; else
    /// None.
    #[getter]
    fn disconnect_reason(&self, py: Python<'_>) -> Option<&'static str> {
        self.state
            .borrow(py)
            .made
            .disconnect
            .map(CloseReason::token)
    }

    /// Whether the connection ended before the exchange was over.
    fn is_disconnected(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).made.disconnect.is_some()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // What a user put into `extra` may refer to the request. The application and the routes are
        // the worker's, which holds them until it stops.
        if let Some(state) = self.state.visit() {
            let made = &state.made;
            for value in made.values.iter().flatten().chain(&made.callbacks) {
                visit.call(value)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self, py: Python<'_>) {
        let made = std::mem::take(&mut self.state.borrow_mut(py).made);
        drop(made);
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!(
            "<Request {} {}>",
            Self::method(slf)?,
            Self::path(slf)?
        ))
    }
}

impl Request {
    /// The connection's socket, if it is known to be open.
    pub(super) fn socket(&self, py: Python<'_>) -> Option<RawFd> {
        let lent = self
            .loan
            .borrow(py)
            .with(|request| request.map(|request| request.socket));
        lent.or_else(|| self.state.borrow(py).made.socket)
    }

    /// Shows the head, which must not lead back into Python: the state is borrowed meanwhile.
    pub fn read<R>(
        &self,
        py: Python<'_>,
        look: impl FnOnce(&RequestHead, &[u8]) -> R,
    ) -> PyResult<R> {
        let loan = self.loan.borrow(py);
        loan.with(|request| match request {
            Some(request) => Ok(look(request.head, request.head_bytes)),
            None => match &self.state.borrow(py).kept {
                Some(kept) => Ok(look(&kept.head, &kept.head_bytes)),
                None => Err(PyRuntimeError::new_err("the request is over")),
            },
        })
    }

    /// `Some(body)` while the loan is on.
    pub(super) fn lent_body<'py>(&self, py: Python<'py>) -> Option<Option<Bound<'py, PyBytes>>> {
        let loan = self.loan.borrow(py);
        loan.with(|request| {
            request.map(|request| match request.body {
                Body::Whole(body) => Some(PyBytes::new(py, body)),
                Body::Absent | Body::Arriving { .. } => None,
            })
        })
    }

    fn content_type(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.read(py, |head, bytes| {
            head.field(bytes, b"content-type").map(latin1)
        })
    }

    /// The attribute's value, made if this is the first time.
    fn make<'py>(
        slf: &Bound<'py, Self>,
        attribute: Attribute,
        make: impl FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let index = attribute as usize;
        let made = Ref::map(slf.get().state.borrow(py), |state| {
            &state.made.values[index]
        });
        if let Some(value) = &*made {
            return Ok(value.clone_ref(py));
        }
        drop(made);
        let value = make(py)?.unbind();
        let mut state = slf.get().state.borrow_mut(py);
        state.made.any = true;
        state.made.values[index] = Some(value.clone_ref(py));
        Ok(value)
    }
}
