//! HTTP/1.0 and HTTP/1.1 without I/O: bytes in, steps out.
//!
//! Owns what the bytes mean: heads, framing, chunked coding, keep-alive, the form of responses.
//! Refuses to know sockets, buffers' owners, time and Python; keeps no copy of its input. The
//! caller owns carried-over bytes and shows them again, longer, from the same first byte; how far
//! they were searched is remembered here, so a peer that sends a byte at a time costs O(n). The
//! caller also owns the `RequestHead`: one serves all connections of a worker, and an idle
//! connection owns none.

#![forbid(unsafe_code)]

pub mod body;
pub mod close;
pub mod date;
pub mod encode;
pub mod error;
pub mod forwarded;
pub mod framing;
pub mod head;
mod host;
pub mod http1;
pub mod limits;
pub mod networks;
mod octets;
pub mod percent;
pub mod proxy;
pub mod reason;
mod runs;
mod scan;
pub mod stream;
mod target;

pub use close::CloseReason;
pub use encode::{Answer, Connection as ConnectionField, Payload};
pub use error::ProtocolError;
pub use forwarded::{ClientField, Trust};
pub use framing::Framing;
pub use head::{Field, RequestHead, Span, Version};
pub use http1::{Http1, Step};
pub use limits::Limits;
pub use networks::{Network, Networks};
pub use proxy::ProxyHeader;
pub use stream::StreamFraming;
