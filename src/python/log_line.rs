//! One line of the access log: the combined format of nginx and Apache, or JSON.
//!
//! Owns the form of a line. Refuses to know where it goes. What peers sent is escaped until it is
//! plain ASCII in its place: nobody can end a line, a field or an object for us, nor send commands
//! to a terminal.

use std::fmt::Arguments;
use std::io::Write;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use crate::protocol::Version;
use crate::server::{Outcome, Record};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The combined log format, then the duration in seconds, and what went wrong or `-`.
    Text,
    /// An object with the same names in the same order in every line.
    Json,
}

/// Writes lines.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    /// The second that was written last, as the format has it: most lines have the same.
    second: (u64, String),
}

impl FromStr for Format {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

impl Lines {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            second: (0, written_second(format, 0)),
        }
    }

    /// Appends the line of an exchange that was over at this time. Of what the peer sent, every
    /// part has at most so many bytes of the line; one that is cut ends in `...`.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record<'_>, unix_ms: u64, part_max: usize) {
        let second = unix_ms / 1_000;
        if self.second.0 != second {
            self.second = (second, written_second(self.format, second));
        }
        match self.format {
            Format::Text => self.push_text(out, record, part_max),
            Format::Json => self.push_json(out, record, unix_ms % 1_000, part_max),
        }
        out.push(b'\n');
    }

    fn push_text(&self, out: &mut Vec<u8>, record: &Record<'_>, part_max: usize) {
        let asked = record.asked();
        match record.client {
            Some(client) => push_shown(out, format_args!("{client}")),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b" - - [");
        out.extend_from_slice(self.second.1.as_bytes());
        out.extend_from_slice(b"] \"");
        if let Some((method, _)) = asked.line {
            push_plain(out, method, part_max);
            out.push(b' ');
        }
        push_plain(out, asked.target, part_max);
        if let Some((_, version)) = asked.line {
            out.push(b' ');
            out.extend_from_slice(protocol(version));
        }
        out.extend_from_slice(b"\" ");
        push_number(out, record.status.into());
        out.push(b' ');
        push_number(out, record.body_bytes);
        for part in [asked.referer, asked.user_agent] {
            out.extend_from_slice(b" \"");
            push_plain(out, part.unwrap_or(b"-"), part_max);
            out.push(b'"');
        }
        out.push(b' ');
        push_seconds(out, record.duration_us);
        out.push(b' ');
        if !push_error(out, record.outcome) {
            out.push(b'-');
        }
    }

    fn push_json(&self, out: &mut Vec<u8>, record: &Record<'_>, ms: u64, part_max: usize) {
        let asked = record.asked();
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(self.second.1.as_bytes());
        let digits = [ms / 100, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8);
        out.push(b'.');
        out.extend_from_slice(&digits);
        out.extend_from_slice(b"Z\",\"remote_addr\":");
        match record.client {
            Some(client) => {
                out.push(b'"');
                push_shown(out, format_args!("{client}"));
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"method\":");
        push_string(out, asked.line.map(|(method, _)| method), part_max);
        out.extend_from_slice(b",\"target\":");
        push_string(out, Some(asked.target), part_max);
        out.extend_from_slice(b",\"protocol\":");
        let version = asked.line.map(|(_, version)| protocol(version));
        push_string(out, version, part_max);
        out.extend_from_slice(b",\"status\":");
        push_number(out, record.status.into());
        out.extend_from_slice(b",\"bytes\":");
        push_number(out, record.body_bytes);
        out.extend_from_slice(b",\"duration\":");
        push_seconds(out, record.duration_us);
        out.extend_from_slice(b",\"referer\":");
        push_string(out, asked.referer, part_max);
        out.extend_from_slice(b",\"user_agent\":");
        push_string(out, asked.user_agent, part_max);
        out.extend_from_slice(b",\"error\":");
        match record.outcome {
            Outcome::Whole => out.extend_from_slice(b"null"),
            outcome => {
                out.push(b'"');
                push_error(out, outcome);
                out.push(b'"');
            }
        }
        out.push(b'}');
    }
}

/// Appends what went wrong, in one word: a mistake by its name, as in `HeadTooLarge`, or why the
/// connection ended, as in `peer_reset`. `false` when nothing did.
fn push_error(out: &mut Vec<u8>, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Whole => return false,
        Outcome::Refused(error) => push_shown(out, format_args!("{error:?}")),
        Outcome::BrokenOff(reason) => out.extend_from_slice(reason.token().as_bytes()),
    }
    true
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"HTTP/1.0",
        Version::Http11 => b"HTTP/1.1",
    }
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_shown(out: &mut Vec<u8>, shown: Arguments<'_>) {
    let written = out.write_fmt(shown);
    debug_assert!(written.is_ok(), "a vector takes everything");
}

/// Seconds, to the microsecond.
fn push_seconds(out: &mut Vec<u8>, us: u64) {
    push_number(out, us / 1_000_000);
    out.push(b'.');
    let mut rest = us % 1_000_000;
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

/// Appends a part as nginx does: quotes, backslashes and all that is not visible ASCII become
/// `\xHH`.
fn push_plain(out: &mut Vec<u8>, part: &[u8], bytes_max: usize) {
    let until = out.len().saturating_add(bytes_max);
    for byte in part {
        let escaped = matches!(byte, b'"' | b'\\') || !matches!(byte, b' '..=b'~');
        if out.len() + if escaped { 4 } else { 1 } > until {
            out.extend_from_slice(CUT);
            return;
        }
        if escaped {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
            out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 0xf)]);
        } else {
            out.push(*byte);
        }
    }
}

/// Appends a JSON string, or null. Bytes are UTF-8 where they can be, else Latin-1.
fn push_string(out: &mut Vec<u8>, part: Option<&[u8]>, bytes_max: usize) {
    let Some(part) = part else {
        return out.extend_from_slice(b"null");
    };
    out.push(b'"');
    let until = out.len().saturating_add(bytes_max);
    for chunk in part.utf8_chunks() {
        let invalid = chunk.invalid().iter().map(|byte| char::from(*byte));
        for character in chunk.valid().chars().chain(invalid) {
            // The most that a character becomes: two escapes.
            if out.len() + 12 > until {
                out.extend_from_slice(CUT);
                return out.push(b'"');
            }
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                ' '..='~' => out.push(character as u8),
                _ => push_units(out, character),
            }
        }
    }
    out.push(b'"');
}

/// Appends the escapes of a character: one, or a surrogate pair.
fn push_units(out: &mut Vec<u8>, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        out.extend_from_slice(b"\\u");
        for place in (0..4).rev() {
            out.push(b"0123456789abcdef"[usize::from(*unit >> (4 * place) & 0xf)]);
        }
    }
}

/// A second of UTC: `21/Nov/2026:19:35:33 +0000`, or the beginning of an ISO 8601 time.
fn written_second(format: Format, unix_s: u64) -> String {
    // `Sat, 21 Nov 2026 19:35:33 GMT`; there is none behind the year 9999.
    let at = UNIX_EPOCH + Duration::from_secs(unix_s.min(UNIX_S_MAX));
    let date = httpdate::fmt_http_date(at);
    let (day, month, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
    match format {
        Format::Text => format!("{day}/{month}/{year}:{time} +0000"),
        Format::Json => {
            let months = MONTHS.iter().take_while(|name| **name != month).count() + 1;
            format!("{year}-{months:02}-{day}T{time}")
        }
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The last second of the year 9999.
const UNIX_S_MAX: u64 = 253_402_300_799;

/// What stands for the rest of a part that is too long.
const CUT: &[u8] = b"...";
