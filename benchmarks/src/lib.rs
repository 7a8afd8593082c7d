//! What the control servers share: one handler, one set-up, one report.
//!
//! `control` runs anel's core on anel's own reactors. `control_tokio` and `control_tokio_uring` run
//! the same core, handler, limits and buffer sizes, but somebody else's runtime does the I/O
//! (`outside`). So what differs between their rows is who talks to the kernel, and how.

#![forbid(unsafe_code)]

#[cfg(feature = "control")]
pub mod hello;
#[cfg(feature = "outside")]
pub mod outside;
#[cfg(feature = "control")]
pub mod tally;
