//! The chunked coding, strictly (RFC 9112 7.1).
//!
//! Owns the way from chunks to body bytes, byte by byte through lines and in one piece through
//! data. Refuses to know what the bytes mean and where they go. Trailers are read by the rules for
//! fields, counted and dropped: merging them into the head would let a peer add fields after the
//! head was judged.

use super::error::ProtocolError;
use super::limits::RequestLimits;
use super::octets::is_value;
use super::percent::hex_digit;
use super::scan::{Bounds, Scan};

/// Sixteen digits are the most that fit in 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// Progress through a chunked body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    expect: Expect,
    /// Body bytes that may still come.
    allowance: u64,
}

/// What may come next.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Size {
        size: u64,
        digits: u8,
    },
    /// White space behind the size, which only an extension may follow.
    SpaceBehindSize {
        size: u64,
        bytes: u32,
    },
    Extension {
        size: u64,
        bytes: u32,
    },
    LineFeed {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataLineFeed,
    Trailer(Scan),
}

/// What bytes led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// All bytes were read; more are needed.
    NeedMore,
    /// From the first offset up to the second there is body; everything up to the second was read.
    Body(usize, usize),
    /// The body ended; so many bytes were read.
    End(usize),
}

impl Chunks {
    /// At the first byte of a body of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            expect: Expect::Size { size: 0, digits: 0 },
            allowance: bytes_max,
        }
    }

    /// Reads on, up to the end of the first piece of body.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        limits: &RequestLimits,
    ) -> Result<Decoded, ProtocolError> {
        let mut at = 0;
        while at < input.len() {
            match &mut self.expect {
                Expect::Data { left } => {
                    // A chunk longer than the address space is cut by the input in any case.
                    let available = (input.len() - at) as u64;
                    let taken = available.min(*left);
                    *left -= taken;
                    if *left == 0 {
                        self.expect = Expect::DataReturn;
                    }
                    return Ok(Decoded::Body(at, at + taken as usize));
                }
                Expect::Trailer(scan) => {
                    let bounds = Bounds::trailer(limits.trailer_bytes_max, limits.fields_max);
                    let ended = scan.read(&input[at..], bounds).map_err(trailer_error)?;
                    return Ok(match ended {
                        Some(bytes) => Decoded::End(at + bytes),
                        None => Decoded::NeedMore,
                    });
                }
                _ => {
                    self.expect = self.on_byte(input[at], limits)?;
                    at += 1;
                }
            }
        }
        Ok(Decoded::NeedMore)
    }

    fn on_byte(&mut self, byte: u8, limits: &RequestLimits) -> Result<Expect, ProtocolError> {
        let extension_bytes_max = limits.chunk_extension_bytes_max;
        match self.expect {
            Expect::Size { size, digits } => self.on_size(byte, size, digits),
            Expect::SpaceBehindSize { size, bytes } => match byte {
                _ if bytes >= extension_bytes_max => Err(ProtocolError::ChunkExtensionTooLong),
                b' ' | b'\t' => Ok(Expect::SpaceBehindSize {
                    size,
                    bytes: bytes + 1,
                }),
                b';' => Ok(Expect::Extension {
                    size,
                    bytes: bytes + 1,
                }),
                _ => Err(ProtocolError::ChunkSizeInvalid),
            },
            Expect::Extension { size, bytes } => match byte {
                b'\r' => Ok(Expect::LineFeed { size }),
                _ if !is_value(byte) => Err(ProtocolError::ChunkExtensionInvalid),
                _ if bytes >= extension_bytes_max => Err(ProtocolError::ChunkExtensionTooLong),
                _ => Ok(Expect::Extension {
                    size,
                    bytes: bytes + 1,
                }),
            },
            Expect::LineFeed { size } => self.on_line_feed(byte, size),
            Expect::DataReturn if byte == b'\r' => Ok(Expect::DataLineFeed),
            Expect::DataLineFeed if byte == b'\n' => Ok(Expect::Size { size: 0, digits: 0 }),
            Expect::DataReturn | Expect::DataLineFeed => Err(ProtocolError::ChunkDataUnterminated),
            unchanged @ (Expect::Data { .. } | Expect::Trailer(_)) => Ok(unchanged),
        }
    }

    fn on_size(&mut self, byte: u8, size: u64, digits: u8) -> Result<Expect, ProtocolError> {
        if let Some(digit) = hex_digit(byte) {
            if digits == SIZE_DIGITS_MAX {
                return Err(ProtocolError::ChunkSizeInvalid);
            }
            let size = size << 4 | u64::from(digit);
            return Ok(Expect::Size {
                size,
                digits: digits + 1,
            });
        }
        match byte {
            _ if digits == 0 => Err(ProtocolError::ChunkSizeInvalid),
            b'\r' => Ok(Expect::LineFeed { size }),
            b';' => Ok(Expect::Extension { size, bytes: 1 }),
            b' ' | b'\t' => Ok(Expect::SpaceBehindSize { size, bytes: 1 }),
            _ => Err(ProtocolError::ChunkSizeInvalid),
        }
    }

    fn on_line_feed(&mut self, byte: u8, size: u64) -> Result<Expect, ProtocolError> {
        if byte != b'\n' {
            return Err(ProtocolError::ChunkLineInvalid);
        }
        if size == 0 {
            return Ok(Expect::Trailer(Scan::trailer()));
        }
        // The size is refused before any of its bytes, so a peer cannot make us take in a part of
        // them.
        let allowance = self.allowance.checked_sub(size);
        self.allowance = allowance.ok_or(ProtocolError::BodyTooLarge)?;
        Ok(Expect::Data { left: size })
    }
}

