//! The system calls of the epoll reactor.
//!
//! Owns their arguments and turns their results into values. Refuses to know connections. Every
//! pointer handed to the kernel here is used only for the length of the call (invariant K1).

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::epoll_event;

use crate::reactor::errors::Errno;

/// What `epoll_ctl` shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Change {
    Add = libc::EPOLL_CTL_ADD,
    Modify = libc::EPOLL_CTL_MOD,
    Remove = libc::EPOLL_CTL_DEL,
}

/// One epoll instance.
pub(super) struct Poller {
    fd: OwnedFd,
    /// How often `change` was called.
    changes: Cell<u64>,
}

impl Poller {
    pub(super) fn open() -> Result<Self, Errno> {
        // SAFETY: epoll_create1 takes no pointers (invariant K1).
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } as isize)?;
        // SAFETY: the descriptor was made one line above and has no other owner (invariant K2).
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Self {
            fd,
            changes: Cell::new(0),
        })
    }

    /// Readable while an event waits to be taken.
    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// How often `change` was called.
    pub(super) fn changes(&self) -> u64 {
        self.changes.get()
    }

    pub(super) fn change(
        &self,
        change: Change,
        fd: RawFd,
        events: u32,
        mark: u64,
    ) -> Result<(), Errno> {
        self.changes.set(self.changes.get() + 1);
        let mut event = epoll_event { events, u64: mark };
        // SAFETY: `event` lives until the call returns (invariant K1).
        let result =
            unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), change as i32, fd, &raw mut event) };
        checked(result as isize).map(drop)
    }

    /// Fills `events` from the front; returns how many there are.
    pub(super) fn wait(
        &self,
        events: &mut [epoll_event],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno> {
        let room = events.len().min(i32::MAX as usize) as i32;
        let timeout_ms = milliseconds(timeout);
        // SAFETY: the kernel writes at most `room` events into the slice (invariant K1).
        let result =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), room, timeout_ms) };
        checked(result as isize)
    }
}

/// Never sleeps less than asked: rounded up to the milliseconds that epoll knows.
fn milliseconds(timeout: Option<Duration>) -> i32 {
    match timeout {
        None => -1,
        Some(timeout) => {
            let rounded = timeout.as_nanos().div_ceil(1_000_000);
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// Receives what is there, at most the buffer's length.
#[inline]
pub(super) fn receive(socket: RawFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes (invariant K1).
    let result = unsafe {
        libc::recv(
            socket,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
        )
    };
    checked(result)
}

/// Sends what fits into the socket's buffer.
#[inline]
pub(super) fn send(socket: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most `bytes.len()` bytes (invariant K1).
    let result = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) };
    checked(result)
}

/// Takes a connection off a listener's queue.
pub(super) fn accept(listener: RawFd) -> Result<RawFd, Errno> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: null pointers say that the peer's address is not wanted (invariant K1).
    let result = unsafe { libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), flags) };
    checked(result as isize).map(|fd| fd as RawFd)
}

#[inline]
fn checked(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::of(&io::Error::last_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_shortened() {
        assert_eq!(milliseconds(None), -1);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_micros(1500))), 2);
        assert_eq!(milliseconds(Some(Duration::MAX)), i32::MAX);
    }
}
