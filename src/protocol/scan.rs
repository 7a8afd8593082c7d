//! Reads a head one byte at a time: says where it ends, or the first byte that is wrong in it.
//!
//! Owns the grammar of lines (RFC 9112 2 to 5) as a state machine of a few words. Refuses to know
//! what fields mean. `head` reads what is whole and well formed, several times faster; this machine
//! is asked when a head is incomplete, because it goes on where it stopped, and when a head is
//! refused, because it knows why. Since it never looks ahead, its verdict cannot depend on how the
//! bytes were cut.

use super::error::ProtocolError;
use super::limits::{METHOD_BYTES_MAX, RequestLimits};
use super::octets::{is_target, is_token, is_value};

/// How far a head has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    expect: Expect,
    /// Fields begun so far.
    fields: u32,
    /// Bytes of the current method or target; position in the version.
    run: u32,
    /// Bytes read so far.
    seen: u32,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Method,
    Target,
    Version,
    VersionEnd,
    LineFeed,
    LineStart,
    Name,
    Value,
    LastLineFeed,
    Nothing,
}

/// The most a section of lines may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    bytes_max: u32,
    target_bytes_max: u32,
    fields_max: u32,
    too_large: ProtocolError,
}

impl Bounds {
    pub(super) fn head(limits: &RequestLimits) -> Self {
        Self {
            bytes_max: limits.head_bytes_max,
            target_bytes_max: limits.target_bytes_max,
            fields_max: limits.fields_max,
            too_large: ProtocolError::HeadTooLarge,
        }
    }

    pub(super) fn trailer(bytes_max: u32, fields_max: u32) -> Self {
        Self {
            // The empty line is no trailer: no trailers at all still end with one.
            bytes_max: bytes_max.saturating_add(2),
            target_bytes_max: 0,
            fields_max,
            too_large: ProtocolError::TrailerTooLarge,
        }
    }
}

impl Scan {
    /// At the first byte of a request line.
    pub(super) const fn head() -> Self {
        Self {
            expect: Expect::Method,
            fields: 0,
            run: 0,
            seen: 0,
        }
    }

    /// At the first byte of a trailer section: field lines and an empty line.
    pub(super) const fn trailer() -> Self {
        Self {
            expect: Expect::LineStart,
            fields: 0,
            run: 0,
            seen: 0,
        }
    }

    /// How many bytes were read.
    pub(super) fn seen(&self) -> usize {
        self.seen as usize
    }

