//! The four forms of a request target (RFC 9112 3.2).
//!
//! Owns where path, query and host are within a target, and that the form of CONNECT is valid but
//! not served. Refuses to know the rest of the head, and to decode anything. Its input is visible
//! ASCII without `#`: `scan` has seen to that.

use super::error::ProtocolError;
use super::host::{Port, is_authority};
use super::octets::find;

/// Parts of a target, as offsets from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub path: (usize, usize),
    pub query: Option<(usize, usize)>,
    /// The host and port of an absolute form. Takes precedence over Host.
    pub authority: Option<(usize, usize)>,
}

/// Finds the parts.
#[inline]
pub(super) fn parts(method: &[u8], target: &[u8]) -> Result<Parts, ProtocolError> {
    // CONNECT comes first: its target has one form only, and no other method has it.
    if target[0] == b'/' && method != b"CONNECT" {
        return Ok(origin(target, 0, None));
    }
    other_form(method, target)
}

#[inline]
fn origin(target: &[u8], from: usize, authority: Option<(usize, usize)>) -> Parts {
    match find(b'?', &target[from..]) {
        None => Parts {
            path: (from, target.len()),
            query: None,
            authority,
        },
        Some(length) => Parts {
            path: (from, from + length),
            query: Some((from + length + 1, target.len())),
            authority,
        },
    }
}

#[cold]
fn other_form(method: &[u8], target: &[u8]) -> Result<Parts, ProtocolError> {
    if method == b"CONNECT" {
        // RFC 9110 9.3.6: behind a 2xx there would be a tunnel, not HTTP. A handler that answers
        // 200 to any method must not be able to promise one.
        return Err(if is_authority(target, Port::Required) {
            ProtocolError::ConnectUnsupported
        } else {
            ProtocolError::AuthorityInvalid
        });
    }
    if target == b"*" {
        if method != b"OPTIONS" {
            return Err(ProtocolError::AsteriskWithoutOptions);
        }
        return Ok(Parts {
            path: (0, target.len()),
            query: None,
            authority: None,
        });
    }
    absolute(target)
}

fn absolute(target: &[u8]) -> Result<Parts, ProtocolError> {
    let scheme_bytes = match memchr::memchr(b':', target) {
        Some(4) if target[..4].eq_ignore_ascii_case(b"http") => 4,
        Some(5) if target[..5].eq_ignore_ascii_case(b"https") => 5,
        _ => return Err(ProtocolError::TargetInvalid),
    };
    if !target[scheme_bytes..].starts_with(b"://") {
        return Err(ProtocolError::TargetInvalid);
    }
    let from = scheme_bytes + 3;
    let length = memchr::memchr2(b'/', b'?', &target[from..]).unwrap_or(target.len() - from);
    let to = from + length;
    if !is_authority(&target[from..to], Port::Optional) {
        return Err(ProtocolError::AuthorityInvalid);
    }
    let mut parts = origin(target, to, Some((from, to)));
    if parts.path.0 == parts.path.1 {
        // RFC 9112 3.2.1: an empty path means "/". The second slash of "://" is one that can be
        // pointed at.
        parts.path = (from - 1, from);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<'a>(method: &str, target: &'a str) -> (&'a str, Option<&'a str>, Option<&'a str>) {
        let parts = parts(method.as_bytes(), target.as_bytes()).expect("a valid target");
        let text = |(from, to): (usize, usize)| &target[from..to];
        (
            text(parts.path),
            parts.query.map(text),
            parts.authority.map(text),
        )
    }

    #[test]
    fn splits_origin_form_at_the_first_question_mark() {
        assert_eq!(texts("GET", "/a/b"), ("/a/b", None, None));
        assert_eq!(texts("GET", "/?"), ("/", Some(""), None));
        assert_eq!(texts("GET", "/a?b?c"), ("/a", Some("b?c"), None));
        assert_eq!(texts("GET", "//a"), ("//a", None, None));
    }

    #[test]
    fn points_past_the_authority_of_absolute_form() {
        assert_eq!(
            texts("GET", "http://h:1/p?q"),
            ("/p", Some("q"), Some("h:1"))
        );
        assert_eq!(texts("GET", "HTTPS://h/"), ("/", None, Some("h")));
    }

    #[test]
    fn lends_an_empty_path_a_slash() {
        assert_eq!(texts("GET", "http://h"), ("/", None, Some("h")));
        assert_eq!(texts("GET", "http://h?q"), ("/", Some("q"), Some("h")));
    }

    #[test]
    fn knows_the_asterisk_form() {
        assert_eq!(texts("OPTIONS", "*"), ("*", None, None));
    }

    #[test]
    fn refuses_what_has_none_of_the_forms() {
        for (method, target, error) in [
            ("GET", "*", ProtocolError::AsteriskWithoutOptions),
            ("OPTIONS", "**", ProtocolError::TargetInvalid),
            ("GET", "index.html", ProtocolError::TargetInvalid),
            ("GET", "ftp://h/", ProtocolError::TargetInvalid),
            ("GET", "http:/h/", ProtocolError::TargetInvalid),
            ("GET", "http:///", ProtocolError::AuthorityInvalid),
            ("GET", "http://u@h/", ProtocolError::AuthorityInvalid),
            ("CONNECT", "h:443", ProtocolError::ConnectUnsupported),
            ("CONNECT", "/", ProtocolError::AuthorityInvalid),
            ("CONNECT", "h", ProtocolError::AuthorityInvalid),
        ] {
            assert_eq!(
                parts(method.as_bytes(), target.as_bytes()),
                Err(error),
                "{target}"
            );
        }
    }
}
