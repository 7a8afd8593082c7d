//! Header fields between Python and the wire.
//!
//! Owns the `Headers` mapping of a request and the rendering of a response's headers and cookies.
//! Refuses to know which fields frame a message, beyond keeping users from contradicting the
//! framing.

use std::cell::RefCell;
use std::collections::HashMap;

use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyMapping, PyString, PyTuple};

use super::arguments::Value;
use super::response::{Body, ContentType, State, wrong_type};
use crate::protocol::encode::push_field;
use crate::protocol::{Field, RequestHead};

/// The header fields of a request.
///
/// A dict of Title-Case names to str, so it prints, copies and serialises like one; looking a name
/// up ignores case (RFC 9110 5.1). A name that was sent several times gives its values joined by
/// `", "` (RFC 9110 5.3; Cookie by `"; "`, RFC 9113 8.2.3); `getall` gives them one by one. Values
/// are decoded as Latin-1.
#[pyclass(frozen, extends = PyDict, mapping, module = "anel")]
pub struct Headers {
    /// Names and values in the order they were sent, only if a name was sent more than once.
    repeated: Option<Vec<(String, String)>>,
}

#[pymethods]
impl Headers {
    fn __getitem__<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::find(slf, name)?.ok_or_else(|| PyKeyError::new_err(name.clone().unbind()))
    }

    fn __contains__(slf: &Bound<'_, Self>, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(Self::find(slf, name)?.is_some())
    }

    /// The value of the header, or `default` when it was not sent.
    #[pyo3(signature = (name, default=None, /))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(Self::find(slf, name)?.or(default))
    }

    /// All values of the header in the order they were sent; an empty list when there are none.
    fn getall<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let values = PyList::empty(slf.py());
        let Some(value) = Self::find(slf, name)? else {
            return Ok(values);
        };
        let name = title_case(name.cast::<PyString>()?.to_str()?.as_bytes());
        match &slf.get().repeated {
            None => values.append(value)?,
            Some(pairs) => {
                for (_, value) in pairs.iter().filter(|(known, _)| *known == name) {
                    values.append(value)?;
                }
            }
        }
        Ok(values)
    }

    /// Another name for `getall`.
    fn get_all<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        Self::getall(slf, name)
    }
}

impl Headers {
    /// The fields of a head as Python sees them.
    pub fn from_head<'py>(
        py: Python<'py>,
        names: &Names,
        head: &RequestHead,
        bytes: &[u8],
    ) -> PyResult<Bound<'py, Self>> {
        let is_repeated = (1..head.fields.len()).any(|at| {
            let name = head.fields[at].name.of(bytes);
            let mut before = head.fields[..at].iter();
            before.any(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
        });
        let repeated = is_repeated.then(|| {
            let pair = |field: &Field| {
                (
                    title_case(field.name.of(bytes)),
                    latin1(field.value.of(bytes)),
                )
            };
            head.fields.iter().map(pair).collect()
        });
        let headers = Bound::new(py, Self { repeated })?;
        let dict = headers.as_super();
        for field in &head.fields {
            let name = names.title_case(py, field.name.of(bytes));
            let value = text(py, field.value.of(bytes));
            match if is_repeated {
                dict.get_item(&name)?
            } else {
                None
            } {
                None => dict.set_item(name, value)?,
                Some(before) => {
                    let joint = if name == "Cookie" { "; " } else { ", " };
                    dict.set_item(
                        name,
                        format!("{}{joint}{value}", before.cast::<PyString>()?),
                    )?;
                }
            }
        }
        Ok(headers)
    }

    fn find<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let dict = slf.as_super();
        let Ok(name) = name.cast::<PyString>() else {
            return Ok(None);
        };
        if let Some(value) = dict.get_item(name)? {
            return Ok(Some(value));
        }
        let Ok(name) = name.to_str() else {
            return Ok(None);
        };
        dict.get_item(title_case(name.as_bytes()))
    }
}

/// Renders the headers of a response; those that frame it or say its type take effect instead.
pub fn push_headers(state: &mut State, headers: &Value<'_, '_>, body_bytes: usize) -> PyResult<()> {
    for pair in pairs(headers)? {
        let (name, value) = text_pair(&pair?)?;
        push_header(state, &name, &value, body_bytes)?;
    }
    Ok(())
}

/// The entries of a mapping, or the pairs themselves.
pub fn pairs<'py>(headers: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    let pairs = match headers.cast::<PyMapping>() {
        Ok(mapping) => mapping.items()?.into_any(),
        Err(_) => headers.clone(),
    };
    pairs.try_iter().map_err(|_| {
        let headers = headers.as_borrowed();
        wrong_type("headers", "a mapping or pairs of str", &headers)
    })
}

