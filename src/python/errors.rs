//! Errors of the core as Python exceptions: the one place for this direction.
//!
//! Owns the mapping; the classes themselves are in `anel.exceptions`. Refuses to turn exceptions
//! into responses: that is `anel.application`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::reactor::ReactorUnavailable;

/// An exception of `anel.exceptions`, or what kept it from being made.
pub fn anel_error<'py, A>(py: Python<'py>, class: &str, arguments: A) -> PyErr
where
    A: pyo3::call::PyCallArgs<'py>,
{
    let made = py
        .import("anel.exceptions")
        .and_then(|module| module.getattr(class))
        .and_then(|class| class.call1(arguments));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// Whether an exception says that the client is gone.
pub fn is_client_disconnected(py: Python<'_>, error: &PyErr) -> bool {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CLASS
        .import(py, "anel.exceptions", "ClientDisconnected")
        .is_ok_and(|class: &Bound<'_, PyAny>| error.matches(py, class).unwrap_or(false))
}

/// A pattern that cannot be compiled.
pub fn route_error(py: Python<'_>, message: &str) -> PyErr {
    anel_error(py, "RouteError", (message,))
}

/// A setting that cannot be used.
pub fn config_error(py: Python<'_>, message: &str) -> PyErr {
    anel_error(py, "ConfigError", (message,))
}

/// A file that cannot be written.
pub fn setup_error(py: Python<'_>, errno: Option<i32>, reason: String) -> PyErr {
    anel_error(py, "SetupError", (errno, reason))
}

/// A reactor that cannot be had.
pub fn reactor_unavailable(py: Python<'_>, error: &ReactorUnavailable) -> PyErr {
    let errno = error.errno.0;
    anel_error(py, "ReactorUnavailable", (errno, error.to_string()))
}
