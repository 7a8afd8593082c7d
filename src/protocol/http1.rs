//! One connection's place in HTTP/1.x: what its next bytes will be taken for.
//!
//! Owns that place and the order of steps. Refuses to hold bytes or heads: the caller shows the
//! input, and lends a head to be filled, so ten thousand idle connections cost ten thousand times a
//! few words.
//!
//! ```text
//!  +----------------------------------- End --------------------------------+
//!  v                                                                        |
//!  Ready --(head)-+-> Bodiless ---------------------------------------------+--(close)--> Paused
//!   \     ^       +-> Sized  --> Fixed   --(all bytes)----------------------+
//!    Head-+       +-> Chunks --> Chunked --(last chunk, trailers)-----------+
//!   (a part of it)
//!  any state --(a mistake)--> Refused, for good
//! ```

use std::ops::Range;

use super::body::{Chunks, Decoded};
use super::close::CloseReason;
use super::error::ProtocolError;
use super::framing::Framing;
use super::head::{Attempt, RequestHead};
use super::limits::{BLANK_LINES_MAX, Limits, RequestLimits};
use super::scan::{Bounds, Scan};

/// A state machine for the bytes of one connection.
#[derive(Debug)]
pub struct Http1 {
    limits: RequestLimits,
    state: State,
    /// The limit for the body of the current request only.
    body_bytes_max: u64,
    /// Why nothing is read behind the current request, if so.
    close: Option<CloseReason>,
    blank_lines: u8,
}

/// What the input led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing can be said before more bytes arrive. The unused ones are to be shown again, first.
    NeedMore,
    /// The lent head describes a new request; its bytes are the last `head.bytes` of the used ones.
    Head,
    /// These bytes of the input belong to the decoded body. Never empty.
    Body(Range<usize>),
    /// The request is complete.
    End,
    /// The connection ends with the request before. Input is not looked at.
    Paused,
    /// The peer made a mistake. Said again for as long as it is asked.
    Refused(ProtocolError),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// At the first byte of a head, or of the empty lines before one.
    Ready,
    /// Within a head, of which so much was read.
    Head(Scan),
    /// The head was handed out, and it is all there is.
    Bodiless,
    /// The head was handed out, nothing of the body was looked at.
    Sized(u64),
    /// The same, with chunks to come.
    Chunks,
    /// Within a body, of which so much is left.
    Fixed {
        left: u64,
    },
    Chunked(Chunks),
    /// Behind a request that ended the connection.
    Paused,
    Refused(ProtocolError),
}

