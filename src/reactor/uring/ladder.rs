//! The ladder of set-up flags: from what is fastest to what Linux 5.19 has.
//!
//! Owns which flags go together, in which order they are tried, and what became of it. Refuses to
//! know what the ring is used for. A kernel refuses flags it does not know with EINVAL, so the
//! first rung that opens is the best one it has.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::IoUring;

use super::restrictions::{self, Restrictions};
use crate::reactor::config::Config;
use crate::reactor::errors::{Errno, ReactorUnavailable};
use crate::reactor::knob::{Experiments, FlagKnob};

/// A set of flags that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Everything: `DEFER_TASKRUN` and `NO_SQARRAY` (6.6).
    Full,
    /// `DEFER_TASKRUN` (6.1).
    Deferred,
    /// `COOP_TASKRUN` with `SINGLE_ISSUER` (6.0).
    Cooperative,
    /// `COOP_TASKRUN` alone (5.19). No kernel of that age was at hand: this rung is forced on newer
    /// ones.
    Minimum,
    /// Beside the ladder, only where the knob asks for it: `SQPOLL` (5.11), which excludes all of
    /// the above.
    Polled,
}

impl Rung {
    const ALL: [Self; 5] = [
        Self::Full,
        Self::Deferred,
        Self::Cooperative,
        Self::Minimum,
        Self::Polled,
    ];

    /// The set-up flags that this rung asks for, by the kernel's names without their prefix.
    #[must_use]
    pub fn setup_flags(self) -> &'static [&'static str] {
        match self {
            Self::Full => &[
                "SINGLE_ISSUER",
                "DEFER_TASKRUN",
                "TASKRUN_FLAG",
                "NO_SQARRAY",
                "SUBMIT_ALL",
                "CLAMP",
                "CQSIZE",
            ],
            Self::Deferred => &[
                "SINGLE_ISSUER",
                "DEFER_TASKRUN",
                "TASKRUN_FLAG",
                "SUBMIT_ALL",
                "CLAMP",
                "CQSIZE",
            ],
            Self::Cooperative => &[
                "SINGLE_ISSUER",
                "COOP_TASKRUN",
                "TASKRUN_FLAG",
                "SUBMIT_ALL",
                "CLAMP",
                "CQSIZE",
            ],
            Self::Minimum => &["COOP_TASKRUN", "SUBMIT_ALL", "CLAMP", "CQSIZE"],
            Self::Polled => &["SQPOLL", "SUBMIT_ALL", "CLAMP", "CQSIZE"],
        }
    }

    /// Whether nothing that the knob switches off is in this rung.
    fn is_allowed(self, knob: FlagKnob) -> bool {
        if knob.experiments.sqpoll_ms.is_some() {
            return self == Self::Polled;
        }
        match self {
            Self::Polled => false,
            Self::Full => knob.noarray && knob.defer && knob.single,
            Self::Deferred => knob.defer && knob.single,
            Self::Cooperative => knob.single,
            Self::Minimum => true,
        }
    }

    /// Whether the ring says in shared memory that completions wait for an enter. Then a look at an
    /// idle ring costs no system call.
    pub(super) fn has_taskrun_flag(self) -> bool {
        !matches!(self, Self::Minimum | Self::Polled)
    }

    /// Opens a ring, restricted unless the knob says otherwise or the kernel does not do it.
    fn open(self, config: &Config, completions: u32) -> io::Result<(IoUring, Restrictions)> {
        let build = |start| self.build(config, completions, start);
        if !config.flags.restrict {
            return Ok((build(Start::Enabled)?, Restrictions::SwitchedOff));
        }
        let io = build(Start::Disabled)?;
        match restrictions::register(&io, &config.flags.experiments) {
            Ok(()) => Ok((io, Restrictions::Registered)),
            Err(errno) => {
                // Its locked memory must not stand in the way of the next one.
                drop(io);
                Ok((build(Start::Enabled)?, Restrictions::Refused(errno)))
            }
        }
    }

    fn build(self, config: &Config, completions: u32, start: Start) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        // A child of a fork must not reach our queues: it would submit in our name.
        builder
            .dontfork()
            .setup_clamp()
            .setup_submit_all()
            .setup_cqsize(completions);
        if start == Start::Disabled {
            builder.setup_r_disabled();
        }
        match self {
            Self::Full => {
                builder
                    .setup_single_issuer()
                    .setup_defer_taskrun()
                    .setup_taskrun_flag();
                builder.setup_no_sqarray();
            }
            Self::Deferred => {
                builder
                    .setup_single_issuer()
                    .setup_defer_taskrun()
                    .setup_taskrun_flag();
            }
            Self::Cooperative => {
                builder
                    .setup_single_issuer()
                    .setup_coop_taskrun()
                    .setup_taskrun_flag();
            }
            Self::Minimum => {
                builder.setup_coop_taskrun();
            }
            Self::Polled => {
                let experiments = &config.flags.experiments;
                builder.setup_sqpoll(experiments.sqpoll_ms.unwrap_or_default());
                if let Some(cpu) = experiments.sqpoll_cpu {
                    builder.setup_sqpoll_cpu(cpu);
                }
            }
        }
        builder.build(config.submissions)
    }
}

