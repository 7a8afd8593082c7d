//! What became of each exchange, told when the last byte of its answer has left: for an access log.
//!
//! Owns what is kept of the exchanges of a connection, from the request to the end of its answer.
//! Refuses to know what is done with it. What was answered is read where it was written, in the
//! bytes that the peer gets; how much of it has left is a matter of places in the connection's
//! output. A worker that is to record nothing keeps nothing.

use std::collections::VecDeque;
use std::net::IpAddr;

use memchr::memmem::Finder;

use super::connection::{Connection, Phase};
use super::handler::{Decision, ExchangeId, Handler};
use super::input::Shared;
use super::record::{Asked, KeptAsked, Outcome, Record, Sampling, Sender};
use crate::protocol::encode::CONTINUE;
use crate::protocol::{CloseReason, ProtocolError, RequestHead, StreamFraming};

/// What a journal needs of all connections.
#[derive(Debug)]
pub(super) struct Recorder {
    sampling: Sampling,
    empty_line: Finder<'static>,
    /// Empty journals: only connections with an exchange have one.
    #[allow(clippy::vec_box)] // They move between here and a field that is a pointer wide.
    spares: Vec<Box<Journal>>,
}

/// The exchanges of one connection that are not told yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<Entry>,
    /// What the entries refer to, in their order, from `text_at` on.
    text: Vec<u8>,
    text_at: usize,
}

/// Of the bytes that were written for an exchange, what a record says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    status: u16,
    head_bytes: u64,
    /// The head and what is behind it.
    bytes: u64,
}

/// Whether an exchange is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    Told,
    /// It is kept as long as its answer may turn out to be a failure.
    IfItFails,
}

#[derive(Debug)]
struct Entry {
    /// Its number on the connection, as far as that is unique: see `ExchangeId`.
    sequence: u32,
    begun_us: u64,
    client: Option<IpAddr>,
    asked: KeptAsked,
    /// Where its answer begins in the output of the connection; None while something before it is
    /// not complete.
    begins_at: Option<u64>,
    answer: Written,
    /// Bytes of the body before they were put in chunks.
    body_bytes: u64,
    is_complete: bool,
    chosen: Chosen,
    outcome: Outcome,
}

impl Recorder {
    pub(super) fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            // No other line begins with a carriage return, so this has no false candidates.
            empty_line: Finder::new(b"\n\r"),
            spares: Vec::new(),
        }
    }

    /// What was written in answer to a request, if it is to be recorded. Nothing is an answer that
    /// is to come, and may be a failure.
    pub(super) fn choose(&mut self, written: &[u8]) -> Option<(Written, Chosen)> {
        if self.sampling.chooses() {
            return Some((self.read(written), Chosen::Told));
        }
        if written.is_empty() {
            return Some((Written::default(), Chosen::IfItFails));
        }
        Sampling::is_failure(status(written)).then(|| (self.read(written), Chosen::Told))
    }

    /// What was written: nothing, a whole answer, or the head of one, perhaps behind a 100.
    pub(super) fn read(&self, written: &[u8]) -> Written {
        let lead = if written.starts_with(CONTINUE) {
            CONTINUE.len()
        } else {
            0
        };
        let answer = &written[lead..];
        let end = self.empty_line.find(answer);
        Written {
            status: status(answer),
            head_bytes: (lead + end.map_or(answer.len(), |at| at + 3)) as u64,
            bytes: written.len() as u64,
        }
    }
}

/// The three digits of a status line; 0 for what is none.
fn status(answer: &[u8]) -> u16 {
    match answer.get(9..12) {
        Some(digits) if digits.iter().all(u8::is_ascii_digit) => digits
            .iter()
            .fold(0, |status, digit| status * 10 + u16::from(digit - b'0')),
        _ => 0,
    }
}

impl Connection {
    /// Where in the connection's output the next byte will be.
    pub(super) fn output_at(&self) -> u64 {
        self.sent_bytes + (self.in_flight_bytes + self.out.len()) as u64
    }

    /// Bytes of answers that are here, in line or held back.
    pub(super) fn answer_bytes(&self) -> usize {
        self.out.len() + self.queue.ready_bytes()
    }

