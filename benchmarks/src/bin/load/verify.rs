//! Decides whether received bytes are the expected responses, and how many.
//!
//! The first response is parsed in full and its exact bytes are learned. Later ones are compared
//! with it byte by byte except for the 29 bytes after `Date: `; whatever differs is parsed in full
//! again. So the check costs two memcmp a response and still nothing wrong passes. Refuses to know
//! sockets and time.

use std::fmt::Write;
use std::ops::Range;

/// Length of an IMF-fixdate (RFC 9110 5.6.7), the only part of a learned response that may change.
const DATE_BYTES: usize = 29;

/// Most fields of a response; a hello has three or four.
const FIELDS_MAX: usize = 64;

/// A response larger than this is not a benchmark of a server.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is wrong with received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not the expected status.
    WrongStatus(u16),
    /// Not the expected body.
    WrongBody(String),
    /// No Content-Length, so the end of the response is unknown.
    NoLength,
    /// Not an HTTP/1.1 response at all.
    Malformed(String),
}

impl Fault {
    /// A sentence for people.
    pub fn explain(&self) -> String {
        match self {
            Self::WrongStatus(status) => format!("wrong status {status}"),
            Self::WrongBody(body) => format!("wrong body {body}"),
            Self::NoLength => String::from("response without Content-Length"),
            Self::Malformed(what) => format!("malformed response: {what}"),
        }
    }
}

/// How far one connection's current response has come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the learned response that have matched.
    matched: usize,
    /// Bytes of a response that is parsed in full; empty while comparing.
    carry: Vec<u8>,
}

impl Progress {
    /// Whether no response has begun.
    pub fn is_between_responses(&self) -> bool {
        self.matched == 0 && self.carry.is_empty()
    }
}

/// What some bytes completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// Responses that ended in these bytes.
    pub responses: u32,
    /// Whether one of them announced the end of the connection.
    pub close: bool,
}

/// Checks responses of one kind.
#[derive(Debug)]
pub struct Checker {
    status: u16,
    body: Option<Vec<u8>>,
    learned: Option<Learned>,
    /// Responses that had to be parsed because they differ from the learned one.
    pub parsed_in_full: u64,
}

#[derive(Debug)]
struct Learned {
    bytes: Vec<u8>,
    date: Range<usize>,
}

/// One response parsed in full.
struct Parsed {
    bytes: usize,
    date: Range<usize>,
    close: bool,
}

impl Checker {
    /// Accepts this status and this body alone; without a body, the first one becomes the expected
    /// one.
    pub fn new(status: u16, body: Option<Vec<u8>>) -> Self {
        Self {
            status,
            body,
            learned: None,
            parsed_in_full: 0,
        }
    }

    /// Takes the next bytes of a connection. After a fault the connection is of no use.
    pub fn feed(&mut self, progress: &mut Progress, bytes: &[u8]) -> Result<Fed, Fault> {
        let mut rest = bytes;
        let mut fed = Fed::default();
        if let (Some(learned), true) = (&self.learned, progress.carry.is_empty()) {
            while !rest.is_empty() {
                let end = learned.bytes.len().min(progress.matched + rest.len());
                let count = end - progress.matched;
                if !learned.matches(progress.matched..end, &rest[..count]) {
                    // What matched so far is known without having been kept.
                    progress
                        .carry
                        .extend_from_slice(&learned.bytes[..progress.matched]);
                    progress.matched = 0;
                    break;
                }
                progress.matched = end;
                rest = &rest[count..];
                if end == learned.bytes.len() {
                    progress.matched = 0;
                    fed.responses += 1;
                }
            }
        }
        if !rest.is_empty() {
            progress.carry.extend_from_slice(rest);
            self.feed_in_full(progress, &mut fed)?;
        }
        Ok(fed)
    }

    fn feed_in_full(&mut self, progress: &mut Progress, fed: &mut Fed) -> Result<(), Fault> {
        let mut used = 0;
        while used < progress.carry.len() {
            let Some(parsed) = self.parse(&progress.carry[used..])? else {
                break;
            };
            fed.responses += 1;
            fed.close |= parsed.close;
            self.parsed_in_full += 1;
            if self.learned.is_none() && !parsed.close {
                let bytes = progress.carry[used..used + parsed.bytes].to_vec();
                self.learned = Some(Learned {
                    bytes,
                    date: parsed.date,
                });
            }
            used += parsed.bytes;
        }
        progress.carry.drain(..used);
        Ok(())
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<Option<Parsed>, Fault> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let head_bytes = match head.parse(bytes) {
            Ok(httparse::Status::Complete(count)) => count,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(malformed(&error.to_string(), bytes)),
        };
        let status = head.code.unwrap_or(0);
        if status != self.status {
            return Err(Fault::WrongStatus(status));
        }
        let (mut length, mut close, mut date) = (None, head.version == Some(0), 0..0);
        for field in head.headers.iter() {
            if field.name.eq_ignore_ascii_case("content-length") {
                if length.is_some() {
                    return Err(malformed("two Content-Length fields", bytes));
                }
                length = Some(parse_length(field.value).ok_or_else(|| malformed("length", bytes))?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(Fault::NoLength);
            } else if field.name.eq_ignore_ascii_case("connection") {
                close |= field.value.eq_ignore_ascii_case(b"close");
            } else if field.name.eq_ignore_ascii_case("date") && field.value.len() == DATE_BYTES {
                let start = field.value.as_ptr().addr() - bytes.as_ptr().addr();
                date = start..start + DATE_BYTES;
            }
        }
        // RFC 9112 6.3: these two end with their head.
        let body_bytes = if status == 204 || status == 304 {
            Some(0)
        } else {
            length
        };
        let body_bytes = body_bytes.ok_or(Fault::NoLength)?;
        let Some(body) = bytes.get(head_bytes..head_bytes + body_bytes) else {
            return Ok(None);
        };
        let expected = self.body.get_or_insert_with(|| body.to_vec());
        if expected.as_slice() != body {
            return Err(Fault::WrongBody(excerpt(body)));
        }
        Ok(Some(Parsed {
            bytes: head_bytes + body_bytes,
            date,
            close,
        }))
    }
}

impl Learned {
    /// Whether `bytes` are those of the learned response in `range`, apart from the date.
    fn matches(&self, range: Range<usize>, bytes: &[u8]) -> bool {
        let before = range.start..range.end.min(self.date.start).max(range.start);
        let after = range.start.max(self.date.end).min(range.end)..range.end;
        let shift = range.start;
        self.bytes[before.clone()] == bytes[before.start - shift..before.end - shift]
            && self.bytes[after.clone()] == bytes[after.start - shift..after.end - shift]
    }
}

/// RFC 9110 8.6: digits only; `+12` and lists are refused, being what smuggling is made of.
fn parse_length(value: &[u8]) -> Option<usize> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = std::str::from_utf8(value).ok()?.parse().ok()?;
    (length <= BODY_BYTES_MAX).then_some(length)
}

fn malformed(what: &str, bytes: &[u8]) -> Fault {
    Fault::Malformed(format!("{what} in {}", excerpt(bytes)))
}

fn excerpt(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(60) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}", byte.escape_ascii());
    }
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests;
