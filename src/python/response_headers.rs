//! `response.headers`: the header fields of a response, to be looked at and changed.
//!
//! Owns the mapping that middleware sees. Refuses to know what a field means: `headers` decides,
//! as it does for the constructor, so nothing gets in here that the constructor refuses. All of it
//! is off the hot path: a response whose headers nobody asks for pays nothing.

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyMapping, PyString};

use super::headers::{asks_to_close, latin1, pairs, push_header, text_pair};
use super::response::{ContentType, Response, State};

/// The header fields of a response.
///
/// A mapping that ignores the case of names (RFC 9110 5.1) and keeps order and spelling. A name may
/// have several lines: `[]` and `get` join their values by `", "`, except those of Set-Cookie, of
/// which they give the first (RFC 9110 5.3); `getall` gives them one by one, and `items` has a pair
/// for each line.
///
/// It holds what the response says itself: Content-Type and what was given. What the server writes
/// (Content-Length, Date) is not there; such names are treated as the constructor treats them.
///
/// Raises:
///     TypeError: A name or value is no str.
///     ValueError: A line that could be forged, Transfer-Encoding, a Content-Length that is not
///         that of the body.
#[pyclass(frozen, mapping, module = "anel")]
pub struct ResponseHeaders {
    response: Py<Response>,
}

#[pymethods]
impl ResponseHeaders {
    fn __getitem__(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<String> {
        self.find(py, name)
            .ok_or_else(|| PyKeyError::new_err(name.clone().unbind()))
    }

    /// Replaces every line of that name by one.
    fn __setitem__(&self, py: Python<'_>, name: &str, value: &str) -> PyResult<()> {
        self.response.get().change(py, |state| {
            let before = state.fields.len();
            push_header(state, name, value, state.body_bytes(py))?;
            let behind = state.fields.split_off(before);
            remove_lines(state, name);
            state.fields.extend_from_slice(&behind);
            if name.eq_ignore_ascii_case("connection") {
                state.close = asks_to_close(value);
            }
            Ok(())
        })
    }

    fn __delitem__(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        let removed = text(name).is_some_and(|known| {
            self.response
                .get()
                .change(py, |state| remove(state, &known))
        });
        if removed {
            return Ok(());
        }
        Err(PyKeyError::new_err(name.clone().unbind()))
    }

    fn __contains__(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> bool {
        self.find(py, name).is_some()
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.names(py).len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyList::new(py, self.names(py))?.try_iter()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let lines = PyList::new(py, self.lines(py))?;
        Ok(format!("<ResponseHeaders {}>", lines.repr()?))
    }

    /// The value of the header, or `default` when there is none.
    #[pyo3(signature = (name, default=None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> Option<Bound<'py, PyAny>> {
        match self.find(py, name) {
            Some(value) => Some(PyString::new(py, &value).into_any()),
            None => default,
        }
    }

    /// The values of all lines of the name, in order; an empty list when there are none.
    fn getall(&self, py: Python<'_>, name: &str) -> Vec<String> {
        let lines = self.lines(py).into_iter();
        lines
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// Appends a line, beside those that the name has. There is one Content-Type at most: another
    /// takes its place.
    fn add(&self, py: Python<'_>, name: &str, value: &str) -> PyResult<()> {
        let change = |state: &mut State| push_header(state, name, value, state.body_bytes(py));
        self.response.get().change(py, change)
    }

    /// The value of the header, which is set to `default` if there is none.
    fn setdefault(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        default: &str,
    ) -> PyResult<String> {
        if let Some(value) = self.find(py, name) {
            return Ok(value);
        }
        self.__setitem__(py, name.extract()?, default)?;
        Ok(default.to_owned())
    }

    /// Sets each header of a mapping, or of pairs, as `headers[name] = value` does.
    fn update(&self, py: Python<'_>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        for pair in pairs(headers)? {
            let (name, value) = text_pair(&pair?)?;
            self.__setitem__(py, &name, &value)?;
        }
        Ok(())
    }

    /// The names, each once.
    fn keys(&self, py: Python<'_>) -> Vec<String> {
        self.names(py)
    }

    /// The values of all lines.
    fn values(&self, py: Python<'_>) -> Vec<String> {
        self.lines(py).into_iter().map(|(_, value)| value).collect()
    }

    /// Name and value of each line, in the order they are sent.
    fn items(&self, py: Python<'_>) -> Vec<(String, String)> {
        self.lines(py)
    }
}

impl ResponseHeaders {
    pub fn of(response: &Bound<'_, Response>) -> Self {
        Self {
            response: response.clone().unbind(),
        }
    }

    fn find(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> Option<String> {
        let name = text(name)?;
        let values = self.getall(py, &name);
        if name.eq_ignore_ascii_case("set-cookie") {
            return values.into_iter().next();
        }
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Each name once, as it is spelled first.
    fn names(&self, py: Python<'_>) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, _) in self.lines(py) {
            if !names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                names.push(name);
            }
        }
        names
    }

    fn lines(&self, py: Python<'_>) -> Vec<(String, String)> {
        self.response.get().with_state(py, |state| {
            let own = [
                state.close.then_some(("Connection", &b"close"[..])),
                state
                    .content_type
                    .as_bytes()
                    .map(|value| ("Content-Type", value)),
            ];
            let own = own.into_iter().flatten();
            own.map(|(name, value)| (name.to_owned(), latin1(value)))
                .chain(split(&state.fields).map(|(name, value)| (latin1(name), latin1(value))))
                .collect()
        })
    }
}

/// Lets a response take the headers of another: to Python, the view is a mapping.
pub fn register(py: Python<'_>) -> PyResult<()> {
    PyMapping::register::<ResponseHeaders>(py)
}

/// Removes a header; says whether there was one.
fn remove(state: &mut State, name: &str) -> bool {
    let mut removed = remove_lines(state, name);
    if name.eq_ignore_ascii_case("content-type") {
        let before = std::mem::replace(&mut state.content_type, ContentType::None);
        removed = before.as_bytes().is_some();
    }
    if name.eq_ignore_ascii_case("connection") {
        removed |= std::mem::replace(&mut state.close, false);
    }
    removed
}

fn remove_lines(state: &mut State, name: &str) -> bool {
    let before = state.fields.len();
    let mut kept = Vec::with_capacity(before);
    for (known, value) in split(&state.fields) {
        if !known.eq_ignore_ascii_case(name.as_bytes()) {
            kept.extend_from_slice(known);
            kept.extend_from_slice(b": ");
            kept.extend_from_slice(value);
            kept.extend_from_slice(b"\r\n");
        }
    }
    state.fields = kept;
    state.fields.len() < before
}

/// Names and values of rendered lines: `push_field` has made them, so each has its colon.
fn split(fields: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = fields.split(|&byte| byte == b'\n');
    lines.filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line.get(colon + 2..)?))
    })
}

/// A name that can be looked up; nothing else is among them.
fn text(name: &Bound<'_, PyAny>) -> Option<String> {
    Some(name.cast::<PyString>().ok()?.to_str().ok()?.to_owned())
}
