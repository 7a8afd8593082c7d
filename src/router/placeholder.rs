//! Typed placeholders: which values each type takes.
//!
//! Owns the types' names and grammars. A type only says which bytes fit; refuses to know what
//! Python makes of them. Every value that fits can be converted, whatever the interpreter's limits
//! are.

/// What a placeholder takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceholderKind {
    /// One non-empty run without `/`: `{name}` and `{name:str}`.
    Text,
    /// `-?[0-9]+`, of at most `INT_DIGITS_MAX` digits.
    Int,
    /// `-?[0-9]+(\.[0-9]+)?`, when it is finite as a double.
    Float,
    /// Hexadecimal digits of either case in groups of 8-4-4-4-12.
    Uuid,
    /// The non-empty rest of the path, `/` included.
    Path,
}

/// Digits of the longest integer that fits. CPython converts up to this many between int and str
/// in either direction, even under the strictest `sys.set_int_max_str_digits`
/// (`sys.int_info.str_digits_check_threshold`), so a handler can always print what it was given.
const INT_DIGITS_MAX: usize = 640;

impl PlaceholderKind {
    /// The kind of this name in a pattern.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "str" => Some(Self::Text),
            "int" => Some(Self::Int),
            "float" => Some(Self::Float),
            "uuid" => Some(Self::Uuid),
            "path" => Some(Self::Path),
            _ => None,
        }
    }

    /// Whether a non-empty run of the path is a value of this kind.
    #[inline]
    pub(super) fn fits(self, value: &[u8]) -> bool {
        match self {
            Self::Text | Self::Path => true,
            Self::Int => is_int(value),
            Self::Float => is_float(value),
            Self::Uuid => is_uuid(value),
        }
    }
}

fn is_int(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    digits.len() <= INT_DIGITS_MAX && are_digits(digits)
}

fn is_float(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let well_formed = match memchr::memchr(b'.', digits) {
        None => are_digits(digits),
        Some(point) => are_digits(&digits[..point]) && are_digits(&digits[point + 1..]),
    };
    // Enough digits are beyond the range of a double, which would make them infinity.
    let text = std::str::from_utf8(value).unwrap_or_default();
    well_formed && text.parse().is_ok_and(f64::is_finite)
}

fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn are_digits(digits: &[u8]) -> bool {
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(kind: PlaceholderKind, value: &str) -> bool {
        kind.fits(value.as_bytes())
    }

    #[test]
    fn an_int_is_ascii_digits_with_an_optional_minus() {
        for value in ["0", "-0", "007", "-12", "18446744073709551616"] {
            assert!(fits(PlaceholderKind::Int, value), "{value}");
        }
        for value in [
            "-", "+1", "1_0", "1.0", " 1", "1e3", "0x1", "--1", "1-", "٣",
        ] {
            assert!(!fits(PlaceholderKind::Int, value), "{value}");
        }
    }

    #[test]
    fn an_int_beyond_what_can_always_be_printed_does_not_fit() {
        let longest = "9".repeat(INT_DIGITS_MAX);

        assert!(fits(PlaceholderKind::Int, &longest));
        assert!(fits(PlaceholderKind::Int, &format!("-{longest}")));
        assert!(!fits(PlaceholderKind::Int, &format!("{longest}9")));
    }

    #[test]
    fn a_float_is_digits_with_an_optional_fraction() {
        for value in ["0", "-0", "1.5", "-12.250", "007.0", "1797693134862315"] {
            assert!(fits(PlaceholderKind::Float, value), "{value}");
        }
        for value in [
            "-", ".5", "1.", ".", "1e5", "nan", "inf", "-inf", "+1.0", "1.2.3", "1_0.0", "٣.٣",
        ] {
            assert!(!fits(PlaceholderKind::Float, value), "{value}");
        }
    }

    #[test]
    fn a_float_that_would_be_infinite_does_not_fit() {
        assert!(fits(PlaceholderKind::Float, &"9".repeat(308)));
        assert!(!fits(PlaceholderKind::Float, &"9".repeat(309)));
        assert!(!fits(
            PlaceholderKind::Float,
            &format!("-{}.5", "9".repeat(400))
        ));
    }

    #[test]
    fn a_uuid_is_grouped_hexadecimal_digits() {
        for value in [
            "12345678-1234-5678-1234-567812345678",
            "ABCDEFab-cdef-ABCD-efab-cdefabcdefAB",
        ] {
            assert!(fits(PlaceholderKind::Uuid, value), "{value}");
        }
        for value in [
            "12345678123456781234567812345678",
            "{12345678-1234-5678-1234-567812345678}",
            "g2345678-1234-5678-1234-567812345678",
            "12345678-1234-5678-12345-67812345678",
            "12345678-1234-5678-1234-56781234567",
            "12345678-1234-5678-1234-5678123456789",
        ] {
            assert!(!fits(PlaceholderKind::Uuid, value), "{value}");
        }
    }
}
