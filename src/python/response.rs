//! The response object: what a handler wants to be sent.
//!
//! Owns Japronto's constructor contract, repaired: every mistake is an exception where the response
//! is made, and nothing can be wrong any more when it is sent. Refuses to know connections.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyInt, PyMemoryView, PyString};

use super::arguments::{Arguments, Value};
use super::headers::{latin1, push_cookies, push_headers};
use super::raw::{GilCell, Utf8};
use super::response_headers::ResponseHeaders;
use super::shared::Shared;
use super::stream::{Opened, Stream};
use crate::protocol::{Answer, Payload};

/// A response to a request.
///
/// May be kept and returned any number of times; a change of its `headers` concerns every time that
/// follows.
///
/// Args:
///     text: Sent encoded, as text/plain unless `mime_type` says otherwise.
///     code: Status code, 200 to 599; 200 if omitted. Aliases: `status`, `status_code`.
///     body: Bytes, sent as application/octet-stream unless `mime_type` says otherwise.
///     json: Any value that `json.dumps` takes; sent as application/json, by the engine that
///         `anel.encoding` chose.
///     mime_type: The media type of the body.
///     encoding: The charset of `text`, also said in Content-Type; utf-8 if omitted.
///     headers: A mapping, or pairs, of str to str.
///     cookies: An `http.cookies.SimpleCookie`; one Set-Cookie line per morsel.
///     stream: An iterable or async iterable of bytes or str, sent piece by piece, as
///         application/octet-stream unless `mime_type` says otherwise. An iterator is closed when
///         the response has ended, whatever the reason, and can be sent once.
///     length: How many bytes the stream has, for Content-Length; chunked if omitted.
///
/// Raises:
///     TypeError: A value has the wrong type.
///     ValueError: A status outside 200-599, a header that could forge a line, two kinds of body,
///         a length without a stream.
#[pyclass(frozen, module = "anel")]
pub struct Response {
    state: GilCell<State>,
}

/// What is sent.
#[derive(Debug)]
pub struct State {
    pub status: u16,
    pub content_type: ContentType,
    pub body: Body,
    /// Rendered field lines.
    pub fields: Vec<u8>,
    pub close: bool,
}

#[derive(Debug)]
pub enum ContentType {
    None,
    Text,
    Octets,
    Json,
    Other(Box<[u8]>),
}

#[derive(Debug)]
pub enum Body {
    None,
    Text(Utf8),
    Bytes(Py<PyBytes>),
    Stream(Box<Stream>),
}

#[pymethods]
impl Response {
    #[new]
    #[pyo3(signature = (text=None, code=None, body=None, json=None, mime_type=None,
                        encoding=None, headers=None, cookies=None, *, stream=None,
                        length=None, status=None, status_code=None))]
    #[allow(clippy::too_many_arguments)] // Japronto's positional order is the contract.
    fn new<'py>(
        py: Python<'py>,
        text: Option<&Bound<'py, PyAny>>,
        code: Option<&Bound<'py, PyAny>>,
        body: Option<&Bound<'py, PyAny>>,
        json: Option<&Bound<'py, PyAny>>,
        mime_type: Option<&Bound<'py, PyAny>>,
        encoding: Option<&Bound<'py, PyAny>>,
        headers: Option<&Bound<'py, PyAny>>,
        cookies: Option<&Bound<'py, PyAny>>,
        stream: Option<&Bound<'py, PyAny>>,
        length: Option<&Bound<'py, PyAny>>,
        status: Option<&Bound<'py, PyAny>>,
        status_code: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        if [code, status, status_code].iter().flatten().count() > 1 {
            return Err(PyTypeError::new_err(
                "Response() got multiple values for argument 'code'",
            ));
        }
        let code = code.or(status).or(status_code);
        let values = [
            text, code, body, json, mime_type, encoding, headers, cookies, stream, length,
        ];
        let arguments = Arguments::from_array(values.map(|value| value.map(Bound::as_borrowed)));
        Ok(Self::from_state(State::filled(py, &arguments)?))
    }

    /// The status code.
    #[getter]
    fn code(&self, py: Python<'_>) -> u16 {
        self.state.borrow(py).status
    }

    /// The value of Content-Type, or None when there is no body.
    #[getter]
    fn content_type(&self, py: Python<'_>) -> Option<String> {
        let state = self.state.borrow(py);
        let value = state.content_type.as_bytes()?;
        Some(latin1(value))
    }

    /// The header fields: a view that changes this response.
    #[getter]
    fn headers(slf: &Bound<'_, Self>) -> ResponseHeaders {
        ResponseHeaders::of(slf)
    }

    /// The body as bytes, or None when there is none or it is streamed.
    #[getter]
    fn body(&self, py: Python<'_>) -> Option<Py<PyBytes>> {
        match &self.state.borrow(py).body {
            Body::None | Body::Stream(_) => None,
            Body::Text(text) => Some(PyBytes::new(py, text.as_bytes()).unbind()),
            Body::Bytes(bytes) => Some(bytes.clone_ref(py)),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let state = self.state.borrow(py);
        let status = state.status;
        match &state.body {
            Body::Stream(_) => format!("<Response {status} stream>"),
            body => format!("<Response {status} {} bytes>", body.as_bytes(py).len()),
        }
    }
}

