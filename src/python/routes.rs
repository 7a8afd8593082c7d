//! The routes of an application, compiled, with what answers each of them.
//!
//! Owns the pairing of route numbers with handlers and constant responses, the methods that are
//! answered without a route of their own, and what the values of placeholders are in Python.
//! Refuses to know patterns (that is `router`) and how handlers are called (that is `dispatch`).

use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyString, PyTuple, PyType};

use super::errors::route_error;
use super::response::Response;
use crate::protocol::{Answer, Payload};
use crate::router::{Params, Pattern, Placeholder, PlaceholderKind, RouteTable};
use crate::server::{BodyPlan, Delivery};

/// A compiled table with one target per route.
pub struct Routes {
    pub table: RouteTable,
    pub targets: Vec<Target>,
    pub route_objects: Vec<Py<PyAny>>,
    pub automatic_methods: AutomaticMethods,
}

/// Whether HEAD, OPTIONS and methods that no route takes have answers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutomaticMethods {
    /// HEAD is answered by the route for GET, OPTIONS with the methods of the path, and a method
    /// that is none of them with 405.
    On,
    /// A method matches or it does not, as in Japronto.
    Off,
}

/// What answers a request.
pub enum Target {
    Handler {
        handler: Py<PyAny>,
        kind: Kind,
        body: BodyPlan,
    },
    Constant(Constant),
}

impl Target {
    /// How the body of a request is wanted.
    pub fn body_plan(&self) -> BodyPlan {
        match self {
            Self::Handler { body, .. } => *body,
            Self::Constant(_) => BodyPlan::default(),
        }
    }
}

/// How a handler is called, decided when it was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A plain function: its result is the answer.
    Sync,
    /// A coroutine function that cannot suspend: driven to its end without a task.
    AwaitFree,
    /// Anything else that gives a coroutine: a task.
    Awaits,
}

/// A response that is the same every time. Its parts are immutable and may be shared.
#[derive(Clone, Debug)]
pub struct Constant {
    status: u16,
    content_type: Option<Bytes>,
    fields: Bytes,
    body: Bytes,
    close: bool,
}

impl Constant {
    fn of(response: &Bound<'_, Response>) -> Self {
        response.get().with_answer(response.py(), |answer| Self {
            status: answer.status,
            content_type: answer.content_type.map(Bytes::copy_from_slice),
            fields: Bytes::copy_from_slice(answer.fields),
            body: match answer.payload {
                Payload::Whole(body) => Bytes::copy_from_slice(body),
                Payload::Stream { .. } => Bytes::new(),
            },
            close: answer.close,
        })
    }

    pub fn answer(&self) -> Answer<'_> {
        Answer {
            status: self.status,
            content_type: self.content_type.as_deref(),
            fields: &self.fields,
            payload: Payload::Whole(&self.body),
            close: self.close,
        }
    }
}

impl Routes {
    /// The route that answers, with its captures in `params`.
    #[inline]
    pub fn find(&self, method: &[u8], path: &[u8], params: &mut Params) -> Option<usize> {
        self.table
            .find(method, path, params)
            .or_else(|| self.find_for_head(method, path, params))
    }

    /// A HEAD that has no route is answered by the one for GET; the worker leaves out the body.
    #[cold]
    fn find_for_head(&self, method: &[u8], path: &[u8], params: &mut Params) -> Option<usize> {
        let applies = method == b"HEAD" && self.automatic_methods == AutomaticMethods::On;
        applies
            .then(|| self.table.find(b"GET", path, params))
            .flatten()
    }

    /// The methods of a path that was not found, in order; empty when it has no route. `*` stands
    /// for the server (RFC 9110 9.3.7): the methods of all routes.
    pub fn allowed(&self, path: &[u8]) -> Vec<String> {
        let mut methods = match path {
            b"*" => self.table.methods(),
            _ => self.table.methods_of(path),
        };
        if methods.contains(b"GET".as_slice()) {
            methods.insert(b"HEAD");
        }
        if !methods.is_empty() || path == b"*" {
            methods.insert(b"OPTIONS");
        }
        let text = |method| String::from_utf8_lossy(method).into_owned();
        methods.into_iter().map(text).collect()
    }

    /// From the entries of `anel.routing.Router.freeze`.
    pub fn from_entries(
        entries: &Bound<'_, PyAny>,
        automatic_methods: AutomaticMethods,
    ) -> PyResult<Self> {
        let mut patterns = Vec::new();
        let mut targets = Vec::new();
        let mut route_objects = Vec::new();
        for entry in entries.try_iter()? {
            let entry = entry?.cast_into::<PyTuple>()?;
            let (pattern, methods, handler, kind, route, constant, streams, bytes_max): Entry<'_> =
                entry.extract()?;
            let pattern = pattern.to_str()?;
            let parsed = Pattern::parse(pattern)
                .map_err(|error| route_error(entry.py(), &error.to_string()))?;
            patterns.push((parsed, methods));
            targets.push(match constant {
                Some(constant) => Target::Constant(Constant::of(&constant)),
                None => Target::Handler {
                    handler: handler.unbind(),
                    kind: parse_kind(kind)?,
                    body: BodyPlan {
                        delivery: if streams {
                            Delivery::Streamed
                        } else {
                            Delivery::Gathered
                        },
                        bytes_max,
                    },
                },
            });
            route_objects.push(route.unbind());
        }
        Ok(Self {
            table: RouteTable::new(patterns),
            targets,
            route_objects,
            automatic_methods,
        })
    }
}

type Entry<'py> = (
    Bound<'py, PyString>,
    Option<Vec<String>>,
    Bound<'py, PyAny>,
    Bound<'py, PyString>,
    Bound<'py, PyAny>,
    Option<Bound<'py, Response>>,
    bool,
    Option<u64>,
);

/// A handler that is no route's, with how it is called, if there is one.
pub fn lone_handler(entry: Bound<'_, PyAny>) -> PyResult<Option<(Py<PyAny>, Kind)>> {
    let entry: Option<(Py<PyAny>, Bound<'_, PyString>)> = entry.extract()?;
    entry
        .map(|(handler, kind)| Ok((handler, parse_kind(kind)?)))
        .transpose()
}

fn parse_kind(kind: Bound<'_, PyString>) -> PyResult<Kind> {
    match kind.to_str()? {
        "sync" => Ok(Kind::Sync),
        "await_free" => Ok(Kind::AwaitFree),
        "awaits" => Ok(Kind::Awaits),
        other => Err(PyValueError::new_err(format!(
            "unknown kind of handler: {other}"
        ))),
    }
}

/// Makes of the texts in a match dict what the placeholders' types say.
pub fn convert_values(placeholders: &[Placeholder], values: &Bound<'_, PyDict>) -> PyResult<()> {
    let py = values.py();
    for Placeholder { name, kind } in placeholders {
        // A text that fits its kind is taken by the class.
        if let Some(class) = value_class(py, *kind)? {
            let text = values.as_any().get_item(name)?;
            values.set_item(name, class.call1((text,))?)?;
        }
    }
    Ok(())
}

/// The class of a placeholder's values; `None` for str.
fn value_class(py: Python<'_>, kind: PlaceholderKind) -> PyResult<Option<Bound<'_, PyType>>> {
    static UUID: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    Ok(match kind {
        PlaceholderKind::Text | PlaceholderKind::Path => None,
        PlaceholderKind::Int => Some(py.get_type::<PyInt>()),
        PlaceholderKind::Float => Some(py.get_type::<PyFloat>()),
        PlaceholderKind::Uuid => Some(UUID.import(py, "uuid", "UUID")?.clone()),
    })
}
