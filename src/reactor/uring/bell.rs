//! Tells another event loop that completions came.
//!
//! Owns an eventfd that the kernel writes to for every batch of completions, also for those that
//! wait for an enter: an epoll set that watches the ring itself hears nothing of them (6.18,
//! measured). Refuses to know what they are. It is readable until it is cleared, so a loop that is
//! late misses nothing.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};

use io_uring::IoUring;

use crate::reactor::errors::Errno;
use crate::reactor::waker::{Waker, open_eventfd};

#[derive(Debug)]
pub(super) struct Bell {
    eventfd: File,
}

impl Bell {
    /// Has the ring report to a new eventfd. Not the asynchronous kind of registration: what
    /// completes within the enter that submitted it is news to the other loop, too.
    ///
    /// The waker rings by itself: the write to its own eventfd, which the ring watches, cannot ring
    /// another one from within. The kernel puts that off, and under `DEFER_TASKRUN` does it only
    /// the first time (6.18, measured).
    pub(super) fn hang(io: &IoUring, waker: &Waker) -> Result<Self, Errno> {
        let hang = || {
            let eventfd = open_eventfd()?;
            io.submitter().register_eventfd(eventfd.as_raw_fd())?;
            waker.also_ring(eventfd.try_clone()?);
            Ok(Self { eventfd })
        };
        hang().map_err(|error: io::Error| Errno::of(&error))
    }

    pub(super) fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Makes it unreadable. The kernel shows its work before it rings, so whoever clears first and
    /// then looks at the queues overlooks nothing.
    pub(super) fn clear(&self) {
        // It may not have rung at all (EAGAIN); the count says nothing.
        let _ = (&self.eventfd).read(&mut [0; 8]);
    }
}