    /// A handler was called. `written` is what it has answered so far, at `begins_at` unless that
    /// is held back.
    #[inline(never)]
    pub(super) fn record_request<H: Handler>(
        &mut self,
        (exchange, head, head_bytes): (ExchangeId, &RequestHead, &[u8]),
        decision: &Decision,
        (written, chosen, begins_at): (Written, Chosen, Option<u64>),
        (recorder, begun_us): (&mut Recorder, u64),
        handler: &mut H,
    ) {
        let sender = Sender {
            exchange,
            socket: self.socket,
            head: Some((head, head_bytes)),
        };
        let entry = Entry {
            sequence: exchange.sequence,
            begun_us,
            client: handler.client(sender),
            asked: KeptAsked::default(),
            begins_at: begins_at.filter(|_| written.bytes > 0),
            answer: written,
            body_bytes: written.bytes - written.head_bytes,
            is_complete: matches!(decision, Decision::Answered { .. }),
            chosen,
            outcome: Outcome::Whole,
        };
        let asked = Asked::of(head, head_bytes);
        self.journal(recorder).push(entry, asked);
    }

    /// Something that is no request, or none that is taken, was answered.
    #[cold]
    pub(super) fn record_refusal<H: Handler>(
        &mut self,
        error: ProtocolError,
        (head, bytes): (Option<&RequestHead>, &[u8]),
        (written, begins_at): (Written, Option<u64>),
        (slot, begun_us): (u32, u64),
        recorder: &mut Recorder,
        handler: &mut H,
    ) {
        // An answer that an application has made may be anything.
        let status = match written.status {
            0 => error.status(),
            status => status,
        };
        if !recorder.sampling.chooses() && !Sampling::is_failure(status) {
            return;
        }
        let exchange = self.next_exchange(slot);
        let sender = Sender {
            exchange,
            socket: self.socket,
            head: head.map(|head| (head, bytes)),
        };
        let entry = Entry {
            sequence: exchange.sequence,
            begun_us,
            client: handler.client(sender),
            asked: KeptAsked::default(),
            begins_at,
            answer: Written { status, ..written },
            body_bytes: written.bytes - written.head_bytes,
            is_complete: true,
            chosen: Chosen::Told,
            outcome: Outcome::Refused(error),
        };
        let asked = head.map_or_else(|| Asked::guess(bytes), |head| Asked::of(head, bytes));
        self.journal(recorder).push(entry, asked);
    }

    /// A late answer was written; of one in pieces, the head.
    #[inline(never)]
    pub(super) fn record_answer(
        &mut self,
        sequence: u32,
        written: Written,
        begins_at: Option<u64>,
        framing: Option<StreamFraming>,
    ) {
        if let Some(entry) = self.unfinished(sequence) {
            entry.begins_at = begins_at;
            entry.answer = written;
            entry.body_bytes = written.bytes - written.head_bytes;
            entry.is_complete = framing.is_none();
            if Sampling::is_failure(written.status) {
                entry.chosen = Chosen::Told;
            }
        }
    }

    /// A piece of a streamed answer was written, of which so many bytes came out.
    pub(super) fn record_piece(&mut self, sequence: u32, piece_bytes: usize, bytes: usize) {
        if let Some(entry) = self.unfinished(sequence) {
            entry.answer.bytes += bytes as u64;
            // Chunks add to it; what is beyond an announced length is cut.
            entry.body_bytes += piece_bytes.min(bytes) as u64;
        }
    }

    /// Nothing more comes of a streamed answer; with a reason, it is not as announced.
    pub(super) fn record_end(&mut self, sequence: u32, reason: Option<CloseReason>) {
        if let Some(entry) = self.unfinished(sequence) {
            entry.is_complete = true;
            if let Some(reason) = reason {
                entry.outcome = Outcome::BrokenOff(reason);
            }
        }
    }

    /// What was asked behind this exchange is not answered.
    #[cold]
    pub(super) fn record_truncation<H: Handler>(
        &mut self,
        sequence: u32,
        reason: CloseReason,
        now_us: u64,
        handler: &mut H,
    ) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        while let Some(last) = journal.entries.back()
            && last.begins_at.is_none()
            && last.sequence.wrapping_sub(sequence) as i32 > 0
        {
            journal.tell_last(reason, now_us, handler);
        }
    }

    /// Tells of the exchanges whose answers have left.
    #[inline(never)]
    pub(super) fn tell_records<H: Handler>(&mut self, shared: &mut Shared, handler: &mut H) {
        if self.phase == Phase::ShutDown && !self.sending {
            let reason = self.closing.unwrap_or(CloseReason::PeerClosed);
            return self.tell_last_records(reason, shared, handler);
        }
        if let Some(journal) = &mut self.journal {
            while let Some(entry) = journal.entries.front() {
                if !entry.has_left(self.sent_bytes) {
                    return journal.compact();
                }
                journal.tell_first(self.sent_bytes, None, shared.now_us, handler);
            }
            self.recycle_journal(shared);
        }
    }

    /// Tells of all that are left: nothing more will be sent.
    #[cold]
    pub(super) fn tell_last_records<H: Handler>(
        &mut self,
        reason: CloseReason,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        if let Some(journal) = &mut self.journal {
            while !journal.entries.is_empty() {
                journal.tell_first(self.sent_bytes, Some(reason), shared.now_us, handler);
            }
            self.recycle_journal(shared);
        }
    }

    fn recycle_journal(&mut self, shared: &mut Shared) {
        if let (Some(recorder), Some(journal)) = (&mut shared.recorder, self.journal.take()) {
            recorder.recycle(journal);
        }
    }

    fn journal(&mut self, recorder: &mut Recorder) -> &mut Journal {
        self.journal
            .get_or_insert_with(|| recorder.spares.pop().unwrap_or_default())
    }

    /// The record of an exchange whose answer is not complete, or held back.
    fn unfinished(&mut self, sequence: u32) -> Option<&mut Entry> {
        self.journal.as_mut()?.unfinished(sequence)
    }
}

