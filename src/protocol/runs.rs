//! How many bytes at the start of a slice may stand in one place: in a name, a target or a value.
//!
//! Owns the fast form of three classes of `octets`: the eight bytes of a word are looked at
//! together. Refuses to know what comes behind a run. Most of a head is field values of thirty to a
//! hundred bytes, and looking at each byte of them would be most of what parsing costs.

use super::octets::{is_target, is_token, is_value};

/// How many bytes are looked at together.
const WIDTH: usize = 8;
/// The bit of each byte of a word that answers are given in.
const TOP: u64 = all(0x80);

/// Letters, digits and the symbols of a token (RFC 9110 5.6.2).
#[inline(always)] // Called in one place, like the others: the reader of heads.
pub(super) fn token(bytes: &[u8]) -> usize {
    // Nearly all names are letters and hyphens. The class as a whole has no short form.
    run(bytes, is_token, |word| {
        let seven_bits = (word | all(0x20)) & !TOP;
        let from_a = seven_bits + all(0x80 - b'a');
        let behind_z = seven_bits + all(0x80 - b'z' - 1);
        let hyphens = !(((word ^ all(b'-')) & !TOP) + all(0x7f));
        (!((from_a & !behind_z) | hyphens) | word) & TOP
    })
}

/// Visible ASCII without `#`.
#[inline(always)]
pub(super) fn target(bytes: &[u8]) -> usize {
    run(bytes, is_target, |word| {
        below(word, b'!') | are(word, b'#') | are(word, 0x7f) | (word & TOP)
    })
}

/// Tab, space, visible ASCII and everything above ASCII (RFC 9110 5.5).
#[inline(always)]
pub(super) fn value(bytes: &[u8]) -> usize {
    // Hardly a value has a tab.
    run(bytes, is_value, |word| below(word, b' ') | are(word, 0x7f))
}

/// `strangers` answers for every byte of a word that does not belong, and perhaps for some that do;
/// those are looked at again, one by one, as are the last few.
#[inline(always)]
fn run(bytes: &[u8], belongs: fn(u8) -> bool, strangers: impl Fn(u64) -> u64) -> usize {
    let mut at = 0;
    for word in bytes.as_chunks::<WIDTH>().0 {
        let found = strangers(u64::from_le_bytes(*word));
        if found != 0 {
            at += found.trailing_zeros() as usize / 8;
            break;
        }
        at += WIDTH;
    }
    while at < bytes.len() && belongs(bytes[at]) {
        at += 1;
    }
    at
}

/// A word of this byte.
const fn all(byte: u8) -> u64 {
    u64::from_le_bytes([byte; WIDTH])
}

/// Answers for each byte that is less than `limit`, and for none in front of the first of them.
#[inline(always)]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(all(limit)) & !word & TOP
}

/// Answers for each byte that is this one, and for none in front of the first of them.
#[inline(always)]
fn are(word: u64, byte: u8) -> u64 {
    below(word ^ all(byte), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Class = (fn(&[u8]) -> usize, fn(u8) -> bool, u8);

    /// Each run with its class, and a byte of it.
    const CLASSES: [Class; 3] = [
        (token, is_token, b'n'),
        (target, is_target, b'/'),
        (value, is_value, b'v'),
    ];

    #[test]
    fn every_byte_ends_a_run_at_every_place_or_does_not() {
        for (run, belongs, member) in CLASSES {
            for length in 0..=2 * WIDTH + 2 {
                for at in 0..length {
                    for byte in 0..=u8::MAX {
                        let mut bytes = vec![member; length];
                        bytes[at] = byte;

                        let expected = if belongs(byte) { length } else { at };
                        assert_eq!(run(&bytes), expected, "{byte:#x} at {at} of {length}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_of_nothing_is_empty() {
        for (run, ..) in CLASSES {
            assert_eq!(run(b""), 0);
        }
    }

    #[test]
    fn a_run_ends_with_its_first_stranger_though_others_follow() {
        for (run, ..) in CLASSES {
            let mut bytes = vec![b'a'; 40];
            bytes[5] = b'\r';
            bytes[9] = b'\n';

            assert_eq!(run(&bytes), 5);
        }
    }
}
