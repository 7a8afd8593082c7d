//! Sockets that are registered with the ring: the experiment `files`.
//!
//! Owns which of them are. Refuses to know connections. A registered socket has its own descriptor
//! as its index, so ops name both the same way and differ in one flag. The ring then holds the file
//! too, so that a socket has to be removed before its close. Direct descriptors, which an accept
//! would register by itself, are not used: a handler may ask who the peer is, a shutdown is done at
//! once, and both need a descriptor of the process.

use std::os::fd::RawFd;

use io_uring::IoUring;
use io_uring::squeue::Flags;

use super::descriptors::Descriptors;
use crate::reactor::errors::{Errno, Facts};

/// The table of registered files.
#[derive(Default)]
pub(super) struct Files {
    /// Descriptors below this have a place; 0 without the experiment.
    places: RawFd,
    registered: Descriptors,
    /// System calls made.
    pub calls: u64,
}

/// Most places asked for. Arbitrary; a socket with a larger descriptor is not registered.
const PLACES_MAX: u32 = 65_536;

impl Files {
    /// A table as large as descriptors can be, which is also all that the kernel allows.
    pub(super) fn register(io: &IoUring) -> Result<Self, Errno> {
        let limit = Facts::read().open_files.parse().unwrap_or(PLACES_MAX);
        let places = limit.min(PLACES_MAX);
        io.submitter()
            .register_files_sparse(places)
            .map_err(|error| Errno::of(&error))?;
        Ok(Self {
            places: places as RawFd,
            ..Self::default()
        })
    }

    /// The flag of an op on this socket.
    #[inline]
    pub(super) fn flags(&mut self, io: &IoUring, socket: RawFd) -> Flags {
        if socket >= self.places {
            return Flags::empty();
        }
        self.flags_of_place(io, socket)
    }

    #[cold]
    fn flags_of_place(&mut self, io: &IoUring, socket: RawFd) -> Flags {
        if !self.registered.contains(socket) {
            self.calls += 1;
            let update = io
                .submitter()
                .register_files_update(socket as u32, &[socket]);
            // Without memory for it, the socket is used as it is.
            if update.is_err() {
                return Flags::empty();
            }
            self.registered.insert(socket);
        }
        Flags::FIXED_FILE
    }

    /// The socket is about to be closed.
    #[inline]
    pub(super) fn remove(&mut self, io: &IoUring, socket: RawFd) {
        if self.places > 0 && self.registered.remove(socket) {
            self.calls += 1;
            // It is registered, and removing it needs no memory.
            let _ = io.submitter().register_files_update(socket as u32, &[-1]);
        }
    }
}
