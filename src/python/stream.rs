//! Responses that are made in pieces.
//!
//! Owns what may be streamed, its way from an iterator to the core, and the back-pressure on that
//! way. Refuses to know the wire. A sync iterator is pulled by the turn, as long as the core takes
//! more; an async one is driven by a task (`anel.streaming`) that writes through a `BodyWriter`.

use std::cell::Cell;
use std::rc::Rc;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyInt, PyMemoryView, PyString};

use super::answer;
use super::arguments::Value;
use super::dispatch::Dispatch;
use super::orders::Order;
use super::request::Request;
use super::response::{Response, wrong_type};
use super::shared::Shared;
use super::writer::BodyWriter;
use crate::server::{ExchangeId, Flow, Worker};

/// The streamed body of a response.
#[derive(Debug)]
pub struct Stream {
    source: Py<PyAny>,
    is_async: bool,
    /// What pieces of text are encoded with; UTF-8 if it is not said.
    encoding: Option<Box<str>>,
    pub length: Option<u64>,
    opened: Cell<bool>,
}

impl Stream {
    /// Checks that it can be iterated over, which is done when it is sent.
    pub fn new(
        source: &Value<'_, '_>,
        encoding: Option<&str>,
        length: Option<&Value<'_, '_>>,
    ) -> PyResult<Self> {
        let py = source.py();
        let is_whole = source.is_instance_of::<PyString>()
            || source.is_instance_of::<PyBytes>()
            || source.is_instance_of::<PyByteArray>()
            || source.is_instance_of::<PyMemoryView>()
            || source.is_instance_of::<PyDict>();
        let is_async = source.hasattr(intern!(py, "__aiter__"))?;
        if is_whole || !(is_async || source.hasattr(intern!(py, "__iter__"))?) {
            let wanted = "an iterable or async iterable of bytes or str";
            return Err(wrong_type("stream", wanted, source));
        }
        Ok(Self {
            source: (**source).clone().unbind(),
            is_async,
            encoding: encoding
                .filter(|encoding| *encoding != "utf-8")
                .map(Into::into),
            length: length.map(stream_length).transpose()?,
            opened: Cell::new(false),
        })
    }

    /// Takes the value of a Content-Length header, or says what is wrong with it.
    pub fn claim_length(&mut self, value: &str) -> Result<(), String> {
        let digits = value.trim();
        // `parse` takes a plus sign, too.
        let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
        let Some(length) = digits.parse().ok().filter(|_| plain) else {
            return Err(String::from("not a number of bytes"));
        };
        match self.length {
            Some(known) if known != length => Err(format!("the stream has {known} bytes")),
            _ => {
                self.length = Some(length);
                Ok(())
            }
        }
    }

    /// Begins to iterate.
    pub fn open(
        &self,
        py: Python<'_>,
        shared: &Shared,
        context: &Option<Py<PyAny>>,
    ) -> PyResult<Opened> {
        let source = self.source.bind(py);
        let iterator = if self.is_async {
            if shared.async_support.borrow().is_none() {
                return Err(PyRuntimeError::new_err("no event loop is running"));
            }
            source.call_method0(intern!(py, "__aiter__"))?
        } else {
            source.try_iter()?.into_any()
        };
        if self.opened.replace(true) && iterator.is(source) {
            return Err(PyRuntimeError::new_err(
                "the stream of this response was sent already; an iterator can be sent once",
            ));
        }
        Ok(Opened {
            iterator: iterator.unbind(),
            is_async: self.is_async,
            context: context.as_ref().map(|context| context.clone_ref(py)),
            pieces: Pieces {
                encoding: self.encoding.clone(),
                length: self.length,
                sent: Cell::new(0),
            },
        })
    }
}

/// A stream that is to be sent.
pub struct Opened {
    iterator: Py<PyAny>,
    is_async: bool,
    context: Option<Py<PyAny>>,
    pieces: Pieces,
}

/// From what an iterator gives to bytes, counted.
pub struct Pieces {
    encoding: Option<Box<str>>,
    length: Option<u64>,
    sent: Cell<u64>,
}

