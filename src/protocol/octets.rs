//! Which bytes may stand where: tokens, targets, field values (RFC 9110 5.6.2 and 5.5, RFC 3986).
//!
//! Owns one table of 256 entries. Refuses to know lines.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;
const HOST: u8 = 8;

static CLASSES: [u8; 256] = classes();

/// A byte of a method or field name.
pub(super) fn is_token(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

/// A byte of a request target: visible ASCII without `#`. Browsers send `|`, `^`, `{` and `}`
/// unescaped against RFC 3986, and nothing downstream can be confused by them, so they pass.
pub(super) fn is_target(byte: u8) -> bool {
    CLASSES[byte as usize] & TARGET != 0
}

/// A byte of a field value: tab, space, visible ASCII and everything above ASCII.
pub(super) fn is_value(byte: u8) -> bool {
    CLASSES[byte as usize] & VALUE != 0
}

/// A byte of a host name that stands for itself: unreserved bytes and sub-delimiters of RFC 3986,
/// without the comma.
pub(super) fn is_host(byte: u8) -> bool {
    CLASSES[byte as usize] & HOST != 0
}

/// Whether a whole slice is a token, which is never empty.
pub(super) fn is_token_slice(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token(byte))
}

/// The first place of `needle`. Most targets are shorter than what memchr takes to get going.
#[inline]
pub(super) fn find(needle: u8, bytes: &[u8]) -> Option<usize> {
    if bytes.len() <= 16 {
        bytes.iter().position(|&byte| byte == needle)
    } else {
        memchr::memchr(needle, bytes)
    }
}

/// The members of a comma-separated list without the white space around them (RFC 9110 5.6.1).
/// Empty members are yielded too.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim)
}

/// Without the white space around it.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let octet = byte as u8;
        let mut class = 0;
        if octet.is_ascii_alphanumeric() || is_token_symbol(octet) {
            class |= TOKEN;
        }
        if octet.is_ascii_graphic() && octet != b'#' {
            class |= TARGET;
        }
        if octet.is_ascii_alphanumeric() || is_host_symbol(octet) {
            class |= HOST;
        }
        if octet == b'\t' || (octet >= b' ' && octet != 0x7f) {
            class |= VALUE;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

const fn is_token_symbol(octet: u8) -> bool {
    matches!(
        octet,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    )
}

const fn is_host_symbol(octet: u8) -> bool {
    matches!(
        octet,
        b'-' | b'.'
            | b'_'
            | b'~'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b';'
            | b'='
    )
}
