//! Error numbers of the kernel, and why a reactor could not be opened.
//!
//! Owns the classification of errnos and the words an operator reads. Refuses to decide what
//! follows from them. An errno stays a number up to Python; no decision is made on text.

use std::fmt;
use std::fs;
use std::io;

pub use super::seam::Errno;

impl Errno {
    /// The number in an `io::Error`; EIO for one that never was a system call's.
    pub(super) fn of(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Whether the op ended because it was cancelled.
    #[must_use]
    pub const fn is_cancelled(self) -> bool {
        self.0 == libc::ECANCELED
    }

    /// Whether the peer, or the way to it, is gone. Ordinary on the internet; not worth a log line.
    #[must_use]
    pub const fn is_reset(self) -> bool {
        matches!(
            self.0,
            libc::ECONNRESET
                | libc::EPIPE
                | libc::ENOTCONN
                | libc::ECONNABORTED
                | libc::ESHUTDOWN
                | libc::ETIMEDOUT
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
        )
    }

    /// Whether the kernel had no memory for the op, which may succeed later.
    #[must_use]
    pub const fn is_shortage(self) -> bool {
        matches!(self.0, libc::ENOMEM | libc::ENOBUFS)
    }

    /// Whether an accept failed because descriptors or memory ran out: accepting again at once
    /// would spin.
    #[must_use]
    pub const fn is_descriptor_limit(self) -> bool {
        matches!(
            self.0,
            libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS
        )
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Errno({}: {})",
            self.0,
            io::Error::from_raw_os_error(self.0)
        )
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

/// Why a reactor could not be opened, as far as the machine lets us see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The configuration asks for something that cannot be.
    ConfigInvalid,
    /// The kernel has no io_uring, or one that is too old.
    KernelTooOld,
    /// An experiment was asked for that the kernel cannot do.
    FeatureMissing,
    /// The sysctl `kernel.io_uring_disabled` forbids it.
    SysctlForbids,
    /// A seccomp filter forbids it, as containers do by default.
    SeccompForbids,
    /// The kernel says EPERM, and neither of the known reasons is visible.
    Forbidden,
    /// Not enough locked memory is allowed.
    LockedMemory,
    /// No descriptor was free.
    DescriptorLimit,
    /// Anything else; the errno is all that is known.
    Other,
}

/// A reactor could not be opened. `Display` is one line in the operator's language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReactorUnavailable {
    /// What the kernel said.
    pub errno: Errno,
    /// What that means here.
    pub reason: Reason,
    /// What was found, and what to do about it.
    pub hint: String,
}

impl fmt::Display for ReactorUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headline = match self.reason {
            Reason::ConfigInvalid => "the reactor's configuration is not valid",
            Reason::KernelTooOld => "io_uring is missing or too old",
            Reason::FeatureMissing => "the kernel cannot do what ANEL_URING_FLAGS asks for",
            Reason::SysctlForbids => "io_uring is switched off on this machine",
            Reason::SeccompForbids => "io_uring is forbidden by a seccomp filter",
            Reason::Forbidden => "io_uring is forbidden",
            Reason::LockedMemory => "io_uring was refused the memory it locks",
            Reason::DescriptorLimit => "the reactor found no free descriptor",
            Reason::Other => "the reactor could not be opened",
        };
        write!(
            f,
            "{headline}: {} (errno {}: {})",
            self.hint, self.errno.0, self.errno
        )
    }
}

impl std::error::Error for ReactorUnavailable {}

impl ReactorUnavailable {
    /// Whether somebody asked for what cannot be, so that another reactor would hide a mistake.
    pub(super) fn is_of_configuration(&self) -> bool {
        matches!(self.reason, Reason::ConfigInvalid | Reason::FeatureMissing)
    }

    /// Explains a refusal of `io_uring_setup` or of the registration that follows it.
    pub(super) fn from_setup(errno: Errno) -> Self {
        let facts = Facts::read();
        let (reason, hint) = facts.explain(errno);
        Self {
            errno,
            reason,
            hint,
        }
    }

    /// For an experiment that needs a newer kernel.
    pub(super) fn lacks(word: &str, linux: &str) -> Self {
        Self {
            errno: Errno(libc::EOPNOTSUPP),
            reason: Reason::FeatureMissing,
            hint: format!(
                "{word} needs Linux {linux}, and this is {}",
                Facts::read().kernel
            ),
        }
    }

    /// For what is not the kernel's refusal of a ring.
    pub(super) fn other(errno: Errno, hint: impl Into<String>) -> Self {
        let reason = match errno.0 {
            libc::EMFILE | libc::ENFILE => Reason::DescriptorLimit,
            _ => Reason::Other,
        };
        Self {
            errno,
            reason,
            hint: hint.into(),
        }
    }
}

/// What the machine says about itself. Read from /proc only after something failed, or for the
/// doctor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub kernel: String,
    /// `kernel.io_uring_disabled`: 0 allowed, 1 privileged only, 2 nobody; `None` before Linux 6.6.
    pub io_uring_disabled: Option<u32>,
    /// Mode of seccomp: 0 none, 1 strict, 2 filter.
    pub seccomp: Option<u32>,
    pub no_new_privs: Option<u32>,
    /// Soft limit of locked memory, as the kernel prints it.
    pub locked_memory: String,
    /// Soft limit of open descriptors, as the kernel prints it.
    pub open_files: String,
}

