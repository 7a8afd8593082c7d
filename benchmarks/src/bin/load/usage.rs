//! CPU time of this process, as the kernel accounts it.
//!
//! Owns the one call of `getrusage`; refuses to know what the time was spent on.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// User and system time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// Time in this program.
    pub user: Duration,
    /// Time in the kernel on its behalf.
    pub system: Duration,
}

impl CpuUsage {
    /// Everything this process has used so far.
    #[allow(unsafe_code, reason = "getrusage has no safe form in std")]
    pub fn of_this_process() -> io::Result<Self> {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: G1: the pointer is to a local of the right type that outlives the call.
        let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: G1: zeroes are a valid rusage, and the kernel has filled it in.
        let usage = unsafe { usage.assume_init() };
        Ok(Self {
            user: to_duration(usage.ru_utime),
            system: to_duration(usage.ru_stime),
        })
    }

    /// What was used after `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

fn to_duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}