/// Whether a ring takes submissions as soon as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Enabled,
    /// Only then does the kernel take restrictions.
    Disabled,
}

/// What a ring got from its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The rung it stands on.
    pub rung: Rung,
    /// Whether it refuses what we do not use.
    pub restrictions: Restrictions,
    /// Whether a receive goes on after its first completion (6.0).
    pub multishot_recv: bool,
    /// Whether an accept goes on after its first completion (5.19).
    pub multishot_accept: bool,
    /// Entries of the submission queue.
    pub submissions: u32,
    /// Entries of the completion queue: fewer than configured when locked memory was short.
    pub completions: u32,
    /// What it does differently for the sake of a measurement.
    pub experiments: Experiments,
}

impl Features {
    /// The set-up flags, by the kernel's names without their prefix.
    #[must_use]
    pub fn setup_flags(self) -> Vec<&'static str> {
        let disabled = (self.restrictions == Restrictions::Registered).then_some("R_DISABLED");
        let affine = self.experiments.sqpoll_cpu.and(Some("SQ_AFF"));
        let flags = self.rung.setup_flags().iter().copied();
        flags.chain(affine).chain(disabled).collect()
    }

    /// The operations that the ring takes; `None` stands for all of them.
    #[must_use]
    pub fn operations(self) -> Option<Vec<&'static str>> {
        (self.restrictions == Restrictions::Registered).then(|| {
            let operations = restrictions::operations(&self.experiments);
            operations.into_iter().map(|(name, _)| name).collect()
        })
    }
}

/// Locked memory of rings that were just closed is given back late; a restart may see ENOMEM
/// meanwhile.
const LOCKED_MEMORY_PATIENCE: Duration = Duration::from_secs(1);
const LOCKED_MEMORY_PAUSE: Duration = Duration::from_millis(20);
/// A completion queue below this is not worth having: every turn would overflow.
const COMPLETIONS_MIN: u32 = 256;

/// A ring, where it stands, and what it refuses.
type Opened = (IoUring, Rung, Restrictions);

/// Opens a ring on the best rung that kernel and knob allow.
pub(super) fn climb(config: &Config) -> Result<Opened, ReactorUnavailable> {
    let mut completions = config.completions;
    let mut patience = Instant::now() + LOCKED_MEMORY_PATIENCE;
    loop {
        match try_rungs(config, completions) {
            Ok(found) => return Ok(found),
            Err(errno) if errno.0 == libc::ENOMEM && Instant::now() < patience => {
                thread::sleep(LOCKED_MEMORY_PAUSE);
            }
            Err(errno) if errno.0 == libc::ENOMEM && completions / 2 >= smallest(config) => {
                completions /= 2;
                patience = Instant::now();
            }
            Err(errno) => return Err(explain(errno, &config.flags.experiments)),
        }
    }
}

/// A kernel that opens no ring with `SQPOLL` opens others.
fn explain(errno: Errno, experiments: &Experiments) -> ReactorUnavailable {
    match experiments.sqpoll_cpu {
        _ if errno.0 != libc::EINVAL || experiments.sqpoll_ms.is_none() => {
            ReactorUnavailable::from_setup(errno)
        }
        None => ReactorUnavailable::lacks("sqpoll", "5.11"),
        Some(cpu) => {
            let word = format!("sqpoll_cpu={cpu} needs a processor that may be used, and sqpoll");
            ReactorUnavailable::lacks(&word, "5.11")
        }
    }
}

fn smallest(config: &Config) -> u32 {
    COMPLETIONS_MIN.max(config.submissions)
}

fn try_rungs(config: &Config, completions: u32) -> Result<Opened, Errno> {
    let mut last = Errno(libc::EINVAL);
    for rung in Rung::ALL
        .into_iter()
        .filter(|rung| rung.is_allowed(config.flags))
    {
        match rung.open(config, completions) {
            Ok((io, restrictions)) if has_what_we_need(&io) => {
                return Ok((io, rung, restrictions));
            }
            // Older than 5.17, whatever flags it takes.
            Ok(_) => return Err(Errno(libc::EINVAL)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                last = Errno(libc::EINVAL);
            }
            Err(error) => return Err(Errno::of(&error)),
        }
    }
    Err(last)
}

/// No lost completions (5.5), a timeout in the enter (5.11), silent success (5.17).
fn has_what_we_need(io: &IoUring) -> bool {
    let parameters = io.params();
    parameters.is_feature_nodrop()
        && parameters.is_feature_ext_arg()
        && parameters.is_feature_skip_cqe_on_success()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Rung {
        let knob = FlagKnob::parse(text).unwrap();
        Rung::ALL
            .into_iter()
            .find(|rung| rung.is_allowed(knob))
            .unwrap()
    }

    #[test]
    fn the_knob_forces_each_rung() {
        assert_eq!(first(""), Rung::Full);
        assert_eq!(first("noarray=0"), Rung::Deferred);
        assert_eq!(first("defer=0"), Rung::Cooperative);
        assert_eq!(first("single=0"), Rung::Minimum);
        assert_eq!(first("sqpoll=50"), Rung::Polled);
    }
}
