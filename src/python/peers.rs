//! Who sent a request, and which host it asked for: as the kernel says, or as trusted proxies do.
//!
//! Owns the addresses that were asked for, by connection, and the choice of whom to believe.
//! Refuses to know how fields and headers are read: that is `protocol`. Nothing is found out before
//! somebody asks, except on connections that begin with a header of the PROXY protocol.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::headers::latin1;
use super::request::Request;
use super::shared::Shared;
use crate::protocol::{ClientField, Network, Trust};
use crate::reactor::peer_name;
use crate::server::{ExchangeId, Opening, Proxied, Sender};

/// The peers of a worker's connections.
pub struct Peers {
    proxies: Option<Proxies>,
    /// By slot, with the generation they belong to.
    known: RefCell<Vec<Option<(u32, Peer)>>>,
}

/// The proxies in front of us, as the application names them.
struct Proxies {
    trust: Trust,
    /// Whether they begin every connection with a header of the PROXY protocol, and nobody else
    /// may connect.
    speak_proxy_protocol: bool,
}

/// Who is at the other end of a connection, or of the proxy's that is there.
pub struct Peer {
    /// `None` is the other end of a Unix socket.
    pub address: Option<SocketAddr>,
    text: Option<Py<PyString>>,
    /// Whether it may be a proxy that names clients in fields. Whom a proxy could not name is not:
    /// behind the proxy's address, the fields are the stranger's.
    may_forward: bool,
}

impl Peer {
    fn new(py: Python<'_>, address: Option<SocketAddr>) -> Self {
        Self {
            address,
            text: address.map(|address| text(py, address.ip())),
            may_forward: true,
        }
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            address: self.address,
            text: self.text.as_ref().map(|text| text.clone_ref(py)),
            may_forward: self.may_forward,
        }
    }

    fn ip(&self) -> Option<IpAddr> {
        Some(self.address?.ip())
    }
}

impl Peers {
    /// Those of an application, which names its proxies in `_proxies`: networks, whether Unix
    /// sockets, fields, and whether they speak the PROXY protocol. None stands for no proxies.
    pub fn new(app: &Bound<'_, PyAny>) -> PyResult<Self> {
        let named = match app.getattr_opt("_proxies")? {
            Some(named) => named.extract::<Option<Named>>()?,
            None => None,
        };
        Ok(Self {
            proxies: named.map(Proxies::new).transpose()?,
            known: RefCell::default(),
        })
    }

    /// How a connection begins that was just accepted.
    pub fn opening(&self, socket: RawFd) -> Opening {
        let Some(proxies) = &self.proxies else {
            return Opening::Request;
        };
        if !proxies.speak_proxy_protocol {
            return Opening::Request;
        }
        match peer_name(socket) {
            Ok(peer) if proxies.trust.includes(peer.map(|peer| peer.ip())) => Opening::ProxyHeader,
            Ok(_) | Err(_) => Opening::Refused,
        }
    }

    /// Who a connection comes from is known now.
    pub fn on_proxy_header(&self, py: Python<'_>, proxied: Proxied) {
        let peer = match (proxied.client, peer_name(proxied.socket)) {
            (Some(client), _) => Peer::new(py, Some(client)),
            (None, Ok(proxy)) => Peer {
                may_forward: false,
                ..Peer::new(py, proxy)
            },
            // It is gone; nobody will ask.
            (None, Err(_)) => return,
        };
        self.keep(proxied.slot, proxied.generation, peer);
    }

    /// The peer of an exchange. `socket` is asked once per connection, as long as it is known to be
    /// open.
    fn find(&self, py: Python<'_>, exchange: ExchangeId, socket: Option<RawFd>) -> Option<Peer> {
        if let Some(Some((generation, peer))) = self.known.borrow().get(exchange.slot as usize)
            && *generation == exchange.generation
        {
            return Some(peer.clone_ref(py));
        }
        let peer = Peer::new(py, peer_name(socket?).ok()?);
        self.keep(exchange.slot, exchange.generation, peer.clone_ref(py));
        Some(peer)
    }

    /// Who sent a request that is recorded; what `Request::client` says.
    pub fn client(&self, py: Python<'_>, sender: Sender<'_>) -> Option<IpAddr> {
        let peer = self.find(py, sender.exchange, Some(sender.socket))?;
        let client = match (self.trust_in(&peer), sender.head) {
            (Some(trust), Some((head, bytes))) => trust.client(head, bytes, peer.ip()),
            _ => peer.ip(),
        };
        Some(client?.to_canonical())
    }

