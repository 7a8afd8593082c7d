//! Answers to bytes.
//!
//! Owns the form of a response: status line, the fields every response has, framing. Refuses to
//! know who answers and why, and to check what was checked when the answer was made: `push_field`
//! is the only way in for names and values from outside, and it refuses what could forge a line.

use std::fmt;

use super::date::DateLine;
use super::error::ProtocolError;
use super::head::Version;
use super::octets::{is_token_slice, is_value};
use super::reason::{has_body, reason};
use super::stream::StreamFraming;

/// The interim response that asks for the body (RFC 9110 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A response before it is rendered.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The status code, 100 to 599.
    pub status: u16,
    /// The value of Content-Type.
    pub content_type: Option<&'a [u8]>,
    /// Further field lines, each with its line end, as `push_field` makes them.
    pub fields: &'a [u8],
    /// The body.
    pub payload: Payload<'a>,
    /// Whether the connection ends behind this response.
    pub close: bool,
}

/// The body of a response.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// All of it, at once.
    Whole(&'a [u8]),
    /// It follows in pieces. Without a length it is chunked, or for HTTP/1.0 ends with the
    /// connection.
    Stream {
        /// How many bytes it will have.
        length: Option<u64>,
    },
}

/// What the Connection field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: the version's default holds.
    Omitted,
    /// `close`
    Close,
    /// `keep-alive`, for HTTP/1.0.
    KeepAlive,
}

/// What a response takes over from its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The version of the request, which the status line repeats.
    pub version: Version,
    /// Whether the method was HEAD: the response describes a body that it does not carry.
    pub head_only: bool,
    /// What the Connection field says.
    pub connection: Connection,
}

/// Why a field cannot be sent. Carries what was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// The name is not a token (RFC 9110 5.1).
    Name(String),
    /// The value holds a control character or one beyond Latin-1 (RFC 9110 5.5).
    Value(String),
}

/// Appends a whole response to `out`; of one whose body is streamed, the head.
#[inline]
pub fn encode(out: &mut Vec<u8>, answer: &Answer<'_>, context: Context, date: &DateLine) {
    let Payload::Whole(body) = answer.payload else {
        return encode_head(out, answer, context, date);
    };
    let content_type_bytes = answer.content_type.map_or(0, <[u8]>::len);
    // One growth at most; the fixed lines and the longest reason stay under 192 bytes.
    out.reserve(192 + content_type_bytes + answer.fields.len() + body.len());
    let body_is_sent = push_start(out, answer.status, context, body.len());
    push_fields(out, answer, context.connection, date);
    if body_is_sent {
        out.extend_from_slice(body);
    }
}

/// Appends the head of a response whose body follows in pieces, or would if the method were not
/// HEAD.
#[cold]
fn encode_head(out: &mut Vec<u8>, answer: &Answer<'_>, context: Context, date: &DateLine) {
    let mut connection = context.connection;
    push_status_line(out, answer.status, context.version);
    match (StreamFraming::of(answer, context), answer.payload) {
        (Some(StreamFraming::Chunked), _) => {
            out.extend_from_slice(b"\r\nTransfer-Encoding: chunked");
        }
        (Some(StreamFraming::UntilClose), _) => connection = Connection::Close,
        (None, _) if answer.status == 205 => push_length(out, 0),
        (Some(StreamFraming::Length(bytes)), _)
        | (
            None,
            Payload::Stream {
                length: Some(bytes),
            },
        ) if has_body(answer.status) => {
            push_length(out, bytes);
        }
        _ => {}
    }
    push_fields(out, answer, connection, date);
}

/// Whether the response to such a request carries a body (RFC 9110 6.4.1).
#[must_use]
pub fn sends_body(status: u16, context: Context) -> bool {
    !context.head_only && has_body(status) && status != 205
}

/// Appends the answer to a peer's mistake. The connection ends behind it.
pub fn refusal(out: &mut Vec<u8>, error: ProtocolError, date: &DateLine) {
    let answer = Answer {
        status: error.status(),
        content_type: Some(b"text/plain; charset=utf-8"),
        fields: b"",
        payload: Payload::Whole(error.token().as_bytes()),
        close: true,
    };
    let context = Context {
        version: Version::Http11,
        head_only: false,
        connection: Connection::Close,
    };
    encode(out, &answer, context, date);
}