impl Pieces {
    /// The bytes of a piece. TypeError when it has none, ValueError when it is too much.
    pub fn take<'py>(&self, piece: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.encode(piece)?;
        let sent = self.sent.get() + bytes.as_bytes().len() as u64;
        if let Some(length) = self.length.filter(|length| sent > *length) {
            return Err(PyValueError::new_err(format!(
                "the stream is longer than its length of {length} bytes"
            )));
        }
        self.sent.set(sent);
        Ok(bytes)
    }

    /// ValueError when the stream ended too early.
    pub fn finish(&self) -> PyResult<()> {
        let sent = self.sent.get();
        match self.length {
            Some(length) if sent < length => Err(PyValueError::new_err(format!(
                "the stream ended after {sent} bytes; its length is {length}"
            ))),
            _ => Ok(()),
        }
    }

    fn encode<'py>(&self, piece: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let py = piece.py();
        let piece = match piece.cast_into::<PyBytes>() {
            Ok(bytes) => return Ok(bytes),
            Err(other) => other.into_inner(),
        };
        if let Ok(text) = piece.cast::<PyString>() {
            return match &self.encoding {
                None => Ok(PyBytes::new(py, text.to_str()?.as_bytes())),
                Some(encoding) => Ok(text.call_method1("encode", (&**encoding,))?.cast_into()?),
            };
        }
        if piece.is_instance_of::<PyByteArray>() || piece.is_instance_of::<PyMemoryView>() {
            return Ok(py.get_type::<PyBytes>().call1((piece,))?.cast_into()?);
        }
        Err(PyTypeError::new_err(format!(
            "a stream gives bytes or str, not {}",
            piece.repr()?
        )))
    }
}

/// What makes the body of a streamed response.
#[derive(Clone)]
pub enum Producer {
    Pulled(Rc<Pulled>),
    Written(Rc<Py<BodyWriter>>),
}

/// A sync iterator on its way to a client.
pub struct Pulled {
    iterator: Py<PyAny>,
    /// The context variables of the handler.
    context: Option<Py<PyAny>>,
    pieces: Pieces,
}

impl Pulled {
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        match self.call(py, intern!(py, "__next__")) {
            Ok(piece) => self.pieces.take(piece).map(Some),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                self.pieces.finish().map(|()| None)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the iterator: a generator gets GeneratorExit. Harmless when it has ended.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let close = intern!(py, "close");
        if self.iterator.bind(py).hasattr(close)? {
            self.call(py, close)?;
        }
        Ok(())
    }

    /// Calls a method of the iterator as the handler would.
    fn call<'py>(
        &self,
        py: Python<'py>,
        method: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let iterator = self.iterator.bind(py);
        match &self.context {
            None => iterator.call_method0(method),
            Some(context) => {
                let method = iterator.getattr(method)?;
                context.bind(py).call_method1(intern!(py, "run"), (method,))
            }
        }
    }
}

/// The context that streams are made in: the present one, if the response is streamed.
pub fn context_of(response: &Bound<'_, Response>) -> Option<Py<PyAny>> {
    let py = response.py();
    if !response.get().is_stream(py) {
        return None;
    }
    let copied = py
        .import("contextvars")
        .and_then(|module| module.call_method0(intern!(py, "copy_context")));
    copied.ok().map(Bound::unbind)
}

impl Opened {
    /// Ends a stream that nobody wants before it has begun.
    pub fn discard(self, shared: &Shared, request: &Bound<'_, Request>) {
        let py = request.py();
        let discarded = if self.is_async {
            let arguments = (self.iterator, request);
            py.import("anel.streaming")
                .and_then(|module| module.call_method1("discard", arguments).map(drop))
        } else {
            self.into_pulled().close(py)
        };
        if let Err(error) = discarded {
            shared.log_failure(request, FAILED, error);
        }
    }

    fn into_pulled(self) -> Pulled {
        Pulled {
            iterator: self.iterator,
            context: self.context,
            pieces: self.pieces,
        }
    }
}

/// The response, with its stream opened if it has one. What fails at that is answered as a failure
/// of the handler; nothing was sent yet.
pub fn opened<'py>(
    shared: &Shared,
    request: &Bound<'py, Request>,
    response: Bound<'py, Response>,
    context: Option<Py<PyAny>>,
) -> (Bound<'py, Response>, Option<Opened>) {
    let py = request.py();
    match response.get().open(py, shared, &context) {
        Ok(stream) => (response, stream),
        Err(error) => {
            let response = answer::from_error(shared, request, error);
            match response.get().open(py, shared, &context) {
                Ok(stream) => (response, stream),
                Err(error) => {
                    shared.log_failure(request, FAILED, error);
                    (answer::last_resort(shared, py), None)
                }
            }
        }
    }
}

