//! What trusted proxies say of the requests that they pass on.
//!
//! Owns the meaning of X-Forwarded-For, X-Forwarded-Host and Forwarded (RFC 7239). Refuses to know
//! who is trusted for what: that is told. Proxies append, so only the end of a list was written by
//! somebody we know; what comes before the first stranger is the stranger's word, and nobody asks
//! it. A field that was not named is not looked at: proxies leave the fields alone that they do
//! not know, so it is the client's.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use super::head::RequestHead;
use super::host::{Port, is_authority};
use super::networks::Networks;
use super::octets::{is_token_slice, list, trim};

/// Whom to believe, and what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The addresses of the proxies.
    pub proxies: Networks,
    /// Whether those that connect over a Unix socket, and so have no address, are proxies, too.
    pub unix: bool,
    /// The field in which they name the client, if any.
    pub client: Option<ClientField>,
    /// Whether they say in X-Forwarded-Host which host was asked for.
    pub host: bool,
}

/// A field that names the client. They exclude each other: a proxy that appends to one of them
/// leaves the other to whoever sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientField {
    /// X-Forwarded-For: addresses.
    XForwardedFor,
    /// Forwarded: elements, which name the host, too.
    Forwarded,
}

impl Trust {
    /// Whether this is a proxy. No address stands for the other end of a Unix socket.
    #[must_use]
    pub fn includes(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(address) => self.proxies.contain(address),
            None => self.unix,
        }
    }

    /// The client of a request that `peer` sent: the last address that is not a proxy's. Where a
    /// proxy does not name one, it is the nearest that is known; `None` if that is the other end
    /// of a Unix socket.
    #[must_use]
    pub fn client(&self, head: &RequestHead, bytes: &[u8], peer: Option<IpAddr>) -> Option<IpAddr> {
        match self.client {
            Some(_) if !self.includes(peer) => peer,
            None => peer,
            Some(ClientField::XForwardedFor) => {
                let fields: Vec<_> = head.fields_named(bytes, b"x-forwarded-for").collect();
                let hops = fields.iter().rev().flat_map(|value| {
                    // Members are yielded from the left only.
                    let members: Vec<_> = list(value).collect();
                    members.into_iter().rev()
                });
                let named = hops.filter(|hop| !hop.is_empty()).map(address);
                self.walk(peer, named).0
            }
            Some(ClientField::Forwarded) => self.walk_elements(head, bytes, peer).0,
        }
    }

    /// The host that the client of such a request asked for, if a proxy says so; never empty.
    #[must_use]
    pub fn host(&self, head: &RequestHead, bytes: &[u8], peer: Option<IpAddr>) -> Option<Vec<u8>> {
        if !self.includes(peer) {
            return None;
        }
        let host = if self.client == Some(ClientField::Forwarded) {
            self.walk_elements(head, bytes, peer).1?
        } else if self.host {
            let last = head.fields_named(bytes, b"x-forwarded-host").last()?;
            list(last).last()?.to_vec()
        } else {
            return None;
        };
        is_authority(&host, Port::Optional).then_some(host)
    }

    /// Goes from proxy to proxy, beginning with the one that is connected to us, as long as the
    /// next is named and every one before it trusted. Says who is at the end, and how many were
    /// taken at their word.
    fn walk(
        &self,
        peer: Option<IpAddr>,
        named: impl Iterator<Item = Option<IpAddr>>,
    ) -> (Option<IpAddr>, usize) {
        let (mut client, mut believed) = (peer, 0);
        for next in named {
            if !self.includes(client) {
                break;
            }
            believed += 1;
            if next.is_none() {
                break;
            }
            client = next;
        }
        (client, believed)
    }

    fn walk_elements(
        &self,
        head: &RequestHead,
        bytes: &[u8],
        peer: Option<IpAddr>,
    ) -> (Option<IpAddr>, Option<Vec<u8>>) {
        let mut elements = Vec::new();
        for value in head.fields_named(bytes, b"forwarded") {
            // What is malformed may be the client's half of a quoted string, which would swallow
            // what a proxy appended. Nothing of it is believed.
            if read_elements(value, &mut elements).is_none() {
                return (peer, None);
            }
        }
        let named = elements.iter().rev().map(|element| {
            let node = element.client.as_deref()?;
            address(node)
        });
        let (client, believed) = self.walk(peer, named);
        let said_by = elements.len().checked_sub(believed);
        let host = said_by.and_then(|at| elements.get_mut(at)?.host.take());
        (client, host)
    }
}