impl Response {
    pub fn from_state(state: State) -> Self {
        Self {
            state: GilCell::new(state),
        }
    }

    /// A response of this worker: a spare object filled again, or a new one.
    #[inline]
    pub fn make<'py>(shared: &Shared, py: Python<'py>, state: State) -> PyResult<Bound<'py, Self>> {
        match shared.take_response() {
            Some(response) => {
                *response.get().state.borrow_mut(py) = state;
                Ok(response.into_bound(py))
            }
            None => Bound::new(py, Self::from_state(state)),
        }
    }

    /// A response that is nothing but a text: the shape of most, so nothing is moved that need not
    /// be.
    #[inline(always)] // Called in two places, for most responses.
    pub fn of_text<'py>(
        shared: &Shared,
        text: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = text.py();
        let body = Utf8::new(text)?;
        let Some(response) = shared.take_response() else {
            return Self::first_of_text(py, body);
        };
        let response = response.into_bound(py);
        let mut state = response.get().state.borrow_mut(py);
        state.status = 200;
        state.content_type = ContentType::Text;
        // `empty` has left nothing here whose end could run code.
        std::mem::replace(&mut state.body, Body::Text(body)).discard(py);
        state.fields.clear();
        state.close = false;
        drop(state);
        Ok(response)
    }

    #[cold]
    fn first_of_text(py: Python<'_>, body: Utf8) -> PyResult<Bound<'_, Self>> {
        let state = State {
            body: Body::Text(body),
            content_type: ContentType::Text,
            ..State::default()
        };
        Bound::new(py, Self::from_state(state))
    }

    /// Looks at what is sent. The closure runs no Python code.
    pub fn with_state<R>(&self, py: Python<'_>, look: impl FnOnce(&State) -> R) -> R {
        look(&self.state.borrow(py))
    }

    /// Changes what is sent. The closure runs no Python code.
    pub fn change<R>(&self, py: Python<'_>, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.borrow_mut(py))
    }

    /// Drops what the object holds, so that it keeps nothing alive while it waits to be used again.
    pub fn empty(&self, py: Python<'_>) {
        // Dropping a body may run a finalizer; it must not find the state borrowed.
        let body = std::mem::replace(&mut self.state.borrow_mut(py).body, Body::None);
        body.discard(py);
    }

    /// Whether the body is streamed.
    #[inline]
    pub fn is_stream(&self, py: Python<'_>) -> bool {
        matches!(self.state.borrow(py).body, Body::Stream(_))
    }

    /// Begins to iterate over the stream, if there is one.
    pub fn open(
        &self,
        py: Python<'_>,
        shared: &Shared,
        context: &Option<Py<PyAny>>,
    ) -> PyResult<Option<Opened>> {
        match &self.state.borrow(py).body {
            Body::Stream(stream) => stream.open(py, shared, context).map(Some),
            _ => Ok(None),
        }
    }

    /// Shows the response as the core wants it.
    pub fn with_answer<R>(&self, py: Python<'_>, look: impl FnOnce(&Answer<'_>) -> R) -> R {
        let state = self.state.borrow(py);
        look(&Answer {
            status: state.status,
            content_type: state.content_type.as_bytes(),
            fields: &state.fields,
            payload: match &state.body {
                Body::Stream(stream) => Payload::Stream {
                    length: stream.length,
                },
                body => Payload::Whole(body.as_bytes(py)),
            },
            close: state.close,
        })
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: 200,
            content_type: ContentType::None,
            body: Body::None,
            fields: Vec::new(),
            close: false,
        }
    }
}