impl Facts {
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            kernel: one_line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
            io_uring_disabled: one_line("/proc/sys/kernel/io_uring_disabled")
                .and_then(|line| line.parse().ok()),
            seccomp: status_field(&status, "Seccomp:"),
            no_new_privs: status_field(&status, "NoNewPrivs:"),
            locked_memory: soft_limit(&limits, "Max locked memory"),
            open_files: soft_limit(&limits, "Max open files"),
        }
    }

    /// What this errno from `io_uring_setup` means on a machine with these facts.
    fn explain(&self, errno: Errno) -> (Reason, String) {
        match errno.0 {
            libc::ENOSYS if self.seccomp == Some(2) => (
                Reason::SeccompForbids,
                format!(
                    "Linux {} answers ENOSYS and this process has a seccomp filter; allow \
                     io_uring in the container's profile (for Docker: --security-opt \
                     seccomp=PROFILE)",
                    self.kernel
                ),
            ),
            libc::ENOSYS | libc::EINVAL => (
                Reason::KernelTooOld,
                format!(
                    "needs Linux 5.19 or newer (6.1 or newer recommended) with CONFIG_IO_URING; \
                     this is {}. Some sandboxes (gVisor) have none at all",
                    self.kernel
                ),
            ),
            libc::EPERM | libc::EACCES => self.explain_refusal(),
            libc::ENOMEM => (
                Reason::LockedMemory,
                format!(
                    "`ulimit -l` is {} for all processes of this user together; raise it, or use \
                     fewer workers",
                    self.locked_memory
                ),
            ),
            libc::EMFILE | libc::ENFILE => (
                Reason::DescriptorLimit,
                format!("`ulimit -n` is {}; raise it", self.open_files),
            ),
            _ => (Reason::Other, format!("on Linux {}", self.kernel)),
        }
    }

    fn explain_refusal(&self) -> (Reason, String) {
        match (self.io_uring_disabled, self.seccomp) {
            (Some(mode @ 1..), _) => (
                Reason::SysctlForbids,
                format!(
                    "the sysctl kernel.io_uring_disabled is {mode}; \
                     `sysctl kernel.io_uring_disabled=0` allows it{}",
                    if mode == 1 {
                        ", or CAP_SYS_ADMIN, or the group io_uring_group"
                    } else {
                        ""
                    }
                ),
            ),
            (_, Some(2)) => (
                Reason::SeccompForbids,
                "this process has a seccomp filter, as containers do by default; allow io_uring \
                 in its profile (for Docker: --security-opt seccomp=PROFILE)"
                    .into(),
            ),
            _ => (
                Reason::Forbidden,
                "the kernel refuses, though neither kernel.io_uring_disabled nor seccomp says \
                 so; a security module may"
                    .into(),
            ),
        }
    }
}

fn one_line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn status_field(status: &str, name: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .trim()
        .parse()
        .ok()
}

fn soft_limit(limits: &str, name: &str) -> String {
    limits
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or("unknown")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            kernel: "5.4.0".into(),
            locked_memory: "65536".into(),
            ..Facts::default()
        }
    }

    fn reason(facts: &Facts, errno: i32) -> Reason {
        facts.explain(Errno(errno)).0
    }

    #[test]
    fn a_refusal_is_blamed_on_what_the_machine_shows() {
        let sysctl = Facts {
            io_uring_disabled: Some(2),
            seccomp: Some(2),
            ..facts()
        };
        let seccomp = Facts {
            io_uring_disabled: Some(0),
            seccomp: Some(2),
            ..facts()
        };

        assert_eq!(reason(&sysctl, libc::EPERM), Reason::SysctlForbids);
        assert_eq!(reason(&seccomp, libc::EPERM), Reason::SeccompForbids);
        assert_eq!(reason(&seccomp, libc::ENOSYS), Reason::SeccompForbids);
        assert_eq!(reason(&facts(), libc::EPERM), Reason::Forbidden);
        assert_eq!(reason(&facts(), libc::ENOSYS), Reason::KernelTooOld);
        assert_eq!(reason(&facts(), libc::ENOMEM), Reason::LockedMemory);
        assert_eq!(reason(&facts(), libc::EIO), Reason::Other);
    }

    #[test]
    fn the_message_names_the_kernel_and_the_limit() {
        assert!(facts().explain(Errno(libc::ENOSYS)).1.contains("5.4.0"));
        assert!(
            facts()
                .explain(Errno(libc::ENOMEM))
                .1
                .contains("`ulimit -l` is 65536")
        );
    }

    #[test]
    fn errnos_are_sorted_into_what_the_worker_asks() {
        assert!(Errno(libc::ECANCELED).is_cancelled());
        assert!(Errno(libc::EPIPE).is_reset() && !Errno(libc::EMFILE).is_reset());
        assert!(Errno(libc::EMFILE).is_descriptor_limit());
        assert!(Errno(libc::ENOBUFS).is_shortage() && !Errno(libc::EMFILE).is_shortage());
        assert_eq!(
            io::Error::from(Errno(libc::EPIPE)).raw_os_error(),
            Some(libc::EPIPE)
        );
    }

    #[test]
    fn limits_and_status_are_read_from_the_kernels_tables() {
        let limits =
            "Limit    Soft Limit   Hard Limit   Units\nMax locked memory   8388608   9   bytes\n";

        assert_eq!(soft_limit(limits, "Max locked memory"), "8388608");
        assert_eq!(soft_limit(limits, "Max open files"), "unknown");
        assert_eq!(status_field("Name: x\nSeccomp:\t2\n", "Seccomp:"), Some(2));
    }
}
