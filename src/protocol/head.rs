//! A request head: where its parts are, and what its fields say about connection and body.
//!
//! Owns `RequestHead` and the fast way to fill one: a pass over whole lines, and behind it what the
//! fields mean. Refuses to say why a head is malformed, and to go on where it stopped: that is
//! `scan`. Holds no bytes, only places.

use super::close::CloseReason;
use super::error::ProtocolError;
use super::framing::{self, Framing, Length};
use super::host::{Port, is_authority};
use super::limits::{METHOD_BYTES_MAX, RequestLimits};
use super::octets::list;
use super::runs;
use super::target;

/// A place within a head, relative to the head's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u16,
    /// One past the last byte.
    pub end: u16,
}

/// One field line. Its value has no white space around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The name as sent, in any case.
    pub name: Span,
    /// The value as sent.
    pub value: Span,
}

/// The two versions that are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// A parsed head. Reused from request to request: a typical one needs no allocation.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The method, a token in the case it was sent in.
    pub method: Span,
    /// The whole request target.
    pub target: Span,
    /// The path within the target, still percent-encoded; never empty. `*` stands here too.
    pub path: Span,
    /// What follows the first `?` of the target.
    pub query: Option<Span>,
    /// The version of the request.
    pub version: Version,
    /// All fields in the order they were sent.
    pub fields: Vec<Field>,
    /// How the end of the body is known.
    pub framing: Framing,
    /// Why the connection ends after this request, if it does.
    pub close: Option<CloseReason>,
    /// Whether the peer waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Host and port: of the target if it has one (RFC 9112 3.2.2), else of Host. May be empty.
    pub host: Option<Span>,
    /// Length of the head, with its empty line.
    pub bytes: u32,
    known_host: KnownHost,
}

/// The Host value that was found valid last. Requests in a row mostly name the same host, and
/// comparing is several times cheaper than looking at every byte's class. Longer values are looked
/// at every time.
#[derive(Clone, Copy, Debug)]
struct KnownHost {
    bytes: [u8; 47],
    length: u8,
}

/// The field lines of the head in front, with its empty line. Requests of one client are mostly
/// alike but for their targets, which RFC 7541 made a compression of; and comparing is several
/// times cheaper than reading.
struct KnownLines<'a> {
    bytes: &'a [u8],
    /// It has a say in what follows from them.
    version: Version,
    /// Where they were.
    at: usize,
}

/// What came of an attempt to read a head in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Complete,
    /// Incomplete or malformed; `scan` can tell.
    Unclear,
    /// Well formed, but it contradicts itself or asks for what is not done.
    Refused(ProtocolError),
}

/// What the fields that concern us said, while the rest is still unread.
#[derive(Debug, Default)]
struct Notes<'a> {
    host: Option<Span>,
    hosts: u32,
    length: Length<'a>,
    has_codings: bool,
    asks_close: bool,
    asks_keep_alive: bool,
    expects_continue: bool,
    expects_other: bool,
}

impl Span {
    /// The bytes at this place of `head`.
    #[inline]
    #[must_use]
    pub fn of<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[usize::from(self.start)..usize::from(self.end)]
    }

    /// Number of bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.end - self.start)
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Heads are at most 65,535 bytes long (`Http1::new` sees to that), so offsets fit.
    #[inline]
    fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u16,
            end: end as u16,
        }
    }

    #[inline]
    fn within(self, (start, end): (usize, usize)) -> Self {
        Self::new(
            usize::from(self.start) + start,
            usize::from(self.start) + end,
        )
    }
}

