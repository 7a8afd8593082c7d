//! Decides how a request body ends. This is RFC 9112 section 6.3, in the RFC's order, and nothing
//! else.
//!
//! Input: a parsed head. Output: a `Framing` or a reason to refuse. No bytes of the body are seen
//! here, so no decision taken here can depend on them. Anything ambiguous is refused: a proxy in
//! front of us may read the same head differently, and the difference is a smuggled request.

use super::error::ProtocolError;
use super::head::Version;
use super::octets::list;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// So many bytes, perhaps zero.
    Length(u64),
    /// Chunks up to one of size zero.
    Chunked,
}

/// What a head says in Content-Length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Length<'a> {
    #[default]
    Unsaid,
    Once(&'a [u8]),
    Repeatedly,
}

impl<'a> Length<'a> {
    /// With one more field.
    pub(super) fn and(self, value: &'a [u8]) -> Self {
        match self {
            Self::Unsaid => Self::Once(value),
            Self::Once(_) | Self::Repeatedly => Self::Repeatedly,
        }
    }
}

/// Decides it. `codings` are the values of all Transfer-Encoding fields.
pub(super) fn decide<'a>(
    version: Version,
    length: Length<'_>,
    codings: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<Framing, ProtocolError> {
    if codings.clone().next().is_some() {
        // RFC 9112 6.1: 1.0 has no transfer codings, and a 1.0 proxy would have passed this on
        // unread.
        if version == Version::Http10 {
            return Err(ProtocolError::TransferEncodingInHttp10);
        }
        // 6.3 item 3: lets a server go on with Transfer-Encoding, or refuse. Nobody sends both for
        // good.
        if length != Length::Unsaid {
            return Err(ProtocolError::ContentLengthAndTransferEncoding);
        }
        // 6.3 item 4.
        return chunked(codings);
    }
    match length {
        // 6.3 item 5 lets equal values be merged. Two of them mean that something upstream is
        // broken.
        Length::Repeatedly => Err(ProtocolError::ContentLengthRepeated),
        // 6.3 item 6.
        Length::Once(value) => decimal(value).map(Framing::Length),
        // 6.3 item 7.
        Length::Unsaid => Ok(Framing::None),
    }
}

fn chunked<'a>(codings: impl Iterator<Item = &'a [u8]>) -> Result<Framing, ProtocolError> {
    let mut chunked_times = 0;
    let mut others = 0;
    let mut last_is_chunked = false;
    for coding in codings.flat_map(list) {
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        if last_is_chunked {
            chunked_times += 1;
        } else {
            others += 1;
        }
    }
    if !last_is_chunked {
        // 6.3 item 4: 400 is a MUST here, also when the coding is one we do not know.
        return Err(ProtocolError::ChunkedNotFinal);
    }
    if chunked_times > 1 {
        return Err(ProtocolError::ChunkedRepeated);
    }
    if others > 0 {
        return Err(ProtocolError::TransferEncodingUnsupported);
    }
    Ok(Framing::Chunked)
}

/// Digits only (RFC 9110 8.6): no sign, no space, no list.
fn decimal(value: &[u8]) -> Result<u64, ProtocolError> {
    if value.is_empty() {
        return Err(ProtocolError::ContentLengthInvalid);
    }
    let mut number = 0_u64;
    for &byte in value {
        let digit = match byte {
            b'0'..=b'9' => u64::from(byte - b'0'),
            b',' => return Err(ProtocolError::ContentLengthRepeated),
            _ => return Err(ProtocolError::ContentLengthInvalid),
        };
        number = number
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(digit))
            .ok_or(ProtocolError::ContentLengthInvalid)?;
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(lengths: &[&str], codings: &[&str]) -> Result<Framing, ProtocolError> {
        decide(
            Version::Http11,
            lengths
                .iter()
                .fold(Length::Unsaid, |length, value| length.and(value.as_bytes())),
            codings.iter().map(|value| value.as_bytes()),
        )
    }

    #[test]
    fn a_request_without_either_field_has_no_body() {
        assert_eq!(framing(&[], &[]), Ok(Framing::None));
    }

    #[test]
    fn reads_plain_numbers_up_to_64_bits() {
        assert_eq!(framing(&["0"], &[]), Ok(Framing::Length(0)));
        assert_eq!(framing(&["007"], &[]), Ok(Framing::Length(7)));
        assert_eq!(
            framing(&["18446744073709551615"], &[]),
            Ok(Framing::Length(u64::MAX))
        );
    }

    #[test]
    fn refuses_numbers_that_are_not_plain() {
        for value in [
            "",
            "+5",
            "-5",
            "5 5",
            "0x5",
            "5a",
            "18446744073709551616",
            "1e3",
            "5.0",
        ] {
            assert_eq!(
                framing(&[value], &[]),
                Err(ProtocolError::ContentLengthInvalid),
                "{value}"
            );
        }
    }

    #[test]
    fn refuses_two_lengths_even_if_equal() {
        let repeated = Err(ProtocolError::ContentLengthRepeated);
        assert_eq!(framing(&["5", "5"], &[]), repeated);
        assert_eq!(framing(&["5, 5"], &[]), repeated);
    }

    #[test]
    fn accepts_chunked_alone_in_any_case() {
        assert_eq!(framing(&[], &["chunked"]), Ok(Framing::Chunked));
        assert_eq!(framing(&[], &["ChUnKeD"]), Ok(Framing::Chunked));
    }

    #[test]
    fn refuses_everything_that_is_not_exactly_one_final_chunked() {
        for (codings, error) in [
            (&["chunked, chunked"][..], ProtocolError::ChunkedRepeated),
            (&["chunked", "chunked"], ProtocolError::ChunkedRepeated),
            (&["chunked, identity"], ProtocolError::ChunkedNotFinal),
            (&["chunked", "gzip"], ProtocolError::ChunkedNotFinal),
            (&["identity"], ProtocolError::ChunkedNotFinal),
            (&["xchunked"], ProtocolError::ChunkedNotFinal),
            (&["chunked;q=1"], ProtocolError::ChunkedNotFinal),
            (&[""], ProtocolError::ChunkedNotFinal),
            (&["chunked,"], ProtocolError::ChunkedNotFinal),
            (
                &["gzip, chunked"],
                ProtocolError::TransferEncodingUnsupported,
            ),
            (
                &["gzip", "chunked"],
                ProtocolError::TransferEncodingUnsupported,
            ),
        ] {
            assert_eq!(framing(&[], codings), Err(error), "{codings:?}");
        }
    }

    #[test]
    fn refuses_both_fields_together() {
        let both = Err(ProtocolError::ContentLengthAndTransferEncoding);
        assert_eq!(framing(&["5"], &["chunked"]), both);
        assert_eq!(framing(&["5"], &["identity"]), both);
    }

    #[test]
    fn refuses_transfer_encoding_in_http_1_0() {
        let values = || [&b"chunked"[..]].into_iter();

        let decision = decide(Version::Http10, Length::Unsaid, values());

        assert_eq!(decision, Err(ProtocolError::TransferEncodingInHttp10));
    }
}
