//! A read-only hash index: byte strings to lists of route numbers, in registration order.
//!
//! Owns the hash and the probing. It exists beside `std::collections::HashMap` because the hashes
//! of all prefixes of a path come out of one pass, and because SipHash costs more than the rest of
//! a lookup. Keys come from the application and lookups never insert, so a peer cannot degrade it
//! by choosing paths.

/// Odd, with well-spread bits; the constant of the Firefox hash (FxHash).
const MULTIPLIER: u64 = 0x517c_c1b7_2722_0a95;

/// The hash of nothing: what the first piece of a key is mixed into.
pub(super) const EMPTY_HASH: u64 = 0;

/// Mixes a piece into a hash. Splitting a key into other pieces gives another hash, so both sides
/// must split alike: whole for literal paths, behind every `/` for prefixes.
#[inline]
pub(super) fn mix(mut hash: u64, mut piece: &[u8]) -> u64 {
    while let Some((word, rest)) = piece.split_first_chunk::<8>() {
        hash = step(hash, u64::from_le_bytes(*word));
        piece = rest;
    }
    step(hash, tail(piece))
}

/// At most seven bytes in one word, with their number above them: it keeps "a" and "a\0" apart.
#[inline]
fn tail(piece: &[u8]) -> u64 {
    let len = piece.len() as u64;
    let bytes = match (piece, piece.first_chunk(), piece.last_chunk()) {
        // The two overlap, and agree where they do.
        (_, Some(first), Some(last)) => {
            let last = u64::from(u32::from_le_bytes(*last));
            u64::from(u32::from_le_bytes(*first)) | last << (8 * (len - 4))
        }
        (&[a, b, c], ..) => u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]),
        (&[a, b], ..) => u64::from(u16::from_le_bytes([a, b])),
        (&[a], ..) => u64::from(a),
        _ => 0,
    };
    bytes | len << 56
}

#[inline]
fn step(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(MULTIPLIER)
}

#[derive(Clone, Debug)]
struct Entry {
    hash: u64,
    key: Box<[u8]>,
    routes: Vec<u32>,
}

/// Byte strings to route numbers.
#[derive(Clone, Debug)]
pub(super) struct Index {
    entries: Vec<Entry>,
    // Number of an entry plus one, or 0; at least twice as many places as entries, so a probe ends.
    places: Vec<u32>,
    shift: u32,
}

impl Index {
    /// Builds the index from (hash, key, route) in registration order.
    pub(super) fn build<'a>(keys: impl Iterator<Item = (u64, &'a [u8], u32)>) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        let mut known = std::collections::HashMap::new();
        for (hash, key, route) in keys {
            let number = *known.entry(key).or_insert_with(|| {
                entries.push(Entry {
                    hash,
                    key: key.into(),
                    routes: Vec::new(),
                });
                entries.len() - 1
            });
            entries[number].routes.push(route);
        }
        let bits = (entries.len() * 2)
            .next_power_of_two()
            .trailing_zeros()
            .max(1);
        let mut index = Self {
            places: vec![0; 1 << bits],
            shift: 64 - bits,
            entries: Vec::new(),
        };
        for (number, entry) in entries.iter().enumerate() {
            let mut place = index.place(entry.hash);
            while index.places[place] != 0 {
                place = (place + 1) & (index.places.len() - 1);
            }
            index.places[place] = number as u32 + 1;
        }
        index.entries = entries;
        index
    }

    /// The routes under a key, in registration order.
    #[inline]
    pub(super) fn routes(&self, hash: u64, key: &[u8]) -> &[u32] {
        let mut place = self.place(hash);
        while let Some(number) = self.places[place].checked_sub(1) {
            let entry = &self.entries[number as usize];
            if entry.hash == hash && *entry.key == *key {
                return &entry.routes;
            }
            place = (place + 1) & (self.places.len() - 1);
        }
        &[]
    }

    // The high bits: a multiplication carries upwards, so they are the mixed ones.
    #[inline]
    fn place(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_key_and_no_other() {
        let keys: Vec<String> = (0..300).map(|n| format!("/some/route/{n}")).collect();
        let index = Index::build(
            keys.iter()
                .enumerate()
                .map(|(n, key)| (mix(EMPTY_HASH, key.as_bytes()), key.as_bytes(), n as u32)),
        );

        for (n, key) in keys.iter().enumerate() {
            let found = index.routes(mix(EMPTY_HASH, key.as_bytes()), key.as_bytes());
            assert_eq!(found, [n as u32]);
        }
        assert!(
            index
                .routes(mix(EMPTY_HASH, b"/other"), b"/other")
                .is_empty()
        );
    }

    #[test]
    fn keys_with_one_hash_are_told_apart() {
        let index = Index::build([(7, &b"a"[..], 0), (7, b"b", 1), (7, b"a", 2)].into_iter());

        assert_eq!(index.routes(7, b"a"), [0, 2]);
        assert_eq!(index.routes(7, b"b"), [1]);
        assert!(index.routes(7, b"c").is_empty());
    }

    #[test]
    fn an_empty_index_finds_nothing() {
        let index = Index::build(std::iter::empty());

        assert!(index.routes(EMPTY_HASH, b"").is_empty());
    }

    #[test]
    fn every_byte_of_a_short_key_has_its_place_in_the_hash() {
        let key = b"abcdefg";

        for len in 0..=key.len() {
            let mut word = [0; 8];
            word[..len].copy_from_slice(&key[..len]);
            word[7] = len as u8;
            assert_eq!(tail(&key[..len]), u64::from_le_bytes(word));
        }
    }

    #[test]
    fn trailing_zero_bytes_change_the_hash() {
        assert_ne!(mix(EMPTY_HASH, b"a"), mix(EMPTY_HASH, b"a\0"));
        assert_ne!(mix(EMPTY_HASH, b""), mix(EMPTY_HASH, b"\0"));
    }
}
