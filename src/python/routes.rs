//! The routes of an application, compiled, with what answers each of them.
//!
//! Owns the pairing of route numbers with handlers and constant responses. Refuses to know patterns
//! (that is `router`) and how handlers are called (that is `dispatch`).

use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use super::errors::route_error;
use crate::protocol::{Answer, Payload};
use crate::router::{Pattern, RouteTable};
use crate::server::{BodyPlan, Delivery};

/// A compiled table with one target per route.
pub struct Routes {
    pub table: RouteTable,
    pub targets: Vec<Target>,
    pub route_objects: Vec<Py<PyAny>>,
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
}

impl Constant {
    pub fn answer(&self) -> Answer<'_> {
        Answer {
            status: self.status,
            content_type: self.content_type.as_deref(),
            fields: &self.fields,
            payload: Payload::Whole(&self.body),
            close: false,
        }
    }
}

impl Routes {
    /// From the entries of `anel.routing.Router.freeze`.
    pub fn from_entries(entries: &Bound<'_, PyAny>) -> PyResult<Self> {
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
                Some(constant) => Target::Constant(parse_constant(constant)?),
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
        })
    }
}

type Entry<'py> = (
    Bound<'py, PyString>,
    Option<Vec<String>>,
    Bound<'py, PyAny>,
    Bound<'py, PyString>,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyTuple>>,
    bool,
    Option<u64>,
);

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

fn parse_constant(constant: Bound<'_, PyTuple>) -> PyResult<Constant> {
    type Parts<'py> = (
        u16,
        Option<String>,
        Bound<'py, PyBytes>,
        Bound<'py, PyBytes>,
    );
    let (status, content_type, fields, body): Parts<'_> = constant.extract()?;
    Ok(Constant {
        status,
        content_type: content_type.map(Bytes::from),
        fields: Bytes::copy_from_slice(fields.as_bytes()),
        body: Bytes::copy_from_slice(body.as_bytes()),
    })
}
