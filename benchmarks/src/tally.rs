//! What a control server did, as one line of JSON at its end.
//!
//! Owns the names of the fields; refuses to divide them: `reactors.py` does. A number that a server
//! cannot know (what another runtime did in its name) is null.

use std::io::{self, Write};

use anel::reactor;
use anel::server;

/// The reactor's counters, as far as they are known.
#[derive(Clone, Copy, Debug)]
pub enum Reactor {
    /// Of anel's own, complete.
    Ours(reactor::Counters),
    /// Of another runtime: what it was asked for and what came of it.
    Foreign {
        /// Reads, writes, accepts and closes.
        operations: u64,
        /// Results of reads, writes and accepts.
        results: u64,
    },
}

/// Prints everything that was counted since the start.
///
/// # Errors
/// When nobody reads the output any more.
pub fn print(name: &str, worker: &server::Counters, reactor: Reactor) -> io::Result<()> {
    let ours = |count: fn(&reactor::Counters) -> u64| match &reactor {
        Reactor::Ours(counters) => Some(count(counters)),
        Reactor::Foreign { .. } => None,
    };
    let (submissions, completions) = match reactor {
        Reactor::Ours(counters) => (counters.submissions, counters.completions),
        Reactor::Foreign {
            operations,
            results,
        } => (operations, results),
    };
    let fields = [
        ("connections", Some(worker.connections_accepted_total)),
        ("requests", Some(worker.requests_total)),
        ("sends", Some(worker.sends_total)),
        ("bytes_received", Some(worker.bytes_received_total)),
        ("bytes_sent", Some(worker.bytes_sent_total)),
        ("submissions", Some(submissions)),
        ("completions", Some(completions)),
        ("waits", ours(|counters| counters.waits)),
        ("enters", ours(|counters| counters.enters)),
        ("calls", ours(|counters| counters.calls)),
        ("batch_max", ours(|counters| counters.batch_max)),
        ("flushes", ours(|counters| counters.flushes)),
        ("overflows", ours(|counters| counters.overflows)),
        ("starved", ours(|counters| counters.starved)),
    ];
    let mut line = format!("{{\"reactor\": \"{name}\"");
    for (field, count) in fields {
        let count = count.map_or_else(|| String::from("null"), |count| count.to_string());
        line.push_str(&format!(", \"{field}\": {count}"));
    }
    line.push_str("}\n");
    io::stdout().write_all(line.as_bytes())
}
