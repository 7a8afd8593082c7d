//! The header of the PROXY protocol, versions 1 and 2: what a proxy says of a connection before
//! the first byte of it.
//!
//! Owns that grammar (haproxy.org/download/3.0/doc/proxy-protocol.txt). Refuses to know who may
//! speak it: whoever does can claim any address, so the caller asks only trusted peers. The caller
//! shows the bytes again from the first one, until there is a verdict. Nothing is skipped in search
//! of a header and nothing is guessed: a connection that does not begin with one is not HTTP here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::limits::{PROXY_V1_BYTES_MAX, PROXY_V2_BYTES_MAX};

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The beginning of a header, or nothing yet.
    NeedMore,
    /// A header.
    Complete {
        /// How many bytes it has; what is behind them is HTTP.
        bytes: usize,
        /// The client. `None` when the proxy speaks for itself, or its client is of no address
        /// family of the internet.
        client: Option<SocketAddr>,
    },
    /// Anything else.
    Invalid,
}

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

impl ProxyHeader {
    /// Reads the first bytes of a connection.
    #[must_use]
    pub fn read(input: &[u8]) -> Self {
        if input.starts_with(V1_START) {
            read_v1(input)
        } else if input.starts_with(V2_START) {
            read_v2(input).unwrap_or(Self::Invalid)
        } else if V1_START.starts_with(input) || V2_START.starts_with(input) {
            Self::NeedMore
        } else {
            Self::Invalid
        }
    }
}

fn read_v1(input: &[u8]) -> ProxyHeader {
    let longest = &input[..input.len().min(PROXY_V1_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', longest) else {
        return if longest.len() < PROXY_V1_BYTES_MAX {
            ProxyHeader::NeedMore
        } else {
            ProxyHeader::Invalid
        };
    };
    let line = longest[V1_START.len()..end].strip_suffix(b"\r");
    match line.and_then(read_v1_line) {
        Some(client) => ProxyHeader::Complete {
            bytes: end + 1,
            client,
        },
        None => ProxyHeader::Invalid,
    }
}

/// `TCP4 source destination source-port destination-port`, the same with TCP6, or `UNKNOWN` with
/// anything behind it. `None` is invalid.
fn read_v1_line(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let source = match family {
        "TCP4" => both::<Ipv4Addr>(source, destination)?.into(),
        "TCP6" => both::<Ipv6Addr>(source, destination)?.into(),
        _ => return None,
    };
    let source_port = read_port(words.next()?)?;
    read_port(words.next()?)?;
    match words.next() {
        None => Some(Some(SocketAddr::new(source, source_port))),
        Some(_) => None,
    }
}

/// The first of two addresses of the same family.
fn both<A: FromStr + Into<IpAddr>>(source: &str, destination: &str) -> Option<A> {
    destination.parse::<A>().ok()?;
    source.parse().ok()
}

/// Decimal, without a sign and without leading zeros.
fn read_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let has_zeros = text.len() > 1 && text.starts_with('0');
    text.parse().ok().filter(|_| is_plain && !has_zeros)
}

/// `None` is invalid. Every byte is judged as soon as it is there.
fn read_v2(input: &[u8]) -> Option<ProxyHeader> {
    let names_client = match input.get(12) {
        None => return Some(ProxyHeader::NeedMore),
        // LOCAL: the proxy's own connection, such as a health check. What else it says is ignored.
        Some(0x20) => false,
        Some(0x21) => true,
        Some(_) => return None,
    };
    let address_bytes = match input.get(13) {
        None => return Some(ProxyHeader::NeedMore),
        Some(_) if !names_client => 0,
        // Unspecified; TCP over IPv4, over IPv6, and a stream of Unix sockets.
        Some(0x00) => 0,
        Some(0x11) => 12,
        Some(0x21) => 36,
        Some(0x31) => 216,
        // No TCP connection carries datagrams, and the rest does not exist.
        Some(_) => return None,
    };
    let Some(&[high, low]) = input.get(14..V2_FIXED_BYTES) else {
        return Some(ProxyHeader::NeedMore);
    };
    let following = usize::from(u16::from_be_bytes([high, low]));
    let bytes = V2_FIXED_BYTES + following;
    if following < address_bytes || bytes > PROXY_V2_BYTES_MAX {
        return None;
    }
    // What is behind the addresses (TLVs) is skipped.
    Some(match input.get(V2_FIXED_BYTES..bytes) {
        None => ProxyHeader::NeedMore,
        Some(rest) => ProxyHeader::Complete {
            bytes,
            client: read_v2_client(&rest[..address_bytes]),
        },
    })
}