    fn keep(&self, slot: u32, generation: u32, peer: Peer) {
        let index = slot as usize;
        let mut known = self.known.borrow_mut();
        if known.len() <= index {
            known.resize_with(index + 1, || None);
        }
        known[index] = Some((generation, peer));
    }

    /// Whom to ask about the requests of a peer; `None` when nobody is.
    fn trust_in(&self, peer: &Peer) -> Option<&Trust> {
        let proxies = self.proxies.as_ref()?;
        peer.may_forward.then_some(&proxies.trust)
    }
}

/// Networks by address and prefix, whether Unix sockets, fields by name, and whether the PROXY
/// protocol is spoken.
type Named = (Vec<(IpAddr, u8)>, bool, Vec<String>, bool);

impl Proxies {
    fn new((networks, unix, fields, speak_proxy_protocol): Named) -> PyResult<Self> {
        let mut trust = Trust {
            unix,
            ..Trust::default()
        };
        let networks = networks.into_iter();
        trust.proxies = networks
            .map(|(address, prefix)| Network::new(address, prefix))
            .collect::<Option<_>>()
            .ok_or_else(|| PyValueError::new_err("a network has bits behind its prefix"))?;
        for field in fields {
            match &field[..] {
                "x-forwarded-for" => trust.client = Some(ClientField::XForwardedFor),
                "forwarded" => trust.client = Some(ClientField::Forwarded),
                "x-forwarded-host" => trust.host = true,
                _ => return Err(PyValueError::new_err(format!("no proxy header: {field:?}"))),
            }
        }
        Ok(Self {
            trust,
            speak_proxy_protocol,
        })
    }
}

impl Request {
    /// Who sent it, as far as the connection tells; `None` when that is not known any more.
    pub(super) fn peer(&self, py: Python<'_>) -> Option<Peer> {
        let socket = self.socket(py);
        let state = self.state.borrow(py);
        match &state.kept {
            // The slot may be another connection's by now.
            Some(kept) if socket.is_none() => Some(kept.peer.as_ref()?.clone_ref(py)),
            _ => state.shared.peers.find(py, state.exchange, socket),
        }
    }

    /// The client's address: what proxies say of it, where they are believed. `None` where it has
    /// none, or is not known any more.
    pub(super) fn client(&self, py: Python<'_>) -> PyResult<Option<Py<PyString>>> {
        let Some(peer) = self.peer(py) else {
            return Ok(None);
        };
        let shared = self.shared(py);
        let Some(trust) = shared.peers.trust_in(&peer) else {
            return Ok(peer.text);
        };
        let client = self.read(py, |head, bytes| trust.client(head, bytes, peer.ip()))?;
        Ok(if client == peer.ip() {
            peer.text
        } else {
            client.map(|client| text(py, client))
        })
    }

    /// Host and port as sent, or as a trusted proxy says; the port is empty when there is none.
    pub(super) fn host(&self, py: Python<'_>) -> PyResult<Option<(String, String)>> {
        let host = match self.forwarded_host(py)? {
            Some(host) => Some(latin1(&host)),
            None => self.read(py, |head, bytes| {
                head.host.map(|host| latin1(host.of(bytes)))
            })?,
        };
        Ok(host.filter(|host| !host.is_empty()).map(|host| {
            let bracket = host.rfind(']').unwrap_or(0);
            match host[bracket..].rfind(':') {
                Some(colon) => {
                    let (name, port) = host.split_at(bracket + colon);
                    (name.to_owned(), port[1..].to_owned())
                }
                None => (host, String::new()),
            }
        }))
    }

    fn forwarded_host(&self, py: Python<'_>) -> PyResult<Option<Vec<u8>>> {
        let shared: Rc<Shared> = self.shared(py);
        if shared.peers.proxies.is_none() {
            return Ok(None);
        }
        let peer = self.peer(py);
        let Some((trust, peer)) = peer
            .as_ref()
            .and_then(|peer| Some((shared.peers.trust_in(peer)?, peer)))
        else {
            return Ok(None);
        };
        self.read(py, |head, bytes| trust.host(head, bytes, peer.ip()))
    }
}

fn text(py: Python<'_>, address: IpAddr) -> Py<PyString> {
    PyString::new(py, &address.to_canonical().to_string()).unbind()
}
