//! The answers a connection owes in order, from the first one that is not ready yet.
//!
//! Owns finished answers that must wait for earlier ones. Refuses to know how they are made. It is
//! empty as long as every handler answers at once; then answers go straight into the send buffer.

use std::collections::VecDeque;

use crate::protocol::encode::Context;

/// One place in the order of answers.
#[derive(Debug)]
enum Entry {
    /// The handler said "later".
    Awaiting(Context),
    /// Complete, but something before it is not.
    Ready(Vec<u8>),
}

/// Answers in order, numbered by a sequence that survives removal from the front.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    first_sequence: u32,
    ready_bytes: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of answers that are ready but held back.
    pub(super) fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// The sequence number that the next entry will get.
    pub(super) fn next_sequence(&self) -> u32 {
        self.first_sequence.wrapping_add(self.entries.len() as u32)
    }

    pub(super) fn push_awaiting(&mut self, context: Context) {
        self.entries.push_back(Entry::Awaiting(context));
    }

    pub(super) fn push_ready(&mut self, bytes: Vec<u8>) {
        self.ready_bytes += bytes.len();
        self.entries.push_back(Entry::Ready(bytes));
    }

    /// How to serialise the answer with this number; `None` when it was answered already.
    pub(super) fn context(&self, sequence: u32) -> Option<Context> {
        match self.entries.get(self.index(sequence)?)? {
            Entry::Awaiting(context) => Some(*context),
            Entry::Ready(_) => None,
        }
    }

    /// Whether this number is the one everything else waits for.
    pub(super) fn is_first(&self, sequence: u32) -> bool {
        !self.entries.is_empty() && sequence == self.first_sequence
    }

    /// Whether nothing was asked behind this number.
    pub(super) fn is_last(&self, sequence: u32) -> bool {
        !self.entries.is_empty() && sequence.wrapping_add(1) == self.next_sequence()
    }

    /// Stores the answer of an entry that is not first.
    pub(super) fn fulfil(&mut self, sequence: u32, bytes: Vec<u8>) {
        let entry = self
            .index(sequence)
            .and_then(|index| self.entries.get_mut(index));
        if let Some(entry @ Entry::Awaiting(_)) = entry {
            self.ready_bytes += bytes.len();
            *entry = Entry::Ready(bytes);
        }
    }

    /// Removes the first entry, whose answer has just gone into `out`, and moves what was waiting
    /// for it.
    pub(super) fn release_first(&mut self, out: &mut Vec<u8>) {
        self.pop();
        while let Some(Entry::Ready(bytes)) = self.entries.front() {
            self.ready_bytes -= bytes.len();
            out.extend_from_slice(bytes);
            self.pop();
        }
    }

    /// Forgets what is behind an answer that ends the connection.
    pub(super) fn truncate_after(&mut self, sequence: u32, mut awaited: impl FnMut(u32)) {
        let Some(keep) = self.index(sequence).map(|index| index + 1) else {
            return;
        };
        while self.entries.len() > keep {
            let last = self.next_sequence().wrapping_sub(1);
            match self.entries.pop_back() {
                Some(Entry::Ready(bytes)) => self.ready_bytes -= bytes.len(),
                Some(Entry::Awaiting(_)) => awaited(last),
                None => {}
            }
        }
    }

    /// Forgets everything; calls back with the numbers that were still awaited.
    pub(super) fn abandon(&mut self, mut awaited: impl FnMut(u32)) {
        while let Some(entry) = self.entries.front() {
            if matches!(entry, Entry::Awaiting(_)) {
                awaited(self.first_sequence);
            }
            self.pop();
        }
        self.ready_bytes = 0;
    }

    fn pop(&mut self) {
        if self.entries.pop_front().is_some() {
            self.first_sequence = self.first_sequence.wrapping_add(1);
        }
        if self.entries.is_empty() {
            // An idle connection owns no heap memory: ten thousand of them would show it.
            self.entries = VecDeque::new();
        }
    }

    fn index(&self, sequence: u32) -> Option<usize> {
        let distance = sequence.wrapping_sub(self.first_sequence) as usize;
        (distance < self.entries.len()).then_some(distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ConnectionField, Version};

    fn context() -> Context {
        Context {
            version: Version::Http11,
            head_only: false,
            connection: ConnectionField::Omitted,
        }
    }

    #[test]
    fn answers_leave_in_order_whatever_order_they_come_in() {
        let mut queue = Queue::default();
        let mut out = Vec::new();
        for _ in 0..3 {
            queue.push_awaiting(context());
        }
        queue.push_ready(b"3".to_vec());

        queue.fulfil(2, b"2".to_vec());
        queue.fulfil(1, b"1".to_vec());
        assert!(queue.is_first(0) && queue.context(1).is_none());
        out.push(b'0');
        queue.release_first(&mut out);

        assert_eq!(out, b"0123");
        assert!(queue.is_empty() && queue.ready_bytes() == 0);
        assert_eq!(queue.next_sequence(), 4);
    }

    #[test]
    fn abandoning_names_only_what_was_awaited() {
        let mut queue = Queue::default();
        queue.push_awaiting(context());
        queue.push_ready(b"x".to_vec());
        queue.push_awaiting(context());

        let mut awaited = Vec::new();
        queue.abandon(|sequence| awaited.push(sequence));

        assert_eq!(awaited, [0, 2]);
        assert!(queue.is_empty());
    }
}
