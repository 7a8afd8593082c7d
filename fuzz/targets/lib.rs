//! What is fuzzed: a function for each target, which panics when something does not hold.
//!
//! Owns the targets and their oracles. Refuses to know who makes the input: libFuzzer does, through
//! `bins/`, and so does `tests/rust/fuzz.rs`, which runs the same functions on the stable compiler.
//! An input is a few bytes of control, which choose limits, splits and faults, and then what a peer
//! sends; so every wire case is a seed.

mod application;
pub mod chunked;
pub mod connection;
pub mod encoder;
mod expected;
pub mod head;
mod line;
mod response;
#[path = "../../tests/rust/wire.rs"]
pub mod wire;

use anel::protocol::Limits;
use wire::{Outcome, Random, replay};

/// A target takes any bytes.
pub type Target = fn(&[u8]);

/// Every target, with the name of its program and of the folder of its seeds.
pub const TARGETS: [(&str, Target); 4] = [
    ("head", head::run),
    ("chunked", chunked::run),
    ("connection", connection::run),
    ("encoder", encoder::run),
];

/// Bytes in front of what the peer sends.
pub const CONTROL_BYTES: usize = 4;

/// The choices that an input makes before its peer says anything.
fn control(input: &[u8]) -> Option<(Random, &[u8])> {
    let (control, wire) = input.split_at_checked(CONTROL_BYTES)?;
    let number = control
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    Some((Random::new(number), wire))
}

/// The defaults for half of the inputs; for the others limits that short inputs run into.
fn limits(random: &mut Random) -> Limits {
    let defaults = Limits::default();
    if random.below(2) == 0 {
        return defaults;
    }
    Limits {
        head_bytes_max: 30 + random.below(200) as u32,
        target_bytes_max: 1 + random.below(20) as u32,
        fields_max: random.below(6) as u32,
        body_bytes_max: random.below(40) as u64,
        chunk_extension_bytes_max: random.below(8) as u32,
        trailer_bytes_max: random.below(30) as u32,
        ..defaults
    }
}

/// What the protocol makes of these bytes; panics when that depends on how they are cut.
fn replay_every_way(wire: &[u8], limits: Limits, random: &mut Random) -> Outcome {
    let whole = replay(wire, &[wire.len()], limits);
    let longest = 1 << random.below(8);
    let pieces: Vec<usize> = (0..64).map(|_| 1 + random.below(longest)).collect();
    for cut in [&[1][..], &pieces] {
        let outcome = replay(wire, cut, limits);
        assert_eq!(outcome, whole, "cut at {cut:?}");
    }
    whole
}
