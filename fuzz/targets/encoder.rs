//! Any answer that an application may give, well meant or not.
//!
//! Owns the making of an answer from bytes, and the proof that what is written reads back as
//! exactly that one answer: no line more than was given, and not a byte behind it. Names and
//! values come in through `push_field`, as they do everywhere; fields that the encoder writes by
//! itself never reach it (`python/headers.rs` takes them for what they mean).

use anel::protocol::date::DateLine;
use anel::protocol::encode::{Context, encode, push_field};
use anel::protocol::{Answer, ConnectionField, Payload, StreamFraming, Version};

use super::response::{Response, read};

/// Runs one input.
///
/// # Panics
/// When something does not hold.
pub fn run(input: &[u8]) {
    let Some(given) = Given::from(input) else {
        return;
    };
    let mut fields = Vec::new();
    let mut accepted = Vec::new();
    let is_own = |name: &str| OWN.iter().any(|own| own.eq_ignore_ascii_case(name));
    for (name, value) in given.fields.iter().filter(|(name, _)| !is_own(name)) {
        let before = fields.len();
        match push_field(&mut fields, name, value) {
            Ok(()) => accepted.push((name.clone().into_bytes(), latin_1(value))),
            Err(_) => assert_eq!(fields.len(), before, "a refused field leaves nothing"),
        }
    }
    let content_type = given.content_type.as_deref().and_then(checked);
    let answer = Answer {
        status: given.status,
        content_type: content_type.as_deref(),
        fields: &fields,
        payload: given.payload(),
        close: given.close,
    };
    let mut out = Vec::new();
    encode(&mut out, &answer, given.context, &DateLine::new());
    let framing = StreamFraming::of(&answer, given.context);
    let body = given.push_body(framing, &mut out);

    let (response, used) = read(&out, given.context.head_only).expect("a head");
    assert_eq!(used, out.len(), "bytes follow: {}", out.escape_ascii());
    given.check(&response, &accepted, content_type, framing);
    match body {
        Some(body) => assert_eq!(response.body, body),
        None => assert!(!response.is_complete, "nobody can see that it broke off"),
    }
}

/// The fields that the encoder writes by itself.
const OWN: [&str; 5] = [
    "Connection",
    "Content-Length",
    "Content-Type",
    "Date",
    "Transfer-Encoding",
];

/// What the application wants to say.
struct Given {
    status: u16,
    content_type: Option<String>,
    fields: Vec<(String, String)>,
    pieces: Vec<Vec<u8>>,
    /// The announced length of a body in pieces; `None` stands for a body that is whole.
    announced: Option<Option<u64>>,
    close: bool,
    context: Context,
}

impl Given {
    /// Seven bytes of choices; then parts, which end with a byte that is in no encoding of text.
    fn from(input: &[u8]) -> Option<Self> {
        let (&[high, low, choices, length, fields, shape, _], parts) =
            input.split_first_chunk::<7>()?;
        let mut parts = parts.split(|byte| *byte == 0xff);
        let mut text = || Some(String::from_utf8_lossy(parts.next()?).into_owned());
        let content_type = text().filter(|_| choices & 1 != 0);
        let pair = |_| Some((text()?, text()?));
        let fields = (0..fields % 8).map_while(pair).collect();
        let pieces: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
        let exact: usize = pieces.iter().map(Vec::len).sum();
        let announced = match shape % 4 {
            0 => None,
            1 => Some(None),
            2 => Some(Some(exact as u64)),
            _ => Some(Some(u64::from(length))),
        };
        let connection = match choices >> 1 & 3 {
            0 | 3 => ConnectionField::Omitted,
            1 => ConnectionField::Close,
            _ => ConnectionField::KeepAlive,
        };
        let is_old = choices & 8 != 0;
        Some(Self {
            // 1xx is not an answer.
            status: 200 + u16::from_be_bytes([high, low]) % 400,
            content_type,
            fields,
            pieces,
            announced,
            close: choices & 16 != 0,
            context: Context {
                version: if is_old {
                    Version::Http10
                } else {
                    Version::Http11
                },
                head_only: choices & 32 != 0,
                connection,
            },
        })
    }

    fn payload(&self) -> Payload<'_> {
        match self.announced {
            None => Payload::Whole(self.pieces.first().map_or(&[], |piece| &piece[..])),
            Some(length) => Payload::Stream { length },
        }
    }

    /// Writes what follows the head; the body that is to be read, unless it breaks off.
    fn push_body(&self, framing: Option<StreamFraming>, out: &mut Vec<u8>) -> Option<Vec<u8>> {
        let Some(mut framing) = framing else {
            let is_sent = !self.context.head_only && !matches!(self.status, 204 | 205 | 304);
            return Some(match self.payload() {
                Payload::Whole(body) if is_sent => body.to_vec(),
                _ => Vec::new(),
            });
        };
        let mut body = self.pieces.concat();
        let mut beyond = 0;
        for piece in &self.pieces {
            beyond += framing.push(out, piece);
        }
        body.truncate(body.len() - beyond);
        framing.finish(out).then_some(body)
    }

    fn check(
        &self,
        response: &Response,
        accepted: &[(Vec<u8>, Vec<u8>)],
        content_type: Option<Vec<u8>>,
        framing: Option<StreamFraming>,
    ) {
        let is_old = self.context.version == Version::Http10;
        assert_eq!((response.status, response.is_http10), (self.status, is_old));
        let closes = self.close
            || self.context.connection == ConnectionField::Close
            || framing == Some(StreamFraming::UntilClose);
        let connection = match self.context.connection {
            _ if closes => Some(&b"close"[..]),
            ConnectionField::KeepAlive => Some(&b"keep-alive"[..]),
            _ => None,
        };
        // What the application gave stands between the lines that every answer has.
        let mut lines = response.fields.iter();
        let mut next = |name: &str| {
            let mut ahead = lines.clone();
            let (found, value) = ahead.next()?;
            let fits = found == name.as_bytes();
            if fits {
                lines = ahead;
            }
            fits.then(|| value.clone())
        };
        let framed = [next("Content-Length"), next("Transfer-Encoding")];
        let is_bodiless = matches!(self.status, 204 | 304);
        assert!(!is_bodiless || framed == [None, None], "RFC 9110 8.6");
        assert_eq!(next("Connection").as_deref(), connection);
        if let Some(content_type) = content_type {
            assert_eq!(next("Content-Type"), Some(content_type));
        }
        for (name, value) in accepted {
            let name = std::str::from_utf8(name).expect("a token");
            let value = value.trim_ascii();
            let found = next(name).expect("an accepted field is sent");
            assert_eq!(found.trim_ascii(), value);
        }
        assert!(next("Date").is_some());
        assert_eq!(lines.next(), None, "a line that nobody gave");
    }
}

/// A Content-Type goes the way of every value.
fn checked(value: &str) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    push_field(&mut line, "X", value).ok()?;
    let value = line.strip_prefix(b"X: ")?.strip_suffix(b"\r\n")?;
    Some(value.trim_ascii().to_vec())
}

fn latin_1(text: &str) -> Vec<u8> {
    let bytes = text.chars().map(u8::try_from);
    bytes.map(|byte| byte.expect("it was accepted")).collect()
}
