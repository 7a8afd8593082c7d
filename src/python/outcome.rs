//! Responses for middleware: what the core makes of results and unmatched requests, on demand.
//!
//! Owns nothing but the way in from `anel.application`; what the functions do is done in `answer`,
//! where the worker itself asks for it.

use pyo3::prelude::*;

use super::answer;
use super::request::Request;
use super::response::Response;

/// The response that a handler's result stands for. The request may make another one then.
#[pyfunction]
pub fn as_response<'py>(
    request: &Bound<'py, Request>,
    value: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, Response>> {
    let py = request.py();
    request.get().allow_response(py);
    answer::from_result(&request.get().shared(py), request, value)
}

/// The answer to a request that no route matches, or the exception that says what is unknown.
#[pyfunction]
pub fn unmatched<'py>(request: &Bound<'py, Request>) -> PyResult<Bound<'py, PyAny>> {
    answer::unmatched(&request.get().shared(request.py()), request)
}

/// Lets the request make another response: the one that it made will not be sent.
#[pyfunction]
pub fn allow_response(request: &Bound<'_, Request>) {
    request.get().allow_response(request.py());
}