fn trailer_error(error: ProtocolError) -> ProtocolError {
    match error {
        ProtocolError::TrailerTooLarge | ProtocolError::TooManyFields => {
            ProtocolError::TrailerTooLarge
        }
        _ => ProtocolError::TrailerInvalid,
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::*;

    fn decode(mut input: &[u8], bytes_max: u64) -> Result<(Vec<u8>, usize), ProtocolError> {
        let mut chunks = Chunks::new(bytes_max);
        let mut body = Vec::new();
        loop {
            match chunks.read(input, &RequestLimits::from(&Limits::default()))? {
                Decoded::Body(from, to) => {
                    body.extend_from_slice(&input[from..to]);
                    input = &input[to..];
                }
                Decoded::End(used) => return Ok((body, input.len() - used)),
                Decoded::NeedMore => return Err(ProtocolError::IncompleteBody),
            }
        }
    }

    #[test]
    fn joins_chunks_and_drops_extensions_and_trailers() {
        let input = b"3\r\nabc\r\n00B;a=\"b\"\r\n0123456789A\r\n0\r\nTrailer: x\r\n\r\nGET";

        assert_eq!(decode(input, 14), Ok((b"abc0123456789A".to_vec(), 3)));
    }

    #[test]
    fn counts_the_whole_body_against_the_limit() {
        assert_eq!(
            decode(b"3\r\nabc\r\n2\r\n", 4),
            Err(ProtocolError::BodyTooLarge)
        );
    }

    #[test]
    fn allows_space_behind_a_size_only_before_an_extension() {
        assert!(decode(b"1 \t;x\r\na\r\n0\r\n\r\n", 9).is_ok());
        assert_eq!(
            decode(b"1 \r\na\r\n0\r\n\r\n", 9),
            Err(ProtocolError::ChunkSizeInvalid)
        );
    }

    #[test]
    fn reads_sixteen_digits_and_no_more() {
        assert_eq!(
            decode(b"FFFFFFFFFFFFFFFF\r\n", 9),
            Err(ProtocolError::BodyTooLarge)
        );
        assert_eq!(
            decode(b"0000000000000001\r\na\r\n0\r\n\r\n", 9),
            Ok((b"a".to_vec(), 0))
        );
        assert_eq!(
            decode(b"00000000000000001", 9),
            Err(ProtocolError::ChunkSizeInvalid)
        );
    }
}