/// What one proxy says in Forwarded.
#[derive(Debug, Default)]
struct Element<'a> {
    client: Option<Cow<'a, [u8]>>,
    host: Option<Vec<u8>>,
}

/// The elements of a Forwarded value: `forwarded-element *( "," forwarded-element )`, each of
/// `[ pair ] *( ";" [ pair ] )` (RFC 7239 4). `None` is malformed.
fn read_elements<'a>(value: &'a [u8], elements: &mut Vec<Element<'a>>) -> Option<()> {
    let mut rest = trim(value);
    let mut element = Element::default();
    let mut is_empty = true;
    loop {
        if !matches!(rest, [] | [b';' | b',', ..]) {
            is_empty = false;
            let equals = memchr::memchr(b'=', rest)?;
            let name = &rest[..equals];
            if !is_token_slice(name) {
                return None;
            }
            let (value, behind) = read_value(&rest[equals + 1..])?;
            rest = behind;
            // A name appears once per element; of several, none could be believed.
            if name.eq_ignore_ascii_case(b"for") {
                element.client.is_none().then_some(())?;
                element.client = Some(value);
            } else if name.eq_ignore_ascii_case(b"host") {
                element.host.is_none().then_some(())?;
                element.host = Some(value.into_owned());
            }
        }
        // White space is allowed around commas only, but some write it behind semicolons.
        let separator = trim(rest);
        match separator.split_first() {
            Some((b';', behind)) => rest = trim(behind),
            Some((b',', _)) | None => {
                if !is_empty {
                    elements.push(std::mem::take(&mut element));
                }
                is_empty = true;
                match separator.get(1..) {
                    Some(behind) => rest = trim(behind),
                    None => return Some(()),
                }
            }
            Some(_) => return None,
        }
    }
}

/// A token, or a quoted string without its quotes and escapes; and what is behind it.
fn read_value(input: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = input.strip_prefix(b"\"") else {
        let end = input
            .iter()
            .position(|byte| matches!(byte, b';' | b',' | b' ' | b'\t'))
            .unwrap_or(input.len());
        let (token, behind) = input.split_at(end);
        // Not only tokens: many write the port or an IPv6 address without quotes.
        let is_plain = !token.is_empty() && !token.contains(&b'"');
        return is_plain.then_some((Cow::Borrowed(token), behind));
    };
    let mut text = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((Cow::Owned(text), &quoted[at + 1..])),
            b'\\' => text.push(*bytes.next()?.1),
            _ => text.push(byte),
        }
    }
    None
}