impl Recorder {
    fn recycle(&mut self, mut journal: Box<Journal>) {
        journal.text.clear();
        journal.text_at = 0;
        if self.spares.len() < SPARES_MAX && journal.text.capacity() <= SPARE_BYTES_MAX {
            self.spares.push(journal);
        }
    }
}

impl Journal {
    /// How many bytes of requests it holds.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() - self.text_at
    }

    fn push(&mut self, mut entry: Entry, asked: Asked<'_>) {
        entry.asked = asked.keep(&mut self.text);
        self.entries.push_back(entry);
    }

    /// The answers before this one are complete: it begins here.
    pub(super) fn place(&mut self, sequence: u32, at: u64) {
        if let Some(entry) = self.unfinished(sequence) {
            entry.begins_at = Some(at);
        }
    }

    fn unfinished(&mut self, sequence: u32) -> Option<&mut Entry> {
        let is_open = |entry: &Entry| !entry.is_complete || entry.begins_at.is_none();
        let mut entries = self.entries.iter_mut();
        entries.find(|entry| entry.sequence == sequence && is_open(entry))
    }

    fn tell_first<H: Handler>(
        &mut self,
        sent: u64,
        is_over: Option<CloseReason>,
        now_us: u64,
        handler: &mut H,
    ) {
        if let Some(entry) = self.entries.front() {
            let end = self.text_at + entry.asked.bytes();
            let text = &self.text[self.text_at..end];
            entry.tell(text, sent, is_over, now_us, handler);
            self.text_at = end;
            self.entries.pop_front();
        }
    }

    fn tell_last<H: Handler>(&mut self, reason: CloseReason, now_us: u64, handler: &mut H) {
        if let Some(entry) = self.entries.back() {
            let begin = self.text.len() - entry.asked.bytes();
            entry.tell(&self.text[begin..], 0, Some(reason), now_us, handler);
            self.text.truncate(begin);
            self.entries.pop_back();
        }
    }

    /// Forgets the text of what was told, now and then.
    fn compact(&mut self) {
        if self.text_at > TOLD_BYTES_MAX {
            self.text.drain(..self.text_at);
            self.text_at = 0;
        }
    }
}

impl Entry {
    /// Whether all of the answer is among the first so many bytes of the output.
    fn has_left(&self, sent: u64) -> bool {
        let end = self.begins_at.map(|at| at + self.answer.bytes);
        self.is_complete && end.is_some_and(|end| end <= sent)
    }

    fn tell<H: Handler>(
        &self,
        text: &[u8],
        sent: u64,
        is_over: Option<CloseReason>,
        now_us: u64,
        handler: &mut H,
    ) {
        if self.chosen == Chosen::IfItFails {
            return;
        }
        let body_at = self.begins_at.map(|at| at + self.answer.head_bytes);
        let left = body_at.map_or(0, |at| sent.saturating_sub(at));
        let outcome = match (self.outcome, is_over) {
            (Outcome::Whole, Some(reason)) if !self.has_left(sent) => Outcome::BrokenOff(reason),
            (outcome, _) => outcome,
        };
        handler.on_record(&Record {
            kept: self.asked,
            text,
            client: self.client,
            status: match self.answer.status {
                0 => NOT_ANSWERED,
                status => status,
            },
            body_bytes: self.body_bytes.min(left),
            duration_us: now_us.saturating_sub(self.begun_us),
            outcome,
        });
    }
}

/// What nginx says where the client left before it was answered. It is never sent.
const NOT_ANSWERED: u16 = 499;

/// Text of exchanges that were told, while a later one of the connection is not over. Small against
/// what the connection may owe.
const TOLD_BYTES_MAX: usize = 16 * 1024;

/// Journals kept for reuse, as many as send buffers, and how much text they may have room for.
const SPARES_MAX: usize = 128;
const SPARE_BYTES_MAX: usize = 64 * 1024;
