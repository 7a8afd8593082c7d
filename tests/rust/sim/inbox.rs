//! The client's side of answers: reads them strictly and holds them against what was asked.
//!
//! Owns the unread bytes, the list of expectations and the verdict on every answer. Refuses to know
//! when bytes arrive. A byte that should not be there is a panic.

use std::collections::VecDeque;

use crate::plan::{Intake, Mode, Plan};
use crate::socket::End;

/// What the client expects next.
#[derive(Clone, Debug)]
pub enum Expected {
    /// The answer to a request.
    Answer {
        plan: Plan,
        body: Option<Vec<u8>>,
        http10: bool,
        head_only: bool,
        ends: Ends,
        /// Whether the request's body breaks off or is wrong.
        fails: bool,
    },
    /// The answer to a mistake, behind which the connection ends.
    Refusal { status: u16, head_only: bool },
}

/// Whether an answer comes with the body that it describes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carries {
    Its,
    /// The method was HEAD.
    None,
    /// It was HEAD, if that much of the head had come.
    Maybe,
}

/// What an answer does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    Keeps,
    SaysClose,
    /// The connection ends behind it, without a word.
    Silently,
    /// The connection ends in its middle.
    Cut,
    /// It may say that it closes; whether or not, the connection may end behind it.
    Maybe,
}

/// A body as far as it is here.
enum Read {
    /// With the number of bytes read.
    Complete(Vec<u8>, usize),
    Partial(Vec<u8>),
}

#[derive(Debug)]
pub struct Inbox {
    pub client: usize,
    bytes: Vec<u8>,
    pub expected: VecDeque<Expected>,
    pub answers: usize,
    pub continues: usize,
    /// The requests that may be answered with a 100 first.
    pub continues_at: Vec<usize>,
    /// The server said that nothing follows.
    pub closed: bool,
    /// Whether the client may be told that it was too slow.
    pub may_time_out: bool,
    /// Whether any answer may end the connection, because the server drains.
    pub draining: bool,
    pub timeouts: usize,
    pub given_up: usize,
    pub chunked: usize,
    pub cut: usize,
    /// The connection may end here without a word.
    may_end: bool,
    /// The connection has ended.
    ended: bool,
    /// In a reset.
    reset: bool,
    /// By no fault of the worker.
    pub cut_by_force: bool,
}

struct Head<'a> {
    version: &'a str,
    status: u16,
    length: Option<usize>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    request: Option<&'a str>,
    seen_body: Option<&'a str>,
}

impl Inbox {
    pub fn new(client: usize) -> Self {
        Self {
            client,
            bytes: Vec::new(),
            expected: VecDeque::new(),
            answers: 0,
            continues: 0,
            continues_at: Vec::new(),
            closed: false,
            may_time_out: false,
            draining: false,
            timeouts: 0,
            given_up: 0,
            chunked: 0,
            cut: 0,
            may_end: false,
            ended: false,
            reset: false,
            cut_by_force: false,
        }
    }

