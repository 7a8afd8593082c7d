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
use crate::reactor::knob::Experiments;

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

/// IORING_REGISTER_EVENTFD, IORING_REGISTER_PBUF_RING and IORING_UNREGISTER_PBUF_RING of the
/// kernel's interface; the crate does not export them.
const REGISTRATIONS: [u8; 3] = [4, 22, 23];
/// IORING_REGISTER_FILES_UPDATE and IORING_REGISTER_FILES2, for registered files.
const FILE_REGISTRATIONS: [u8; 2] = [6, 13];

const ENTRY_FLAGS: Flags = Flags::BUFFER_SELECT.union(Flags::SKIP_SUCCESS);

/// The operations, by the kernel's names without their prefix, and with their codes.
pub(super) fn operations(experiments: &Experiments) -> [(&'static str, u8); 6] {
    let send = if experiments.send_zc {
        ("SEND_ZC", opcode::SendZc::CODE)
    } else {
        ("SEND", opcode::Send::CODE)
    };
    [
        ("ACCEPT", opcode::Accept::CODE),
        ("RECV", opcode::Recv::CODE),
        send,
        ("POLL_ADD", opcode::PollAdd::CODE),
        ("CLOSE", opcode::Close::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ]
}

/// Restricts a ring that was set up disabled, and enables it.
pub(super) fn register(io: &IoUring, experiments: &Experiments) -> Result<(), Errno> {
    let mut list: Vec<Restriction> = operations(experiments)
        .into_iter()
        .map(|(_, code)| Restriction::sqe_op(code))
        .chain(REGISTRATIONS.map(Restriction::register_op))
        .collect();
    let mut flags = ENTRY_FLAGS;
    if experiments.files {
        list.extend(FILE_REGISTRATIONS.map(Restriction::register_op));
        flags |= Flags::FIXED_FILE;
    }
    list.push(Restriction::sqe_flags_allowed(flags.bits()));
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
    use super::super::experiments::Batch;
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
            ring.enter(Some(Duration::from_secs(10)), Batch::ONE)
                .unwrap();
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

        assert!(register(&ring.io, &Experiments::default()).is_err());
    }

    #[test]
    fn without_restrictions_the_same_operation_works() {
        let mut ring = open("restrict=0");

        let file = result_of(&mut ring, open_a_file());

        assert!(file >= 0, "{file}");
        crate::reactor::net::close(file);
    }
}