impl State {
    pub fn filled(py: Python<'_>, arguments: &Arguments<'_, '_>) -> PyResult<Self> {
        let mut state = Self::default();
        state.fill(py, arguments)?;
        Ok(state)
    }

    fn fill(&mut self, py: Python<'_>, arguments: &Arguments<'_, '_>) -> PyResult<()> {
        self.fill_body(arguments)?;
        if let Some(code) = arguments.code() {
            self.status = status(&code)?;
        }
        if let Some(headers) = arguments.headers() {
            push_headers(self, &headers, self.body_bytes(py))?;
        }
        if let Some(cookies) = arguments.cookies() {
            push_cookies(&mut self.fields, &cookies)?;
        }
        Ok(())
    }

    /// How long the body is.
    pub fn body_bytes(&self, py: Python<'_>) -> usize {
        self.body.as_bytes(py).len()
    }

    fn fill_body(&mut self, arguments: &Arguments<'_, '_>) -> PyResult<()> {
        let (text, body, json) = (arguments.text(), arguments.body(), arguments.json());
        let (stream, length) = (arguments.stream(), arguments.length());
        if [text, body, json, stream].iter().flatten().count() > 1 {
            return Err(PyValueError::new_err(
                "Response() takes one of text, body and json, or a stream, not several",
            ));
        }
        if let Some(length) = length.filter(|_| stream.is_none()) {
            return Err(PyValueError::new_err(format!(
                "Response() takes a length only with a stream, not {}",
                length.repr()?
            )));
        }
        let encoding = arguments
            .encoding()
            .map(|value| string(&value, "encoding"))
            .transpose()?;
        self.body = Body::None;
        let (body, content_type) = if let Some(text) = text {
            (encode_text(&text, encoding.as_deref())?, ContentType::Text)
        } else if let Some(body) = body {
            (Body::Bytes(bytes(&body)?), ContentType::Octets)
        } else if let Some(json) = json {
            (encode_json(&json, encoding.as_deref())?, ContentType::Json)
        } else if let Some(stream) = stream {
            let stream = Stream::new(&stream, encoding.as_deref(), length.as_ref())?;
            (Body::Stream(Box::new(stream)), ContentType::Octets)
        } else {
            (Body::None, ContentType::None)
        };
        let mime_type = arguments
            .mime_type()
            .map(|value| string(&value, "mime_type"))
            .transpose()?;
        self.content_type = content_type.with(mime_type, encoding, &body)?;
        self.body = body;
        Ok(())
    }
}

