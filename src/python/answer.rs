//! From what a handler returned to a response.
//!
//! Owns the rules for plain returns and for failures. Refuses to know how the handler was called
//! and where the response goes. Whatever happens, there is a response at the end.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyString, PyTuple};

use super::arguments::Arguments;
use super::errors::anel_error;
use super::request::Request;
use super::response::{Response, State};
use super::shared::Shared;

/// The response that a handler's result stands for: itself, or a plain value.
pub fn from_result<'py>(result: Bound<'py, PyAny>) -> PyResult<Bound<'py, Response>> {
    match result.cast_into_exact::<Response>() {
        Ok(response) => Ok(response),
        Err(other) => from_plain(&other.into_inner(), None),
    }
}

/// The response to a failed request: what the application's error handlers make of the exception.
pub fn from_error<'py>(
    shared: &Shared,
    request: &Bound<'py, Request>,
    error: PyErr,
) -> Bound<'py, Response> {
    let py = request.py();
    request.get().allow_response(py);
    let answered = shared
        .app
        .bind(py)
        .call_method1("error_handler", (request, error.into_value(py)))
        .and_then(from_result);
    // An error handler that fails is not asked again about its own failure: that would not end.
    answered
        .or_else(|failure| last_resort(py, failure))
        .unwrap_or_else(|failure| {
            failure.write_unraisable(py, Some(request));
            panic!("invariant: a constant response can be made")
        })
}

/// What an unmatched path raises.
pub fn not_found(py: Python<'_>) -> PyErr {
    anel_error(py, "RouteNotFoundException", ())
}

fn last_resort<'py>(py: Python<'py>, failure: PyErr) -> PyResult<Bound<'py, Response>> {
    failure.write_unraisable(py, None);
    let text = PyString::new(py, "Internal Server Error").into_any();
    let code = 500_u16.into_pyobject(py)?.into_any();
    plain(py, [Some(&text), Some(&code), None, None])
}

/// str, bytes, dict, list, and a pair of one of them with a status.
fn from_plain<'py>(
    value: &Bound<'py, PyAny>,
    code: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, Response>> {
    let py = value.py();
    if let Ok(response) = value.cast_exact::<Response>()
        && code.is_none()
    {
        return Ok(response.clone());
    }
    if value.is_instance_of::<PyString>() {
        return plain(py, [Some(value), code, None, None]);
    }
    if value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>() {
        return plain(py, [None, code, Some(value), None]);
    }
    if value.is_instance_of::<PyDict>() || value.is_instance_of::<PyList>() {
        return plain(py, [None, code, None, Some(value)]);
    }
    if code.is_none()
        && let Ok(pair) = value.cast_exact::<PyTuple>()
        && pair.len() == 2
    {
        return from_plain(&pair.get_item(0)?, Some(&pair.get_item(1)?));
    }
    // Japronto's words.
    Err(PyValueError::new_err(format!(
        "View did not return Response instance, but {}; str, bytes, dict, list and (body, status) \
         are taken too",
        value.repr()?
    )))
}

/// A response from text, code, body and json.
fn plain<'py>(
    py: Python<'py>,
    values: [Option<&Bound<'py, PyAny>>; 4],
) -> PyResult<Bound<'py, Response>> {
    let [text, code, body, json] = values.map(|value| value.map(Bound::as_borrowed));
    let arguments = Arguments::from_array([text, code, body, json, None, None, None, None]);
    Bound::new(py, Response::from_state(State::filled(py, &arguments)?))
}