/// Renders `name: value` with its line end, or says why it cannot be sent. The value is sent as
/// Latin-1.
pub fn push_field(out: &mut Vec<u8>, name: &str, value: &str) -> Result<(), FieldError> {
    if !is_token_slice(name.as_bytes()) {
        return Err(FieldError::Name(name.to_owned()));
    }
    let begin = out.len();
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for character in value.chars() {
        match u8::try_from(character) {
            Ok(byte) if is_value(byte) => out.push(byte),
            _ => {
                out.truncate(begin);
                return Err(FieldError::Value(value.to_owned()));
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends the status line and Content-Length; says whether a body follows the head. Here and
/// below, each line leaves its end to what comes next, which has it in one piece with its name.
#[inline]
fn push_start(out: &mut Vec<u8>, status: u16, context: Context, body_bytes: usize) -> bool {
    if status == 200 {
        out.extend_from_slice(match context.version {
            Version::Http11 => b"HTTP/1.1 200 OK\r\nContent-Length: ",
            Version::Http10 => b"HTTP/1.0 200 OK\r\nContent-Length: ",
        });
        push_number(out, body_bytes as u64);
        return !context.head_only;
    }
    push_rare_start(out, status, context, body_bytes)
}

#[cold]
fn push_rare_start(out: &mut Vec<u8>, status: u16, context: Context, body_bytes: usize) -> bool {
    push_status_line(out, status, context.version);
    if has_body(status) {
        // RFC 9110 15.3.6: 205 says that there is nothing, and must say so.
        push_length(out, if status == 205 { 0 } else { body_bytes as u64 });
    }
    // RFC 9110 8.6: no Content-Length with 1xx and 204. With 304 it would have to be that of a 200.
    sends_body(status, context)
}

fn push_status_line(out: &mut Vec<u8>, status: u16, version: Version) {
    debug_assert!(
        (100..600).contains(&status),
        "a status code has three digits"
    );
    out.extend_from_slice(match version {
        Version::Http11 => b"HTTP/1.1 ",
        Version::Http10 => b"HTTP/1.0 ",
    });
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
}

/// Appends every line behind Content-Length, and the empty one.
#[inline(always)]
fn push_fields(out: &mut Vec<u8>, answer: &Answer<'_>, connection: Connection, date: &DateLine) {
    match connection {
        _ if answer.close => out.extend_from_slice(b"\r\nConnection: close"),
        Connection::Omitted => {}
        Connection::Close => out.extend_from_slice(b"\r\nConnection: close"),
        Connection::KeepAlive => out.extend_from_slice(b"\r\nConnection: keep-alive"),
    }
    if let Some(content_type) = answer.content_type {
        out.extend_from_slice(b"\r\nContent-Type: ");
        out.extend_from_slice(content_type);
    }
    debug_assert!(
        answer.fields.is_empty() || answer.fields.ends_with(b"\r\n"),
        "field lines have line ends"
    );
    if let Some(fields) = answer.fields.strip_suffix(b"\r\n") {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(fields);
    }
    date.push_end(out);
}

fn push_length(out: &mut Vec<u8>, bytes: u64) {
    out.extend_from_slice(b"\r\nContent-Length: ");
    push_number(out, bytes);
}

#[inline]
fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "header name is not a token: {name:?}"),
            Self::Value(value) => {
                write!(
                    f,
                    "header value holds a control or non-Latin-1 character: {value:?}"
                )
            }
        }
    }
}

