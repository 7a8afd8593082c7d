//! Opens the reactor that the operator asked for, or the best one there is.
//!
//! Owns the choice and its explanation. Refuses to log: the line is handed back.

use std::os::fd::RawFd;
use std::time::Duration;

use super::Reactor;
use super::config::{Choice, Config, ConfigError};
use super::counters::Counters;
use super::epoll::Epoll;
use super::errors::{Errno, ReactorUnavailable, Reason};
use super::seam::{Completion, Op, Submit, Token};
use super::uring::{Restrictions, Ring};
use super::waker::Waker;

/// One of the two reactors.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per worker, and it is never moved"
)]
pub enum AnyReactor {
    /// On io_uring.
    Ring(Ring),
    /// On epoll.
    Epoll(Epoll),
}

/// A reactor, and what the operator should be told about it.
#[derive(Debug)]
pub struct Opened {
    /// What was opened.
    pub reactor: AnyReactor,
    /// For `Choice::Auto` on epoll: one line that says why, and how to allow io_uring. For a ring
    /// that the kernel did not restrict: what it said.
    pub notice: Option<String>,
}

/// Opens a reactor on the calling thread. Call it in the worker, after the fork.
///
/// # Errors
/// When the choice was explicit and cannot be had, or nothing can.
pub fn open(choice: Choice, config: &Config) -> Result<Opened, ReactorUnavailable> {
    let refusal = match choice {
        Choice::Epoll => None,
        Choice::Auto | Choice::IoUring => match Ring::open(config) {
            Ok(ring) => {
                return Ok(Opened {
                    notice: notice_of(ring.features().restrictions),
                    reactor: AnyReactor::Ring(ring),
                });
            }
            Err(refusal) if choice == Choice::Auto && !refusal.is_of_configuration() => {
                Some(refusal)
            }
            Err(refusal) => return Err(refusal),
        },
    };
    let reactor = AnyReactor::Epoll(Epoll::open(config)?);
    let notice = refusal.map(|refusal| format!("serving with epoll, because {refusal}"));
    Ok(Opened { reactor, notice })
}

/// For a ring that can be asked for more than we do, without anybody having wanted that.
fn notice_of(restrictions: Restrictions) -> Option<String> {
    match restrictions {
        Restrictions::Registered | Restrictions::SwitchedOff => None,
        Restrictions::Refused(errno) => Some(format!(
            "serving with io_uring without restrictions, because the kernel refused them (errno {}: \
             {errno})",
            errno.0
        )),
    }
}

impl From<ConfigError> for ReactorUnavailable {
    fn from(error: ConfigError) -> Self {
        Self {
            errno: Errno(libc::EINVAL),
            reason: Reason::ConfigInvalid,
            hint: error.0,
        }
    }
}

impl Submit for AnyReactor {
    #[inline]
    fn submit(&mut self, token: Token, op: Op) {
        match self {
            Self::Ring(ring) => ring.submit(token, op),
            Self::Epoll(epoll) => epoll.submit(token, op),
        }
    }

    fn free_buffers(&self) -> usize {
        match self {
            Self::Ring(ring) => ring.free_buffers(),
            Self::Epoll(epoll) => epoll.free_buffers(),
        }
    }
}

impl Reactor for AnyReactor {
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Errno> {
        match self {
            Self::Ring(ring) => ring.wait(timeout, completions),
            Self::Epoll(epoll) => epoll.wait(timeout, completions),
        }
    }

    fn wake_fd(&mut self) -> Result<RawFd, Errno> {
        match self {
            Self::Ring(ring) => ring.wake_fd(),
            Self::Epoll(epoll) => epoll.wake_fd(),
        }
    }

    fn is_idle(&mut self) -> bool {
        match self {
            Self::Ring(ring) => ring.is_idle(),
            Self::Epoll(epoll) => epoll.is_idle(),
        }
    }

    fn rest(&mut self) -> bool {
        match self {
            Self::Ring(ring) => ring.rest(),
            Self::Epoll(epoll) => epoll.rest(),
        }
    }

    fn waker(&self) -> Waker {
        match self {
            Self::Ring(ring) => ring.waker(),
            Self::Epoll(epoll) => epoll.waker(),
        }
    }

    fn counters(&self) -> Counters {
        match self {
            Self::Ring(ring) => ring.counters(),
            Self::Epoll(epoll) => epoll.counters(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ring(ring) => ring.name(),
            Self::Epoll(epoll) => epoll.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_kernel_is_worth_a_line() {
        let refused = notice_of(Restrictions::Refused(Errno(libc::EINVAL))).unwrap();

        assert!(refused.contains("without restrictions") && refused.contains("errno 22"));
        assert_eq!(notice_of(Restrictions::Registered), None);
        assert_eq!(notice_of(Restrictions::SwitchedOff), None);
    }
}
