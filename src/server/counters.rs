//! What a worker did, as plain numbers.
//!
//! Owns totals since start; refuses to know who reads them.

/// Totals since the worker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections taken from the listeners.
    pub connections_accepted_total: u64,
    /// Connections that ended, for whatever reason.
    pub connections_closed_total: u64,
    /// Requests handed to the handler.
    pub requests_total: u64,
    /// Answers that were streamed.
    pub streams_total: u64,
    /// Request bodies that were streamed.
    pub bodies_streamed_total: u64,
    /// Requests refused by the protocol, and connections refused before the first one.
    pub refusals_total: u64,
    /// Sends submitted. Requests per send is the gain of coalescing.
    pub sends_total: u64,
    /// Times a connection stopped being read because it owed too much.
    pub pauses_total: u64,
    /// Times a connection had its share of a turn and was to go on in the next.
    pub shares_total: u64,
    /// Times a receive found no free buffer.
    pub starved_total: u64,
    /// Times accepting stopped for want of descriptors or memory.
    pub accept_pauses_total: u64,
    /// Accepts that failed: no descriptor, no memory, or the peer was gone.
    pub accept_errors_total: u64,
    /// Receives and sends that the kernel had no memory for. They are made again.
    pub shortages_total: u64,
    /// Handlers that were told that their time is up.
    pub handlers_overdue_total: u64,
    /// Connections ended by a deadline.
    pub deadlines_total: u64,
    /// Late answers for connections that were gone.
    pub answers_dropped_total: u64,
    /// Completions for a slot that had moved on.
    pub stale_completions_total: u64,
    /// Bytes received.
    pub bytes_received_total: u64,
    /// Bytes the kernel accepted for sending.
    pub bytes_sent_total: u64,
}
