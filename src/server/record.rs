//! What is told of an exchange that is over, and of which exchanges.
//!
//! Owns the record and the choice among many. Refuses to know how it is gathered (`journal`) and
//! who reads it. Of a request that was refused, the first line is told as well as it can be made
//! out: a record is no place to be strict.

use std::net::IpAddr;
use std::os::fd::RawFd;

use super::handler::ExchangeId;
use crate::protocol::{CloseReason, Field, ProtocolError, RequestHead, Version};

/// An exchange that is over.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What was asked, as `asked` shows it.
    pub kept: KeptAsked,
    /// The bytes of that.
    pub text: &'a [u8],
    /// Who asked, as `Handler::client` says.
    pub client: Option<IpAddr>,
    /// The status that was answered; 499 when nothing was.
    pub status: u16,
    /// Bytes of the answer's body that the kernel has taken, without the framing of chunks.
    pub body_bytes: u64,
    /// Microseconds from the turn in which the head was complete to that in which the answer had
    /// left. Of a head that never was, from its first byte.
    pub duration_us: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// The first line of a request, and two of its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// None when the first line was none of a request.
    pub line: Option<(&'a [u8], Version)>,
    /// The target as sent; without `line`, the whole first line as far as it came.
    pub target: &'a [u8],
    /// The first Referer field.
    pub referer: Option<&'a [u8]>,
    /// The first User-Agent field.
    pub user_agent: Option<&'a [u8]>,
}

/// An `Asked` whose bytes are kept elsewhere, one part behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptAsked {
    line: Option<(u16, Version)>,
    target: u16,
    referer: Option<u16>,
    user_agent: Option<u16>,
    /// All of them.
    bytes: u32,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole answer was sent.
    Whole,
    /// The request was refused, whether or not the peer was there to hear it.
    Refused(ProtocolError),
    /// Some of the answer, or all of it, was not sent.
    BrokenOff(CloseReason),
}

/// Who sent a request, as far as the worker knows.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The exchange; unique only as `ExchangeId` says.
    pub exchange: ExchangeId,
    /// The connection's socket. Only valid during the call.
    pub socket: RawFd,
    /// The head with its bytes; None when it is incomplete or malformed.
    pub head: Option<(&'a RequestHead, &'a [u8])>,
}

/// Which exchanges are told: each with this probability, and all with a status of 500 or more.
#[derive(Clone, Debug)]
pub struct Sampling {
    rate: f64,
    state: u64,
}

impl<'a> Record<'a> {
    /// What was asked; of a request that was refused, as much of it as can be told.
    #[must_use]
    pub fn asked(&self) -> Asked<'a> {
        self.kept.show(self.text)
    }
}

impl Sampling {
    /// A rate from 0 to 1, and what the choices follow from.
    #[must_use]
    pub fn new(rate: f64, seed: u64) -> Self {
        Self { rate, state: seed }
    }

    /// Whether an exchange is told, if it is no failure.
    pub(super) fn chooses(&mut self) -> bool {
        self.rate >= 1.0 || self.draw() < self.rate
    }

    /// Whether an exchange is told whatever was chosen: failures are what logs are read for.
    pub(super) fn is_failure(status: u16) -> bool {
        status >= 500
    }

