//! Ends a wait from another thread.
//!
//! Owns an eventfd and a flag that spares its writers the system call while a wake-up is already on
//! its way. Refuses to know why somebody wakes, and carries nothing: whoever wakes stores his
//! message first. The eventfd is never read. Both reactors watch it edge-triggered (epoll's
//! EPOLLET, the ring's multishot poll), where every write counts anew, and 2^64 writes do not fit
//! into a lifetime.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Ends the current wait of its reactor, or the next one. Cheap to clone; usable from any thread,
/// also after the reactor is gone.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    eventfd: File,
    signalled: AtomicBool,
    /// Written to as well, for a reactor whose waiting is done by another loop.
    bell: OnceLock<File>,
}

impl Waker {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                eventfd: open_eventfd()?,
                signalled: AtomicBool::new(false),
                bell: OnceLock::new(),
            }),
        })
    }

    /// Ends a wait. What was stored before the call is visible to the reactor's thread after that
    /// wait.
    pub fn wake(&self) {
        if self.shared.signalled.swap(true, Ordering::AcqRel) {
            // Somebody woke already and the reactor has not returned since; it will look after
            // both.
            return;
        }
        // A counter that is full (EAGAIN) is readable, which is all that matters.
        let _ = (&self.shared.eventfd).write(&1u64.to_ne_bytes());
        if let Some(mut bell) = self.shared.bell.get() {
            let _ = bell.write(&1u64.to_ne_bytes());
        }
    }

    /// Has every wake write to this eventfd, too. Once; a second one is not taken.
    pub(super) fn also_ring(&self, bell: File) {
        let _ = self.shared.bell.set(bell);
    }

    /// The reactor is about to return: from here on a wake needs a write again.
    pub(super) fn acknowledge(&self) {
        self.shared.signalled.swap(false, Ordering::AcqRel);
    }

    pub(super) fn fd(&self) -> RawFd {
        self.shared.eventfd.as_raw_fd()
    }
}

/// An eventfd that nobody has written to. Neither reading nor writing it blocks.
pub(super) fn open_eventfd() -> io::Result<File> {
    // SAFETY: eventfd takes no pointers (invariant K1).
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made one line above and has no other owner (invariant K2).
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_portable<T: Clone + Send + Sync>(_: &T) {}

    #[test]
    fn a_waker_goes_to_any_thread() {
        let waker = Waker::open().unwrap();

        assert_portable(&waker);
        waker.wake();
        waker.wake();
        assert!(waker.shared.signalled.load(Ordering::Acquire));
        waker.acknowledge();
        assert!(!waker.shared.signalled.load(Ordering::Acquire));
    }
}
