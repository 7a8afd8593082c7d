//! `request.text` and `request.json`: what a body says.
//!
//! Owns the short way for what nearly every body is, UTF-8. Refuses to know other charsets, JSON
//! and the errors: `anel.request` does.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::request::Request;

impl Request {
    /// The body as text; None when there is no body.
    pub(super) fn make_text<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let body = Self::body(slf)?.into_bound(py);
        if body.is_none() {
            return Ok(body);
        }
        let encoding = slf.get().encoding(py)?;
        if encoding.is_none()
            && let Ok(text) = str::from_utf8(body.cast::<PyBytes>()?.as_bytes())
        {
            return Ok(PyString::new(py, text).into_any());
        }
        py.import("anel.request")?
            .call_method1(intern!(py, "decode_text"), (body, encoding))
    }

    /// The body's JSON value; None when there is no body.
    pub(super) fn make_json<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let text = Self::text(slf)?.into_bound(py);
        if text.is_none() {
            return Ok(text);
        }
        py.import("anel.request")?
            .call_method1(intern!(py, "parse_json"), (text,))
    }
}
