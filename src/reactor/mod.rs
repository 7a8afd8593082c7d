//! Ops in, completions out: the only layer that talks to the kernel about sockets.
//!
//! Owns the ring, its control on epoll, receive buffers, tokens, the waker, listeners and the
//! search for what this machine allows. Refuses to know HTTP, Python, connections' states or
//! deadlines. It is driven by `submit` for every op and `wait` once per turn; what both mean is in
//! `seam`, and is the same for `Ring`, `Epoll` and the simulator of the tests.

// The kernel's interface is raw pointers and descriptors. Every block names an invariant of
// SAFETY.md, and no unsafe function is visible outside its file.
#![allow(unsafe_code)]

mod buffers;
mod choose;
mod config;
mod counters;
pub mod doctor;
mod epoll;
mod errors;
mod knob;
mod net;
mod origin;
mod seam;
mod uring;
mod waker;

use std::os::fd::RawFd;
use std::time::Duration;

pub use buffers::{Group, Lease};
pub use choose::{AnyReactor, Opened, open};
pub use config::{Choice, Config, ConfigError};
pub use counters::Counters;
pub use epoll::Epoll;
pub use errors::{ReactorUnavailable, Reason};
pub use knob::{Experiments, FlagKnob, Sizes};
pub use net::{duplicate, listen, local_name, peer_name};
pub use seam::{
    Arm, Completion, Errno, GENERATION_MASK, Half, Kind, Op, Outcome, SendBuffer, Submit, Token,
};
pub use uring::{Features, Restrictions, Ring, Rung};
pub use waker::Waker;

/// What a worker needs to turn its ops into completions.
pub trait Reactor: Submit {
    /// Submits everything queued, then waits until there is a completion, a wake-up or a signal, or
    /// the timeout has passed, and appends the completions. There may be none: the caller looks at
    /// signals and the clock after every return. `None` waits for ever, `Some(0)` only looks.
    ///
    /// # Errors
    /// Only what no caller can act on: the reactor is broken and the worker should end.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Errno>;

    /// For another loop that waits in our place: a descriptor that is readable when `wait` would
    /// find something. It stays the reactor's.
    ///
    /// # Errors
    /// When no descriptor is free, or the kernel refuses to report to it.
    fn wake_fd(&mut self) -> Result<RawFd, Errno>;

    /// Whether nothing waits to be submitted or taken, as far as can be known without a system
    /// call.
    fn is_idle(&mut self) -> bool;

    /// Leaves the waiting to the other loop: from here on `wake_fd` is readable only for what has
    /// not been taken. `false` when there is something already of which it may not tell: wait
    /// again.
    fn rest(&mut self) -> bool;

    /// What other threads end a wait with.
    fn waker(&self) -> Waker;

    /// What happened so far.
    fn counters(&self) -> Counters;

    /// `io_uring` or `epoll`, for logs and metrics.
    fn name(&self) -> &'static str;
}
