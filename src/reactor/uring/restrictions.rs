//! What a ring may be asked for, told to the kernel before the ring is usable.
//!
//! Owns the list: the operations of `entries`, the registrations of `provided` and `bell`, and the
//! flags of both. Refuses to know what they are for. Everything else fails with EACCES from then
//! on, and nothing takes that back, so whoever gets hold of the ring gets nothing that a seccomp
//! filter would have to catch: it opens no file, makes no connection and runs no ioctl.

use io_uring::IoUring;
use io_uring::opcode;
use io_uring::register::Restriction;
use io_uring::squeue::Flags;

use crate::reactor::errors::Errno;

/// Whether a ring is restricted to what we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restrictions {
    /// The kernel refuses everything else.
    Registered,
    /// The knob said no.
    SwitchedOff,
    /// The kernel did not take them.
    Refused(Errno),
}

/// The operations, by the kernel's names without their prefix.
pub(super) const OPERATIONS: [(&str, u8); 6] = [
    ("ACCEPT", opcode::Accept::CODE),
    ("RECV", opcode::Recv::CODE),
    ("SEND", opcode::Send::CODE),
    ("POLL_ADD", opcode::PollAdd::CODE),
    ("CLOSE", opcode::Close::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
];

/// IORING_REGISTER_EVENTFD, IORING_REGISTER_PBUF_RING and IORING_UNREGISTER_PBUF_RING of the
/// kernel's interface; the crate does not export them.
const REGISTRATIONS: [u8; 3] = [4, 22, 23];

const ENTRY_FLAGS: Flags = Flags::BUFFER_SELECT.union(Flags::SKIP_SUCCESS);

impl Restrictions {
    /// The operations that are allowed; `None` stands for all of them.
    #[must_use]
    pub fn operations(self) -> Option<[&'static str; OPERATIONS.len()]> {
        (self == Self::Registered).then(|| OPERATIONS.map(|(name, _)| name))
    }
}

/// Restricts a ring that was set up disabled, and enables it.
pub(super) fn register(io: &IoUring) -> Result<(), Errno> {
    let operations = OPERATIONS.map(|(_, code)| Restriction::sqe_op(code));
    let registrations = REGISTRATIONS.map(Restriction::register_op);
    let mut list: Vec<Restriction> = operations.into_iter().chain(registrations).collect();
    list.push(Restriction::sqe_flags_allowed(ENTRY_FLAGS.bits()));
    let submitter = io.submitter();
    submitter
        .register_restrictions(&mut list)
        .and_then(|()| submitter.register_enable_rings())
        .map_err(|error| Errno::of(&error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use io_uring::register::Probe;
    use io_uring::squeue::Entry;
    use io_uring::types::Fd;

    use super::super::entries::TRIAL;
    use super::super::ring::Ring;
    use super::*;
    use crate::reactor::config::Config;
    use crate::reactor::knob::FlagKnob;

    const ROOT: &std::ffi::CStr = c"/";

    fn open(knob: &str) -> Ring {
        let flags = FlagKnob::parse(knob).unwrap();
        Ring::open(&Config {
            flags,
            ..Config::default()
        })
        .unwrap()
    }

    /// What the kernel says to an entry.
    fn result_of(ring: &mut Ring, entry: Entry) -> i32 {
        ring.push_counted(&entry.user_data(TRIAL.to_bits()));
        while ring.ledger.trial.is_none() {
            ring.enter(Some(Duration::from_secs(10))).unwrap();
            ring.reap(&mut Vec::new());
        }
        ring.ledger.trial.take().unwrap()
    }

    fn open_a_file() -> Entry {
        opcode::OpenAt::new(Fd(libc::AT_FDCWD), ROOT.as_ptr())
            .flags(libc::O_RDONLY | libc::O_CLOEXEC)
            .build()
    }

    #[test]
    fn a_restricted_ring_refuses_what_we_do_not_use() {
        for knob in ["", "noarray=0", "defer=0", "single=0"] {
            let mut ring = open(knob);
            let others = [
                open_a_file(),
                opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
                opcode::Nop::new().build().flags(Flags::ASYNC),
                opcode::PollAdd::new(Fd(0), 0).build().flags(Flags::IO_LINK),
            ];

            for entry in others {
                assert_eq!(result_of(&mut ring, entry), -libc::EACCES, "{knob:?}");
            }
        }
    }

    #[test]
    fn a_restricted_ring_takes_no_other_registrations() {
        let ring = open("");

        let refused = ring.io.submitter().register_probe(&mut Probe::new());

        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn the_restrictions_cannot_be_replaced() {
        let ring = open("");

        assert!(register(&ring.io).is_err());
    }

    #[test]
    fn without_restrictions_the_same_operation_works() {
        let mut ring = open("restrict=0");

        let file = result_of(&mut ring, open_a_file());

        assert!(file >= 0, "{file}");
        crate::reactor::net::close(file);
    }
}