impl RequestHead {
    /// Forgets everything but the memory of the field list.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    /// The value of the first field with this name in any case.
    #[must_use]
    pub fn field<'a>(&self, head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        self.fields_named(head, name).next()
    }

    /// The values of all fields with this name in any case, in the order they were sent.
    pub fn fields_named<'a, 'b>(
        &'b self,
        head: &'a [u8],
        name: &'b [u8],
    ) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a, 'b> {
        self.fields
            .iter()
            .filter(move |field| field.name.of(head).eq_ignore_ascii_case(name))
            .map(move |field| field.value.of(head))
    }

    /// Fills itself from the head at the start of `input`. `before` ends with the head that is
    /// described so far, or is empty.
    #[inline]
    pub(super) fn read(&mut self, before: &[u8], input: &[u8], limits: &RequestLimits) -> Attempt {
        let input = &input[..input.len().min(limits.head_bytes_max as usize)];
        #[cfg(test)]
        super::scan::counted::add(input.len());
        let known = self.known_lines(before);
        let Some(at) = self.read_request_line(input, limits) else {
            return Attempt::Unclear;
        };
        let concluded = if let Some(known) = known
            && known.version == self.version
            && input[at..].starts_with(known.bytes)
        {
            self.move_lines(known.at, at);
            target::parts(self.method.of(input), self.target.of(input))
                .map(|parts| self.take_target(parts))
        } else {
            let Some(notes) = self.read_fields(input, at, limits) else {
                return Attempt::Unclear;
            };
            self.conclude(&notes, input)
        };
        match concluded {
            Ok(()) => Attempt::Complete,
            Err(error) => Attempt::Refused(error),
        }
    }

    /// The field lines of the head that `before` ends with.
    #[inline]
    fn known_lines<'a>(&self, before: &'a [u8]) -> Option<KnownLines<'a>> {
        if before.is_empty() {
            return None;
        }
        let at = usize::from(self.target.end) + VERSION_BYTES;
        // A host that the target named says nothing about the next target.
        let is_in_lines = self.host.is_none_or(|host| usize::from(host.start) >= at);
        let length = (self.bytes as usize).checked_sub(at)?;
        let bytes = &before[before.len().checked_sub(length)?..];
        is_in_lines.then_some(KnownLines {
            bytes,
            version: self.version,
            at,
        })
    }

    /// The field lines, and what was concluded from them, are the same as before. They were at
    /// `from`, and are at `to`.
    #[inline]
    fn move_lines(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        // It wraps around where the target is shorter than the one before.
        let by = (to as u16).wrapping_sub(from as u16);
        let move_span = |span: &mut Span| {
            span.start = span.start.wrapping_add(by);
            span.end = span.end.wrapping_add(by);
        };
        for field in &mut self.fields {
            move_span(&mut field.name);
            move_span(&mut field.value);
        }
        if let Some(host) = &mut self.host {
            move_span(host);
        }
        self.bytes = self.bytes + to as u32 - from as u32;
    }

    /// Finds the parts of all field lines from `at` on; `None` when the head is not complete, not
    /// valid or not within the limits.
    #[inline]
    fn read_fields<'a>(
        &mut self,
        input: &'a [u8],
        mut at: usize,
        limits: &RequestLimits,
    ) -> Option<Notes<'a>> {
        let mut notes = Notes::default();
        self.fields.clear();
        while !input[at..].starts_with(b"\r\n") {
            if self.fields.len() == limits.fields_max as usize {
                return None;
            }
            at = self.read_field(input, at, &mut notes)?;
        }
        self.bytes = at as u32 + 2;
        Some(notes)
    }

    /// Returns where the line behind it begins.
    #[inline]
    fn read_request_line(&mut self, input: &[u8], limits: &RequestLimits) -> Option<usize> {
        // What most requests begin with takes one comparison.
        let method = if input.starts_with(b"GET ") {
            3
        } else {
            runs::token(input)
        };
        if method == 0 || method > METHOD_BYTES_MAX as usize || input.get(method) != Some(&b' ') {
            return None;
        }
        let start = method + 1;
        let target = runs::target(&input[start..]);
        if target == 0 || target > limits.target_bytes_max as usize {
            return None;
        }
        let end = start + target;
        let rest: &[u8; VERSION_BYTES] = input[end..].first_chunk()?;
        // Compared as wholes: patterns would be compared byte by byte.
        self.version = if rest == b" HTTP/1.1\r\n" {
            Version::Http11
        } else if rest == b" HTTP/1.0\r\n" {
            Version::Http10
        } else {
            return None;
        };
        self.method = Span::new(0, method);
        self.target = Span::new(start, end);
        Some(end + rest.len())
    }

    /// Takes the field line at `at`; returns where the line behind it begins. There is no space in
    /// front of the colon, and no fold behind it (RFC 9112 5.1 and 5.2).
    #[inline]
    fn read_field<'a>(
        &mut self,
        input: &'a [u8],
        at: usize,
        notes: &mut Notes<'a>,
    ) -> Option<usize> {
        let colon = at + runs::token(&input[at..]);
        if colon == at || input.get(colon) != Some(&b':') {
            return None;
        }
        let mut start = colon + 1;
        let line_end = start + runs::value(&input[start..]);
        if !input[line_end..].starts_with(b"\r\n") {
            return None;
        }
        let mut end = line_end;
        while start < end && is_space(input[start]) {
            start += 1;
        }
        while start < end && is_space(input[end - 1]) {
            end -= 1;
        }
        let value = Span::new(start, end);
        self.fields.push(Field {
            name: Span::new(at, colon),
            value,
        });
        notes.take(&input[at..colon], value, &input[start..end]);
        Some(line_end + 2)
    }

    /// What the target says.
    #[inline]
    fn take_target(&mut self, parts: target::Parts) {
        self.path = self.target.within(parts.path);
        self.query = parts.query.map(|query| self.target.within(query));
        if let Some(authority) = parts.authority {
            // RFC 9112 3.2.2: the target wins, and Host is ignored, though it must be there and be
            // valid.
            self.host = Some(self.target.within(authority));
        }
    }

    /// Decides everything the fields have a say in.
    #[inline]
    fn conclude(&mut self, notes: &Notes<'_>, head: &[u8]) -> Result<(), ProtocolError> {
        let parts = target::parts(self.method.of(head), self.target.of(head))?;
        self.host = notes.host(self.version, head, &mut self.known_host)?;
        self.take_target(parts);
        self.framing = if notes.has_codings {
            let codings = self.fields_named(head, b"transfer-encoding");
            framing::decide(self.version, notes.length, codings)?
        } else {
            framing::decide(self.version, notes.length, std::iter::empty())?
        };
        self.close = match (self.version, notes.asks_close, notes.asks_keep_alive) {
            (_, true, _) => Some(CloseReason::ClientAsked),
            (Version::Http10, false, false) => Some(CloseReason::Http10),
            _ => None,
        };
        // RFC 9110 10.1.1: in 1.0 the field means nothing.
        let heeds_expect = self.version == Version::Http11;
        if heeds_expect && notes.expects_other {
            return Err(ProtocolError::ExpectationUnsupported);
        }
        self.expects_continue = heeds_expect && notes.expects_continue;
        Ok(())
    }
}

