//! Whether an authority names a host: `uri-host [ ":" port ]` (RFC 9110 7.2, RFC 3986 3.2).
//!
//! Owns that grammar. Refuses to know which hosts exist, and where the authority was found.

use std::net::Ipv6Addr;

use super::octets::is_host;

/// What may stand behind the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Optional,
    /// The target of CONNECT names one (RFC 9112 3.2.3).
    Required,
}

/// Whether `authority` is a host and perhaps a port. User information is refused: RFC 9110 4.2.4
/// calls it an error. So is a comma: RFC 3986 allows it, but it is how two joined Host fields look.
pub(super) fn is_authority(authority: &[u8], port: Port) -> bool {
    let plain = authority
        .iter()
        .position(|&byte| !is_host(byte))
        .unwrap_or(authority.len());
    match &authority[plain..] {
        rest @ ([] | [b':', ..]) if plain > 0 => is_port(rest, port),
        _ => is_rare_authority(authority, port),
    }
}

/// With escapes or an IP literal, or invalid.
#[cold]
fn is_rare_authority(authority: &[u8], port: Port) -> bool {
    let (host_is_valid, rest) = match authority.split_first() {
        Some((b'[', inside)) => match memchr::memchr(b']', inside) {
            Some(end) => (is_ip_literal(&inside[..end]), &inside[end + 1..]),
            None => return false,
        },
        _ => {
            let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
            let (host, rest) = authority.split_at(end);
            (is_registered_name(host), rest)
        }
    };
    host_is_valid && is_port(rest, port)
}

fn is_port(rest: &[u8], port: Port) -> bool {
    match rest.split_first() {
        None => port == Port::Optional,
        Some((b':', digits)) => {
            let number = digits.iter().try_fold(0_u32, |number, &digit| {
                let digit = char::from(digit).to_digit(10)?;
                Some(number * 10 + digit).filter(|&number| number <= 65_535)
            });
            // RFC 3986 3.2.3 allows a colon with nothing behind it.
            number.is_some() && (port == Port::Optional || !digits.is_empty())
        }
        Some(_) => false,
    }
}

/// A name or an IPv4 address: never empty, with complete escapes.
fn is_registered_name(mut host: &[u8]) -> bool {
    if host.is_empty() {
        return false;
    }
    loop {
        match host {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                host = rest;
            }
            [byte, rest @ ..] if is_host(*byte) => host = rest,
            _ => return false,
        }
    }
}

fn is_ip_literal(inside: &[u8]) -> bool {
    if let [b'v' | b'V', future @ ..] = inside {
        let dot = memchr::memchr(b'.', future).unwrap_or(0);
        let (version, address) = future.split_at(dot);
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && address.len() > 1
            && address[1..]
                .iter()
                .all(|&byte| is_host(byte) || byte == b':');
    }
    std::str::from_utf8(inside).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_addresses_and_ports() {
        for host in [
            "localhost",
            "example.com:8080",
            "example.com:",
            "127.0.0.1:80",
            "a_b-c.d~e",
            "%41.example",
            "[::1]",
            "[2001:db8::1]:443",
            "[v1.fe:a]",
            "x:65535",
        ] {
            assert!(is_authority(host.as_bytes(), Port::Optional), "{host}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for host in [
            "",
            ":80",
            "a b",
            "a,b",
            "user@host",
            "host:8o",
            "host:80:80",
            "host:65536",
            "host:-1",
            "host:+1",
            "[::1",
            "::1",
            "[::1]x",
            "[:::1]",
            "[]",
            "[fe80::1%25eth0]",
            "[v.a]",
            "[v1.]",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "%4",
            "%zz",
            "h\u{e9}",
        ] {
            assert!(!is_authority(host.as_bytes(), Port::Optional), "{host}");
        }
    }

    #[test]
    fn wants_a_port_where_one_is_required() {
        assert!(is_authority(b"host:443", Port::Required));
        assert!(!is_authority(b"host", Port::Required));
        assert!(!is_authority(b"host:", Port::Required));
    }
}
