//! The request object: a window on the bytes that arrived, opened where the handler looks.
//!
//! Owns Japronto's attributes, each made on first access and then kept. Refuses to know who calls
//! the handler. While the handler runs, the object reads the core's request in place (the loan);
//! one that somebody still holds afterwards owns a copy. An object that nobody holds is used again
//! for the next request.

use std::cell::Ref;
use std::rc::Rc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::headers::{Headers, latin1};
use super::raw::{GilCell, Loan};
use super::routes::convert_values;
use super::shared::Shared;
use crate::protocol::percent::decode_path;
use crate::protocol::{RequestHead, Version};
use crate::router::Params;
use crate::server::{self, Body, ExchangeId};

/// A request, as a handler receives it.
///
/// Attributes are read-only and made on first access. An object may be kept after the handler has
/// returned.
#[pyclass(frozen, module = "anel")]
pub struct Request {
    loan: GilCell<Loan>,
    state: GilCell<State>,
}

/// What belongs to the current request.
struct State {
    shared: Rc<Shared>,
    exchange: ExchangeId,
    keep_alive: bool,
    route: Option<usize>,
    params: Params,
    responded: bool,
    kept: Option<Box<Kept>>,
    made: Made,
}

/// A request that outlives its call.
struct Kept {
    head: RequestHead,
    head_bytes: Vec<u8>,
    body: Option<Py<PyBytes>>,
    remote_addr: Option<Py<PyString>>,
}

/// Attributes that were asked for.
#[derive(Default)]
struct Made {
    any: bool,
    values: [Option<Py<PyAny>>; ATTRIBUTES],
}

/// Places in `Made`.
#[derive(Clone, Copy)]
enum Attribute {
    Method,
    Path,
    Query,
    Headers,
    MatchDict,
    Body,
    Text,
    Json,
    Extra,
}
const ATTRIBUTES: usize = Attribute::Extra as usize + 1;

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
    fn body(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Body, |py| {
            let request = slf.get();
            let body = match request.lent_body(py) {
                Some(body) => body,
                None => {
                    let state = request.state.borrow(py);
                    let body = state.kept.as_ref().and_then(|kept| kept.body.as_ref());
                    body.map(|body| body.bind(py).clone())
                }
            };
            body.into_pyobject(py).map_err(Into::into)
        })
    }

    /// The body as text in `encoding`, or UTF-8; None when there is no body.
    #[getter]
    fn text(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Text, |py| {
            let body = Self::body(slf)?.into_bound(py);
            if body.is_none() {
                return Ok(body);
            }
            let encoding = slf.get().encoding(py)?;
            body.call_method1("decode", (encoding.as_deref().unwrap_or("utf-8"),))
        })
    }

    /// The body's JSON value; None when there is no body. Raises json.JSONDecodeError.
    #[getter]
    fn json(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::make(slf, Attribute::Json, |py| {
            let text = Self::text(slf)?.into_bound(py);
            if text.is_none() {
                return Ok(text);
            }
            py.import("anel.encoding")?.getattr("loads")?.call1((text,))
        })
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
    fn encoding(&self, py: Python<'_>) -> PyResult<Option<String>> {
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

    /// The peer's IP address; None when it is not known any more.
    #[getter]
    fn remote_addr<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        let socket = self
            .loan
            .borrow(py)
            .with(|request| request.map(|request| request.socket));
        let state = self.state.borrow(py);
        match &state.kept {
            // The slot may be another connection's by now.
            Some(kept) if socket.is_none() => Some(kept.remote_addr.as_ref()?.bind(py).clone()),
            _ => state.shared.peer(py, state.exchange, socket),
        }
    }

    /// The host that was asked for, without port, internationalised names decoded; None when none
    /// was.
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

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // What a user put into `extra` may refer to the request. The application and the routes are
        // the worker's, which holds them until it stops.
        if let Some(state) = self.state.visit() {
            for value in state.made.values.iter().flatten() {
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
        if !params.is_empty() || !state.params.is_empty() {
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

    /// Copies what the loan shows: for an object that somebody holds beyond the call.
    pub fn keep(&self, py: Python<'_>) {
        let body = self.lent_body(py).flatten().map(Bound::unbind);
        // The peer is asked now: later, its descriptor may be another's.
        let remote_addr = self.remote_addr(py).map(Bound::unbind);
        let kept = self.loan.borrow(py).with(|request| {
            request.map(|request| {
                Box::new(Kept {
                    head: request.head.clone(),
                    head_bytes: request.head_bytes.to_vec(),
                    body,
                    remote_addr,
                })
            })
        });
        self.state.borrow_mut(py).kept = kept;
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

    /// What the request shares with all others of its worker.
    pub fn shared(&self, py: Python<'_>) -> Rc<Shared> {
        self.state.borrow(py).shared.clone()
    }

    /// Allows another response: the handler has failed, and what it made will not be sent.
    pub fn allow_response(&self, py: Python<'_>) {
        self.state.borrow_mut(py).responded = false;
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
    fn lent_body<'py>(&self, py: Python<'py>) -> Option<Option<Bound<'py, PyBytes>>> {
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

    /// Host and port as sent; the port is empty when there is none.
    fn host(&self, py: Python<'_>) -> PyResult<Option<(String, String)>> {
        let host = self.read(py, |head, bytes| {
            head.host.map(|host| latin1(host.of(bytes)))
        })?;
        Ok(host.filter(|host| !host.is_empty()).map(|host| {
            let bracket = host.rfind(']').unwrap_or(0);
            match host[bracket..].rfind(':') {
                Some(colon) => {
                    let (name, port) = host.split_at(bracket + colon);
                    (name.to_owned(), port[1..].to_owned())
                }
                None => (host, String::new()),
            }
        }))
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
