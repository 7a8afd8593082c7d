//! What this machine allows, for `anel doctor`.
//!
//! Owns a report of plain values. Refuses to print it. It finds out by opening a ring and closing
//! it again, because nothing the kernel says about itself is as true.

use super::Reactor;
use super::choose::{self, AnyReactor};
use super::config::{Choice, Config};
use super::errors::{Facts, ReactorUnavailable};
use super::uring::{Features, Ring};

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Release of the running kernel.
    pub kernel: String,
    /// The sysctl `kernel.io_uring_disabled`; `None` where the kernel has none (before 6.6).
    pub io_uring_disabled: Option<u32>,
    /// Mode of seccomp: 0 none, 1 strict, 2 filter.
    pub seccomp: Option<u32>,
    /// Whether the process may not gain privileges.
    pub no_new_privs: Option<u32>,
    /// Soft limit of locked memory, in bytes or `unlimited`.
    pub locked_memory_limit: String,
    /// Soft limit of open descriptors.
    pub open_files_limit: String,
    /// What a ring got, or why there is none.
    pub ring: Result<Features, ReactorUnavailable>,
    /// Name of the reactor that `auto` takes; `None` when it finds none.
    pub auto: Option<&'static str>,
    /// Why, when it is not io_uring.
    pub notice: Option<String>,
}

impl Report {
    /// Looks at the machine, with the sizes and flags of this configuration.
    #[must_use]
    pub fn collect(config: &Config) -> Self {
        let facts = Facts::read();
        let ring = Ring::open(config).map(|ring| ring.features());
        let (auto, notice) = match choose::open(Choice::Auto, config) {
            Ok(opened) => (Some(opened.reactor.name()), opened.notice),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            kernel: facts.kernel,
            io_uring_disabled: facts.io_uring_disabled,
            seccomp: facts.seccomp,
            no_new_privs: facts.no_new_privs,
            locked_memory_limit: facts.locked_memory,
            open_files_limit: facts.open_files,
            ring,
            auto,
            notice,
        }
    }
}

impl AnyReactor {
    /// What the ring got from its kernel; `None` on epoll.
    #[must_use]
    pub fn features(&self) -> Option<Features> {
        match self {
            Self::Ring(ring) => Some(ring.features()),
            Self::Epoll(_) => None,
        }
    }
}
