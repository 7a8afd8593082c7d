//! One line of the access log: the combined format of nginx and Apache, or JSON.
//!
//! Owns the form of a line. Refuses to know where it goes. What peers sent is escaped until it is
//! plain ASCII in its place: nobody can end a line, a field or an object for us, nor send commands
//! to a terminal.

use std::io::Write;
use std::net::IpAddr;
use std::str::FromStr;

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
        let asked = &record.asked;
        match record.client {
            Some(client) => push_address(out, client),
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
        out.extend_from_slice(error(record.outcome).unwrap_or("-").as_bytes());
    }

    fn push_json(&self, out: &mut Vec<u8>, record: &Record<'_>, ms: u64, part_max: usize) {
        let asked = &record.asked;
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(self.second.1.as_bytes());
        let digits = [ms / 100, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8);
        out.push(b'.');
        out.extend_from_slice(&digits);
        out.extend_from_slice(b"Z\",\"remote_addr\":");
        match record.client {
            Some(client) => {
                out.push(b'"');
                push_address(out, client);
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
        push_string(out, error(record.outcome).map(str::as_bytes), part_max);
        out.push(b'}');
    }
}

/// What went wrong, in one word.
fn error(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Whole => None,
        Outcome::Refused(error) => Some(error.token()),
        Outcome::BrokenOff(reason) => Some(reason.token()),
    }
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

fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    let written = write!(out, "{address}");
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
    let (year, month, day) = civil(unix_s / 86_400);
    let (hour, minute, second) = (unix_s / 3_600 % 24, unix_s / 60 % 60, unix_s % 60);
    match format {
        Format::Text => {
            let month = MONTHS[month as usize - 1];
            format!("{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000")
        }
        Format::Json => {
            format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
        }
    }
}

/// Year, month and day of a day since 1970-01-01. Years begin in March, so that a leap day is the
/// last of its year (Hinnant, chrono-compatible low-level date algorithms, 2013).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let january_or_february = u64::from(month >= 10);
    let month = (month + 2) % 12 + 1;
    (era * 400 + year + january_or_february, month, day)
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// What stands for the rest of a part that is too long.
const CUT: &[u8] = b"...";
