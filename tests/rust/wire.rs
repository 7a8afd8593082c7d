//! Drives the protocol over bytes in pieces, exactly as the worker does, and writes down what it
//! saw.
//!
//! Owns the carrying over of unused bytes, the ways to cut an input, and a small random generator.
//! Refuses to judge. Shared by the tests `cases` and `protocol_properties`.

// Each of the two tests uses a part.
#![allow(dead_code)]

use anel::protocol::{Http1, Limits, ProtocolError, RequestHead, Step, Version};

/// A completed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub path: Vec<u8>,
    pub query: Option<Vec<u8>>,
    pub host: Option<Vec<u8>>,
    pub version: Version,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// `None` without body framing.
    pub body: Option<Vec<u8>>,
    pub keep_alive: bool,
    pub expects_continue: bool,
}

/// Where the input left the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Waiting for the next request.
    Idle,
    /// Within a request; with the mistake if the peer closes there.
    WantsMore(ProtocolError),
    /// The last request ended the connection.
    Paused,
    Refused(ProtocolError),
}

/// Everything that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub requests: Vec<Seen>,
    /// The request that was cut short or refused behind its head, with its body so far.
    pub begun: Option<Seen>,
    pub ending: Ending,
}

/// The worker's side of a connection.
pub struct Driver {
    protocol: Http1,
    head: RequestHead,
    carry: Vec<u8>,
    begun: Option<Seen>,
    requests: Vec<Seen>,
    stopped: Option<Ending>,
    /// The most bytes that were ever carried over.
    pub carry_bytes_max: usize,
}

impl Driver {
    pub fn new(limits: Limits) -> Self {
        Self {
            protocol: Http1::new(limits),
            head: RequestHead::default(),
            carry: Vec::new(),
            begun: None,
            requests: Vec::new(),
            stopped: None,
            carry_bytes_max: 0,
        }
    }

    /// Takes one piece of input. Returns false when nothing more is wanted.
    pub fn feed(&mut self, piece: &[u8]) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(piece);
        let (mut at, mut head_end) = (0, 0);
        // Every step but the last uses a byte or changes the state; a request takes two steps
        // without bytes at most.
        for _ in 0..4 * bytes.len() + 8 {
            let input = &bytes[at..];
            let (used, step) =
                self.protocol
                    .advance_behind(&bytes[..head_end], &mut self.head, input);
            assert!(used <= input.len(), "used {used} of {} bytes", input.len());
            match step {
                Step::Head => {
                    assert!(self.begun.is_none(), "a head within a request");
                    head_end = at + used;
                    self.begun = Some(self.describe(&input[..used]));
                }
                Step::Body(range) => {
                    assert!(
                        !range.is_empty() && range.end <= used,
                        "{range:?} of {used} used"
                    );
                    let begun = self.begun.as_mut().expect("a body behind a head");
                    begun
                        .body
                        .as_mut()
                        .expect("framing")
                        .extend_from_slice(&input[range]);
                }
                Step::End => {
                    self.requests.extend(self.begun.take());
                }
                Step::NeedMore => {
                    self.carry = input[used..].to_vec();
                    self.carry_bytes_max = self.carry_bytes_max.max(self.carry.len());
                    return true;
                }
                Step::Paused => {
                    self.stopped = Some(Ending::Paused);
                    return false;
                }
                Step::Refused(error) => {
                    self.stopped = Some(Ending::Refused(error));
                    return false;
                }
            }
            at += used;
        }
        panic!("no progress in {} bytes", bytes.len());
    }

    /// The peer sends nothing more.
    pub fn finish(mut self) -> Outcome {
        let carried = self.carry.len();
        let ending = match self.stopped {
            Some(ending) => {
                // What was said once is said again.
                let repeated = self
                    .protocol
                    .advance(&mut self.head, b"GET / HTTP/1.1\r\n\r\n");
                match ending {
                    Ending::Refused(error) => assert_eq!(repeated, (0, Step::Refused(error))),
                    _ => assert_eq!(repeated, (0, Step::Paused)),
                }
                assert_eq!(self.protocol.end_of_input(0), None);
                ending
            }
            None => {
                let is_idle = self.protocol.is_between_requests() && carried == 0;
                let cut_short = self.protocol.end_of_input(carried);
                assert_eq!(is_idle, cut_short.is_none());
                assert_eq!(
                    self.protocol.end_of_input(carried),
                    None,
                    "the end is told once"
                );
                cut_short.map_or(Ending::Idle, Ending::WantsMore)
            }
        };
        Outcome {
            requests: self.requests,
            begun: self.begun,
            ending,
        }
    }

    fn describe(&self, used: &[u8]) -> Seen {
        let head = &self.head;
        let bytes = &used[used.len() - head.bytes as usize..];
        let framed = head.framing != anel::protocol::Framing::None;
        Seen {
            method: head.method.of(bytes).to_vec(),
            target: head.target.of(bytes).to_vec(),
            path: head.path.of(bytes).to_vec(),
            query: head.query.map(|query| query.of(bytes).to_vec()),
            host: head.host.map(|host| host.of(bytes).to_vec()),
            version: head.version,
            fields: head
                .fields
                .iter()
                .map(|field| {
                    (
                        field.name.of(bytes).to_vec(),
                        field.value.of(bytes).to_vec(),
                    )
                })
                .collect(),
            body: framed.then(Vec::new),
            keep_alive: head.close.is_none(),
            expects_continue: head.expects_continue,
        }
    }
}

/// Feeds the input in pieces of these lengths; the last length repeats.
pub fn replay(input: &[u8], pieces: &[usize], limits: Limits) -> Outcome {
    let mut driver = Driver::new(limits);
    let mut rest = input;
    let mut lengths = pieces.iter().copied();
    let mut length = input.len().max(1);
    while !rest.is_empty() {
        length = lengths.next().unwrap_or(length).clamp(1, rest.len());
        let (piece, behind) = rest.split_at(length);
        rest = behind;
        if !driver.feed(piece) {
            break;
        }
    }
    driver.finish()
}

/// The ways to cut an input of so many bytes, with a name for each: whole, byte at a time,
/// doubling, reverse doubling, and 32 at random.
pub fn splits(bytes: usize, seed: u64) -> Vec<(String, Vec<usize>)> {
    let mut doubling = Vec::new();
    let mut covered = 0;
    while covered < bytes {
        let length = 1 << doubling.len().min(30);
        doubling.push(length);
        covered += length;
    }
    // The biggest piece first, and single bytes at the end.
    let mut halving = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let length = left.div_ceil(2);
        halving.push(length);
        left -= length;
    }
    let mut splits = vec![
        ("whole".to_owned(), vec![bytes]),
        ("byte at a time".to_owned(), vec![1]),
        ("doubling".to_owned(), doubling),
        ("reverse doubling".to_owned(), halving),
    ];
    for number in 0..32 {
        let mut random = Random::new(seed ^ (number + 1));
        // Small pieces find states, large ones find batches.
        let longest = 1 << (1 + random.below(12));
        let pieces = (0..64).map(|_| 1 + random.below(longest)).collect();
        splits.push((format!("random {number} of seed {seed}"), pieces));
    }
    splits
}

/// xorshift64*: enough for tests, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
