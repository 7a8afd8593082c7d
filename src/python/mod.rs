//! The extension module `anel._core`: the only place that knows Python.
//!
//! Owns the native types, the GIL's comings and goings and the turn in which all layers meet
//! (`worker.rs`). Refuses to know the kernel (that is `reactor`) and the wire (that is `protocol`).
//! `unsafe` is in `raw.rs` alone.

mod access_log;
mod answer;
mod arguments;
mod asyncio_view;
mod context;
mod coroutine;
mod dispatch;
mod doctor;
mod ending;
mod errors;
mod factory;
mod guest;
mod headers;
mod lifetime;
mod log_batch;
mod log_line;
mod log_writer;
mod measures;
mod orders;
mod outcome;
mod peers;
mod pending;
mod raw;
mod reader;
mod ready;
mod request;
mod response;
mod response_headers;
mod routes;
mod row;
mod scheduling;
mod settings;
mod shared;
mod stream;
mod text;
mod transport;
mod view;
mod waiter;
mod worker;
mod writer;

use pyo3::prelude::*;

/// Native core of anel. Private: import the names from `anel`.
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use super::doctor::doctor;
    #[pymodule_export]
    use super::headers::Headers;
    #[pymodule_export]
    use super::outcome::{allow_response, as_response, unmatched};
    #[pymodule_export]
    use super::reader::BodyReader;
    #[pymodule_export]
    use super::ready::ReadyQueue;
    #[pymodule_export]
    use super::request::Request;
    #[pymodule_export]
    use super::response::Response;
    #[pymodule_export]
    use super::response_headers::ResponseHeaders;
    #[pymodule_export]
    use super::row::row_layout;
    #[pymodule_export]
    use super::settings::default_limits;
    #[pymodule_export]
    use super::transport::{duplicate_socket, own_address, peer_address, socket_number};
    #[pymodule_export]
    use super::worker::Worker;
    #[pymodule_export]
    use super::writer::BodyWriter;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        super::arguments::intern_names(module.py());
        super::response_headers::register(module.py())?;
        super::factory::add_response_method(module.py())
    }
}
