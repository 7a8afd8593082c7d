//! Percent decoding of paths (RFC 3986 2.1).
//!
//! Owns the two hexadecimal digits behind a `%`. Refuses to know text encodings, and queries, where
//! `+` and `&` have meanings of their own.

use std::borrow::Cow;

use super::octets::find;

/// Decodes every valid escape, with digits of either case; an invalid one stays as it was sent.
#[inline]
#[must_use]
pub fn decode_path(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = find(b'%', raw) else {
        return Cow::Borrowed(raw);
    };
    Cow::Owned(decode_from(first, raw))
}

/// Decodes a path with an escape at `first`.
#[cold]
fn decode_from(first: usize, raw: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    decoded.extend_from_slice(&raw[..first]);
    let mut rest = &raw[first..];
    while let Some((&byte, behind)) = rest.split_first() {
        match (byte, escape(behind)) {
            (b'%', Some(value)) => {
                decoded.push(value);
                rest = &behind[2..];
            }
            _ => {
                decoded.push(byte);
                rest = behind;
            }
        }
    }
    decoded
}

fn escape(digits: &[u8]) -> Option<u8> {
    match digits {
        [high, low, ..] => Some(hex_digit(*high)? << 4 | hex_digit(*low)?),
        _ => None,
    }
}

/// The value of one hexadecimal digit of either case.
pub(super) fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrows_when_there_is_nothing_to_decode() {
        assert!(matches!(decode_path(b"/plain"), Cow::Borrowed(b"/plain")));
    }

    #[test]
    fn decodes_digits_of_both_cases() {
        assert_eq!(
            &*decode_path(b"/%c4%85%C4%85%2F%20"),
            "/\u{105}\u{105}/ ".as_bytes()
        );
    }

    #[test]
    fn leaves_invalid_escapes_as_sent() {
        assert_eq!(&*decode_path(b"/%zz%4%"), b"/%zz%4%");
        assert_eq!(&*decode_path(b"%%41"), b"%A");
        assert_eq!(&*decode_path(b"%2%41"), b"%2A");
    }

    #[test]
    fn decodes_once_only() {
        assert_eq!(&*decode_path(b"%2541"), b"%41");
    }
}
