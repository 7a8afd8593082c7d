//! Every limit that protects a worker from its peers, with its unit in its name and its reason
//! beside it.
//!
//! Owns numbers; refuses to know who enforces them. Choices of the operator that protect nobody
//! (buffer counts, ring sizes) are in `reactor::config`.

/// Longest method. The longest registered one has 17 (UPDATEREDIRECTREF); 64 leaves room for
/// private ones. Longer gets 501 (RFC 9112 3).
pub const METHOD_BYTES_MAX: u32 = 64;

/// Empty lines skipped before a request: old clients send one behind a POST (RFC 9112 2.2). 4 is
/// arbitrary.
pub const BLANK_LINES_MAX: u8 = 4;

/// Longest header of the PROXY protocol, version 1: two addresses of IPv6 and two ports. The
/// protocol's own number.
pub const PROXY_V1_BYTES_MAX: usize = 107;

/// The same for version 2. Addresses and the usual TLVs need less than 536; a certificate of the
/// client among them (HAProxy 3.2) more. 4,096 is nginx's number.
pub const PROXY_V2_BYTES_MAX: usize = 4096;

/// Refusals that protect us from peers. All are on by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest accepted head, request line included. Browsers send under 8 KiB; 32 KiB leaves room
    /// for fat cookies. A peer that needs more gets 431. At most 65,535: spans of a head are 16
    /// bits wide.
    pub head_bytes_max: u32,
    /// Longest accepted request target. 8,190 is what Apache and gunicorn accept (their
    /// request-line limit); longer gets 414 (RFC 9110 15.5.15).
    pub target_bytes_max: u32,
    /// Most fields in a head. 100 is the field's usual number; more gets 431.
    pub fields_max: u32,
    /// Largest accepted request body after chunk decoding. 16 MiB covers forms and JSON; uploads
    /// raise it. More gets 413.
    pub body_bytes_max: u64,
    /// Largest accepted request body that is streamed, after chunk decoding. It is never in memory
    /// as a whole; 1 GiB is arbitrary, what a disk takes without notice. More gets 413.
    pub stream_bytes_max: u64,
    /// Longest chunk extension. Nobody uses them for good; 256 is arbitrary.
    pub chunk_extension_bytes_max: u32,
    /// Largest trailer section, without the empty line behind it; 0 allows no trailers. 8 KiB is
    /// arbitrary and generous: trailers are validated and dropped.
    pub trailer_bytes_max: u32,
    /// Requests of one connection that may await their answers; also those that it gets answered
    /// before the others have their turn. Reading pauses there; 128 is five times the depth of the
    /// classic pipelining benchmark.
    pub pipeline_depth_max: u32,
    /// Bytes owed to one peer at which parsing and reading pause. 256 KiB keeps 1,000 slow readers
    /// within 256 MiB.
    pub owed_bytes_max: u32,
    /// Bytes owed to one peer at which the producer of a streamed response is asked to wait; it
    /// goes on at half of it. 64 KiB is about what a fast network takes at once: the peer never
    /// waits for a producer that was told to rest.
    pub stream_owed_bytes_max: u32,
    /// Open connections per worker; beyond it, accepting pauses. 60,000 stays under common
    /// descriptor limits.
    pub connections_max: u32,
    /// Time for a whole head, from its first byte: a total, so a byte at a time does not extend it.
    pub head_timeout_ms: u64,
    /// Time in which more of a body has to come. A peer that pauses again and again uses it up,
    /// unless it sends as fast as `body_bytes_per_s_min` in between.
    pub body_timeout_ms: u64,
    /// How many bytes of a body buy the peer a second. 240 is what Kestrel demands: no line is that
    /// slow, and a byte at a time is. 0 demands nothing: any byte buys all of `body_timeout_ms`.
    pub body_bytes_per_s_min: u32,
    /// Time without a request in progress. 75 s is nginx's number.
    pub idle_timeout_ms: u64,
    /// Time in which the peer has to take some of what it is owed, as `body_timeout_ms` for a body.
    pub send_timeout_ms: u64,
    /// How many bytes taken buy the peer a second; 0 demands nothing. 240 for the same reason.
    pub send_bytes_per_s_min: u32,
    /// Time for a handler that awaits, from its request to the beginning of its answer; 0 is for
    /// ever. While a streamed body is on its way, it waits for the peer, and that does not count.
    /// 300 s is five times what proxies wait (nginx and most load balancers: 60 s).
    pub handler_timeout_ms: u64,
    /// Bytes drained from a peer after a refusal, so that a reset does not destroy the answer in
    /// flight.
    pub linger_bytes_max: u32,
    /// Time for that draining.
    pub linger_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 * 1024,
            target_bytes_max: 8_190,
            fields_max: 100,
            body_bytes_max: 16 * 1024 * 1024,
            stream_bytes_max: 1024 * 1024 * 1024,
            chunk_extension_bytes_max: 256,
            trailer_bytes_max: 8 * 1024,
            pipeline_depth_max: 128,
            owed_bytes_max: 256 * 1024,
            stream_owed_bytes_max: 64 * 1024,
            connections_max: 60_000,
            head_timeout_ms: 10_000,
            body_timeout_ms: 60_000,
            body_bytes_per_s_min: 240,
            idle_timeout_ms: 75_000,
            send_timeout_ms: 60_000,
            send_bytes_per_s_min: 240,
            handler_timeout_ms: 300_000,
            linger_bytes_max: 1024 * 1024,
            linger_timeout_ms: 2_000,
        }
    }
}

/// The limits on a single request, as a connection keeps them: 10,000 connections keep 10,000 of
/// these.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLimits {
    pub head_bytes_max: u32,
    pub target_bytes_max: u32,
    pub fields_max: u32,
    pub chunk_extension_bytes_max: u32,
    pub trailer_bytes_max: u32,
    pub body_bytes_max: u64,
}

impl From<&Limits> for RequestLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            // Spans of a head are 16 bits wide.
            head_bytes_max: limits.head_bytes_max.min(u32::from(u16::MAX)),
            target_bytes_max: limits.target_bytes_max,
            fields_max: limits.fields_max,
            chunk_extension_bytes_max: limits.chunk_extension_bytes_max,
            trailer_bytes_max: limits.trailer_bytes_max,
            body_bytes_max: limits.body_bytes_max,
        }
    }
}