    /// Whether the connection is at the end of an answer.
    pub fn is_between_answers(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether everything that can be expected has come.
    pub fn is_satisfied(&self) -> bool {
        self.bytes.is_empty() && (self.closed || self.expected.is_empty())
    }

    pub fn read(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while !self.bytes.is_empty() {
            assert!(
                !self.closed,
                "client {}: bytes follow a closing answer",
                self.client
            );
            let all = std::mem::take(&mut self.bytes);
            match self.take_answer(&all) {
                Some(used) => self.bytes = all[used..].to_vec(),
                None => {
                    self.bytes = all;
                    return;
                }
            }
        }
    }

    /// Takes one answer from the front; `None` when it is not complete.
    fn take_answer(&mut self, bytes: &[u8]) -> Option<usize> {
        let who = self.client;
        let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
        let text = std::str::from_utf8(&bytes[..end]).expect("an answer's head is ASCII");
        let head = Head::parse(text);
        if head.status == 100 {
            self.continues += 1;
            let in_turn = self.continues_at.contains(&self.answers);
            let each_once = self.continues <= self.continues_at.len();
            assert!(in_turn && each_once, "client {who}: a 100 out of turn");
            return Some(end);
        }
        if head.request.is_none() && head.status == 408 && self.may_time_out {
            let carries = match self.expected.front() {
                Some(Expected::Answer {
                    head_only: true, ..
                }) => Carries::Maybe,
                _ => Carries::Its,
            };
            let used = self.take_refusal(&head, end, bytes.len(), carries)?;
            self.timeouts += 1;
            return Some(used);
        }
        let expected = self.expected.front().cloned();
        let expected = expected.unwrap_or_else(|| panic!("client {who}: unasked answer {text:?}"));
        match expected {
            Expected::Answer {
                plan, head_only, ..
            } if plan.mode == Mode::Never => {
                assert_eq!(
                    (head.status, head.request),
                    (503, None),
                    "client {who}: {text:?}"
                );
                self.given_up += 1;
                let carries = if head_only {
                    Carries::None
                } else {
                    Carries::Its
                };
                self.take_refusal(&head, end, bytes.len(), carries)
            }
            Expected::Refusal { status, head_only } => {
                assert_eq!(
                    (head.status, head.request),
                    (status, None),
                    "client {who}: {text:?}"
                );
                let carries = if head_only {
                    Carries::None
                } else {
                    Carries::Its
                };
                self.take_refusal(&head, end, bytes.len(), carries)
            }
            Expected::Answer {
                plan,
                body,
                http10,
                head_only,
                ends,
                fails,
            } => {
                let id = format!("{}.{}", plan.client, plan.index);
                assert_eq!(
                    head.request,
                    Some(&id[..]),
                    "client {who} wants {id}: {text:?}"
                );
                assert_eq!(head.status, plan.status, "client {who}: {text:?}");
                assert_eq!(head.version, if http10 { "HTTP/1.0" } else { "HTTP/1.1" });
                let seen = head.seen_body.expect("every answer has it");
                let failed = seen == "failed";
                let may_fail = fails || self.may_time_out;
                assert!(
                    failed && may_fail || seen == plan.seen(body.as_deref()),
                    "client {who}: {text:?}"
                );
                let silent = head_only || plan.status == 204;
                let wanted = match body {
                    _ if silent => Vec::new(),
                    Some(body) if plan.intake == Intake::Echo => body,
                    _ => plan.body(),
                };
                let ended = self.ended;
                let (got, used) = match head.read_body(silent, ended, &bytes[end..]) {
                    Read::Complete(got, used) => (got, end + used),
                    Read::Partial(got) => {
                        assert!(wanted.starts_with(&got), "client {who}: body of {id}");
                        if !ended {
                            return None;
                        }
                        // What was produced before the break has come, too.
                        let echoes = plan.intake == Intake::Echo && may_fail;
                        let cut = ends == Ends::Cut && got == wanted;
                        assert!(
                            cut || echoes || self.cut_by_force,
                            "client {who}: {id} is cut"
                        );
                        self.cut += 1;
                        self.closed = true;
                        return Some(bytes.len());
                    }
                };
                // When it ends with the connection, a reset is all that can tell.
                let is_told = !(http10 && head.length.is_none() && !silent);
                assert!(ends != Ends::Cut || !is_told, "client {who}: {id} is whole");
                let looks_whole = !is_told && !self.reset && !self.cut_by_force;
                assert!(
                    ends != Ends::Cut || !looks_whole,
                    "client {who}: {id} looks whole"
                );
                if is_told || !self.cut_by_force {
                    assert_eq!(got, wanted, "client {who}: body of {id}");
                }
                self.chunked += usize::from(head.chunked);
                let close = if http10 { !head.keep_alive } else { head.close };
                if !self.draining && !failed {
                    match ends {
                        Ends::Keeps => assert!(!close, "client {who}: {text:?}"),
                        Ends::SaysClose => assert!(close, "client {who}: {text:?}"),
                        Ends::Silently | Ends::Cut | Ends::Maybe => {}
                    }
                }
                assert!(close || !failed, "client {who}: {text:?}");
                self.closed = close || ends == Ends::Silently;
                self.may_end = ends == Ends::Maybe;
                self.answers += 1;
                self.expected.pop_front();
                Some(used)
            }
        }
    }

    /// The connection has ended. What is there is all there will be.
    pub fn on_end(&mut self, end: End, by_force: bool) {
        self.ended = true;
        self.reset = end == End::Reset;
        self.cut_by_force |= by_force;
        self.read(&[]);
        self.closed |= self.may_end && self.bytes.is_empty();
    }

    fn take_refusal(
        &mut self,
        head: &Head<'_>,
        end: usize,
        available: usize,
        carries: Carries,
    ) -> Option<usize> {
        let body_bytes = head.length.expect("a refusal has a length");
        let used = match carries {
            Carries::None => end,
            Carries::Maybe if available == end && self.ended => end,
            Carries::Its | Carries::Maybe => end + body_bytes,
        };
        if available < used {
            return None;
        }
        assert!(
            head.close,
            "client {}: a refusal says that it closes",
            self.client
        );
        self.closed = true;
        self.expected.clear();
        Some(used)
    }
}

impl<'a> Head<'a> {
    fn parse(text: &'a str) -> Self {
        let mut lines = text
            .strip_suffix("\r\n\r\n")
            .expect("a whole head")
            .split("\r\n");
        let line = lines.next().expect("a status line");
        let (version, rest) = line.split_once(' ').expect("a version and a status");
        let (status, _) = rest.split_once(' ').expect("a status and a reason");
        let mut head = Self {
            version,
            status: status
                .parse()
                .unwrap_or_else(|_| panic!("not a status line: {line:?}")),
            length: None,
            chunked: false,
            close: false,
            keep_alive: false,
            request: None,
            seen_body: None,
        };
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a field");
            match name {
                "Content-Length" => head.length = Some(value.parse().expect("a length")),
                "Transfer-Encoding" => {
                    assert_eq!((value, version), ("chunked", "HTTP/1.1"));
                    head.chunked = true;
                }
                "Connection" => {
                    head.close = value == "close";
                    head.keep_alive = value == "keep-alive";
                }
                "X-Request" => head.request = Some(value),
                "X-Body" => head.seen_body = Some(value),
                "Content-Type" | "Date" => {}
                other => panic!("nobody sends a field {other:?}"),
            }
        }
        head
    }