impl std::error::Error for FieldError {}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Context = Context {
        version: Version::Http11,
        head_only: false,
        connection: Connection::Omitted,
    };

    fn answer(status: u16, body: &[u8]) -> Answer<'_> {
        Answer {
            status,
            content_type: None,
            fields: b"",
            payload: Payload::Whole(body),
            close: false,
        }
    }

    fn text(answer: &Answer<'_>, context: Context) -> String {
        let mut out = Vec::new();
        encode(&mut out, answer, context, &DateLine::omitted());
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn writes_the_lines_in_japrontos_order() {
        let mut out = Vec::new();
        let answer = Answer {
            content_type: Some(b"text/plain; charset=utf-8"),
            fields: b"X-A: 1\r\nSet-Cookie: a=b\r\n",
            ..answer(200, b"Hello world!")
        };
        let context = Context {
            connection: Connection::Close,
            ..ASKED
        };

        encode(&mut out, &answer, context, &DateLine::new());

        let expected = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\
            Content-Type: text/plain; charset=utf-8\r\nX-A: 1\r\nSet-Cookie: a=b\r\n\
            Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nHello world!";
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
    }

    #[test]
    fn says_close_when_the_answer_ends_the_connection() {
        let closing = Answer {
            close: true,
            ..answer(200, b"")
        };

        assert!(text(&closing, ASKED).contains("\r\nConnection: close\r\n"));
    }

    #[test]
    fn repeats_the_version_of_the_request() {
        let context = Context {
            version: Version::Http10,
            connection: Connection::KeepAlive,
            ..ASKED
        };

        assert_eq!(
            text(&answer(404, b""), context),
            "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn answers_head_with_the_length_but_without_the_body() {
        let context = Context {
            head_only: true,
            ..ASKED
        };

        let expected = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(text(&answer(200, b"hello"), context), expected);
        assert!(text(&answer(404, b"hello"), context).ends_with("Content-Length: 5\r\n\r\n"));
    }

    #[test]
    fn leaves_out_length_and_body_where_none_may_be() {
        for status in [100, 101, 103, 204, 304] {
            let text = text(&answer(status, b"body"), ASKED);

            assert!(
                !text.contains("Content-Length") && text.ends_with("\r\n\r\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn says_that_a_reset_content_is_empty() {
        let expected = "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(text(&answer(205, b"body"), ASKED), expected);
    }

    #[test]
    fn a_streamed_answer_says_how_its_body_ends() {
        let old = Context {
            version: Version::Http10,
            connection: Connection::KeepAlive,
            ..ASKED
        };
        let head = Context {
            head_only: true,
            ..ASKED
        };
        let cases = [
            (200, None, ASKED, "Transfer-Encoding: chunked\r\n"),
            (200, Some(3), ASKED, "Content-Length: 3\r\n"),
            (200, Some(3), head, "Content-Length: 3\r\n"),
            (200, None, head, ""),
            (204, Some(3), ASKED, ""),
            (205, None, ASKED, "Content-Length: 0\r\n"),
            (304, Some(3), ASKED, ""),
            (200, None, old, "Connection: close\r\n"),
            (
                200,
                Some(3),
                old,
                "Content-Length: 3\r\nConnection: keep-alive\r\n",
            ),
        ];
        for (status, length, context, lines) in cases {
            let streamed = Answer {
                payload: Payload::Stream { length },
                ..answer(status, b"")
            };

            let text = text(&streamed, context);

            let (_, fields) = text.split_once("\r\n").expect("a status line");
            assert_eq!(fields, format!("{lines}\r\n"), "{status} {length:?}");
        }
    }

    #[test]
    fn encodes_every_status_from_100_to_599() {
        for status in 100..600 {
            let line = format!("HTTP/1.1 {status} {}\r\n", reason(status));

            assert!(text(&answer(status, b""), ASKED).starts_with(&line));
        }
    }

    #[test]
    fn refuses_fields_that_could_forge_a_line() {
        let mut out = b"kept".to_vec();
        for name in ["", "a b", "a:", "a\r\n", "\u{e9}", "a\0"] {
            let refused = push_field(&mut out, name, "v");
            assert_eq!(refused, Err(FieldError::Name(name.to_owned())));
        }
        for value in [
            "a\r\nb", "a\nb", "a\rb", "a\0", "\u{7f}", "\u{1b}", "\u{100}", "\u{20ac}",
        ] {
            let refused = push_field(&mut out, "a", value);
            assert_eq!(refused, Err(FieldError::Value(value.to_owned())));
        }
        assert_eq!(out, b"kept");
    }

    #[test]
    fn sends_values_as_latin_1() {
        let mut out = Vec::new();

        push_field(&mut out, "X-Name", "caf\u{e9}\tx").expect("a valid field");

        assert_eq!(out, b"X-Name: caf\xe9\tx\r\n");
    }

    #[test]
    fn names_the_refused_value() {
        assert!(
            FieldError::Value("a\nb".to_owned())
                .to_string()
                .contains("a\\nb")
        );
    }

    #[test]
    fn answers_a_mistake_with_its_token_and_closes() {
        let mut out = Vec::new();

        refusal(&mut out, ProtocolError::HostMissing, &DateLine::omitted());

        let expected = "HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\nConnection: close\r\n\
            Content-Type: text/plain; charset=utf-8\r\n\r\ninvalid_headers";
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
    }
}
