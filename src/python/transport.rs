//! The two ends of a request's connection, as Python's `socket` module writes them.
//!
//! Owns the way from a request to its socket: only as long as it is known to be the request's, and
//! only as a duplicate, so that nothing done to it can hit a stranger's descriptor. What users see
//! is `anel.transport`.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::request::Request;
use crate::reactor::{duplicate, local_name};

/// The address of the peer; None when it is not known any more, and for a Unix socket.
#[pyfunction]
pub fn peer_address<'py>(request: &Bound<'py, Request>) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let py = request.py();
    let address = request.get().peer(py).and_then(|peer| peer.address);
    address.map(|address| as_tuple(py, address)).transpose()
}

/// Our own address; None when the exchange is over, and for a Unix socket.
#[pyfunction]
pub fn own_address<'py>(request: &Bound<'py, Request>) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let py = request.py();
    match request.get().socket(py) {
        Some(socket) => match local_name(socket) {
            Ok(address) => as_tuple(py, address).map(Some),
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(error.into()),
        },
        None => Ok(None),
    }
}

/// The number of the connection's descriptor; -1 when the exchange is over.
#[pyfunction]
pub fn socket_number(request: &Bound<'_, Request>) -> i32 {
    request.get().socket(request.py()).unwrap_or(-1)
}

/// Another descriptor of the connection's socket, the caller's to close; None when the exchange is
/// over.
#[pyfunction]
pub fn duplicate_socket(request: &Bound<'_, Request>) -> PyResult<Option<i32>> {
    match request.get().socket(request.py()) {
        Some(socket) => Ok(Some(duplicate(socket)?.into_raw_fd())),
        None => Ok(None),
    }
}

fn as_tuple(py: Python<'_>, address: SocketAddr) -> PyResult<Bound<'_, PyTuple>> {
    match address {
        SocketAddr::V4(v4) => (v4.ip().to_string(), v4.port()).into_pyobject(py),
        SocketAddr::V6(v6) => {
            let (flow, scope) = (v6.flowinfo(), v6.scope_id());
            (v6.ip().to_string(), v6.port(), flow, scope).into_pyobject(py)
        }
    }
}
