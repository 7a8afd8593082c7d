//! anel: an HTTP toolkit for Python on Linux with a completion-based io_uring reactor.
//!
//! The layers, lowest first: `reactor` (ops in, completions out), `router` (paths to routes),
//! `protocol` (bytes to steps), `server` (the worker, without I/O), `python` (the extension
//! module). A layer names only the ones below it; `tests/rust/layers.rs` enforces it. The core
//! builds without Python.

#![deny(unsafe_code)]

pub mod protocol;
pub mod reactor;
pub mod router;
pub mod server;

#[cfg(feature = "python")]
mod python;