impl ContentType {
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::Text => Some(b"text/plain; charset=utf-8"),
            Self::Octets => Some(b"application/octet-stream"),
            Self::Json => Some(b"application/json; charset=utf-8"),
            Self::Other(value) => Some(value),
        }
    }

    /// Japronto's rule: a charset is said when one was given, for text/*, and for */json.
    fn with(
        self,
        mime_type: Option<String>,
        encoding: Option<String>,
        body: &Body,
    ) -> PyResult<Self> {
        if mime_type.is_none() && (encoding.is_none() || matches!(body, Body::None)) {
            return Ok(self);
        }
        if matches!(body, Body::None) {
            return Ok(Self::None);
        }
        let mime_type = mime_type.unwrap_or_else(|| {
            let own = self.as_bytes().unwrap_or_default();
            String::from_utf8_lossy(own.split(|&byte| byte == b';').next().unwrap_or_default())
                .into_owned()
        });
        let textual = mime_type.starts_with("text/") || mime_type.ends_with("/json");
        let value = match encoding {
            Some(encoding) => format!("{mime_type}; charset={encoding}"),
            None if textual => format!("{mime_type}; charset=utf-8"),
            None => mime_type,
        };
        let mut line = Vec::new();
        crate::protocol::encode::push_field(&mut line, "Content-Type", &value)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let value = &line["Content-Type: ".len()..line.len() - 2];
        Ok(Self::Other(value.into()))
    }
}

impl Body {
    /// Drops it. Most are texts or nothing, for which there is little to do; an outright drop goes
    /// through all cases, and asks whether the GIL is held.
    #[inline]
    fn discard(self, py: Python<'_>) {
        match self {
            Self::None => {}
            Self::Text(text) => text.drop_ref(py),
            body => drop(body),
        }
    }

    fn as_bytes<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match self {
            Self::None | Self::Stream(_) => &[],
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes.bind(py).as_bytes(),
        }
    }
}

fn encode_text(text: &Value<'_, '_>, encoding: Option<&str>) -> PyResult<Body> {
    let Ok(text) = text.cast::<PyString>() else {
        return Err(wrong_type("text", "str", text));
    };
    match encoding {
        None | Some("utf-8") => Ok(Body::Text(Utf8::new(&text)?)),
        Some(encoding) => {
            let bytes = text.call_method1("encode", (encoding,))?;
            Ok(Body::Bytes(bytes.cast_into::<PyBytes>()?.unbind()))
        }
    }
}

fn encode_json(value: &Value<'_, '_>, encoding: Option<&str>) -> PyResult<Body> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    if let Some(encoding) = encoding.filter(|encoding| *encoding != "utf-8") {
        // Escapes stand for what this charset does not have.
        let dumps = py.import("anel.encoding")?.getattr("dumps_ascii")?;
        return encode_text(&dumps.call1((*value,))?.as_borrowed(), Some(encoding));
    }
    let dumps = DUMPS.import(py, "anel.encoding", "dumps")?;
    let bytes = dumps.call1((*value,))?.cast_into::<PyBytes>()?;
    Ok(Body::Bytes(bytes.unbind()))
}

fn bytes(body: &Value<'_, '_>) -> PyResult<Py<PyBytes>> {
    if let Ok(bytes) = body.cast::<PyBytes>() {
        return Ok(bytes.to_owned().unbind());
    }
    if body.is_instance_of::<PyByteArray>() || body.is_instance_of::<PyMemoryView>() {
        let bytes = body.py().get_type::<PyBytes>().call1((*body,))?;
        return Ok(bytes.cast_into::<PyBytes>()?.unbind());
    }
    Err(wrong_type("body", "bytes", body))
}

/// A status code from Python, or what is wrong with it.
pub fn status(code: &Value<'_, '_>) -> PyResult<u16> {
    if !code.is_instance_of::<PyInt>() {
        return Err(wrong_type("code", "int", code));
    }
    match code.extract::<u16>() {
        // RFC 9110 15.2: a 1xx is no answer. The peer would take the next one for that.
        Ok(code @ 200..=599) => Ok(code),
        _ => Err(PyValueError::new_err(format!(
            "code must be 200 to 599, not {}",
            code.repr()?
        ))),
    }
}

fn string(value: &Value<'_, '_>, name: &str) -> PyResult<String> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(text.to_str()?.to_owned()),
        Err(_) => Err(wrong_type(name, "str", value)),
    }
}

pub fn wrong_type(name: &str, wanted: &str, value: &Value<'_, '_>) -> PyErr {
    let shown = value
        .repr()
        .map_or_else(|_| String::from("?"), |repr| repr.to_string());
    PyTypeError::new_err(format!("{name} must be {wanted}, not {shown}"))
}
