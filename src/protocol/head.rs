//! A request head: where its parts are, and what its fields say about connection and body.
//!
//! Owns `RequestHead` and the fast way to fill one: httparse, which only this file names, and
//! behind it the checks that httparse leaves to us (bare line feeds, targets outside ASCII, what
//! fields mean). Refuses to say why a head is malformed, and to go on where it stopped: that is
//! `scan`. Holds no bytes, only places.

use std::mem::MaybeUninit;

use httparse::{Header, Request, Status};
use smallvec::SmallVec;

use super::close::CloseReason;
use super::error::ProtocolError;
use super::framing::{self, Framing, Length};
use super::host::{Port, is_authority};
use super::limits::{METHOD_BYTES_MAX, RequestLimits};
use super::octets::{find, list};
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
    pub fields: SmallVec<[Field; 16]>,
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
type KnownHost = SmallVec<[u8; 48]>;

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

/// Slots for fields on the stack, without being cleared. The default limit.
const STACK_FIELDS: usize = 100;

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

    /// The place of `part`, a slice of `head`.
    #[inline]
    fn locate(head: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr() as usize - head.as_ptr() as usize;
        Self::new(start, start + part.len())
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

    /// Fills itself from the head at the start of `input`.
    #[inline]
    pub(super) fn read(&mut self, input: &[u8], limits: &RequestLimits) -> Attempt {
        let input = &input[..input.len().min(limits.head_bytes_max as usize)];
        #[cfg(test)]
        super::scan::counted::add(input.len());
        let fields_max = limits.fields_max as usize;
        let mut slots = [const { MaybeUninit::uninit() }; STACK_FIELDS];
        let mut request = Request::new(&mut []);
        let slots_max = fields_max.min(STACK_FIELDS);
        match request.parse_with_uninit_headers(input, &mut slots[..slots_max]) {
            Ok(Status::Complete(bytes)) => self.take(&request, &input[..bytes], limits),
            Err(httparse::Error::TooManyHeaders) if fields_max > STACK_FIELDS => {
                self.read_many(input, limits)
            }
            Ok(Status::Partial) | Err(_) => Attempt::Unclear,
        }
    }

    #[cold]
    fn read_many(&mut self, input: &[u8], limits: &RequestLimits) -> Attempt {
        // A field needs four bytes at least, so memory stays in proportion to what was sent.
        let slots_max = (limits.fields_max as usize).min(input.len() / 4 + 1);
        let mut slots: Vec<MaybeUninit<Header<'_>>> = Vec::new();
        slots.resize_with(slots_max, MaybeUninit::uninit);
        let mut request = Request::new(&mut []);
        match request.parse_with_uninit_headers(input, &mut slots) {
            Ok(Status::Complete(bytes)) => self.take(&request, &input[..bytes], limits),
            Ok(Status::Partial) | Err(_) => Attempt::Unclear,
        }
    }

    /// Takes over what httparse found in `head`, unless it is something httparse should have
    /// refused.
    #[inline]
    fn take(&mut self, request: &Request<'_, '_>, head: &[u8], limits: &RequestLimits) -> Attempt {
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Attempt::Unclear;
        };
        let method_is_long = method.len() > METHOD_BYTES_MAX as usize;
        let target_is_long = target.len() > limits.target_bytes_max as usize;
        let target_is_odd = !target.is_ascii() || find(b'#', target.as_bytes()).is_some();
        if method_is_long || target_is_long || target_is_odd || !head.ends_with(b"\r\n\r\n") {
            return Attempt::Unclear;
        }
        self.bytes = head.len() as u32;
        self.method = Span::locate(head, method.as_bytes());
        self.target = Span::locate(head, target.as_bytes());
        self.version = match request.version {
            Some(0) => Version::Http10,
            _ => Version::Http11,
        };
        let Some(notes) = self.take_fields(request.headers, head) else {
            return Attempt::Unclear;
        };
        match self.conclude(&notes, head) {
            Ok(()) => Attempt::Complete,
            Err(error) => Attempt::Refused(error),
        }
    }

    /// Takes the fields; `None` when a line ends in a bare line feed.
    #[inline]
    fn take_fields<'a>(&mut self, headers: &[Header<'a>], head: &[u8]) -> Option<Notes<'a>> {
        let mut notes = Notes::default();
        self.fields.clear();
        for header in headers {
            let name = Span::locate(head, header.name.as_bytes());
            let value = Span::locate(head, header.value);
            // httparse takes a lone line feed for a line end. A field name follows a line end, and
            // no carriage return can stand within a line, so this byte is the whole check.
            if head[usize::from(name.start) - 2] != b'\r' {
                return None;
            }
            self.fields.push(Field { name, value });
            notes.take(header.name.as_bytes(), value, header.value);
        }
        Some(notes)
    }

    /// Decides everything the fields have a say in.
    #[inline]
    fn conclude(&mut self, notes: &Notes<'_>, head: &[u8]) -> Result<(), ProtocolError> {
        let parts = target::parts(self.method.of(head), self.target.of(head))?;
        self.path = self.target.within(parts.path);
        self.query = parts.query.map(|query| self.target.within(query));
        self.host = notes.host(self.version, head, &mut self.known_host)?;
        if let Some(authority) = parts.authority {
            // RFC 9112 3.2.2: the target wins, and Host is ignored, though it must be there and be
            // valid.
            self.host = Some(self.target.within(authority));
        }
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
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.host = Some(place);
                self.hosts += 1;
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                for member in list(value) {
                    let expected = member.eq_ignore_ascii_case(b"100-continue");
                    self.expects_continue |= expected;
                    self.expects_other |= !expected && !member.is_empty();
                }
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in list(value) {
                    self.asks_close |= option.eq_ignore_ascii_case(b"close");
                    self.asks_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.length = self.length.and(value);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.has_codings = true,
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
        if !value.is_empty() && value != known.as_slice() {
            if !is_authority(value, Port::Optional) {
                return Err(ProtocolError::HostInvalid);
            }
            known.clear();
            if value.len() <= known.inline_size() {
                known.extend_from_slice(value);
            }
        }
        Ok(Some(host))
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::*;

    const HEAD: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\n\r\n";

    fn read(head: &mut RequestHead, input: &[u8]) -> Attempt {
        head.read(input, &RequestLimits::from(&Limits::default()))
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
    fn does_not_allocate_for_a_head_of_sixteen_fields() {
        let mut head = RequestHead::default();
        let input = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(15));

        assert_eq!(read(&mut head, input.as_bytes()), Attempt::Complete);

        assert!(head.fields.len() == 16 && !head.fields.spilled());
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
        assert_eq!(head.known_host.as_slice(), b"h");
        head.known_host.clear();
        assert_eq!(format!("{head:?}"), format!("{fresh:?}"));
    }

    #[test]
    fn clear_forgets_everything() {
        let mut head = RequestHead::default();
        read(&mut head, HEAD);

        head.clear();

        assert_eq!(format!("{head:?}"), format!("{:?}", RequestHead::default()));
    }
}