impl Http1 {
    /// At the first byte of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limits = RequestLimits::from(&limits);
        Self {
            limits,
            state: State::Ready,
            body_bytes_max: limits.body_bytes_max,
            close: None,
            blank_lines: 0,
        }
    }

    /// Takes one step; the next call shows the bytes behind the used ones, whose number it returns.
    ///
    /// An incomplete head is not used up: it is shown again with more bytes behind it. `head` is
    /// written when the step is `Head` and means nothing after `NeedMore` or `Refused`; nothing is
    /// read from it later, but for `advance_behind`.
    #[inline]
    pub fn advance(&mut self, head: &mut RequestHead, input: &[u8]) -> (usize, Step) {
        self.advance_behind(&[], head, input)
    }

    /// The same, but quicker where fields repeat: `before` ends with the head that this connection
    /// sent last and that `head` still describes, or is empty.
    #[inline]
    pub fn advance_behind(
        &mut self,
        before: &[u8],
        head: &mut RequestHead,
        input: &[u8],
    ) -> (usize, Step) {
        match self.state {
            State::Ready => self.read_head(before, head, input),
            State::Head(scan) => self.scan_head(scan, head, input, 0),
            State::Bodiless => self.end(0),
            State::Sized(bytes) if bytes > self.body_bytes_max => {
                self.refuse(ProtocolError::BodyTooLarge)
            }
            State::Sized(bytes) => self.read_fixed(bytes, input),
            State::Chunks => self.read_chunked(Chunks::new(self.body_bytes_max), input),
            State::Fixed { left } => self.read_fixed(left, input),
            State::Chunked(chunks) => self.read_chunked(chunks, input),
            State::Paused => (0, Step::Paused),
            State::Refused(error) => (0, Step::Refused(error)),
        }
    }

    /// Takes the step behind the head of a request that has no body, and says whether it did: the
    /// short way for most requests.
    #[inline]
    pub fn end_bodiless(&mut self) -> bool {
        let ends = matches!(self.state, State::Bodiless);
        if ends {
            self.end(0);
        }
        ends
    }

    /// Whether no byte of a request was taken up: an unfinished head still lies with the caller.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Ready | State::Head(_))
    }

    /// The peer sends nothing more, and the caller holds so many unused bytes. Says what was cut
    /// short; says it once.
    pub fn end_of_input(&mut self, carried: usize) -> Option<ProtocolError> {
        let error = match self.state {
            State::Ready | State::Head(_) if carried > 0 => ProtocolError::IncompleteHead,
            State::Sized(1..) | State::Chunks | State::Fixed { .. } | State::Chunked(_) => {
                ProtocolError::IncompleteBody
            }
            State::Ready
            | State::Head(_)
            | State::Bodiless
            | State::Sized(0)
            | State::Paused
            | State::Refused(_) => return None,
        };
        self.state = State::Refused(error);
        Some(error)
    }

    /// Another limit for the body of the request whose head was just handed out. Forgotten with it.
    pub fn set_body_bytes_max(&mut self, body_bytes_max: u64) {
        self.body_bytes_max = body_bytes_max;
    }

    /// Whether the announced body is too large, so that asking the peer to send it makes no sense.
    #[must_use]
    pub fn refuses_body(&self) -> bool {
        matches!(self.state, State::Sized(bytes) if bytes > self.body_bytes_max)
    }

    /// How much of the current body was not handed out yet; `None` when that cannot be known.
    #[must_use]
    pub fn body_bytes_left(&self) -> Option<u64> {
        match self.state {
            State::Sized(left) | State::Fixed { left } => Some(left),
            State::Chunks | State::Chunked(_) => None,
            State::Ready | State::Head(_) | State::Bodiless | State::Paused | State::Refused(_) => {
                Some(0)
            }
        }
    }

    /// Reads on behind a request that ended the connection for this protocol.
    pub fn resume(&mut self) {
        if matches!(self.state, State::Paused) {
            self.state = State::Ready;
        }
    }

    #[inline]
    fn read_head(&mut self, before: &[u8], head: &mut RequestHead, input: &[u8]) -> (usize, Step) {
        let mut skipped = 0;
        if matches!(input.first(), None | Some(b'\r' | b'\n')) {
            match self.skip_blank_lines(input) {
                Ok(bytes) => skipped = bytes,
                Err(error) => return self.refuse(error),
            }
            if matches!(&input[skipped..], [] | [b'\r']) {
                return (skipped, Step::NeedMore);
            }
        }
        match head.read(before, &input[skipped..], &self.limits) {
            Attempt::Complete => self.begin(head, skipped),
            Attempt::Refused(error) => self.refuse(error),
            Attempt::Unclear => self.scan_head(Scan::head(), head, input, skipped),
        }
    }

    /// The slow way, for heads that are incomplete or malformed.
    #[cold]
    fn scan_head(
        &mut self,
        mut scan: Scan,
        head: &mut RequestHead,
        input: &[u8],
        skipped: usize,
    ) -> (usize, Step) {
        let unused = &input[skipped..];
        let unread = unused.get(scan.seen()..).unwrap_or_default();
        match scan.read(unread, Bounds::head(&self.limits)) {
            Err(error) => self.refuse(error),
            Ok(None) => {
                self.state = State::Head(scan);
                (skipped, Step::NeedMore)
            }
            Ok(Some(_)) => match head.read(&[], &unused[..scan.seen()], &self.limits) {
                Attempt::Complete => self.begin(head, skipped),
                Attempt::Refused(error) => self.refuse(error),
                Attempt::Unclear => {
                    // The two readers disagree, which a property test rules out. Whatever is in
                    // there, it is not worth a worker.
                    debug_assert!(false, "a head that scan accepts was not read");
                    self.refuse(ProtocolError::FieldValueInvalid)
                }
            },
        }
    }

    /// RFC 9112 2.2: empty lines before a request line are skipped.
    #[cold]
    fn skip_blank_lines(&mut self, input: &[u8]) -> Result<usize, ProtocolError> {
        let mut skipped = 0;
        loop {
            match input[skipped..] {
                [b'\r', b'\n', ..] if self.blank_lines == BLANK_LINES_MAX => {
                    return Err(ProtocolError::TooManyBlankLines);
                }
                [b'\r', b'\n', ..] => {
                    self.blank_lines += 1;
                    skipped += 2;
                }
                [b'\r', _, ..] => return Err(ProtocolError::BareCarriageReturn),
                [b'\n', ..] => return Err(ProtocolError::BareLineFeed),
                _ => return Ok(skipped),
            }
        }
    }

    #[inline]
    fn begin(&mut self, head: &RequestHead, skipped: usize) -> (usize, Step) {
        self.state = match head.framing {
            Framing::None => State::Bodiless,
            Framing::Length(bytes) => State::Sized(bytes),
            Framing::Chunked => State::Chunks,
        };
        self.close = head.close;
        self.body_bytes_max = self.limits.body_bytes_max;
        self.blank_lines = 0;
        (skipped + head.bytes as usize, Step::Head)
    }

    fn read_fixed(&mut self, left: u64, input: &[u8]) -> (usize, Step) {
        if left == 0 {
            return self.end(0);
        }
        let taken = left.min(input.len() as u64);
        self.state = State::Fixed { left: left - taken };
        // Not more than the input, so it fits.
        let taken = taken as usize;
        match taken {
            0 => (0, Step::NeedMore),
            _ => (taken, Step::Body(0..taken)),
        }
    }

    fn read_chunked(&mut self, mut chunks: Chunks, input: &[u8]) -> (usize, Step) {
        let decoded = chunks.read(input, &self.limits);
        self.state = State::Chunked(chunks);
        match decoded {
            Err(error) => self.refuse(error),
            Ok(Decoded::NeedMore) => (input.len(), Step::NeedMore),
            Ok(Decoded::Body(from, to)) => (to, Step::Body(from..to)),
            Ok(Decoded::End(used)) => self.end(used),
        }
    }

    #[inline]
    fn end(&mut self, used: usize) -> (usize, Step) {
        self.state = match self.close {
            None => State::Ready,
            Some(_) => State::Paused,
        };
        (used, Step::End)
    }

    #[cold]
    fn refuse(&mut self, error: ProtocolError) -> (usize, Step) {
        self.state = State::Refused(error);
        (0, Step::Refused(error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::counted;
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn start() -> (Http1, RequestHead) {
        (Http1::new(Limits::default()), RequestHead::default())
    }

    #[test]
    fn costs_few_words_per_connection() {
        assert!(size_of::<Http1>() <= 96, "{}", size_of::<Http1>());
    }

    #[test]
    fn searches_a_head_that_trickles_in_only_twice() {
        let (mut http1, mut head) = start();
        // Miri would look at each of 20,000 for a minute.
        let cookie = "c".repeat(if cfg!(miri) { 500 } else { 20_000 });
        let input = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
        counted::take();

        for shown in 1..input.len() {
            assert_eq!(
                http1.advance(&mut head, &input.as_bytes()[..shown]),
                (0, Step::NeedMore)
            );
        }
        let last = http1.advance(&mut head, input.as_bytes());

        assert_eq!(last, (input.len(), Step::Head));
        let searched = counted::take();
        assert!(
            searched <= 2 * input.len() + 2,
            "{searched} of {}",
            input.len()
        );
    }

    #[test]
    fn steps_through_a_request_without_a_body() {
        let (mut http1, mut head) = start();

        assert!(http1.is_between_requests());
        assert_eq!(http1.advance(&mut head, GET), (GET.len(), Step::Head));
        assert!(!http1.is_between_requests());
        assert_eq!(http1.advance(&mut head, GET), (0, Step::End));
        assert!(http1.is_between_requests());
    }

    #[test]
    fn ends_a_request_without_a_body_the_short_way_and_no_other() {
        let (mut http1, mut head) = start();
        assert!(!http1.end_bodiless());

        http1.advance(&mut head, GET);
        assert!(http1.end_bodiless());
        assert!(http1.is_between_requests());
        assert!(!http1.end_bodiless());

        http1.advance(&mut head, POST);
        assert!(!http1.end_bodiless());
        assert_eq!(http1.advance(&mut head, b"abc"), (3, Step::Body(0..3)));
    }

    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";

    #[test]
    fn refuses_a_body_beyond_the_limit_of_its_request() {
        let (mut http1, mut head) = start();

        http1.advance(&mut head, POST);
        assert!(!http1.refuses_body());
        http1.set_body_bytes_max(2);

        assert!(http1.refuses_body());
        let refused = Step::Refused(ProtocolError::BodyTooLarge);
        assert_eq!(http1.advance(&mut head, b"abc"), (0, refused));
    }

    #[test]
    fn forgets_the_body_limit_of_a_request_with_the_request() {
        let limits = Limits {
            body_bytes_max: 2,
            ..Limits::default()
        };
        let (mut http1, mut head) = (Http1::new(limits), RequestHead::default());

        http1.advance(&mut head, POST);
        http1.set_body_bytes_max(3);
        assert_eq!(http1.advance(&mut head, b"abc"), (3, Step::Body(0..3)));
        assert_eq!(http1.advance(&mut head, b""), (0, Step::End));
        http1.advance(&mut head, POST);

        assert!(http1.refuses_body());
        let refused = Step::Refused(ProtocolError::BodyTooLarge);
        assert_eq!(http1.advance(&mut head, b"abc"), (0, refused));
    }

    #[test]
    fn applies_the_body_limit_of_one_request_to_its_chunks() {
        let (mut http1, mut head) = start();
        let post = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        http1.advance(&mut head, post);
        http1.set_body_bytes_max(2);

        assert_eq!(
            http1.advance(&mut head, b"2\r\nab\r\n"),
            (5, Step::Body(3..5))
        );

        let refused = Step::Refused(ProtocolError::BodyTooLarge);
        assert_eq!(http1.advance(&mut head, b"\r\n1\r\n"), (0, refused));
    }

    #[test]
    fn knows_how_much_of_a_body_is_left_where_its_length_is_known() {
        let (mut http1, mut head) = start();
        assert_eq!(http1.body_bytes_left(), Some(0));

        http1.advance(&mut head, POST);
        assert_eq!(http1.body_bytes_left(), Some(3));
        http1.advance(&mut head, b"a");
        assert_eq!(http1.body_bytes_left(), Some(2));
        http1.advance(&mut head, b"bc");
        http1.advance(&mut head, b"");
        http1.advance(
            &mut head,
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        );

        assert_eq!(http1.body_bytes_left(), None);
    }

    #[test]
    fn pauses_behind_a_close_until_it_is_resumed() {
        let (mut http1, mut head) = start();
        let close = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        http1.advance(&mut head, close);
        http1.advance(&mut head, b"");

        assert_eq!(http1.advance(&mut head, GET), (0, Step::Paused));
        assert!(!http1.is_between_requests());
        http1.resume();
        assert_eq!(http1.advance(&mut head, GET), (GET.len(), Step::Head));
        assert_eq!(http1.advance(&mut head, b""), (0, Step::End));
        assert_eq!(http1.advance(&mut head, b""), (0, Step::NeedMore));
    }

    #[test]
    fn resuming_forgives_no_mistake() {
        let (mut http1, mut head) = start();
        http1.advance(&mut head, b"\0");

        http1.resume();

        let refused = Step::Refused(ProtocolError::MethodInvalid);
        assert_eq!(http1.advance(&mut head, GET), (0, refused));
    }

    #[test]
    fn tells_once_what_the_end_of_input_cut_short() {
        let (mut http1, _) = start();
        assert_eq!(http1.end_of_input(0), None);

        assert_eq!(http1.end_of_input(1), Some(ProtocolError::IncompleteHead));
        assert_eq!(http1.end_of_input(1), None);
    }

    #[test]
    fn misses_nothing_when_the_input_ends_behind_a_head_that_is_all() {
        for head_bytes in [
            GET,
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        ] {
            let (mut http1, mut head) = start();

            http1.advance(&mut head, head_bytes);

            assert_eq!(http1.end_of_input(0), None);
        }
    }
}