    /// A number from 0 to just below 1: SplitMix64 (Steele, Lea and Flood, 2014). Requests may
    /// come in a rhythm, so every hundredth of them would be no fair sample.
    fn draw(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // The 53 bits that a float has room for.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl<'a> Asked<'a> {
    pub(super) fn of(head: &RequestHead, bytes: &'a [u8]) -> Self {
        let mut asked = Self {
            line: Some((head.method.of(bytes), head.version)),
            target: head.target.of(bytes),
            ..Self::default()
        };
        for Field { name, value } in &head.fields {
            let (found, known): (_, &[u8]) = match name.len() {
                7 => (&mut asked.referer, b"referer"),
                10 => (&mut asked.user_agent, b"user-agent"),
                _ => continue,
            };
            if found.is_none() && name.of(bytes).eq_ignore_ascii_case(known) {
                *found = Some(value.of(bytes));
            }
        }
        asked
    }

    /// Appends the bytes to `text`, where `Record::asked` finds them.
    pub fn keep(&self, text: &mut Vec<u8>) -> KeptAsked {
        let mut bytes = 0;
        let mut add = |part: &[u8]| {
            // Heads have at most 65,535 bytes, and what is no head was cut.
            let part = &part[..part.len().min(usize::from(u16::MAX))];
            text.extend_from_slice(part);
            bytes += part.len() as u32;
            part.len() as u16
        };
        let kept = KeptAsked {
            line: self.line.map(|(method, version)| (add(method), version)),
            target: add(self.target),
            referer: self.referer.map(&mut add),
            user_agent: self.user_agent.map(&mut add),
            bytes: 0,
        };
        KeptAsked { bytes, ..kept }
    }

    /// Of a head that is incomplete or malformed: its first line, if it looks like one.
    pub(super) fn guess(bytes: &'a [u8]) -> Self {
        let blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let bytes = &bytes[bytes.iter().take_while(blank).count()..];
        let end = memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
        let whole = &bytes[..end.min(LINE_BYTES_MAX)];
        let version = match whole.len().checked_sub(9).map(|at| whole.split_at(at)) {
            Some((rest, b" HTTP/1.1")) => Some((rest, Version::Http11)),
            Some((rest, b" HTTP/1.0")) => Some((rest, Version::Http10)),
            _ => None,
        };
        let parts = version.and_then(|(rest, version)| {
            let at = memchr::memchr(b' ', rest)?;
            Some((&rest[..at], &rest[at + 1..], version))
        });
        match parts {
            Some((method, target, version)) => Self {
                line: Some((method, version)),
                target,
                ..Self::default()
            },
            None => Self {
                target: whole,
                ..Self::default()
            },
        }
    }
}

impl KeptAsked {
    /// How many bytes there are in all.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.bytes as usize
    }

    /// What was kept, from the bytes that it was kept in.
    #[must_use]
    fn show(self, text: &[u8]) -> Asked<'_> {
        let mut rest = text;
        let mut take = |bytes: u16| {
            let (part, behind) = rest.split_at(usize::from(bytes));
            rest = behind;
            part
        };
        Asked {
            line: self.line.map(|(bytes, version)| (take(bytes), version)),
            target: take(self.target),
            referer: self.referer.map(&mut take),
            user_agent: self.user_agent.map(&mut take),
        }
    }
}

/// The most that is kept of a first line that is too long, or none of HTTP. As long as the longest
/// target by default.
const LINE_BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(bytes: &[u8]) -> (Option<&[u8]>, &[u8]) {
        let asked = Asked::guess(bytes);
        (asked.line.map(|(method, _)| method), asked.target)
    }

    #[test]
    fn makes_out_the_first_line_of_a_request_that_is_wrong_elsewhere() {
        let bytes = b"\r\nGET /a b HTTP/1.1\r\nHost : a\r\n";

        assert_eq!(guessed(bytes), (Some(&b"GET"[..]), &b"/a b"[..]));
    }

    #[test]
    fn tells_the_first_line_as_it_came_when_it_is_none_of_a_request() {
        assert_eq!(
            guessed(b"\x16\x03\x01\0\xa5"),
            (None, &b"\x16\x03\x01\0\xa5"[..])
        );
        assert_eq!(guessed(b"GET /unfinis"), (None, &b"GET /unfinis"[..]));
        assert_eq!(
            guessed(b"GET / HTTP/2.0\r\n"),
            (None, &b"GET / HTTP/2.0"[..])
        );
        assert_eq!(guessed(b" HTTP/1.1\n"), (None, &b" HTTP/1.1"[..]));
        assert_eq!(guessed(b""), (None, &b""[..]));
    }

    #[test]
    fn cuts_a_first_line_without_end() {
        let (_, target) = guessed(&[b'a'; 3 * LINE_BYTES_MAX]);

        assert_eq!(target.len(), LINE_BYTES_MAX);
    }

    #[test]
    fn chooses_as_many_as_the_rate_says() {
        // 100,000 draws at 0.1 deviate by 95 on average; 1,000 is more than ten times that.
        let mut sampling = Sampling::new(0.1, 7);
        let chosen = (0..100_000).filter(|_| sampling.chooses()).count();
        assert!((9_000..11_000).contains(&chosen), "{chosen}");

        for (rate, expected) in [(0.0, 0), (1.0, 1_000)] {
            let mut sampling = Sampling::new(rate, 7);
            assert_eq!((0..1_000).filter(|_| sampling.chooses()).count(), expected);
        }
    }
}
