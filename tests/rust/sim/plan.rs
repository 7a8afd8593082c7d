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

/// One request of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub client: usize,
    pub index: usize,
    pub mode: Mode,
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: usize,
}

const MODES: [(Mode, &str); 5] = [
    (Mode::Now, "now"),
    (Mode::NowAndClose, "close"),
    (Mode::Later, "later"),
    (Mode::LaterAndClose, "later-close"),
    (Mode::Never, "never"),
];

impl Plan {
    pub fn target(&self) -> String {
        let mode = MODES
            .iter()
            .find(|(mode, _)| *mode == self.mode)
            .expect("all are listed")
            .1;
        format!(
            "/{}/{}/{mode}/{}/{}",
            self.client, self.index, self.status, self.bytes
        )
    }

    pub fn parse(target: &[u8]) -> Self {
        let target = std::str::from_utf8(target).expect("targets are ASCII");
        let parts: Vec<&str> = target.split('/').collect();
        let [_, client, index, mode, status, bytes] = parts[..] else {
            panic!("the handler got a target that no client sent: {target:?}");
        };
        let known = MODES
            .iter()
            .find(|(_, word)| *word == mode)
            .expect("a mode");
        let number = |text: &str| text.parse().expect("a number");
        Self {
            client: number(client),
            index: number(index),
            mode: known.0,
            status: number(status) as u16,
            bytes: number(bytes),
        }
    }

    /// The body of the answer: different for every request, so that mixed-up bytes are noticed.
    pub fn body(&self) -> Vec<u8> {
        let word = format!("{}.{};", self.client, self.index);
        word.bytes().cycle().take(self.bytes).collect()
    }

    /// Field lines of the answer, which repeat what the handler saw of the request.
    pub fn fields(&self, body: Option<&[u8]>) -> String {
        let seen = match body {
            None => "none".to_owned(),
            Some(body) => format!("{}-{:x}", body.len(), sum(body)),
        };
        format!(
            "X-Request: {}.{}\r\nX-Body: {seen}\r\n",
            self.client, self.index
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
