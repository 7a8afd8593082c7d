//! The contract between the reactor and the worker: what is asked (`Op`), what comes back
//! (`Completion`).
//!
//! Ownership changes hands here. A payload moves into an op and comes home in its last completion;
//! a received buffer arrives as a `Lease`. From submit to the last completion, memory that the
//! kernel may touch belongs to the reactor. Nothing in this file knows HTTP, a clock or a ring;
//! these names are the only ones of `reactor` that `server` may use.

use std::fmt;
use std::os::fd::RawFd;

pub use super::buffers::Lease;

/// What an op is about. It travels through the kernel inside the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A listener's multishot accept. `slot` is the listener's number.
    Accept = 1,
    /// A connection's receive. At most one is armed per slot.
    Recv = 2,
    /// A connection's send. At most one is in flight per slot.
    Send = 3,
    /// A one-shot wait until a foreign descriptor is readable.
    Readable = 4,
    /// The reactor's own: waker, close, cancel. Never reaches the worker.
    Internal = 5,
}

/// Identity of an op: kind, slot and the slot's generation. Never the descriptor, which the kernel
/// reuses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

/// Generations wrap here: 24 bits of the token carry them.
pub const GENERATION_MASK: u32 = 0x00ff_ffff;

impl Token {
    /// Packs the three parts; `generation` is taken modulo 2^24.
    #[must_use]
    pub const fn new(kind: Kind, slot: u32, generation: u32) -> Self {
        let high = ((kind as u64) << 24) | (generation & GENERATION_MASK) as u64;
        Self((high << 32) | slot as u64)
    }

    /// The value that goes into `user_data`.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The token of a completion, or `None` when the bits were never made by `new`.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match bits >> 56 {
            1..=5 => Some(Self(bits)),
            _ => None,
        }
    }

    /// What the op was.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self.0 >> 56 {
            1 => Kind::Accept,
            2 => Kind::Recv,
            3 => Kind::Send,
            4 => Kind::Readable,
            _ => Kind::Internal,
        }
    }

    /// The connection's (or listener's) place in its table.
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// How often the slot had been used when the op was submitted.
    #[must_use]
    pub const fn generation(self) -> u32 {
        ((self.0 >> 32) as u32) & GENERATION_MASK
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}[{}]#{}",
            self.kind(),
            self.slot(),
            self.generation()
        )
    }
}

/// Bytes owed to a peer, and how many of them have left. Owned by the reactor while a send is in
/// flight.
#[derive(Debug, Default)]
pub struct SendBuffer {
    /// Everything that was handed over, contiguous.
    pub bytes: Vec<u8>,
    /// How many of `bytes` the kernel has accepted so far.
    pub sent: usize,
}

impl SendBuffer {
    /// What is still to be sent.
    #[must_use]
    pub fn remaining(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }
}

/// Which directions of a socket are shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Sends FIN; an armed receive stays armed, so the peer's last bytes can be drained.
    Write,
    /// Both: also ends an armed receive with `Outcome::EndOfInput`.
    Both,
    /// Ends an armed receive like `Both`, without FIN; `Op::Close` sends a reset then.
    Reset,
}

/// What the worker can ask for.
#[derive(Debug)]
pub enum Op {
    /// Accept connections until cancelled; every one is an `Outcome::Accepted`.
    Accept {
        /// A listening socket, owned by the caller.
        listener: RawFd,
    },
    /// Receive until the peer ends, the op is cancelled or the buffers run out.
    Recv {
        /// A connected socket.
        socket: RawFd,
        /// `AfterStarvation` makes the kernel wait for data before it asks for a buffer.
        arm: Arm,
    },
    /// Send `buffer.remaining()`. At most one per slot in flight; a second is a programmer error.
    Send {
        /// A connected socket.
        socket: RawFd,
        /// Comes home in the completion, with `sent` moved forward; without its bytes when all of
        /// them were sent and the kernel still needs them.
        buffer: SendBuffer,
    },
    /// Shut a socket down at once. Has no completion of its own.
    Shutdown {
        /// A connected socket.
        socket: RawFd,
        /// Which directions.
        half: Half,
    },
    /// Close a socket that has no op in flight. Has no completion of its own.
    Close {
        /// A socket that nothing refers to any more.
        socket: RawFd,
    },
    /// End the op with this token early. The target's own last completion says how it ended: either
    /// normally, when the cancel came too late, or as `Outcome::Failed` with a cancelled errno.
    Cancel {
        /// The op to end.
        target: Token,
    },
    /// Wait once until a descriptor is readable.
    Readable {
        /// A descriptor that the caller keeps open until the completion.
        fd: RawFd,
    },
}

/// How a receive is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Data is probably there: try at once.
    Eager,
    /// The last attempt found no buffer. Without waiting for data first, the kernel would report
    /// starvation again at once even on a silent socket (kernel 6.18, measured).
    AfterStarvation,
}

/// What became of an op.
#[derive(Debug)]
pub enum Outcome {
    /// A new connection; the descriptor now belongs to whoever reads this.
    Accepted(RawFd),
    /// Bytes from the peer, at least one.
    Received(Lease),
    /// The peer sent FIN, or the socket was shut down on our side.
    EndOfInput,
    /// No buffer was free. The data is still in the socket: this is back-pressure, not an error.
    Starved,
    /// The buffer comes home; `buffer.remaining()` is empty unless the send was short.
    Sent(SendBuffer),
    /// The descriptor of an `Op::Readable` is readable.
    Ready,
    /// The op failed. A send's buffer comes home all the same.
    Failed(Errno, Option<SendBuffer>),
}

/// One result of an op.
#[derive(Debug)]
pub struct Completion {
    /// The op it belongs to.
    pub token: Token,
    /// Whether the op lives on and will complete again. If not, it is not armed any more.
    pub more: bool,
    /// What happened.
    pub outcome: Outcome,
}

/// A kernel error number, positive, kept as a number up to the place that decides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Accepts ops. The ring writes a submission on the spot, epoll does the call, the simulator
/// records.
pub trait Submit {
    /// Takes the op; its completion arrives from a later wait under the same token.
    fn submit(&mut self, token: Token, op: Op);

    /// How many receive buffers the kernel could fill right now.
    fn free_buffers(&self) -> usize;
}