/// Source address, destination address, source port, destination port.
fn read_v2_client(addresses: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| {
        Some(u16::from_be_bytes([
            *addresses.get(at)?,
            *addresses.get(at + 1)?,
        ]))
    };
    match addresses.len() {
        12 => {
            let source: [u8; 4] = addresses.get(..4)?.try_into().ok()?;
            Some(SocketAddr::new(source.into(), port(8)?))
        }
        36 => {
            let source: [u8; 16] = addresses.get(..16)?.try_into().ok()?;
            Some(SocketAddr::new(source.into(), port(32)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, following: &[u8]) -> Vec<u8> {
        let mut bytes = V2_START.to_vec();
        bytes.extend([command, family]);
        bytes.extend((following.len() as u16).to_be_bytes());
        bytes.extend(following);
        bytes
    }

    fn client(input: &[u8]) -> Option<SocketAddr> {
        match ProxyHeader::read(input) {
            ProxyHeader::Complete { bytes, client } => {
                assert_eq!(bytes, input.len());
                client
            }
            other => panic!("{other:?}"),
        }
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

    #[test]
    fn names_the_source_and_not_the_destination() {
        let v1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";

        assert_eq!(client(v1), "192.0.2.1:56324".parse().ok());
        assert_eq!(client(&v2(0x21, 0x11, &IPV4)), client(v1));
    }

    #[test]
    fn leaves_what_is_behind_the_header() {
        let input = b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n";

        let bytes = b"PROXY UNKNOWN\r\n".len();
        let client = None;
        assert_eq!(
            ProxyHeader::read(input),
            ProxyHeader::Complete { bytes, client }
        );
    }

    #[test]
    fn takes_the_longest_headers_and_none_longer() {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(PROXY_V1_BYTES_MAX - 2, b'x');
        assert_eq!(client(&[&line, &b"\r\n"[..]].concat()), None);
        line.extend(b"x\r\n");
        assert_eq!(ProxyHeader::read(&line), ProxyHeader::Invalid);

        let longest = vec![0; PROXY_V2_BYTES_MAX - V2_FIXED_BYTES];
        assert_eq!(client(&v2(0x20, 0x00, &longest)), None);
        let longer = v2(0x20, 0x00, &[&longest[..], &[0]].concat());
        assert_eq!(ProxyHeader::read(&longer), ProxyHeader::Invalid);
        // It does not have to arrive for that.
        assert_eq!(ProxyHeader::read(&longer[..16]), ProxyHeader::Invalid);
    }

    #[test]
    fn refuses_every_wrong_byte_of_the_fixed_part_when_it_arrives() {
        let header = v2(0x21, 0x11, &IPV4);

        for at in 0..14 {
            let mut wrong = header[..=at].to_vec();
            wrong[at] ^= 0x80;
            assert_eq!(ProxyHeader::read(&wrong), ProxyHeader::Invalid, "{at}");
            assert_eq!(ProxyHeader::read(&header[..=at]), ProxyHeader::NeedMore);
        }
    }

    #[test]
    fn refuses_an_address_block_that_is_too_short_for_its_family() {
        for (family, bytes) in [(0x11, 12), (0x21, 36), (0x31, 216)] {
            assert_eq!(
                ProxyHeader::read(&v2(0x21, family, &vec![0; bytes - 1])),
                ProxyHeader::Invalid
            );
            let block = v2(0x21, family, &vec![0; bytes]);
            assert_eq!(client(&block).is_some(), family != 0x31);
        }
    }

    #[test]
    fn takes_ports_as_they_are_written_only() {
        for port in ["", "+1", "01", "00", "65536", "1 ", "0x1", "-1", "\u{664}"] {
            let line = format!("PROXY TCP4 192.0.2.1 192.0.2.2 {port} 80\r\n");
            assert_eq!(
                ProxyHeader::read(line.as_bytes()),
                ProxyHeader::Invalid,
                "{port}"
            );
        }
        assert!(client(b"PROXY TCP4 192.0.2.1 192.0.2.2 0 65535\r\n").is_some());
    }
}
