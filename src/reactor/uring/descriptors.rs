//! A set of descriptors, one bit each.
//!
//! Owns the bits; refuses to know what being in the set means. Descriptors are small numbers, so
//! the set is as long as the largest one has ever been.

use std::os::fd::RawFd;

#[derive(Default)]
pub(super) struct Descriptors {
    words: Vec<u64>,
}

impl Descriptors {
    fn place(fd: RawFd) -> (usize, u64) {
        (fd as usize / 64, 1 << (fd % 64))
    }

    pub(super) fn insert(&mut self, fd: RawFd) {
        let (word, bit) = Self::place(fd);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= bit;
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, fd: RawFd) -> bool {
        let (word, bit) = Self::place(fd);
        let Some(word) = self.words.get_mut(word) else {
            return false;
        };
        let was_there = *word & bit != 0;
        *word &= !bit;
        was_there
    }

    pub(super) fn contains(&self, fd: RawFd) -> bool {
        let (word, bit) = Self::place(fd);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_remembered_until_they_are_removed() {
        let mut descriptors = Descriptors::default();

        descriptors.insert(195);

        assert!(descriptors.contains(195));
        assert!(!descriptors.contains(194) && !descriptors.contains(9999));
        assert!(descriptors.remove(195) && !descriptors.remove(195));
        assert!(!descriptors.remove(9999) && !descriptors.contains(195));
    }
}