    /// Reads the body from what stands behind the head.
    fn read_body(&self, silent: bool, ended: bool, bytes: &[u8]) -> Read {
        if silent {
            assert!(!self.chunked, "chunks cannot follow");
            return Read::Complete(Vec::new(), 0);
        }
        match self.length {
            Some(length) if bytes.len() >= length => {
                Read::Complete(bytes[..length].to_vec(), length)
            }
            Some(_) => Read::Partial(bytes.to_vec()),
            None if self.chunked => read_chunks(bytes),
            None if ended => Read::Complete(bytes.to_vec(), bytes.len()),
            None => Read::Partial(bytes.to_vec()),
        }
    }
}

/// Reads chunks as strictly as they are to be written.
fn read_chunks(bytes: &[u8]) -> Read {
    let mut body = Vec::new();
    let mut at = 0;
    while let Some(line) = memchr::memmem::find(&bytes[at..], b"\r\n") {
        let digits = std::str::from_utf8(&bytes[at..at + line]).expect("ASCII");
        let size = usize::from_str_radix(digits, 16).expect("a size");
        assert_eq!(digits, format!("{size:x}"), "a size is plain");
        let data = &bytes[at + line + 2..];
        if data.len() < size + 2 {
            body.extend_from_slice(&data[..data.len().min(size)]);
            return Read::Partial(body);
        }
        assert_eq!(&data[size..size + 2], b"\r\n", "a chunk ends with its line");
        at += line + 2 + size + 2;
        if size == 0 {
            return Read::Complete(body, at);
        }
        body.extend_from_slice(&data[..size]);
    }
    Read::Partial(body)
}
