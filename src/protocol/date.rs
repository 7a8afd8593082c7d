//! The `Date` line of responses, rendered at most once a second.
//!
//! Owns 37 bytes. Refuses to know a clock: the time is an argument.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

/// Length of `Date: Sun, 06 Nov 1994 08:49:37 GMT` with its line end.
const LINE_BYTES: usize = 37;

/// Latest second that has a four-digit year (RFC 9110 5.6.7), 9999-12-31T23:59:59.
const LATEST_S: u64 = 253_402_300_799;

/// A rendered `Date` line (RFC 9110 6.6.1).
#[derive(Clone, Debug)]
pub struct DateLine {
    line: [u8; LINE_BYTES],
    unix_s: u64,
    len: u8,
}

impl DateLine {
    /// A line for the first second of 1970, until `update` says otherwise.
    #[must_use]
    pub fn new() -> Self {
        let line = *b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        Self {
            line,
            unix_s: 0,
            len: LINE_BYTES as u8,
        }
    }

    /// No line at all, for operators who measure without it.
    #[must_use]
    pub fn omitted() -> Self {
        Self {
            len: 0,
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
        let mut rest = &mut self.line[..];
        write!(rest, "Date: {}\r\n", httpdate::HttpDate::from(time))
            .expect("invariant: an IMF-fixdate is 29 bytes long");
    }

    /// The line with its line end, or nothing.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.line[..usize::from(self.len)]
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
}
