//! Ops as submission queue entries.
//!
//! Owns opcodes and their flags. Refuses to know queues and the lifetime of what the entries point
//! to.

use std::os::fd::RawFd;
use std::ptr;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd};

use super::ladder::Features;
use super::provided::GROUP_ID;
use crate::reactor::seam::{Arm, Kind, Token};

/// The ring's own ops: the `slot` of a token of kind `Internal`.
pub(super) const WAKER: Token = Token::new(Kind::Internal, 1, 0);
/// Close and cancel are silent unless they fail, and their failures say nothing we could act upon.
pub(super) const SILENT: Token = Token::new(Kind::Internal, 2, 0);
/// The receive that finds out about multishot.
pub(super) const TRIAL: Token = Token::new(Kind::Internal, 3, 0);

/// IORING_RECVSEND_POLL_FIRST, IORING_RECV_MULTISHOT and IORING_RECVSEND_BUNDLE of the kernel's
/// interface; the crate does not export them, and its `RecvMulti` cannot combine them.
const RECV_POLL_FIRST: u16 = 1;
const RECV_MULTISHOT: u16 = 2;
const RECV_BUNDLE: u16 = 16;

#[inline]
pub(super) fn accept(token: Token, listener: RawFd, features: &Features) -> Entry {
    // Not SOCK_NONBLOCK: the ring waits by itself, and a blocking socket cannot surprise it with
    // EAGAIN.
    let entry = if features.multishot_accept {
        opcode::AcceptMulti::new(Fd(listener))
            .flags(libc::SOCK_CLOEXEC)
            .build()
    } else {
        opcode::Accept::new(Fd(listener), ptr::null_mut(), ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build()
    };
    entry.user_data(token.to_bits())
}

/// What all receives of a ring have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecvMode(u16);

impl RecvMode {
    pub(super) fn new(multishot: bool, bundle: bool) -> Self {
        let repeat = if multishot { RECV_MULTISHOT } else { 0 };
        let many = if bundle { RECV_BUNDLE } else { 0 };
        Self(repeat | many)
    }
}

#[inline]
pub(super) fn recv(token: Token, socket: RawFd, arm: Arm, mode: RecvMode) -> Entry {
    let poll_first = if arm == Arm::AfterStarvation {
        RECV_POLL_FIRST
    } else {
        0
    };
    // Length 0: as much as the selected buffer holds.
    opcode::Recv::new(Fd(socket), ptr::null_mut(), 0)
        .ioprio(poll_first | mode.0)
        .buf_group(GROUP_ID)
        .build()
        .flags(Flags::BUFFER_SELECT)
        .user_data(token.to_bits())
}

/// No MSG_WAITALL: a short send comes home, so that its deadline measures the peer's progress.
#[inline]
pub(super) fn send(token: Token, socket: RawFd, bytes: &[u8]) -> Entry {
    // A longer send goes out short; the op's length field has 32 bits and the result 31.
    let len = bytes.len().min(i32::MAX as usize) as u32;
    opcode::Send::new(Fd(socket), bytes.as_ptr(), len)
        .flags(libc::MSG_NOSIGNAL)
        .build()
        .user_data(token.to_bits())
}

/// The reactor's name of a payload that is sent without copying; its own generation keeps it apart
/// from the other ops of the reactor.
pub(super) const fn lent(key: u32) -> Token {
    Token::new(Kind::Internal, key, LENT)
}

/// The generation of `lent`.
pub(super) const LENT: u32 = 1;

/// The same without copying. It completes twice: with its result, and when the payload is free.
#[cold]
pub(super) fn send_zc(token: Token, socket: RawFd, bytes: &[u8]) -> Entry {
    let len = bytes.len().min(i32::MAX as usize) as u32;
    opcode::SendZc::new(Fd(socket), bytes.as_ptr(), len)
        .flags(libc::MSG_NOSIGNAL)
        .build()
        .user_data(token.to_bits())
}

/// One-shot, which gives the meaning of a level: multishot polls are edge-triggered (6.18,
/// measured).
pub(super) fn readable(token: Token, fd: RawFd) -> Entry {
    opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32)
        .build()
        .user_data(token.to_bits())
}

/// Edge-triggered on purpose: see `waker`.
pub(super) fn watch_waker(fd: RawFd) -> Entry {
    opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32)
        .multi(true)
        .build()
        .user_data(WAKER.to_bits())
}

/// Runs inline for a socket (6.18, measured): a close costs no system call of its own.
#[inline]
pub(super) fn close(socket: RawFd) -> Entry {
    opcode::Close::new(Fd(socket))
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(SILENT.to_bits())
}

pub(super) fn cancel(target: Token) -> Entry {
    opcode::AsyncCancel::new(target.to_bits())
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(SILENT.to_bits())
}

pub(super) fn cancel_everything() -> Entry {
    opcode::AsyncCancel2::new(CancelBuilder::any())
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(SILENT.to_bits())
}
