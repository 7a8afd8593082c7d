//! `request.Response(...)`: the way most responses are made.
//!
//! Owns the method that is added to the request type, and its short cut for a response that is
//! nothing but a text. Refuses to know what arguments mean (that is `response`) and how the
//! interpreter calls (`raw`).

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::arguments::{self, Arguments, Value};
use super::raw;
use super::request::Request;
use super::response::{Response, State};

/// The method itself. Positional values come first, then one value per name.
pub fn respond<'a, 'py>(
    request: &Value<'a, 'py>,
    values: &[Option<Value<'a, 'py>>],
    names: Option<Borrowed<'a, 'py, PyTuple>>,
) -> PyResult<Py<Response>> {
    let py = request.py();
    let request = request.cast_exact::<Request>()?.get();
    let response = match arguments::only_text(py, values, names) {
        Some(text) => request.respond_once(py, |shared| Response::of_text(shared, &text))?,
        None => respond_any(py, request, values, names)?,
    };
    Ok(response.unbind())
}

/// Kept apart: what it needs room for would be a burden on the short cut.
#[inline(never)]
fn respond_any<'py>(
    py: Python<'py>,
    request: &Request,
    values: &[Option<Value<'_, 'py>>],
    names: Option<Borrowed<'_, 'py, PyTuple>>,
) -> PyResult<Bound<'py, Response>> {
    let state = State::filled(py, &Arguments::parse(py, values, names)?)?;
    request.respond_once(py, |shared| Response::make(shared, py, state))
}

/// Adds the method to the request type; called once, when the module is made.
pub fn add_response_method(py: Python<'_>) -> PyResult<()> {
    raw::add_fast_method(&py.get_type::<Request>(), c"Response", RESPONSE_DOC)
}

const RESPONSE_DOC: &std::ffi::CStr = c"Response($self, /, text=None, code=None, body=None, \
json=None, mime_type=None, encoding=None, headers=None, cookies=None, *, stream=None, \
length=None, status=None, status_code=None)\n--\n\n\
The response to this request; see anel.Response. Once per request (RuntimeError).";