/// Appends a header. What frames the response or says its type takes effect instead; an error
/// changes nothing.
pub fn push_header(state: &mut State, name: &str, value: &str, body_bytes: usize) -> PyResult<()> {
    // Rendered first, so that a forged name or value is refused whatever the name.
    let begin = state.fields.len();
    push_field(&mut state.fields, name, value)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    let refuse = |why: &str| {
        Err(PyValueError::new_err(format!(
            "header {name:?}: {value:?}: {why}"
        )))
    };
    match name.to_ascii_lowercase().as_str() {
        "content-type" => {
            let line = state.fields.split_off(begin);
            let value = &line[name.len() + 2..line.len() - 2];
            state.content_type = ContentType::Other(value.into());
        }
        "content-length" => {
            state.fields.truncate(begin);
            if let Body::Stream(stream) = &mut state.body {
                return stream
                    .claim_length(value)
                    .or_else(|why: String| refuse(&why));
            }
            if value.trim() != body_bytes.to_string() {
                return refuse(&format!("the body has {body_bytes} bytes"));
            }
        }
        "transfer-encoding" => {
            state.fields.truncate(begin);
            return refuse("the server frames the body itself");
        }
        "connection" => {
            state.fields.truncate(begin);
            state.close |= asks_to_close(value);
            push_options(&mut state.fields, name, value);
        }
        // The server says the date itself (RFC 9110 6.6.1); twice would be wrong.
        "date" => state.fields.truncate(begin),
        _ => {}
    }
    Ok(())
}

/// Whether one of the options of a Connection header is `close` (RFC 9112 9.6).
pub fn asks_to_close(value: &str) -> bool {
    options(value).any(|option| option.eq_ignore_ascii_case("close"))
}

/// Renders the options of a Connection header that the server does not say itself.
fn push_options(fields: &mut Vec<u8>, name: &str, value: &str) {
    let own = |option: &&str| {
        option.eq_ignore_ascii_case("close") || option.eq_ignore_ascii_case("keep-alive")
    };
    let others: Vec<&str> = options(value).filter(|option| !own(option)).collect();
    if !others.is_empty() {
        // What is left of a field that was found valid is valid.
        let _ = push_field(fields, name, &others.join(", "));
    }
}

fn options(value: &str) -> impl Iterator<Item = &str> {
    let options = value.split(',').map(str::trim);
    options.filter(|option| !option.is_empty())
}

/// Renders the cookies of an `http.cookies.SimpleCookie`, one line for each: a line end in one of
/// them (Morsel lets attributes have it) is refused like that in any other field.
pub fn push_cookies(fields: &mut Vec<u8>, cookies: &Value<'_, '_>) -> PyResult<()> {
    let refuse = || -> PyResult<()> {
        Err(PyValueError::new_err(format!(
            "cookies: {} is not an http.cookies.SimpleCookie",
            cookies.repr()?
        )))
    };
    let Ok(jar) = cookies.cast::<PyMapping>() else {
        return refuse();
    };
    let pairs = jar.items()?;
    // As `SimpleCookie.output` has them.
    pairs.sort()?;
    for pair in pairs.iter() {
        let morsel = pair.get_item(1)?;
        let Some(output) = morsel.getattr_opt("OutputString")? else {
            return refuse();
        };
        push_field(fields, "Set-Cookie", output.call0()?.extract()?)
            .map_err(|error| PyValueError::new_err(format!("cookies: {error}")))?;
    }
    Ok(())
}

/// A name and its value.
pub fn text_pair(pair: &Bound<'_, PyAny>) -> PyResult<(String, String)> {
    let Ok(tuple) = pair.cast::<PyTuple>() else {
        return Err(PyTypeError::new_err(format!(
            "headers must be pairs of str, not {}",
            pair.repr()?
        )));
    };
    match tuple.extract::<(String, String)>() {
        Ok(pair) => Ok(pair),
        Err(_) => Err(PyTypeError::new_err(format!(
            "headers must be pairs of str, not {}",
            tuple.repr()?
        ))),
    }
}

/// Japronto's form of names, which is that of `str.title`: a letter is capital unless it follows a
/// letter.
fn title_case(name: &[u8]) -> String {
    let mut upper = true;
    name.iter()
        .map(|&byte| {
            let byte = if upper {
                byte.to_ascii_uppercase()
            } else {
                byte.to_ascii_lowercase()
            };
            upper = !byte.is_ascii_alphabetic();
            char::from(byte)
        })
        .collect()
}

/// Title-case names that were seen before, so that a header costs no new name and no new hash.
#[derive(Default)]
pub struct Names(RefCell<HashMap<Box<[u8]>, Py<PyString>>>);

impl Names {
    fn title_case<'py>(&self, py: Python<'py>, name: &[u8]) -> Bound<'py, PyString> {
        if let Some(known) = self.0.borrow().get(name) {
            return known.bind(py).clone();
        }
        let made = PyString::intern(py, &title_case(name));
        let mut known = self.0.borrow_mut();
        if known.len() < NAMES_MAX {
            known.insert(name.into(), made.clone().unbind());
        }
        made
    }
}

/// Names remembered. Peers choose names, so there is an end to it; 256 is arbitrary and more than
/// browsers and proxies use.
const NAMES_MAX: usize = 256;

/// Bytes as a str, each byte the character of the same number.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match std::str::from_utf8(bytes) {
        Ok(ascii) if bytes.is_ascii() => PyString::new(py, ascii),
        _ => PyString::new(py, &latin1(bytes)),
    }
}

/// Bytes as text, each byte the character of the same number (RFC 9110 5.5: obs-text).
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}
