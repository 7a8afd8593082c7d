//! The `Date` line of responses, rendered at most once a second.
//!
//! Owns 41 bytes: the line with the line ends around it, as it stands at the end of a head. Refuses
//! to know a clock: the time is an argument.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

/// The end of a head: of the line before, the date's own, and the empty line.
const END: [u8; 41] = *b"\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";

/// Latest second that has a four-digit year (RFC 9110 5.6.7), 9999-12-31T23:59:59.
const LATEST_S: u64 = 253_402_300_799;

/// A rendered `Date` line (RFC 9110 6.6.1).
#[derive(Clone, Debug)]
pub struct DateLine {
    end: [u8; END.len()],
    unix_s: u64,
    is_sent: bool,
}

impl DateLine {
    /// A line for the first second of 1970, until `update` says otherwise.
    #[must_use]
    pub fn new() -> Self {
        Self {
            end: END,
            unix_s: 0,
            is_sent: true,
        }
    }

    /// No line at all, for operators who measure without it.
    #[must_use]
    pub fn omitted() -> Self {
        Self {
            is_sent: false,
            ..Self::new()
        }
    }

    /// Renders the line anew if the second changed. Seconds since 1970, UTC.
    pub fn update(&mut self, unix_s: u64) {
        if unix_s == self.unix_s {
            return;
        }
        self.unix_s = unix_s;
        let time = UNIX_EPOCH + Duration::from_secs(unix_s.min(LATEST_S));
        let mut rest = &mut self.end[..];
        write!(rest, "\r\nDate: {}", httpdate::HttpDate::from(time))
            .expect("invariant: an IMF-fixdate is 29 bytes long");
    }

    /// The line with its line end, or nothing.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        if self.is_sent { &self.end[2..39] } else { &[] }
    }

    /// Appends what ends a head: the line end that its last line is owed, this line, and the empty
    /// line. Of a fixed length, it is copied without a call.
    #[inline]
    pub(super) fn push_end(&self, out: &mut Vec<u8>) {
        if self.is_sent {
            out.extend_from_slice(&self.end);
        } else {
            out.extend_from_slice(b"\r\n\r\n");
        }
    }
}

impl Default for DateLine {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_example_of_the_rfc() {
        let mut date = DateLine::new();

        date.update(784_111_777);

        assert_eq!(date.as_bytes(), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    }

    #[test]
    fn starts_in_1970_without_an_update() {
        let mut date = DateLine::new();
        let start = date.as_bytes().to_vec();

        date.update(1);
        date.update(0);

        assert_eq!(date.as_bytes(), start);
    }

    #[test]
    fn survives_times_beyond_four_digit_years() {
        let mut date = DateLine::new();

        date.update(u64::MAX);

        assert_eq!(date.as_bytes(), b"Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n");
    }

    #[test]
    fn stays_empty_when_omitted() {
        let mut date = DateLine::omitted();

        date.update(784_111_777);

        assert!(date.as_bytes().is_empty());
    }

    #[test]
    fn ends_a_head_with_it_or_without() {
        let mut date = DateLine::new();
        date.update(784_111_777);

        for (date, end) in [
            (&date, "\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"),
            (&DateLine::omitted(), "\r\n\r\n"),
        ] {
            let mut out = Vec::new();
            date.push_end(&mut out);
            assert_eq!(out, end.as_bytes());
        }
    }
}
