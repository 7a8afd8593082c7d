//! The body of a response that comes in pieces: how its end is known, and its coding.
//!
//! Owns the three framings of RFC 9112 6.3 that an answer of unknown or announced length can have.
//! Refuses to know where pieces come from, and to buffer: a piece goes into the output or is cut.

use super::encode::{Answer, Context, Payload, sends_body};
use super::head::Version;

/// How the peer knows where a streamed body ends, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFraming {
    /// After so many more bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection: HTTP/1.0 knows no chunks.
    UntilClose,
}

impl StreamFraming {
    /// The framing of this answer; `None` when no body follows its head in pieces.
    #[must_use]
    pub fn of(answer: &Answer<'_>, context: Context) -> Option<Self> {
        let Payload::Stream { length } = answer.payload else {
            return None;
        };
        if !sends_body(answer.status, context) {
            return None;
        }
        Some(match (length, context.version) {
            (Some(bytes), _) => Self::Length(bytes),
            (None, Version::Http11) => Self::Chunked,
            (None, Version::Http10) => Self::UntilClose,
        })
    }

    /// Appends a piece. Returns how many of its bytes are beyond the announced length: those are
    /// not sent, because the peer would read them as its next response.
    pub fn push(&mut self, out: &mut Vec<u8>, piece: &[u8]) -> usize {
        if piece.is_empty() {
            // A chunk of no bytes would be the last one.
            return 0;
        }
        match self {
            Self::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(piece.len(), |left| left.min(piece.len()));
                *left -= taken as u64;
                out.extend_from_slice(&piece[..taken]);
                return piece.len() - taken;
            }
            Self::Chunked => {
                // Sixteen digits and two line ends.
                out.reserve(piece.len() + 20);
                push_size(out, piece.len());
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
            Self::UntilClose => out.extend_from_slice(piece),
        }
        0
    }

    /// Appends what says that the body is complete; `false` when it is not.
    #[must_use]
    pub fn finish(self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Length(left) => left == 0,
            Self::Chunked => {
                out.extend_from_slice(LAST_CHUNK);
                true
            }
            Self::UntilClose => true,
        }
    }
}

/// The chunk of no bytes, and a trailer section without fields (RFC 9112 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends a chunk's size line.
fn push_size(out: &mut Vec<u8>, bytes: usize) {
    let digits = (usize::BITS - bytes.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[bytes >> (4 * place) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::encode::Connection;
    use super::*;

    fn framing(status: u16, length: Option<u64>, context: Context) -> Option<StreamFraming> {
        let answer = Answer {
            status,
            content_type: None,
            fields: b"",
            payload: Payload::Stream { length },
            close: false,
        };
        StreamFraming::of(&answer, context)
    }

    const ASKED: Context = Context {
        version: Version::Http11,
        head_only: false,
        connection: Connection::Omitted,
    };

    #[test]
    fn writes_sizes_in_hexadecimal_without_leading_zeros() {
        for bytes in [1, 9, 15, 16, 255, 256, 4_095, 65_536, usize::MAX] {
            let mut out = Vec::new();
            push_size(&mut out, bytes);
            assert_eq!(String::from_utf8(out), Ok(format!("{bytes:x}\r\n")));
        }
    }

    #[test]
    fn a_piece_is_a_chunk_and_no_piece_is_none() {
        let mut out = Vec::new();
        let mut chunked = StreamFraming::Chunked;

        for piece in [&b"abc"[..], b"", b"0123456789abcdef!"] {
            assert_eq!(chunked.push(&mut out, piece), 0);
        }
        assert!(chunked.finish(&mut out));

        let expected = "3\r\nabc\r\n11\r\n0123456789abcdef!\r\n0\r\n\r\n";
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
    }

    #[test]
    fn cuts_what_is_beyond_the_announced_length() {
        let mut out = Vec::new();
        let mut sized = StreamFraming::Length(4);

        assert_eq!(sized.push(&mut out, b"abc"), 0);
        assert!(!sized.finish(&mut out));
        assert_eq!(sized.push(&mut out, b"def"), 2);
        assert_eq!(sized.push(&mut out, b"g"), 1);

        assert!(sized.finish(&mut out));
        assert_eq!(out, b"abcd");
    }

    #[test]
    fn leaves_bytes_as_they_are_where_the_connection_ends_the_body() {
        let mut out = Vec::new();
        let mut plain = StreamFraming::UntilClose;

        assert_eq!(plain.push(&mut out, b"abc"), 0);

        assert!(plain.finish(&mut out));
        assert_eq!(out, b"abc");
    }

    #[test]
    fn the_framing_follows_from_length_and_version() {
        let old = Context {
            version: Version::Http10,
            ..ASKED
        };
        assert_eq!(framing(200, None, ASKED), Some(StreamFraming::Chunked));
        assert_eq!(framing(200, None, old), Some(StreamFraming::UntilClose));
        for context in [ASKED, old] {
            let sized = Some(StreamFraming::Length(7));
            assert_eq!(framing(404, Some(7), context), sized);
        }
    }

    #[test]
    fn no_pieces_follow_a_head_that_has_no_body() {
        let head = Context {
            head_only: true,
            ..ASKED
        };
        assert_eq!(framing(200, None, head), None);
        for status in [103, 204, 205, 304] {
            assert_eq!(framing(status, Some(3), ASKED), None);
        }
    }
}
