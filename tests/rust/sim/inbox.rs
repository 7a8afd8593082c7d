//! The client's side of answers: reads them strictly and holds them against what was asked.
//!
//! Owns the unread bytes, the list of expectations and the verdict on every answer. Refuses to know
//! when bytes arrive. A byte that should not be there is a panic.

use std::collections::VecDeque;

use crate::plan::Plan;

/// What the client expects next.
#[derive(Clone, Debug)]
pub enum Expected {
    /// The answer to a request.
    Answer {
        plan: Plan,
        body: Option<Vec<u8>>,
        http10: bool,
        head_only: bool,
        closes: bool,
    },
    /// The answer to a mistake, behind which the connection ends.
    Refusal { status: u16 },
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
}

struct Head<'a> {
    version: &'a str,
    status: u16,
    length: Option<usize>,
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
        }
    }

    /// Whether the stream is at the end of an answer.
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
            self.timeouts += 1;
            return self.take_refusal(&head, end, bytes.len());
        }
        let expected = self.expected.front().cloned();
        let expected = expected.unwrap_or_else(|| panic!("client {who}: unasked answer {text:?}"));
        match expected {
            Expected::Refusal { status } => {
                assert_eq!(
                    (head.status, head.request),
                    (status, None),
                    "client {who}: {text:?}"
                );
                self.take_refusal(&head, end, bytes.len())
            }
            Expected::Answer {
                plan,
                body,
                http10,
                head_only,
                closes,
            } => {
                let used = end + head.body_bytes(head_only);
                if bytes.len() < used {
                    return None;
                }
                let id = format!("{}.{}", plan.client, plan.index);
                assert_eq!(
                    head.request,
                    Some(&id[..]),
                    "client {who} wants {id}: {text:?}"
                );
                assert_eq!(head.status, plan.status, "client {who}: {text:?}");
                let fields = plan.fields(body.as_deref());
                let seen = head.seen_body.expect("every answer has it");
                assert!(
                    fields.contains(&format!("X-Body: {seen}\r\n")),
                    "{text:?}, not {fields:?}"
                );
                assert_eq!(head.version, if http10 { "HTTP/1.0" } else { "HTTP/1.1" });
                let sent = if plan.status == 204 { 0 } else { plan.bytes };
                assert_eq!(head.length.unwrap_or(0), sent, "client {who}: {text:?}");
                if !head_only {
                    assert_eq!(
                        bytes[end..used],
                        plan.body()[..sent],
                        "client {who}: body of {id}"
                    );
                }
                let close = if http10 { !head.keep_alive } else { head.close };
                if !self.draining {
                    assert_eq!(close, closes, "client {who}: {text:?}");
                }
                self.closed = close;
                self.answers += 1;
                self.expected.pop_front();
                Some(used)
            }
        }
    }

    fn take_refusal(&mut self, head: &Head<'_>, end: usize, available: usize) -> Option<usize> {
        let used = end + head.length.expect("a refusal has a length");
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
            close: false,
            keep_alive: false,
            request: None,
            seen_body: None,
        };
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a field");
            match name {
                "Content-Length" => head.length = Some(value.parse().expect("a length")),
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

    fn body_bytes(&self, head_only: bool) -> usize {
        if head_only {
            0
        } else {
            self.length.unwrap_or(0)
        }
    }
}