impl<'a> Notes<'a> {
    /// Takes note of a field if it concerns us. The length of the name rules most of them out.
    #[inline]
    fn take(&mut self, name: &[u8], place: Span, value: &'a [u8]) {
        match name.len() {
            4 if is_named(name, b"host") => {
                self.host = Some(place);
                self.hosts += 1;
            }
            6 if is_named(name, b"expect") => {
                for member in list(value) {
                    let expected = member.eq_ignore_ascii_case(b"100-continue");
                    self.expects_continue |= expected;
                    self.expects_other |= !expected && !member.is_empty();
                }
            }
            10 if is_named(name, b"connection") => {
                for option in list(value) {
                    self.asks_close |= option.eq_ignore_ascii_case(b"close");
                    self.asks_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is_named(name, b"content-length") => {
                self.length = self.length.and(value);
            }
            17 if is_named(name, b"transfer-encoding") => self.has_codings = true,
            _ => {}
        }
    }

    /// RFC 9112 3.2: exactly one in 1.1, at most one in 1.0, and valid. An empty one is: it says
    /// that the target has no authority.
    #[inline]
    fn host(
        &self,
        version: Version,
        head: &[u8],
        known: &mut KnownHost,
    ) -> Result<Option<Span>, ProtocolError> {
        let Some(host) = self.host else {
            return match version {
                Version::Http10 => Ok(None),
                Version::Http11 => Err(ProtocolError::HostMissing),
            };
        };
        if self.hosts > 1 {
            return Err(ProtocolError::HostRepeated);
        }
        let value = host.of(head);
        if !value.is_empty() && value != known.as_bytes() {
            if !is_authority(value, Port::Optional) {
                return Err(ProtocolError::HostInvalid);
            }
            known.note(value);
        }
        Ok(Some(host))
    }
}

impl KnownHost {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn note(&mut self, value: &[u8]) {
        if let Some(bytes) = self.bytes.get_mut(..value.len()) {
            bytes.copy_from_slice(value);
            self.length = value.len() as u8;
        }
    }
}

/// ` HTTP/1.1` and the end of the line.
const VERSION_BYTES: usize = 11;

impl Default for KnownHost {
    fn default() -> Self {
        Self {
            bytes: [0; 47],
            length: 0,
        }
    }
}

/// White space within a line (RFC 9110 5.6.3).
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether a name is this one of lower-case letters and hyphens, in any case. No other bytes of a
/// token are equal to them but for the bit of the case.
#[inline(always)]
fn is_named<const LENGTH: usize>(name: &[u8], lower: &[u8; LENGTH]) -> bool {
    let Ok(name) = <&[u8; LENGTH]>::try_from(name) else {
        return false;
    };
    let differences = name
        .iter()
        .zip(lower)
        .map(|(byte, wanted)| (byte | 0x20) ^ wanted);
    differences.fold(0, |all, one| all | one) == 0
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::*;

    const HEAD: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\n\r\n";

    fn read(head: &mut RequestHead, input: &[u8]) -> Attempt {
        head.read(b"", input, &RequestLimits::from(&Limits::default()))
    }

    #[test]
    fn finds_fields_by_name_in_any_case() {
        let mut head = RequestHead::default();

        assert_eq!(read(&mut head, HEAD), Attempt::Complete);

        assert_eq!(head.field(HEAD, b"X-a"), Some(&b"1"[..]));
        assert_eq!(
            head.fields_named(HEAD, b"x-A").collect::<Vec<_>>(),
            [b"1", b"2"]
        );
        assert_eq!(head.field(HEAD, b"x"), None);
    }

    #[test]
    fn uses_the_memory_of_its_fields_again() {
        let mut head = RequestHead::default();
        let input = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(15));
        assert_eq!(read(&mut head, input.as_bytes()), Attempt::Complete);
        let fields = head.fields.as_ptr();

        assert_eq!(read(&mut head, HEAD), Attempt::Complete);
        assert_eq!(read(&mut head, input.as_bytes()), Attempt::Complete);

        assert_eq!((head.fields.len(), head.fields.as_ptr()), (16, fields));
    }

    #[test]
    fn a_host_too_long_to_be_remembered_is_looked_at_every_time() {
        let mut head = RequestHead::default();
        let long = "h".repeat(48);
        for host in ["short", &long, "short", &long, "sho rt"] {
            let input = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");

            let expected = match host {
                "sho rt" => Attempt::Refused(ProtocolError::HostInvalid),
                _ => Attempt::Complete,
            };
            assert_eq!(read(&mut head, input.as_bytes()), expected);
            assert_eq!(head.known_host.as_bytes(), b"short");
        }
    }

    #[test]
    fn leaves_nothing_of_an_earlier_head_behind() {
        let mut head = RequestHead::default();
        let chunked = b"POST http://h/?q HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
            Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
        let plain = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        let mut fresh = RequestHead::default();

        read(&mut head, chunked);
        read(&mut head, plain);
        read(&mut fresh, plain);

        // The one thing that is meant to stay, and it says nothing about the request.
        assert_eq!(head.known_host.as_bytes(), b"h");
        head.known_host = KnownHost::default();
        assert_eq!(format!("{head:?}"), format!("{fresh:?}"));
    }

    /// Reads two heads that lie behind one another; the second is returned, as it is described
    /// behind the first, and as it is on its own.
    fn read_behind(first: &str, second: &str) -> [String; 2] {
        let bytes = [first, second].concat().into_bytes();
        let (before, input) = bytes.split_at(first.len());
        let limits = RequestLimits::from(&Limits::default());
        let (mut behind, mut alone) = (RequestHead::default(), RequestHead::default());
        assert_eq!(read(&mut behind, before), Attempt::Complete);

        let attempts = [
            behind.read(before, input, &limits),
            alone.read(b"", input, &limits),
        ];

        [(behind, attempts[0]), (alone, attempts[1])].map(|(mut head, attempt)| {
            head.known_host = KnownHost::default();
            match attempt {
                Attempt::Complete => format!("{head:?}"),
                _ => format!("{attempt:?}"),
            }
        })
    }

    #[test]
    fn a_head_behind_another_says_what_it_says_alone() {
        let fields = [
            "Host: h\r\n",
            "Host: h\r\nExpect: 100-continue\r\nX: y\r\n",
            "",
        ];
        let lines = [
            "GET / HTTP/1.1",
            "GET /longer?query HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "POST http://authority/p HTTP/1.1",
            "GET / HTTP/1.0",
            "GET nonsense HTTP/1.1",
        ];
        let heads = lines
            .iter()
            .flat_map(|line| fields.map(|fields| format!("{line}\r\n{fields}\r\n")));
        let heads: Vec<String> = heads.collect();
        let is_valid = |text: &&String| {
            read(&mut RequestHead::default(), text.as_bytes()) == Attempt::Complete
        };
        let first: Vec<&String> = heads.iter().filter(is_valid).collect();
        assert_eq!(first.len(), 11);

        for first in first {
            for second in &heads {
                let [behind, alone] = read_behind(first, second);

                assert_eq!(behind, alone, "{second:?} behind {first:?}");
            }
        }
    }

    #[test]
    fn field_lines_that_repeat_are_not_read_again() {
        let limits = RequestLimits::from(&Limits::default());
        let bytes = [
            HEAD,
            b"PUT /longer HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\n\r\n",
        ]
        .concat();
        let (before, input) = bytes.split_at(HEAD.len());
        let mut head = RequestHead::default();
        read(&mut head, before);
        // Would be found to be two.
        head.fields.truncate(1);

        assert_eq!(head.read(before, input, &limits), Attempt::Complete);

        let fields = head.fields.iter();
        let names: Vec<&[u8]> = fields.map(|field| field.name.of(input)).collect();
        assert_eq!(names, [b"Host"]);
        assert_eq!(head.bytes as usize, input.len());
    }

    #[test]
    fn a_longer_target_counts_though_the_fields_repeat() {
        let limits = RequestLimits {
            head_bytes_max: HEAD.len() as u32,
            ..RequestLimits::from(&Limits::default())
        };
        let longer = b"GET /ab?b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\n\r\n";
        let mut head = RequestHead::default();
        assert_eq!(head.read(b"", HEAD, &limits), Attempt::Complete);

        assert_eq!(head.read(HEAD, longer, &limits), Attempt::Unclear);
    }

    #[test]
    fn clear_forgets_everything() {
        let mut head = RequestHead::default();
        read(&mut head, HEAD);

        head.clear();

        assert_eq!(format!("{head:?}"), format!("{:?}", RequestHead::default()));
    }
}
