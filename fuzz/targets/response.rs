//! A client's view of answers.
//!
//! Owns the reading of one answer: its head with httparse, whose response parser no other part
//! uses, and its body by the rules of RFC 9112 6.3. Refuses to be lenient, and to know what was
//! asked.

/// An answer as its peer understands it.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub is_http10: bool,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// As far as it is here.
    pub body: Vec<u8>,
    /// Whether that is all of it. A body that ends with the connection always is.
    pub is_complete: bool,
}

/// Reads the first of these answers, behind which the connection ended; with the number of its
/// bytes. `None` when there is not even a head.
///
/// # Panics
/// When it is malformed, or contradicts itself.
pub fn read(bytes: &[u8], head_only: bool) -> Option<(Response, usize)> {
    let mut slots = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut slots);
    let head_bytes = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return None,
        Err(error) => panic!("{error}: {}", bytes.escape_ascii()),
    };
    let (head, behind) = bytes.split_at(head_bytes);
    assert_every_line_ends_properly(head);
    let fields = parsed.headers.iter();
    let fields = fields.map(|field| (field.name.as_bytes().to_vec(), field.value.to_vec()));
    let mut response = Response {
        status: parsed.code.expect("a complete head"),
        is_http10: parsed.version == Some(0),
        fields: fields.collect(),
        body: Vec::new(),
        is_complete: true,
    };
    let is_silent = head_only || matches!(response.status, 100..200 | 204 | 304);
    let used = if is_silent {
        0
    } else {
        response.read_body(behind)
    };
    Some((response, head_bytes + used))
}

impl Response {
    /// The only value of this field, if there is one.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let mut values = self
            .fields
            .iter()
            .filter(|(found, _)| found == name.as_bytes());
        let value = values.next().map(|(_, value)| &value[..]);
        assert!(values.next().is_none(), "{name} is there twice");
        value
    }

    /// Whether the peer has to expect the end of the connection.
    pub fn closes(&self) -> bool {
        match self.field("Connection") {
            Some(value) => value == b"close",
            None => self.is_http10,
        }
    }

    /// Takes the body from the front of what stands behind the head; returns its bytes.
    fn read_body(&mut self, bytes: &[u8]) -> usize {
        let length = self.field("Content-Length").map(<[u8]>::to_vec);
        let coding = self.field("Transfer-Encoding").map(<[u8]>::to_vec);
        match (length, coding) {
            (Some(length), None) => {
                let length = std::str::from_utf8(&length).expect("digits");
                let length: u64 = length.parse().expect("digits");
                let taken = usize::try_from(length).map_or(bytes.len(), |l| l.min(bytes.len()));
                self.body = bytes[..taken].to_vec();
                self.is_complete = taken as u64 == length;
                taken
            }
            (None, Some(coding)) => {
                assert!(coding == b"chunked" && !self.is_http10, "RFC 9112 6.1");
                self.read_chunks(bytes)
            }
            (None, None) => {
                assert!(self.closes(), "nobody can tell where the body ends");
                self.body = bytes.to_vec();
                bytes.len()
            }
            (Some(_), Some(_)) => panic!("RFC 9112 6.2: {:?}", self.fields),
        }
    }

    fn read_chunks(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
            let digits = std::str::from_utf8(&rest[..line]).expect("digits");
            let size = usize::from_str_radix(digits, 16).expect("a size");
            assert_eq!(digits, format!("{size:x}"), "a size is plain");
            rest = &rest[line + 2..];
            let taken = size.min(rest.len());
            self.body.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            match rest.strip_prefix(b"\r\n") {
                Some(behind) => rest = behind,
                None => {
                    assert!(b"\r\n".starts_with(rest), "a chunk ends with its line");
                    break;
                }
            }
            if size == 0 {
                return bytes.len() - rest.len();
            }
        }
        self.is_complete = false;
        bytes.len()
    }
}

/// httparse takes a bare line feed for the end of a line; nobody may be sent one.
fn assert_every_line_ends_properly(head: &[u8]) {
    for (at, byte) in head.iter().enumerate() {
        let is_pair = match byte {
            b'\n' => at > 0 && head[at - 1] == b'\r',
            b'\r' => head.get(at + 1) == Some(&b'\n'),
            _ => true,
        };
        assert!(is_pair, "half a line end in {}", head.escape_ascii());
    }
}
