//! The answers a connection owes in order, from the first one that is not ready yet.
//!
//! Owns finished answers that must wait for earlier ones. Refuses to know how they are made. It is
//! empty as long as every handler answers at once; then answers go straight into the send buffer.

use std::collections::VecDeque;

use crate::protocol::encode::Context;
use crate::protocol::{ConnectionField, StreamFraming};

/// One place in the order of answers.
#[derive(Debug)]
enum Entry {
    /// The handler said "later".
    Awaiting(Awaited),
    /// Complete, but something before it is not.
    Ready(Vec<u8>),
    /// Begun; its body comes in pieces. Boxed, because few answers do.
    Streaming(Box<Stream>),
}

/// An answer that is to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    context: Context,
    /// Since when the handler works on it, or was told that it is late.
    pub since_ms: u64,
    /// Whether the handler was told.
    pub is_overdue: bool,
}

/// A streamed answer that has begun.
#[derive(Debug)]
struct Stream {
    framing: StreamFraming,
    /// Its head and pieces, while something before it is not complete.
    held: Vec<u8>,
    /// Whether the producer rests until it is told.
    waiting: bool,
    /// Whether pieces were cut off, because they were beyond the announced length.
    overran: bool,
}

/// Whether a streamed body came out as announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    Complete,
    TooShort,
    TooLong,
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

    pub(super) fn push_awaiting(&mut self, context: Context, now_ms: u64) {
        self.entries.push_back(Entry::Awaiting(Awaited {
            context,
            since_ms: now_ms,
            is_overdue: false,
        }));
    }

    /// The answers that are to come, oldest first, with their numbers.
    pub(super) fn awaited(&self) -> impl Iterator<Item = (u32, Awaited)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(index, entry)| match entry {
            Entry::Awaiting(awaited) => {
                Some((self.first_sequence.wrapping_add(index as u32), *awaited))
            }
            Entry::Ready(_) | Entry::Streaming(_) => None,
        })
    }

    /// The same, to be changed, if the answer with this number is to come.
    pub(super) fn awaited_mut(&mut self, sequence: u32) -> Option<&mut Awaited> {
        let index = self.index(sequence)?;
        match self.entries.get_mut(index)? {
            Entry::Awaiting(awaited) => Some(awaited),
            Entry::Ready(_) | Entry::Streaming(_) => None,
        }
    }

    /// Adds a streamed answer; `held` has its head, unless that is in the send buffer.
    pub(super) fn push_streaming(&mut self, framing: StreamFraming, held: Vec<u8>) {
        self.ready_bytes += held.len();
        self.entries.push_back(Entry::streaming(framing, held));
    }

    pub(super) fn push_ready(&mut self, bytes: Vec<u8>) {
        self.ready_bytes += bytes.len();
        self.entries.push_back(Entry::Ready(bytes));
    }

    /// How to serialise the answer with this number; `None` when it was answered already.
    pub(super) fn context(&self, sequence: u32) -> Option<Context> {
        match self.entries.get(self.index(sequence)?)? {
            Entry::Awaiting(awaited) => Some(awaited.context),
            Entry::Ready(_) | Entry::Streaming(_) => None,
        }
    }

    /// Whether the answer with this number is not complete.
    pub(super) fn is_open(&self, sequence: u32) -> bool {
        let entry = self
            .index(sequence)
            .and_then(|index| self.entries.get(index));
        matches!(entry, Some(Entry::Awaiting(_) | Entry::Streaming(_)))
    }

    /// Uses up a number: its exchange was answered at once, and is still spoken of.
    pub(super) fn skip(&mut self) {
        debug_assert!(self.is_empty(), "the answers in line have their numbers");
        self.first_sequence = self.first_sequence.wrapping_add(1);
    }

    /// The answer with this number will say that the connection ends, if it is still to begin.
    pub(super) fn close_behind(&mut self, sequence: u32) {
        if let Some(awaited) = self.awaited_mut(sequence) {
            awaited.context.connection = ConnectionField::Close;
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

    /// The awaited answer has begun and is streamed; `held` has its head, unless it is first.
    pub(super) fn begin_stream(&mut self, sequence: u32, framing: StreamFraming, held: Vec<u8>) {
        let entry = self
            .index(sequence)
            .and_then(|index| self.entries.get_mut(index));
        if let Some(entry @ Entry::Awaiting(_)) = entry {
            self.ready_bytes += held.len();
            *entry = Entry::streaming(framing, held);
        }
    }

    pub(super) fn is_streaming(&self, sequence: u32) -> bool {
        self.stream(sequence).is_some()
    }

    /// Takes a piece of a streamed answer: into `out` if it is first, else it is held. Says how
    /// many bytes are there then; `None` without such a stream.
    pub(super) fn push_piece(
        &mut self,
        sequence: u32,
        piece: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let is_first = self.is_first(sequence);
        let stream = self.stream_mut(sequence)?;
        if is_first {
            stream.overran |= stream.framing.push(out, piece) > 0;
            return Some(out.len());
        }
        let before = stream.held.len();
        stream.overran |= stream.framing.push(&mut stream.held, piece) > 0;
        let held = stream.held.len();
        self.ready_bytes += held - before;
        Some(held)
    }

    /// Notes whether the producer of a streamed answer was asked to wait.
    pub(super) fn set_waiting(&mut self, sequence: u32, waiting: bool) {
        if let Some(stream) = self.stream_mut(sequence) {
            stream.waiting = waiting;
        }
    }

    /// The number of the first answer if its producer waits, once.
    pub(super) fn take_waiting_first(&mut self) -> Option<u32> {
        match self.entries.front_mut() {
            Some(Entry::Streaming(stream)) if stream.waiting => {
                stream.waiting = false;
                Some(self.first_sequence)
            }
            _ => None,
        }
    }

    /// Writes the end of a streamed body and says whether it was as announced. The entry is still
    /// to be settled, or released if it is first.
    pub(super) fn finish_stream(&mut self, sequence: u32, out: &mut Vec<u8>) -> Option<BodyEnd> {
        let is_first = self.is_first(sequence);
        let stream = self.stream_mut(sequence)?;
        let before = stream.held.len();
        let out = if is_first { out } else { &mut stream.held };
        let complete = stream.framing.finish(out);
        let end = match (complete, stream.overran) {
            (false, _) => BodyEnd::TooShort,
            (true, true) => BodyEnd::TooLong,
            (true, false) => BodyEnd::Complete,
        };
        let written = stream.held.len() - before;
        self.ready_bytes += written;
        Some(end)
    }

    /// Nothing more comes for a streamed answer that is not first.
    pub(super) fn settle_stream(&mut self, sequence: u32) {
        let entry = self
            .index(sequence)
            .and_then(|index| self.entries.get_mut(index));
        if let Some(entry) = entry
            && let Entry::Streaming(stream) = entry
        {
            *entry = Entry::Ready(std::mem::take(&mut stream.held));
        }
    }

    /// Removes the first entry, whose answer is complete in `out`, and moves what was waiting for
    /// it: up to the next answer that is not complete, and of that what is there. Calls back with
    /// the numbers of those, and where in `out` they begin.
    pub(super) fn release_first(&mut self, out: &mut Vec<u8>, mut moved: impl FnMut(u32, usize)) {
        self.pop();
        while let Some(entry) = self.entries.front_mut() {
            match entry {
                Entry::Awaiting(_) => return,
                Entry::Streaming(stream) => {
                    moved(self.first_sequence, out.len());
                    self.ready_bytes -= stream.held.len();
                    out.append(&mut stream.held);
                    stream.held = Vec::new();
                    return;
                }
                Entry::Ready(bytes) => {
                    moved(self.first_sequence, out.len());
                    self.ready_bytes -= bytes.len();
                    out.extend_from_slice(bytes);
                    self.pop();
                }
            }
        }
    }

    /// Forgets what is behind an answer that ends the connection; calls back with the numbers of
    /// those that were not complete.
    pub(super) fn truncate_after(&mut self, sequence: u32, mut incomplete: impl FnMut(u32)) {
        let Some(keep) = self.index(sequence).map(|index| index + 1) else {
            return;
        };
        while self.entries.len() > keep {
            let last = self.next_sequence().wrapping_sub(1);
            match self.entries.pop_back() {
                Some(Entry::Ready(bytes)) => self.ready_bytes -= bytes.len(),
                Some(Entry::Awaiting(_)) => incomplete(last),
                Some(Entry::Streaming(stream)) => {
                    self.ready_bytes -= stream.held.len();
                    incomplete(last);
                }
                None => {}
            }
        }
    }

    /// Forgets everything; calls back with the numbers of those that were not complete.
    pub(super) fn abandon(&mut self, mut incomplete: impl FnMut(u32)) {
        while let Some(entry) = self.entries.front() {
            if !matches!(entry, Entry::Ready(_)) {
                incomplete(self.first_sequence);
            }
            self.pop();
        }
        self.ready_bytes = 0;
    }

    fn stream(&self, sequence: u32) -> Option<&Stream> {
        match self.entries.get(self.index(sequence)?)? {
            Entry::Streaming(stream) => Some(stream),
            Entry::Awaiting(_) | Entry::Ready(_) => None,
        }
    }

    fn stream_mut(&mut self, sequence: u32) -> Option<&mut Stream> {
        let index = self.index(sequence)?;
        match self.entries.get_mut(index)? {
            Entry::Streaming(stream) => Some(stream),
            Entry::Awaiting(_) | Entry::Ready(_) => None,
        }
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

impl Entry {
    fn streaming(framing: StreamFraming, held: Vec<u8>) -> Self {
        Self::Streaming(Box::new(Stream {
            framing,
            held,
            waiting: false,
            overran: false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Version;

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
            queue.push_awaiting(context(), 0);
        }
        queue.push_ready(b"3".to_vec());

        queue.fulfil(2, b"2".to_vec());
        queue.fulfil(1, b"1".to_vec());
        assert!(queue.is_first(0) && queue.context(1).is_none());
        out.push(b'0');
        queue.release_first(&mut out, |_, _| ());

        assert_eq!(out, b"0123");
        assert!(queue.is_empty() && queue.ready_bytes() == 0);
        assert_eq!(queue.next_sequence(), 4);
    }

    #[test]
    fn abandoning_names_only_what_was_awaited() {
        let mut queue = Queue::default();
        queue.push_awaiting(context(), 0);
        queue.push_ready(b"x".to_vec());
        queue.push_awaiting(context(), 0);

        let mut awaited = Vec::new();
        queue.abandon(|sequence| awaited.push(sequence));

        assert_eq!(awaited, [0, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn pieces_are_held_until_the_answers_before_them_are_complete() {
        let mut queue = Queue::default();
        let mut out = b"0".to_vec();
        queue.push_awaiting(context(), 0);
        queue.push_streaming(StreamFraming::Length(3), b"1:".to_vec());

        assert_eq!(queue.push_piece(1, b"ab", &mut out), Some(4));
        assert_eq!((queue.ready_bytes(), &out[..]), (4, &b"0"[..]));
        queue.release_first(&mut out, |_, _| ());

        assert_eq!((queue.ready_bytes(), &out[..]), (0, &b"01:ab"[..]));
        assert_eq!(queue.push_piece(1, b"c", &mut out), Some(6));
        assert_eq!(queue.finish_stream(1, &mut out), Some(BodyEnd::Complete));
        queue.release_first(&mut out, |_, _| ());
        assert!(queue.is_empty());
        assert_eq!(queue.push_piece(1, b"d", &mut out), None);
        assert_eq!(out, b"01:abc");
    }

    #[test]
    fn a_stream_that_ends_early_waits_its_turn_like_any_answer() {
        let mut queue = Queue::default();
        let mut out = b"0".to_vec();
        queue.push_awaiting(context(), 0);
        queue.push_streaming(StreamFraming::Chunked, Vec::new());
        queue.push_ready(b"2".to_vec());
        queue.push_piece(1, b"x", &mut out);

        assert_eq!(queue.finish_stream(1, &mut out), Some(BodyEnd::Complete));
        queue.settle_stream(1);
        assert!(!queue.is_streaming(1));
        queue.release_first(&mut out, |_, _| ());

        assert_eq!(out, b"01\r\nx\r\n0\r\n\r\n2");
        assert_eq!((queue.is_empty(), queue.ready_bytes()), (true, 0));
    }

    #[test]
    fn tells_a_body_that_is_not_as_long_as_announced() {
        for (piece, end) in [
            (&b"ab"[..], BodyEnd::TooShort),
            (b"abc", BodyEnd::Complete),
            (b"abcd", BodyEnd::TooLong),
        ] {
            let mut queue = Queue::default();
            let mut out = Vec::new();
            queue.push_streaming(StreamFraming::Length(3), Vec::new());
            queue.push_piece(0, piece, &mut out);

            assert_eq!(queue.finish_stream(0, &mut out), Some(end));
            assert!(out.len() <= 3);
        }
    }

    #[test]
    fn a_producer_that_waits_is_told_once_and_only_when_it_is_first() {
        let mut queue = Queue::default();
        queue.push_awaiting(context(), 0);
        queue.push_streaming(StreamFraming::Chunked, Vec::new());
        queue.set_waiting(1, true);

        assert_eq!(queue.take_waiting_first(), None);
        queue.release_first(&mut Vec::new(), |_, _| ());

        assert_eq!(queue.take_waiting_first(), Some(1));
        assert_eq!(queue.take_waiting_first(), None);
    }

    #[test]
    fn forgetting_names_streams_and_returns_what_they_held() {
        let mut queue = Queue::default();
        queue.push_awaiting(context(), 0);
        queue.push_streaming(StreamFraming::Chunked, b"head".to_vec());
        queue.push_streaming(StreamFraming::Chunked, b"head".to_vec());

        let mut named = Vec::new();
        queue.truncate_after(1, |sequence| named.push(sequence));
        assert_eq!(queue.ready_bytes(), 4);
        queue.abandon(|sequence| named.push(sequence));

        assert_eq!((named, queue.ready_bytes()), (vec![2, 0, 1], 0));
    }
}
