//! Where the placeholders of the matched route are, as ranges of the path.
//!
//! Owns positions, never bytes: a `Params` is reused from lookup to lookup and borrows nothing. It
//! is only meaningful together with the path it was filled from.

use std::ops::Range;

use smallvec::SmallVec;

/// Captured ranges in the order of the pattern's placeholders. Reusable: `RouteTable::find` clears
/// it.
#[derive(Clone, Debug, Default)]
pub struct Params {
    // Eight spans stay inside the struct: deeper patterns are rare, and the worker keeps one
    // `Params` anyway.
    spans: SmallVec<[(u32, u32); 8]>,
    // The positions of every `/` of the path: scratch of a lookup, kept here for its storage.
    slashes: SmallVec<[u32; 16]>,
}

impl Params {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many placeholders were captured.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether nothing was captured: no match, or a pattern without placeholders.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The captured ranges, in placeholder order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.spans
            .iter()
            .map(|&(start, end)| start as usize..end as usize)
    }

    /// The captured bytes, in placeholder order. `path` is the one that was looked up.
    pub fn values<'a>(&'a self, path: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> + 'a {
        self.ranges().map(|range| &path[range])
    }

    pub(super) fn clear(&mut self) {
        self.spans.clear();
    }

    pub(super) fn read_slashes(&mut self, path: &[u8]) {
        self.slashes.clear();
        self.slashes
            .extend(memchr::memchr_iter(b'/', path).map(|at| at as u32));
    }

    pub(super) fn slash_count(&self) -> usize {
        self.slashes.len()
    }

    /// Where the path's `/` of this number is, counted from 0.
    pub(super) fn slash(&self, number: usize) -> Option<usize> {
        self.slashes.get(number).map(|&at| at as usize)
    }

    pub(super) fn push(&mut self, start: usize, end: usize) {
        self.spans.push((start as u32, end as u32));
    }
}
