//! The arguments of a response, however they were passed.
//!
//! Owns their names and order; refuses to know what they mean. Names are compared by identity
//! first: the interpreter interns the names at a call site, and so are ours.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple};

/// A value that was passed, not `None`.
pub type Value<'a, 'py> = Borrowed<'a, 'py, PyAny>;

/// Positions, which are Japronto's.
const NAMES: [&str; COUNT + ALIASES] = [
    "text",
    "code",
    "body",
    "json",
    "mime_type",
    "encoding",
    "headers",
    "cookies",
    // By keyword only.
    "stream",
    "length",
    // Other frameworks' words for `code`.
    "status",
    "status_code",
];
const POSITIONAL: usize = 8;
const COUNT: usize = POSITIONAL + 2;
const ALIASES: usize = 2;
const CODE: usize = 1;

static INTERNED: PyOnceLock<[Py<PyString>; COUNT + ALIASES]> = PyOnceLock::new();

/// The arguments of `Response`, absent ones and `None` alike as `None`.
#[derive(Default)]
pub struct Arguments<'a, 'py> {
    values: [Option<Value<'a, 'py>>; COUNT],
}

impl<'a, 'py> Arguments<'a, 'py> {
    /// From a fast call: positional values first, then one value per name.
    pub fn parse(
        py: Python<'py>,
        values: &[Option<Value<'a, 'py>>],
        names: Option<Borrowed<'a, 'py, PyTuple>>,
    ) -> PyResult<Self> {
        let mut arguments = Self::default();
        let named = names.as_ref().map_or(0, |names| names.len());
        let (positional, keyword) = values.split_at(values.len() - named);
        if positional.len() > POSITIONAL {
            return Err(PyTypeError::new_err(format!(
                "Response() takes at most {POSITIONAL} positional arguments, {} given",
                positional.len()
            )));
        }
        arguments.values[..positional.len()].copy_from_slice(positional);
        if let Some(names) = &names {
            let interned = interned(py);
            for (name, value) in names.iter_borrowed().zip(keyword) {
                let index = find(interned, &name)?;
                arguments.set(index, *value)?;
            }
        }
        for value in &mut arguments.values {
            *value = value.filter(|value| !value.is_none());
        }
        Ok(arguments)
    }

    /// From the constructor, which has sorted them already.
    pub fn from_array(values: [Option<Value<'a, 'py>>; COUNT]) -> Self {
        Self { values }
    }

    /// What plain values stand for.
    pub fn plain(
        text: Option<Value<'a, 'py>>,
        code: Option<Value<'a, 'py>>,
        body: Option<Value<'a, 'py>>,
        json: Option<Value<'a, 'py>>,
    ) -> Self {
        let mut arguments = Self::default();
        arguments.values[..4].copy_from_slice(&[text, code, body, json]);
        arguments
    }

    fn set(&mut self, index: usize, value: Option<Value<'a, 'py>>) -> PyResult<()> {
        let index = if index < COUNT { index } else { CODE };
        if self.values[index].is_some() {
            return Err(PyTypeError::new_err(format!(
                "Response() got multiple values for argument '{}'",
                NAMES[index]
            )));
        }
        self.values[index] = value;
        Ok(())
    }

    pub fn text(&self) -> Option<Value<'a, 'py>> {
        self.values[0]
    }

    pub fn code(&self) -> Option<Value<'a, 'py>> {
        self.values[CODE]
    }

    pub fn body(&self) -> Option<Value<'a, 'py>> {
        self.values[2]
    }

    pub fn json(&self) -> Option<Value<'a, 'py>> {
        self.values[3]
    }

    pub fn mime_type(&self) -> Option<Value<'a, 'py>> {
        self.values[4]
    }

    pub fn encoding(&self) -> Option<Value<'a, 'py>> {
        self.values[5]
    }

    pub fn headers(&self) -> Option<Value<'a, 'py>> {
        self.values[6]
    }

    pub fn cookies(&self) -> Option<Value<'a, 'py>> {
        self.values[7]
    }

    pub fn stream(&self) -> Option<Value<'a, 'py>> {
        self.values[8]
    }

    pub fn length(&self) -> Option<Value<'a, 'py>> {
        self.values[9]
    }
}

/// Makes the interned names; called once, when the module is made.
pub fn intern_names(py: Python<'_>) {
    interned(py);
}

/// The text, when nothing else was passed: the shape of most calls, so it is looked for first.
#[inline]
pub fn only_text<'a, 'py>(
    py: Python<'py>,
    values: &'a [Option<Value<'a, 'py>>],
    names: Option<Borrowed<'a, 'py, PyTuple>>,
) -> Option<Borrowed<'a, 'py, PyString>> {
    let [Some(text)] = values else {
        return None;
    };
    match names.as_ref().map_or(&[][..], |names| names.as_slice()) {
        [] => {}
        [name] if name.is(&interned(py)[0]) => {}
        _ => return None,
    }
    text.cast_exact::<PyString>().ok()
}

fn interned(py: Python<'_>) -> &[Py<PyString>; COUNT + ALIASES] {
    INTERNED.get_or_init(py, || NAMES.map(|name| PyString::intern(py, name).unbind()))
}

fn find(interned: &[Py<PyString>], name: &Borrowed<'_, '_, PyAny>) -> PyResult<usize> {
    if let Some(index) = interned
        .iter()
        .position(|known| known.as_ptr() == name.as_ptr())
    {
        return Ok(index);
    }
    let name = name.cast::<PyString>()?;
    let text = name.to_str()?;
    NAMES
        .iter()
        .position(|known| *known == text)
        .ok_or_else(|| {
            PyTypeError::new_err(format!(
                "Response() got an unexpected keyword argument '{text}'"
            ))
        })
}