    /// Reads on in bytes never shown before. `Some(n)`: the section ends with the n-th of them.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        bounds: Bounds,
    ) -> Result<Option<usize>, ProtocolError> {
        #[cfg(test)]
        counted::add(bytes.len());
        for (index, &byte) in bytes.iter().enumerate() {
            if self.seen >= bounds.bytes_max {
                return Err(bounds.too_large);
            }
            self.seen += 1;
            self.expect = match self.expect {
                Expect::Value if is_value(byte) => Expect::Value,
                Expect::Name if is_token(byte) => Expect::Name,
                Expect::Target if is_target(byte) => self.on_target_byte(bounds)?,
                _ => self.on_byte(byte, bounds)?,
            };
            if self.expect == Expect::Nothing {
                return Ok(Some(index + 1));
            }
        }
        if self.seen >= bounds.bytes_max {
            return Err(bounds.too_large);
        }
        Ok(None)
    }

    fn on_target_byte(&mut self, bounds: Bounds) -> Result<Expect, ProtocolError> {
        self.run += 1;
        if self.run > bounds.target_bytes_max {
            return Err(ProtocolError::TargetTooLong);
        }
        Ok(Expect::Target)
    }

    fn on_byte(&mut self, byte: u8, bounds: Bounds) -> Result<Expect, ProtocolError> {
        let line_end = matches!(self.expect, Expect::LineFeed | Expect::LastLineFeed);
        if byte == b'\n' && !line_end {
            // RFC 9112 2.2 allows a lone line feed; a proxy that does not see a line end there
            // would disagree about what belongs to the head.
            return Err(ProtocolError::BareLineFeed);
        }
        match self.expect {
            Expect::Method => self.on_method(byte),
            Expect::Target => self.on_target_end(byte),
            Expect::Version => self.on_version(byte),
            Expect::VersionEnd => match byte {
                b'\r' => Ok(Expect::LineFeed),
                b' ' | b'\t' => Err(ProtocolError::RequestLineInvalid),
                _ => Err(ProtocolError::VersionInvalid),
            },
            Expect::LineFeed => match byte {
                b'\n' => Ok(Expect::LineStart),
                _ => Err(ProtocolError::BareCarriageReturn),
            },
            Expect::LineStart => self.on_line_start(byte, bounds),
            Expect::Name => match byte {
                b':' => Ok(Expect::Value),
                b' ' | b'\t' => Err(ProtocolError::SpaceBeforeColon),
                b'\r' => Err(ProtocolError::ColonMissing),
                _ => Err(ProtocolError::FieldNameInvalid),
            },
            Expect::Value => match byte {
                b'\r' => Ok(Expect::LineFeed),
                _ => Err(ProtocolError::FieldValueInvalid),
            },
            Expect::LastLineFeed => match byte {
                b'\n' => Ok(Expect::Nothing),
                _ => Err(ProtocolError::BareCarriageReturn),
            },
            Expect::Nothing => Ok(Expect::Nothing),
        }
    }

    fn on_method(&mut self, byte: u8) -> Result<Expect, ProtocolError> {
        match byte {
            b' ' if self.run > 0 => {
                self.run = 0;
                Ok(Expect::Target)
            }
            b'\r' | b'\t' if self.run > 0 => Err(ProtocolError::RequestLineInvalid),
            _ if !is_token(byte) => Err(ProtocolError::MethodInvalid),
            _ if self.run == METHOD_BYTES_MAX => Err(ProtocolError::MethodTooLong),
            _ => {
                self.run += 1;
                Ok(Expect::Method)
            }
        }
    }

    fn on_target_end(&mut self, byte: u8) -> Result<Expect, ProtocolError> {
        match byte {
            b' ' if self.run > 0 => {
                self.run = 0;
                Ok(Expect::Version)
            }
            b'\r' if self.run > 0 => Err(ProtocolError::VersionMissing),
            b' ' | b'\r' | b'\t' => Err(ProtocolError::RequestLineInvalid),
            b'#' => Err(ProtocolError::FragmentInTarget),
            _ => Err(ProtocolError::TargetInvalid),
        }
    }

    /// `run` is the position within `HTTP/d.d`; the first digit is kept in its second byte.
    fn on_version(&mut self, byte: u8) -> Result<Expect, ProtocolError> {
        let position = self.run & 0xff;
        let fits = match position {
            0..=4 => byte == b"HTTP/"[position as usize],
            6 => byte == b'.',
            _ => byte.is_ascii_digit(),
        };
        if !fits {
            return Err(match byte {
                b' ' | b'\t' => ProtocolError::RequestLineInvalid,
                b'\r' if position == 0 => ProtocolError::VersionMissing,
                _ => ProtocolError::VersionInvalid,
            });
        }
        if position == 5 {
            self.run |= u32::from(byte) << 8;
        }
        if position < 7 {
            self.run += 1;
            return Ok(Expect::Version);
        }
        match ((self.run >> 8) as u8, byte) {
            (b'1', b'0' | b'1') => Ok(Expect::VersionEnd),
            _ => Err(ProtocolError::VersionUnsupported),
        }
    }

    fn on_line_start(&mut self, byte: u8, bounds: Bounds) -> Result<Expect, ProtocolError> {
        match byte {
            b'\r' => Ok(Expect::LastLineFeed),
            b' ' | b'\t' if self.fields == 0 => Err(ProtocolError::SpaceBeforeFirstField),
            b' ' | b'\t' => Err(ProtocolError::ObsoleteLineFolding),
            _ if !is_token(byte) => Err(ProtocolError::FieldNameInvalid),
            _ if self.fields == bounds.fields_max => Err(ProtocolError::TooManyFields),
            _ => {
                self.fields += 1;
                Ok(Expect::Name)
            }
        }
    }
}

/// Counts the bytes that heads are searched for, so that a test can tell linear from quadratic.
#[cfg(test)]
pub(super) mod counted {
    use std::cell::Cell;

    thread_local! {
        static BYTES: Cell<usize> = const { Cell::new(0) };
    }

    pub(in super::super) fn add(bytes: usize) {
        BYTES.set(BYTES.get() + bytes);
    }

    pub(in super::super) fn take() -> usize {
        BYTES.take()
    }
}