impl Shared {
    /// The head of a streamed response has left: begins to produce its body.
    pub fn begin_stream(&self, request: &Bound<'_, Request>, exchange: ExchangeId, opened: Opened) {
        if !opened.is_async {
            let pulled = Rc::new(opened.into_pulled());
            self.begin_producer(request, exchange, Producer::Pulled(pulled));
            return self.order(request.py(), Order::Pull(exchange));
        }
        if let Err(error) = self.begin_writer(request, exchange, opened) {
            self.log_failure(request, FAILED, error);
            self.order(request.py(), Order::AbortBody(exchange));
        }
    }

    fn begin_writer(
        &self,
        request: &Bound<'_, Request>,
        exchange: ExchangeId,
        opened: Opened,
    ) -> PyResult<()> {
        let py = request.py();
        let shared = request.get().shared(py);
        let writer = Py::new(py, BodyWriter::new(shared, exchange, opened.pieces))?;
        let producer = Producer::Written(Rc::new(writer.clone_ref(py)));
        self.begin_producer(request, exchange, producer);
        let event_loop = py
            .import("asyncio")?
            .call_method0(intern!(py, "get_running_loop"))?;
        let arguments = (event_loop, writer, opened.iterator, request, opened.context);
        let task = py
            .import("anel.streaming")?
            .call_method1("start", arguments)?;
        self.begin_task(request, exchange, task.unbind());
        Ok(())
    }

    /// Takes from a sync iterator what the core has room for, but not so much that other
    /// connections would starve.
    pub fn pull(&self, exchange: ExchangeId, worker: &mut Worker, dispatch: &mut Dispatch<'_, '_>) {
        let py = dispatch.py;
        let Some((request, Producer::Pulled(stream))) = self.producer(py, exchange) else {
            return;
        };
        let mut pulled_bytes = 0;
        for _ in 0..PULL_PIECES_MAX {
            match stream.next(py) {
                Ok(Some(piece)) => {
                    let piece = piece.as_bytes();
                    pulled_bytes += piece.len();
                    if worker.send_body(exchange, piece) != Flow::Go {
                        // It goes on in `on_writable`, or ends in `on_abandoned`.
                        return;
                    }
                }
                Ok(None) => return self.end_body(exchange, worker, dispatch),
                Err(error) => {
                    self.log_failure(&request, FAILED, error);
                    return self.abort_body(exchange, worker, dispatch);
                }
            }
            if pulled_bytes >= PULL_BYTES_MAX {
                break;
            }
        }
        self.order(py, Order::Pull(exchange));
    }

    /// The body of a streamed response is complete.
    pub fn end_body(
        &self,
        exchange: ExchangeId,
        worker: &mut Worker,
        dispatch: &mut Dispatch<'_, '_>,
    ) {
        // False for a client that is gone; the length was checked before.
        let _ = worker.end_body(exchange, dispatch);
        self.close_producer(dispatch.py, exchange);
    }

    /// The body of a streamed response will never be complete.
    pub fn abort_body(
        &self,
        exchange: ExchangeId,
        worker: &mut Worker,
        dispatch: &mut Dispatch<'_, '_>,
    ) {
        worker.abort_body(exchange, dispatch);
        self.close_producer(dispatch.py, exchange);
    }

    /// Nothing is produced any more: ends the iterator, and with it the exchange.
    pub fn close_producer(&self, py: Python<'_>, exchange: ExchangeId) {
        if let Some((request, producer)) = self.producer(py, exchange) {
            if let Producer::Pulled(stream) = producer
                && let Err(error) = stream.close(py)
            {
                self.log_failure(&request, FAILED, error);
            }
            self.finish(&request, exchange);
        }
    }
}

/// How long a stream is, from Python.
fn stream_length(length: &Value<'_, '_>) -> PyResult<u64> {
    if !length.is_instance_of::<PyInt>() || length.is_instance_of::<PyBool>() {
        return Err(wrong_type("length", "int", length));
    }
    length.extract().map_err(|_| {
        let shown = length
            .repr()
            .map_or_else(|_| String::from("?"), |r| r.to_string());
        PyValueError::new_err(format!("length must be 0 to 2**64 - 1, not {shown}"))
    })
}

/// How a failure in a streamed response is logged.
const FAILED: &str = "exception in a streamed response";

/// Bytes that one stream may produce before other connections have their turn: as much as the core
/// takes at once (`stream_owed_bytes_max`).
const PULL_BYTES_MAX: usize = 64 * 1024;

/// Pieces, for the same reason: they may be tiny or empty. 256 is arbitrary.
const PULL_PIECES_MAX: u32 = 256;
