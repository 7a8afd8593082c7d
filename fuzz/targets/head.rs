//! Any bytes as the beginning of a connection.
//!
//! Owns what must hold for every request that is accepted: its parts are what the RFC lets them be,
//! nothing in it contradicts itself, and written down again in the plainest form it reads the same.
//! A request that two readers can understand differently fails one of these.

use anel::protocol::Version;

use super::wire::{Ending, Outcome, Seen, replay};
use super::{control, limits, replay_every_way};

/// Runs one input.
///
/// # Panics
/// When something does not hold.
pub fn run(input: &[u8]) {
    let Some((mut random, wire)) = control(input) else {
        return;
    };
    let limits = limits(&mut random);
    let outcome = replay_every_way(wire, limits, &mut random);
    for request in outcome.requests.iter().chain(&outcome.begun) {
        assert_well_formed(request);
    }
    for request in &outcome.requests {
        let length = single(request, b"content-length");
        if let Some(length) = length {
            let body = request.body.as_ref().expect("a body as announced");
            let length: u64 = std::str::from_utf8(length)
                .expect("digits")
                .parse()
                .expect("digits");
            assert_eq!(length, body.len() as u64);
        }
    }
    let plain: Vec<u8> = outcome.requests.iter().flat_map(plain_form).collect();
    let again = replay(&plain, &[plain.len()], limits);
    let ending = match outcome.requests.last() {
        Some(last) if !last.keep_alive => Ending::Paused,
        _ => Ending::Idle,
    };
    let expected = Outcome {
        requests: outcome.requests,
        begun: None,
        ending,
    };
    assert_eq!(again, expected, "{}", plain.escape_ascii());
}

fn assert_well_formed(request: &Seen) {
    let Seen { method, target, .. } = request;
    assert!(is_token(method), "method {}", method.escape_ascii());
    assert!(!target.is_empty() && target.iter().all(u8::is_ascii_graphic));
    assert!(!target.contains(&b'#') && !request.path.is_empty());
    for (name, value) in &request.fields {
        assert!(is_token(name), "name {}", name.escape_ascii());
        let ends = [value.first(), value.last()];
        let trimmed = !ends.iter().flatten().any(|byte| b" \t".contains(byte));
        let clean = value
            .iter()
            .all(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f);
        assert!(trimmed && clean, "value {}", value.escape_ascii());
    }
    let hosts = count(request, b"host");
    let lengths = count(request, b"content-length");
    let codings = count(request, b"transfer-encoding");
    match request.version {
        Version::Http11 => assert_eq!(hosts, 1, "RFC 9112 3.2"),
        Version::Http10 => assert!(hosts <= 1 && codings == 0, "RFC 9112 6.1"),
    }
    assert!(
        lengths <= 1 && (lengths == 0 || codings == 0),
        "RFC 9112 6.3"
    );
    assert_eq!(request.body.is_some(), lengths + codings > 0);
    if request.expects_continue {
        let expected = single(request, b"expect").is_some();
        assert!(expected && request.version == Version::Http11);
    }
}

/// The request in as few bytes and with as few liberties as it can be written.
fn plain_form(request: &Seen) -> Vec<u8> {
    let version = match request.version {
        Version::Http10 => &b" HTTP/1.0\r\n"[..],
        Version::Http11 => b" HTTP/1.1\r\n",
    };
    let mut bytes = [&request.method, &b" "[..], &request.target, version].concat();
    for (name, value) in &request.fields {
        bytes.extend([name, &b":"[..], value, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    let body = request.body.as_deref().unwrap_or_default();
    if count(request, b"transfer-encoding") == 0 {
        bytes.extend(body);
        return bytes;
    }
    if !body.is_empty() {
        bytes.extend(format!("{:x}\r\n", body.len()).as_bytes());
        bytes.extend([body, b"\r\n"].concat());
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

fn count(request: &Seen, name: &[u8]) -> usize {
    values(request, name).count()
}

fn single<'a>(request: &'a Seen, name: &'a [u8]) -> Option<&'a [u8]> {
    values(request, name).next()
}

fn values<'a>(request: &'a Seen, wanted: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let named = request
        .fields
        .iter()
        .filter(move |(name, _)| name.eq_ignore_ascii_case(wanted));
    named.map(|(_, value)| &value[..])
}

/// RFC 9110 5.6.2, letter by letter.
fn is_token(bytes: &[u8]) -> bool {
    let is_symbol = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    let all = bytes
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || is_symbol(byte));
    all && !bytes.is_empty()
}
