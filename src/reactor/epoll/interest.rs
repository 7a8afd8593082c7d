//! What each descriptor is registered for, and the fewest calls that keep it so.
//!
//! Owns the last registration that was made for a slot. Refuses to know what readiness leads to.
//! Connections are registered for edges, so interest is only ever added: one that is paused costs
//! nothing, and a close removes it.

use std::os::fd::RawFd;

use super::calls::{Change, Poller};
use crate::reactor::errors::Errno;

/// A descriptor and what epoll was told about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interest {
    pub fd: RawFd,
    /// What comes back with every event: the bits of a token.
    mark: u64,
    /// `None`: not registered.
    events: Option<u32>,
}

impl Interest {
    pub(super) fn new(fd: RawFd, mark: u64) -> Self {
        Self {
            fd,
            mark,
            events: None,
        }
    }

    /// Whether this is still about the same descriptor for the same user.
    pub(super) fn is_for(&self, fd: RawFd, mark: u64) -> bool {
        self.fd == fd && self.mark == mark
    }

    /// The descriptor is about to be closed, which removes it from epoll.
    pub(super) fn forget(&mut self) {
        self.events = None;
        self.fd = -1;
    }

    /// Whether all of `events` are registered.
    pub(super) fn includes(&self, events: u32) -> bool {
        self.events
            .is_some_and(|registered| registered & events == events)
    }

    /// Adds to what is registered.
    pub(super) fn add(&mut self, poller: &Poller, events: u32) -> Result<(), Errno> {
        if self.includes(events) {
            return Ok(());
        }
        self.set(poller, self.events.unwrap_or(0) | events)
    }

    /// Registers exactly `events`, at the price of a call even if it is a repetition
    /// (EPOLLONESHOT).
    pub(super) fn set(&mut self, poller: &Poller, events: u32) -> Result<(), Errno> {
        let change = if self.events.is_some() {
            Change::Modify
        } else {
            Change::Add
        };
        let result = match poller.change(change, self.fd, events, self.mark) {
            // The number was closed behind our back and is in use again, or was never closed.
            Err(Errno(libc::ENOENT)) => poller.change(Change::Add, self.fd, events, self.mark),
            Err(Errno(libc::EEXIST)) => poller.change(Change::Modify, self.fd, events, self.mark),
            result => result,
        };
        self.events = result.is_ok().then_some(events);
        result
    }

    /// Ends the registration of a descriptor that stays open.
    pub(super) fn remove(&mut self, poller: &Poller) {
        if self.events.take().is_some() {
            // It was registered a moment ago; a descriptor that is gone has nothing to remove.
            let _ = poller.change(Change::Remove, self.fd, 0, self.mark);
        }
    }
}
