//! What a request asks the application to do, spelled out in its target.
//!
//! Owns that spelling and what follows from it: the answer that the client has to see. Both sides
//! make it from the same plan, so that nothing has to be looked up.

/// When and how a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Now,
    NowAndClose,
    Later,
    LaterAndClose,
    Never,
}

/// The form of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Whole,
    /// In pieces, with a length.
    Sized,
    /// In pieces, without one.
    Chunked,
    /// Announces a byte more than it has, and ends.
    Short,
    /// Has more than it announces.
    Long,
    /// In pieces, and then aborted; with a length, or without.
    AbortedSized,
    AbortedChunked,
}

/// What the handler does with the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It is called when the body is complete.
    Gathered,
    /// Reads all of it, then answers.
    All,
    /// Answers without a look at it.
    Nothing,
    /// Answers while it reads.
    Some,
    /// Wants no more behind the first piece, and answers at some time.
    First,
    /// Answers with what it reads.
    Echo,
}

/// One request of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub client: usize,
    pub index: usize,
    pub mode: Mode,
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: usize,
    pub shape: Shape,
    pub intake: Intake,
}

const MODES: [(Mode, &str); 5] = [
    (Mode::Now, "now"),
    (Mode::NowAndClose, "close"),
    (Mode::Later, "later"),
    (Mode::LaterAndClose, "later-close"),
    (Mode::Never, "never"),
];

const SHAPES: [(Shape, &str); 7] = [
    (Shape::Whole, "whole"),
    (Shape::Sized, "sized"),
    (Shape::Chunked, "chunked"),
    (Shape::Short, "short"),
    (Shape::Long, "long"),
    (Shape::AbortedSized, "aborted-sized"),
    (Shape::AbortedChunked, "aborted-chunked"),
];

const INTAKES: [(Intake, &str); 6] = [
    (Intake::Gathered, "gathered"),
    (Intake::All, "all"),
    (Intake::Nothing, "nothing"),
    (Intake::Some, "some"),
    (Intake::First, "first"),
    (Intake::Echo, "echo"),
];

fn word<T: PartialEq>(words: &[(T, &'static str)], wanted: &T) -> &'static str {
    let found = words.iter().find(|(value, _)| value == wanted);
    found.expect("all are listed").1
}

fn value<T: Copy>(words: &[(T, &str)], wanted: &str) -> T {
    let found = words.iter().find(|(_, word)| *word == wanted);
    found.expect("a word that is listed").0
}

impl Plan {
    /// A request whose body, if any, is gathered, and its whole answer.
    pub fn plain(client: usize, index: usize, mode: Mode, bytes: usize) -> Self {
        Self {
            client,
            index,
            mode,
            status: 200,
            bytes,
            shape: Shape::Whole,
            intake: Intake::Gathered,
        }
    }

    pub fn target(&self) -> String {
        format!(
            "/{}/{}/{}/{}/{}/{}/{}",
            self.client,
            self.index,
            word(&MODES, &self.mode),
            self.status,
            self.bytes,
            word(&SHAPES, &self.shape),
            word(&INTAKES, &self.intake),
        )
    }

    pub fn parse(target: &[u8]) -> Self {
        let target = std::str::from_utf8(target).expect("targets are ASCII");
        let parts: Vec<&str> = target.split('/').collect();
        let [_, client, index, mode, status, bytes, shape, intake] = parts[..] else {
            panic!("the handler got a target that no client sent: {target:?}");
        };
        let number = |text: &str| text.parse().expect("a number");
        Self {
            client: number(client),
            index: number(index),
            mode: value(&MODES, mode),
            status: number(status) as u16,
            bytes: number(bytes),
            shape: value(&SHAPES, shape),
            intake: value(&INTAKES, intake),
        }
    }

    /// The body of the answer: different for every request, so that mixed-up bytes are noticed.
    pub fn body(&self) -> Vec<u8> {
        let word = format!("{}.{};", self.client, self.index);
        word.bytes().cycle().take(self.bytes).collect()
    }

    /// Field lines of the answer, which repeat what the handler saw of the request.
    pub fn fields(&self, seen: &str) -> String {
        format!(
            "X-Request: {}.{}\r\nX-Body: {seen}\r\n",
            self.client, self.index
        )
    }

    /// What the handler says of a body that arrived as it was sent.
    pub fn seen(&self, body: Option<&[u8]>) -> String {
        match (self.intake, body) {
            (_, None) => "none".to_owned(),
            (Intake::Gathered | Intake::All, Some(body)) => {
                format!("{}-{:x}", body.len(), sum(body))
            }
            (Intake::Echo, Some(_)) => "echoed".to_owned(),
            (Intake::Nothing | Intake::Some | Intake::First, Some(_)) => "unread".to_owned(),
        }
    }

    /// Whether the answer comes in pieces, to a request that may have an answer with a body.
    pub fn streams(&self) -> bool {
        self.shape != Shape::Whole
    }

    /// What the answer announces.
    pub fn announced(&self) -> Option<u64> {
        match self.shape {
            Shape::Whole | Shape::Chunked | Shape::AbortedChunked => None,
            Shape::Sized | Shape::Long => Some(self.bytes as u64),
            Shape::Short | Shape::AbortedSized => Some(self.bytes as u64 + 1),
        }
    }

    /// Whether the answer breaks off.
    pub fn is_cut(&self) -> bool {
        matches!(
            self.shape,
            Shape::Short | Shape::AbortedSized | Shape::AbortedChunked
        )
    }

    pub fn closes(&self) -> bool {
        matches!(self.mode, Mode::NowAndClose | Mode::LaterAndClose)
    }
}

/// FNV-1a: a body that arrives changed has another.
fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