/// The address of a node, with or without a port. `None` for `unknown`, for a made-up name, and
/// for what is no address at all.
fn address(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node).ok()?;
    let inside = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = match (inside, text.parse()) {
        (Some(literal), _) => IpAddr::V6(literal.parse().ok()?),
        (None, Ok(address)) => address,
        (None, Err(_)) => match text.parse::<SocketAddr>().ok()? {
            // A zone means something on the proxy's machine only.
            SocketAddr::V6(v6) if v6.scope_id() != 0 => return None,
            with_port => with_port.ip(),
        },
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::super::limits::{Limits, RequestLimits};
    use super::super::networks::Network;
    use super::*;

    const PEER: &str = "10.0.0.1";

    fn trust(client: ClientField) -> Trust {
        let network = Network::new([10, 0, 0, 0].into(), 8).unwrap();
        Trust {
            proxies: [network].into_iter().collect(),
            unix: false,
            client: Some(client),
            host: true,
        }
    }

    /// Client and host of a request with these fields. The peer is an address, or `unix`.
    fn ask(trust: &Trust, peer: &str, fields: &str) -> (String, Option<String>) {
        let bytes = format!("GET / HTTP/1.1\r\nHost: inside\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        head.read(b"", &bytes, &RequestLimits::from(&Limits::default()));
        assert_eq!(head.bytes as usize, bytes.len());
        let peer = (peer != "unix").then(|| peer.parse().unwrap());
        let host = trust.host(&head, &bytes, peer);
        let client = trust.client(&head, &bytes, peer);
        (
            client.map_or("unix".into(), |address| address.to_string()),
            host.map(|host| String::from_utf8(host).unwrap()),
        )
    }

    fn x_forwarded_for(list: &str) -> String {
        let fields = format!("X-Forwarded-For: {list}\r\n");
        ask(&trust(ClientField::XForwardedFor), PEER, &fields).0
    }

    fn forwarded(value: &str) -> (String, Option<String>) {
        let fields = format!("Forwarded: {value}\r\n");
        ask(&trust(ClientField::Forwarded), PEER, &fields)
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_proxys() {
        for (list, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1, 10.9.9.9", "192.0.2.1"),
            ("10.6.6.6, 192.0.2.1, 10.9.9.9,10.8.8.8", "192.0.2.1"),
            ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
            ("6.6.6.6,, 192.0.2.1 ,", "192.0.2.1"),
            ("192.0.2.1:443", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(x_forwarded_for(list), client, "{list}");
        }
    }

    #[test]
    fn the_fields_of_a_name_are_one_list() {
        let fields = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 192.0.2.1, 10.9.9.9\r\n\
             X-FORWARDED-FOR: 10.8.8.8\r\n";

        let (client, _) = ask(&trust(ClientField::XForwardedFor), PEER, fields);

        assert_eq!(client, "192.0.2.1");
    }

    #[test]
    fn what_is_no_address_hides_what_is_before_it() {
        for list in [
            "6.6.6.6, unknown",
            "6.6.6.6, _hidden",
            "6.6.6.6, 192.0.2.1:99999",
            "6.6.6.6, fe80::1%eth0",
            "6.6.6.6, [fe80::1%2]:80",
            "6.6.6.6, \"192.0.2.1\"",
            "6.6.6.6, 192.0.2.01",
            "\u{e9}",
        ] {
            assert_eq!(x_forwarded_for(list), PEER, "{list}");
        }
        assert_eq!(x_forwarded_for("6.6.6.6, unknown, 10.2.2.2"), "10.2.2.2");
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let fields = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\n\
             Forwarded: for=6.6.6.6;host=evil\r\n";

        for field in [ClientField::XForwardedFor, ClientField::Forwarded] {
            let told = ask(&trust(field), "192.0.2.1", fields);
            assert_eq!(told, ("192.0.2.1".to_owned(), None));
        }
    }

    #[test]
    fn the_other_end_of_a_unix_socket_is_believed_where_it_is_named() {
        let mut trust = trust(ClientField::XForwardedFor);
        let fields = "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.9.9.9\r\nX-Forwarded-Host: a\r\n";

        let stranger = ask(&trust, "unix", fields);
        trust.unix = true;
        let proxy = ask(&trust, "unix", fields);
        let silent = ask(&trust, "unix", "");
        let proxy_of_nobody = ask(&trust, "unix", "X-Forwarded-For: 6.6.6.6, unix:\r\n");

        assert_eq!(stranger, ("unix".to_owned(), None));
        assert_eq!(proxy, ("192.0.2.1".to_owned(), Some("a".to_owned())));
        assert_eq!(silent, ("unix".to_owned(), None));
        assert_eq!(proxy_of_nobody, ("unix".to_owned(), None));
    }

    #[test]
    fn who_trusts_unix_sockets_alone_believes_no_address() {
        let trust = Trust {
            proxies: Networks::default(),
            unix: true,
            ..trust(ClientField::Forwarded)
        };

        assert_eq!(ask(&trust, PEER, "Forwarded: for=6.6.6.6\r\n").0, PEER);
        // One proxy is believed; whom it names is a client, and not another proxy.
        let told = ask(&trust, "unix", "Forwarded: for=6.6.6.6, for=192.0.2.1\r\n");
        assert_eq!(told.0, "192.0.2.1");
    }

    #[test]
    fn fields_that_were_not_named_say_nothing() {
        let fields = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: outside\r\n\
             Forwarded: for=192.0.2.2;host=other\r\n";
        let (only_for, only_forwarded) = (
            Trust {
                host: false,
                ..trust(ClientField::XForwardedFor)
            },
            trust(ClientField::Forwarded),
        );
        let neither = Trust {
            client: None,
            host: true,
            ..only_for.clone()
        };

        assert_eq!(ask(&only_for, PEER, fields), ("192.0.2.1".to_owned(), None));
        assert_eq!(
            ask(&only_forwarded, PEER, fields),
            ("192.0.2.2".to_owned(), Some("other".to_owned()))
        );
        assert_eq!(
            ask(&neither, PEER, fields),
            (PEER.to_owned(), Some("outside".to_owned()))
        );
    }

    #[test]
    fn the_nearest_proxy_names_the_host() {
        let host = |fields: &str| ask(&trust(ClientField::XForwardedFor), PEER, fields).1;

        let said = |host: &str| Some(host.to_owned());
        assert_eq!(
            host("X-Forwarded-Host: a.example:8443\r\n"),
            said("a.example:8443")
        );
        assert_eq!(
            host("X-Forwarded-Host: evil, a.example\r\n"),
            said("a.example")
        );
        assert_eq!(
            host("X-Forwarded-Host: evil\r\nX-Forwarded-Host: a.example\r\n"),
            said("a.example")
        );
        for invalid in ["", "a/b", "user@a", "a:b", "a b", "[::1"] {
            assert_eq!(host(&format!("X-Forwarded-Host: {invalid}\r\n")), None);
        }
    }

    #[test]
    fn the_elements_of_forwarded_are_walked_in_the_same_way() {
        let told = |client: &str, host: Option<&str>| (client.to_owned(), host.map(str::to_owned));
        for (value, expected) in [
            ("for=192.0.2.1", told("192.0.2.1", None)),
            (
                "For=192.0.2.1;proto=https;HOST=a.example;by=10.0.0.1",
                told("192.0.2.1", Some("a.example")),
            ),
            (
                "for=6.6.6.6;host=evil, for=192.0.2.1;host=a.example",
                told("192.0.2.1", Some("a.example")),
            ),
            (
                "for=6.6.6.6;host=evil, for=192.0.2.1;host=a.example, for=10.2.2.2;host=inside",
                told("192.0.2.1", Some("a.example")),
            ),
            ("for=\"[2001:db8::1]:4711\"", told("2001:db8::1", None)),
            ("for=\"192.0.2.1:80\"; proto=http", told("192.0.2.1", None)),
            ("for=\"192.0.\\2.1\"", told("192.0.2.1", None)),
            (", for=192.0.2.1 , ", told("192.0.2.1", None)),
            ("for=6.6.6.6, for=unknown", told(PEER, None)),
            (
                "for=6.6.6.6, for=_secret;host=a.example",
                told(PEER, Some("a.example")),
            ),
            (
                "for=6.6.6.6, proto=https;host=a.example",
                told(PEER, Some("a.example")),
            ),
            ("", told(PEER, None)),
        ] {
            assert_eq!(forwarded(value), expected, "{value}");
        }
    }

    #[test]
    fn a_forged_quote_swallows_nothing() {
        for client in [
            "for=\"",
            "for=\"6.6.6.6",
            "for=\"6.6.6.6\\",
            "for=6.6.6.6;x=\"",
        ] {
            for proxy in [
                "for=192.0.2.1",
                "for=\"[2001:db8::1]\"",
                "for=\"192.0.2.1:80\";host=\"a.example\"",
            ] {
                let value = format!("{client}, {proxy}");
                assert_eq!(forwarded(&value), (PEER.to_owned(), None), "{value}");
            }
        }
    }

    #[test]
    fn a_malformed_forwarded_is_not_believed() {
        for value in [
            "for",
            "=a",
            "for=",
            "for=192.0.2.1 host=a",
            "for=192.0.2.1;for=192.0.2.2",
            "host=a;host=b",
            "f@r=1",
            "for=\"192.0.2.1\"x",
        ] {
            assert_eq!(forwarded(value), (PEER.to_owned(), None), "{value}");
        }
    }
}
