//! What comes before HTTP on a connection from a proxy: the header of the PROXY protocol.
//!
//! Owns the one state before the first head. Refuses to answer in it: whoever does not speak first
//! as agreed is not spoken to. The time for a head counts from the accept on.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::connection::Connection;
use super::handler::Handler;
use super::input::Shared;
use crate::protocol::{CloseReason, ProxyHeader};

/// How a connection begins. The handler knows who its peer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opening {
    /// With a request.
    #[default]
    Request,
    /// With a header of the PROXY protocol.
    ProxyHeader,
    /// Not at all: the peer may not speak to us.
    Refused,
}

/// A connection as its peer opened it, for `Handler::on_proxy_header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// The connection's slot.
    pub slot: u32,
    /// The slot's generation.
    pub generation: u32,
    /// The connection's socket; its peer is the proxy.
    pub socket: RawFd,
    /// The client, unless the proxy named none.
    pub client: Option<SocketAddr>,
}

impl Connection {
    /// Begins as the handler said.
    #[cold]
    pub(super) fn open_as(&mut self, opening: Opening, shared: &mut Shared) {
        match opening {
            Opening::Request => {}
            Opening::ProxyHeader => {
                self.awaits_proxy_header = true;
                self.head_since_ms = Some(shared.now_ms);
            }
            Opening::Refused => {
                shared.counters.refusals_total += 1;
                // What it sent is not worth a wait.
                self.declined = false;
                self.closing = Some(CloseReason::PeerNotTrusted);
            }
        }
    }

    /// Takes bytes of the header, and what is behind it.
    #[cold]
    pub(super) fn on_preface<H: Handler>(
        &mut self,
        input: &[u8],
        slot: u32,
        shared: &mut Shared,
        handler: &mut H,
    ) {
        if self.closing.is_some() {
            return;
        }
        // At most a receive buffer more than the longest header.
        self.carry.extend_from_slice(input);
        match ProxyHeader::read(&self.carry) {
            ProxyHeader::NeedMore => {}
            ProxyHeader::Invalid => {
                shared.counters.refusals_total += 1;
                self.end_preface(CloseReason::ProxyHeaderInvalid);
            }
            ProxyHeader::Complete { bytes, client } => {
                self.awaits_proxy_header = false;
                self.head_since_ms = None;
                handler.on_proxy_header(Proxied {
                    slot,
                    generation: self.generation,
                    socket: self.socket,
                    client,
                });
                let received = std::mem::take(&mut self.carry);
                self.on_input(&received[bytes..], slot, shared, handler);
            }
        }
    }

    /// No request will come.
    pub(super) fn end_preface(&mut self, reason: CloseReason) {
        self.closing = Some(reason);
        self.carry = Vec::new();
    }

    /// How it ends if the peer sends nothing more.
    pub(super) fn on_end_of_preface(&mut self) {
        let reason = if self.carry.is_empty() {
            CloseReason::PeerClosed
        } else {
            CloseReason::PeerClosedEarly
        };
        self.end_preface(reason);
    }
}
