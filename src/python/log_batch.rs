//! Records on their way from the worker to the thread that writes them.
//!
//! Owns their bytes: adding one copies it and no more. Refuses to know what a line looks like.

use std::net::IpAddr;

use crate::server::{KeptAsked, Outcome, Record};

/// Records in the order they were added, and when that was.
#[derive(Debug, Default)]
pub struct Batch {
    entries: Vec<Entry>,
    /// What the entries refer to, in their order.
    text: Vec<u8>,
    /// How many entries have their time.
    stamped: usize,
}

#[derive(Debug)]
struct Entry {
    unix_ms: u64,
    kept: KeptAsked,
    client: Option<IpAddr>,
    status: u16,
    body_bytes: u64,
    duration_us: u64,
    outcome: Outcome,
}

impl Batch {
    pub fn add(&mut self, record: &Record<'_>) {
        self.text.extend_from_slice(record.text);
        self.entries.push(Entry {
            unix_ms: 0,
            kept: record.kept,
            client: record.client,
            status: record.status,
            body_bytes: record.body_bytes,
            duration_us: record.duration_us,
            outcome: record.outcome,
        });
    }

    /// Says when the records were made that were added since the last call.
    pub fn stamp(&mut self, unix_ms: u64) {
        for entry in &mut self.entries[self.stamped..] {
            entry.unix_ms = unix_ms;
        }
        self.stamped = self.entries.len();
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many lines they will be.
    pub fn lines(&self) -> u64 {
        self.entries.len() as u64
    }

    /// How much memory they take.
    pub fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + self.text.len()
    }

    /// Moves everything from another batch, which has room for as much again afterwards.
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        self.entries.append(&mut other.entries);
        self.text.extend_from_slice(&other.text);
        self.stamped += other.stamped;
        other.clear();
    }

    /// Forgets everything; room for more than so many bytes is given back.
    pub fn clear_to(&mut self, bytes_max: usize) {
        self.clear();
        self.text.shrink_to(bytes_max);
        self.entries.shrink_to(bytes_max / size_of::<Entry>());
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.text.clear();
        self.stamped = 0;
    }

    /// Shows every record with its time, in milliseconds since 1970.
    pub fn each(&self, mut show: impl FnMut(&Record<'_>, u64)) {
        let mut text = &self.text[..];
        for entry in &self.entries {
            let (own, behind) = text.split_at(entry.kept.bytes());
            text = behind;
            let record = Record {
                kept: entry.kept,
                text: own,
                client: entry.client,
                status: entry.status,
                body_bytes: entry.body_bytes,
                duration_us: entry.duration_us,
                outcome: entry.outcome,
            };
            show(&record, entry.unix_ms);
        }
    }
}
