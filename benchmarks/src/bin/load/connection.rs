//! One slot of the client, and the tokens of its ops.
//!
//! Owns the state that a connection has between completions; refuses to decide anything.

use std::time::Instant;

use socket2::Socket;

use super::verify::Progress;

/// A slot of the client: a socket now and then, and how far its batch has come.
pub struct Connection {
    pub socket: Option<Socket>,
    /// Ops of earlier sockets of this slot are recognised by it.
    pub generation: u32,
    pub connected: bool,
    /// Responses that are still owed to us.
    pub outstanding: u32,
    /// The part of the block that is not sent yet.
    pub unsent: (usize, usize),
    pub sending: bool,
    pub started: Instant,
    pub answered: u64,
    pub progress: Progress,
    /// The server has announced that it closes.
    pub closing: bool,
}

/// What an op is about.
#[derive(Clone, Copy)]
pub enum Kind {
    Connect = 1,
    Receive = 2,
    Send = 3,
}

impl Connection {
    /// A slot that has never had a socket.
    pub fn unconnected() -> Self {
        Self {
            socket: None,
            generation: 0,
            connected: false,
            outstanding: 0,
            unsent: (0, 0),
            sending: false,
            started: Instant::now(),
            answered: 0,
            progress: Progress::default(),
            closing: false,
        }
    }
}

/// 24 bits of the token carry a generation.
pub const GENERATION_MASK: u32 = 0x00ff_ffff;

/// Identity of an op: a completion of an earlier socket of its slot finds nobody.
pub fn token(kind: Kind, generation: u32, slot: usize) -> u64 {
    (kind as u64) << 56 | u64::from(generation) << 32 | slot as u64
}

/// The parts of a token that `token` has made.
pub fn split_token(token: u64) -> (Kind, u32, usize) {
    let kind = match token >> 56 {
        1 => Kind::Connect,
        2 => Kind::Receive,
        _ => Kind::Send,
    };
    (
        kind,
        (token >> 32) as u32 & GENERATION_MASK,
        (token & 0xffff_ffff) as usize,
    )
}
