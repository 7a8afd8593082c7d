//! What this machine allows, as a dict for `anel doctor`.
//!
//! Owns the conversion; refuses to find anything out itself: that is `reactor::doctor`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors::config_error;
use super::settings::reactor_config;
use crate::reactor::doctor::Report;

/// What the machine allows and which reactor `auto` takes here, as plain values.
#[pyfunction]
pub fn doctor(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let config = reactor_config().map_err(|error| config_error(py, &error.to_string()))?;
    let report = Report::collect(&config);
    let dict = PyDict::new(py);
    dict.set_item("kernel", report.kernel)?;
    dict.set_item("io_uring_disabled", report.io_uring_disabled)?;
    dict.set_item("seccomp", report.seccomp)?;
    dict.set_item("no_new_privs", report.no_new_privs)?;
    dict.set_item("locked_memory_limit", report.locked_memory_limit)?;
    dict.set_item("open_files_limit", report.open_files_limit)?;
    let ring = PyDict::new(py);
    match report.ring {
        Ok(features) => {
            ring.set_item("available", true)?;
            ring.set_item("rung", format!("{:?}", features.rung).to_lowercase())?;
            ring.set_item("setup_flags", features.setup_flags())?;
            let operations = features.operations();
            ring.set_item("restricted", operations.is_some())?;
            ring.set_item("operations", operations)?;
            ring.set_item("multishot_recv", features.multishot_recv)?;
            ring.set_item("multishot_accept", features.multishot_accept)?;
            ring.set_item("submissions", features.submissions)?;
            ring.set_item("completions", features.completions)?;
            ring.set_item("experiments", features.experiments.words())?;
        }
        Err(error) => {
            ring.set_item("available", false)?;
            ring.set_item("errno", error.errno.0)?;
            ring.set_item("why", error.to_string())?;
        }
    }
    dict.set_item("io_uring", ring)?;
    dict.set_item("auto", report.auto)?;
    let why = report
        .notice
        .unwrap_or_else(|| String::from("io_uring works on this machine"));
    dict.set_item("why", why)?;
    Ok(dict)
}
