//! From what a handler returned to a response.
//!
//! Owns the rules for plain returns and for failures. Refuses to know how the handler was called
//! and where the response goes. Whatever happens, there is a response at the end.

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};

use super::arguments::Arguments;
use super::errors::anel_error;
use super::request::Request;
use super::response::{Response, State};
use super::routes::AutomaticMethods;
use super::shared::Shared;
use crate::protocol::percent::decode_path;

/// The response that a handler's result stands for: itself, or a plain value.
pub fn from_result<'py>(
    shared: &Shared,
    request: &Bound<'py, Request>,
    result: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, Response>> {
    let value = match result.cast_into_exact::<Response>() {
        Ok(response) => return Ok(response),
        Err(other) => other.into_inner(),
    };
    if let Some(response) = from_plain(shared, &value, None)? {
        return Ok(response);
    }
    match value.getattr_opt(intern!(value.py(), "__anel_response__"))? {
        Some(make) => from_maker(&make.call1((request,))?, &value),
        None => Err(no_response(&value)?),
    }
}

/// What an object gave that makes its response when it knows the request.
fn from_maker<'py>(
    response: &Bound<'py, PyAny>,
    maker: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, Response>> {
    match response.cast_exact::<Response>() {
        Ok(response) => Ok(response.clone()),
        Err(_) => Err(PyTypeError::new_err(format!(
            "{}.__anel_response__ must return an anel.Response, not {}",
            maker.get_type().qualname()?,
            response.repr()?
        ))),
    }
}

/// Whether a result that is no response is of a type that is never awaited: what most handlers
/// return then.
pub fn is_plain(result: &Bound<'_, PyAny>) -> bool {
    result.is_exact_instance_of::<PyString>()
        || result.is_exact_instance_of::<PyDict>()
        || result.is_exact_instance_of::<PyTuple>()
        || result.is_exact_instance_of::<PyBytes>()
        || result.is_exact_instance_of::<PyList>()
}

/// The response that a handler's outcome stands for, good or bad.
pub fn from_outcome<'py>(
    shared: &Shared,
    request: &Bound<'py, Request>,
    outcome: PyResult<Bound<'py, PyAny>>,
) -> Bound<'py, Response> {
    outcome
        .and_then(|result| from_result(shared, request, result))
        .unwrap_or_else(|error| from_error(shared, request, error))
}

/// The response to a failed request: what the application's error handlers make of the exception.
pub fn from_error<'py>(
    shared: &Shared,
    request: &Bound<'py, Request>,
    error: PyErr,
) -> Bound<'py, Response> {
    let py = request.py();
    request.get().allow_response(py);
    if ends_program(py, &error) {
        // Not the request's failure: the program wants to end. The turn raises it.
        shared.fatal.replace(Some(error));
        return last_resort(shared, py);
    }
    let answered = shared
        .app
        .bind(py)
        .call_method1("error_handler", (request, error.into_value(py)))
        .and_then(|result| from_result(shared, request, result));
    // An error handler that fails is not asked again about its own failure: that would not end.
    answered.unwrap_or_else(|failure| {
        failure.write_unraisable(py, Some(request));
        last_resort(shared, py)
    })
}

/// Whether an exception is not the request's failure but the wish to end the program.
pub fn ends_program(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

/// What a request without a route leads to: the answer to OPTIONS, or the exception that says
/// whether the path or its method is unknown.
pub fn unmatched<'py>(
    shared: &Shared,
    request: &Bound<'py, Request>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = request.py();
    let not_found = || Err(anel_error(py, "RouteNotFoundException", ()));
    if shared.routes.automatic_methods == AutomaticMethods::Off {
        return not_found();
    }
    let (is_options, allowed) = request.get().read(py, |head, bytes| {
        let allowed = shared.routes.allowed(&decode_path(head.path.of(bytes)));
        (head.method.of(bytes) == b"OPTIONS", allowed)
    })?;
    if allowed.is_empty() {
        return not_found();
    }
    if !is_options {
        return Err(anel_error(py, "MethodNotAllowed", (allowed,)));
    }
    let state = State {
        status: 204,
        fields: format!("Allow: {}\r\n", allowed.join(", ")).into_bytes(),
        ..State::default()
    };
    Ok(Response::make(shared, py, state)?.into_any())
}

const IMPOSSIBLE: &str = "invariant: a response of a constant text can be made";

/// The answer when nothing else can be made.
pub fn last_resort<'py>(shared: &Shared, py: Python<'py>) -> Bound<'py, Response> {
    let text = PyString::new(py, "Internal Server Error").into_any();
    let code = PyInt::new(py, 500).into_any();
    plain(shared, py, [Some(&text), Some(&code), None, None])
        .unwrap_or_else(|_| panic!("{IMPOSSIBLE}"))
}

/// str, bytes, dict, list, and a pair of one of them with a status; `None` for anything else.
fn from_plain<'py>(
    shared: &Shared,
    value: &Bound<'py, PyAny>,
    code: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, Response>>> {
    let py = value.py();
    if code.is_none()
        && let Ok(text) = value.cast_exact::<PyString>()
    {
        return Response::of_text(shared, text).map(Some);
    }
    let values = if value.is_instance_of::<PyString>() {
        [Some(value), code, None, None]
    } else if value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>() {
        [None, code, Some(value), None]
    } else if value.is_instance_of::<PyDict>() || value.is_instance_of::<PyList>() {
        [None, code, None, Some(value)]
    } else if code.is_none()
        && let Ok(pair) = value.cast_exact::<PyTuple>()
        && pair.len() == 2
    {
        return from_plain(shared, &pair.get_item(0)?, Some(&pair.get_item(1)?));
    } else {
        return Ok(None);
    };
    plain(shared, py, values).map(Some)
}

/// The error for a result that stands for no response.
fn no_response(value: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let hint = if value.hasattr("__next__")? || value.hasattr("__anext__")? {
        "a stream is returned as anel.StreamingResponse(...)"
    } else {
        "str, bytes, dict, list and (body, status) are taken too"
    };
    // Japronto's words.
    Ok(PyValueError::new_err(format!(
        "View did not return Response instance, but {}; {hint}",
        value.repr()?
    )))
}

/// A response from text, code, body and json.
fn plain<'py>(
    shared: &Shared,
    py: Python<'py>,
    values: [Option<&Bound<'py, PyAny>>; 4],
) -> PyResult<Bound<'py, Response>> {
    let [text, code, body, json] = values.map(|value| value.map(Bound::as_borrowed));
    let arguments = Arguments::plain(text, code, body, json);
    Response::make(shared, py, State::filled(py, &arguments)?)
}
