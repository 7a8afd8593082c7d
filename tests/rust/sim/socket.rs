//! One connection as the kernel sees it, with an end for the worker and one for the peer.
//!
//! Owns the bytes between the two and both directions' states; refuses to know when ops complete.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use anel::reactor::{Arm, Half, SendBuffer, Token};

pub struct Receiving {
    pub token: Token,
    pub arm: Arm,
    /// Whether the attempt that an eager receive begins with was made.
    pub tried: bool,
    pub not_before_ms: u64,
    pub cancel_at_ms: Option<u64>,
}

impl Receiving {
    pub fn new(token: Token, arm: Arm, not_before_ms: u64) -> Self {
        Self {
            token,
            arm,
            tried: false,
            not_before_ms,
            cancel_at_ms: None,
        }
    }
}

pub struct Sending {
    pub token: Token,
    pub buffer: SendBuffer,
    pub not_before_ms: u64,
}

/// How the peer saw its connection end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

#[derive(Default)]
pub struct Socket {
    pub fd: Option<RawFd>,
    /// The descriptor it had, for ever.
    pub had: Option<RawFd>,
    /// Slot and generation, from its first op on.
    pub identity: Option<(u32, u32)>,
    /// Bytes from the peer that no receive has taken.
    pub rx: VecDeque<u8>,
    pub rx_fin: bool,
    /// Bytes received by the worker.
    pub delivered: usize,
    /// Those of them that came although a cancel was on its way.
    pub delivered_in_spite: usize,
    /// Bytes for the peer that it has not read.
    pub inbox: VecDeque<u8>,
    pub window: usize,
    pub fin_to_peer: bool,
    pub reset_to_peer: bool,
    /// The worker wants the peer to see that something is missing.
    pub resets_at_close: bool,
    /// The connection is broken, for both.
    pub reset: bool,
    pub reset_told: bool,
    /// It broke by a fault, not by anybody's wish.
    pub faulted: bool,
    pub peer_gone: bool,
    pub shut_read: bool,
    pub shut_write: bool,
    /// The worker knows of bytes that it did not take: it starved, or cancelled.
    pub declined: bool,
    /// It was closed like that: the peer got a reset, which destroys answers.
    pub closed_on_declined: bool,
    pub recv: Option<Receiving>,
    pub recv_outstanding: bool,
    /// The worker was told that the connection is broken.
    pub recv_failed: bool,
    pub send: Option<Sending>,
    pub send_outstanding: bool,
    pub closed: bool,
}

/// Bytes that the worker's side of a socket holds before the peer has to wait.
const RX_BYTES_MAX: usize = 16 * 1024;

impl Socket {
    pub fn new(window: usize) -> Self {
        Self {
            window,
            ..Self::default()
        }
    }

    /// When an op of this socket can complete, if so.
    pub fn next_ms(&self, free_buffers: usize) -> Option<u64> {
        let recv = self.recv.as_ref().and_then(|armed| {
            let starves = free_buffers == 0 && armed.arm == Arm::Eager && !armed.tried;
            let ready =
                starves || !self.rx.is_empty() || self.rx_fin || self.reset || self.shut_read;
            ready
                .then_some(armed.not_before_ms)
                .into_iter()
                .chain(armed.cancel_at_ms)
                .min()
        });
        let send = self.send.as_ref().and_then(|sending| {
            let ready = self.reset || self.shut_write || self.inbox.len() < self.window;
            ready.then_some(sending.not_before_ms)
        });
        recv.into_iter().chain(send).min()
    }

    /// A fault breaks the connection.
    pub fn break_down(&mut self) {
        self.faulted = true;
        self.reset = true;
        self.reset_to_peer = true;
        self.rx.clear();
    }

    /// Whether ending now destroys answers on their way to somebody who still reads. Once FIN is
    /// out, the end may be that of the worker's patience.
    fn leaves_declined_bytes(&self) -> bool {
        self.declined && !self.rx.is_empty() && !self.shut_write && !self.peer_gone
    }

    pub fn shut_down(&mut self, half: Half) {
        if half == Half::Both {
            self.closed_on_declined |= self.leaves_declined_bytes();
        }
        self.shut_read |= half != Half::Write;
        self.resets_at_close |= half == Half::Reset;
        self.shut_write = true;
        self.fin_to_peer |= half != Half::Reset;
    }

    pub fn close(&mut self) {
        self.closed_on_declined |= self.leaves_declined_bytes();
        self.reset_to_peer |= !self.rx.is_empty() || self.resets_at_close;
        self.fin_to_peer = true;
        self.shut_read = true;
        self.shut_write = true;
        self.closed = true;
        self.fd = None;
    }

    /// How many bytes the peer can send without waiting.
    pub fn peer_room(&self) -> usize {
        RX_BYTES_MAX.saturating_sub(self.rx.len())
    }

    pub fn peer_send(&mut self, bytes: &[u8]) {
        if self.shut_read || self.reset {
            self.reset_to_peer = true;
        } else {
            self.rx.extend(bytes);
        }
    }

    pub fn peer_half_close(&mut self) {
        self.rx_fin = true;
    }

    pub fn peer_reset(&mut self) {
        self.reset = true;
        self.peer_gone = true;
        self.rx.clear();
        self.inbox.clear();
    }

    /// The peer's program closes its descriptor: a reset if it left something unread.
    pub fn peer_close(&mut self) {
        self.rx_fin = true;
        self.peer_gone = true;
        self.reset |= !self.inbox.is_empty();
        self.inbox.clear();
    }

    pub fn peer_read(&mut self, bytes_max: usize) -> Vec<u8> {
        let taken = bytes_max.min(self.inbox.len());
        self.inbox.drain(..taken).collect()
    }

    /// How the connection ended for the peer, once it has read everything.
    pub fn peer_end(&self) -> Option<End> {
        if !self.inbox.is_empty() {
            None
        } else if self.reset_to_peer {
            Some(End::Reset)
        } else {
            self.fin_to_peer.then_some(End::Fin)
        }
    }
}
