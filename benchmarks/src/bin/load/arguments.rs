//! The command line: what is asked of the load generator, and the bytes of one request.
//!
//! Owns names, defaults and their checks; refuses to know how any of it is done.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// Printed by `--help` and after a mistake.
pub const USAGE: &str = "\
usage: load --address HOST:PORT [options]
  --connections N              active connections (100)
  --depth D                    requests per write (1)
  --duration S                 length of the measured window in seconds (3)
  --warmup S                   seconds before the window, not counted (0)
  --method M                   request method (GET)
  --path P                     request target (/)
  --body-bytes N               length of the request's body (none)
  --body-framing length|chunked  how the end of the body is told (length)
  --headers minimal|browser    request fields (minimal: Host alone)
  --raw FILE                   bytes of one request, instead of all of the above about it
  --expect-status N            any other status is an error (200)
  --expect-body TEXT           any other body is an error (default: the first one seen)
  --expect-body-file FILE      the same, with the bytes of a file
  --idle N                     further connections: one request each, then silence (0)
  --requests-per-connection K  close and connect again after K responses (0: never)
  --sources N                  connect from so many addresses of 127.0.0.0/8 in turn (1)
  --buffer-bytes N             size of a receive buffer (8192)
  --json                       one JSON object instead of text
  --marks                      a line of JSON when the window begins and ends";

/// What a desktop browser sends: about 0.5 KB in ten fields.
const BROWSER_FIELDS: &str = "\
Connection: keep-alive\r\n\
Cache-Control: max-age=0\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/126.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: none\r\n\
Sec-Fetch-Mode: navigate\r\n\
Accept-Encoding: gzip, deflate, br\r\n\
Accept-Language: en-US,en;q=0.9\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n";

/// Bytes of a chunk of a request's body: what clients that stream usually read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Largest body of a request; a batch of them is kept in memory whole.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Largest number of active connections: the buffer ring has one buffer each and at most 32,768.
const CONNECTIONS_MAX: usize = 16_384;

/// A checked command line.
#[derive(Debug)]
pub struct Arguments {
    /// The server.
    pub address: SocketAddr,
    /// Connections that send.
    pub connections: usize,
    /// Requests per write.
    pub depth: u32,
    /// Length of the measured window.
    pub duration: Duration,
    /// Time before it.
    pub warmup: Duration,
    /// The bytes of one request.
    pub request: Vec<u8>,
    /// The only accepted status.
    pub expect_status: u16,
    /// The only accepted body; `None` accepts whatever comes first, and then only that.
    pub expect_body: Option<Vec<u8>>,
    /// Connections that stay silent.
    pub idle: usize,
    /// Responses after which a connection is replaced; 0 for never.
    pub requests_per_connection: u64,
    /// Source addresses; 1 leaves the choice to the kernel.
    pub sources: u8,
    /// Size of a receive buffer.
    pub buffer_bytes: usize,
    /// Output as JSON.
    pub json: bool,
    /// Announce the window.
    pub marks: bool,
}

/// What a command line comes to.
pub enum Parsed {
    /// A run.
    Run(Arguments),
    /// The usage text.
    Help,
}

/// Which fields a request has.
enum Fields {
    Minimal,
    Browser,
}

/// How the end of a request's body is told.
enum Framing {
    Length,
    Chunked,
}

/// What one request is made of.
struct Plan {
    method: String,
    path: String,
    fields: Fields,
    body_bytes: Option<usize>,
    framing: Framing,
}

impl Arguments {
    /// Reads a command line; the error is a sentence for people.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Parsed, String> {
        let mut words = words;
        let mut address_text = None;
        let (mut plan, mut raw) = (Plan::default(), None);
        let mut arguments = Self::defaults();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => return Ok(Parsed::Help),
                "--json" => arguments.json = true,
                "--marks" => arguments.marks = true,
                "--address" => address_text = Some(value(&word, &mut words)?),
                "--connections" => arguments.connections = number(&word, &mut words)?,
                "--depth" => arguments.depth = number(&word, &mut words)?,
                "--duration" => arguments.duration = seconds(&word, &mut words)?,
                "--warmup" => arguments.warmup = seconds(&word, &mut words)?,
                "--method" | "--path" | "--headers" | "--body-bytes" | "--body-framing" => {
                    plan.set(&word, &mut words)?;
                }
                "--raw" => raw = Some(value(&word, &mut words)?),
                "--expect-status" => arguments.expect_status = number(&word, &mut words)?,
                "--expect-body" => {
                    arguments.expect_body = Some(value(&word, &mut words)?.into_bytes());
                }
                "--expect-body-file" => {
                    arguments.expect_body = Some(contents(&value(&word, &mut words)?)?);
                }
                "--idle" => arguments.idle = number(&word, &mut words)?,
                "--sources" => arguments.sources = number(&word, &mut words)?,
                "--buffer-bytes" => arguments.buffer_bytes = number(&word, &mut words)?,
                "--requests-per-connection" => {
                    arguments.requests_per_connection = number(&word, &mut words)?;
                }
                other => return Err(format!("unknown argument {other:?}")),
            }
        }
        let address_text = address_text.ok_or("--address is required")?;
        arguments.address = resolve(&address_text)?;
        arguments.request = match raw {
            Some(file) => contents(&file)?,
            None => plan.request(&address_text)?,
        };
        arguments.check()?;
        Ok(Parsed::Run(arguments))
    }

    fn defaults() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            connections: 100,
            depth: 1,
            duration: Duration::from_secs(3),
            warmup: Duration::ZERO,
            request: Vec::new(),
            expect_status: 200,
            expect_body: None,
            idle: 0,
            requests_per_connection: 0,
            sources: 1,
            buffer_bytes: 8 * 1024,
            json: false,
            marks: false,
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.connections == 0 || self.connections > CONNECTIONS_MAX {
            return Err(format!("--connections must be 1 to {CONNECTIONS_MAX}"));
        }
        if self.depth == 0 || self.depth > 10_000 {
            return Err(String::from("--depth must be 1 to 10000"));
        }
        // A benchmark that runs for longer than an hour is a mistake in the unit.
        if self.duration.is_zero() || self.duration + self.warmup > Duration::from_secs(3600) {
            return Err(String::from(
                "--duration and --warmup must be above 0 and within an hour",
            ));
        }
        if self.sources == 0 || (self.sources > 1 && !self.address.ip().is_loopback()) {
            return Err(String::from(
                "--sources must be 1 to 255, and is for servers on 127.0.0.0/8",
            ));
        }
        if !(1024..=1024 * 1024).contains(&self.buffer_bytes) {
            return Err(String::from("--buffer-bytes must be 1024 to 1048576"));
        }
        if self.request.is_empty() {
            return Err(String::from("--raw names an empty file"));
        }
        Ok(())
    }
}

impl Fields {
    fn parse(name: &str) -> Result<Self, String> {
        match name {
            "minimal" => Ok(Self::Minimal),
            "browser" => Ok(Self::Browser),
            other => Err(format!("--headers is minimal or browser, not {other:?}")),
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Minimal => "",
            Self::Browser => BROWSER_FIELDS,
        }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            method: String::from("GET"),
            path: String::from("/"),
            fields: Fields::Minimal,
            body_bytes: None,
            framing: Framing::Length,
        }
    }
}

impl Plan {
    fn set(&mut self, name: &str, words: &mut impl Iterator<Item = String>) -> Result<(), String> {
        match name {
            "--method" => self.method = value(name, words)?,
            "--path" => self.path = value(name, words)?,
            "--headers" => self.fields = Fields::parse(&value(name, words)?)?,
            "--body-bytes" => self.body_bytes = Some(number(name, words)?),
            _ => {
                self.framing = match value(name, words)?.as_str() {
                    "length" => Framing::Length,
                    "chunked" => Framing::Chunked,
                    other => {
                        return Err(format!("{name} is length or chunked, not {other:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// The bytes of one request.
    fn request(&self, host: &str) -> Result<Vec<u8>, String> {
        let (method, path, fields) = (&self.method, &self.path, self.fields.text());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}");
        let Some(body_bytes) = self.body_bytes else {
            return Ok((head + "\r\n").into_bytes());
        };
        if body_bytes > BODY_BYTES_MAX {
            return Err(format!("--body-bytes must be at most {BODY_BYTES_MAX}"));
        }
        let body = vec![b'x'; body_bytes];
        let mut bytes = head.into_bytes();
        match self.framing {
            Framing::Length => {
                bytes.extend(format!("Content-Length: {body_bytes}\r\n\r\n").into_bytes());
                bytes.extend(body);
            }
            Framing::Chunked => {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(CHUNK_BYTES) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            }
        }
        Ok(bytes)
    }
}

fn contents(file: &str) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{file}: {error}"))
}

fn value(name: &str, words: &mut impl Iterator<Item = String>) -> Result<String, String> {
    words.next().ok_or_else(|| format!("{name} needs a value"))
}

fn number<T: FromStr>(name: &str, words: &mut impl Iterator<Item = String>) -> Result<T, String> {
    let text = value(name, words)?;
    text.parse()
        .map_err(|_| format!("{name}: {text:?} is not a number in range"))
}

fn seconds(name: &str, words: &mut impl Iterator<Item = String>) -> Result<Duration, String> {
    let amount: f64 = number(name, words)?;
    Duration::try_from_secs_f64(amount).map_err(|_| format!("{name}: {amount} is not a duration"))
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| format!("--address {text}: {error}"))?;
    found
        .next()
        .ok_or_else(|| format!("--address {text}: no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        match Arguments::parse(line.split_whitespace().map(String::from))? {
            Parsed::Run(arguments) => Ok(arguments),
            Parsed::Help => Err(String::from("help")),
        }
    }

    #[test]
    fn a_minimal_request_names_the_host_and_nothing_else() {
        let arguments = parse("--address 127.0.0.1:80 --path /a").unwrap();
        assert_eq!(
            arguments.request,
            b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n"
        );
    }

    #[test]
    fn a_browser_request_is_one_complete_head() {
        let request = parse("--address 127.0.0.1:80 --headers browser")
            .unwrap()
            .request;
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let parsed = httparse::Request::new(&mut fields).parse(&request).unwrap();
        assert_eq!(parsed, httparse::Status::Complete(request.len()));
    }

    #[test]
    fn a_body_is_framed_by_its_length() {
        let arguments =
            parse("--address 127.0.0.1:80 --method POST --path /length --body-bytes 3").unwrap();
        let expected: &[u8] =
            b"POST /length HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Length: 3\r\n\r\nxxx";
        assert_eq!(arguments.request, expected);
    }

    #[test]
    fn a_chunked_body_ends_with_an_empty_chunk() {
        let line = "--address 127.0.0.1:80 --method POST --body-bytes 65537 --body-framing chunked";
        let request = parse(line).unwrap().request;
        assert!(request.ends_with(b"x\r\n1\r\nx\r\n0\r\n\r\n"));
        let head = b"Transfer-Encoding: chunked\r\n\r\n10000\r\nx";
        assert!(request.windows(head.len()).any(|part| part == head));
    }

    #[test]
    fn several_sources_need_a_server_on_loopback() {
        let error = parse("--address 192.0.2.1:80 --sources 2").unwrap_err();
        assert!(error.contains("--sources"));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("--depth 3").unwrap_err().contains("--address"));
        assert!(
            parse("--address 127.0.0.1:80 --depth 0")
                .unwrap_err()
                .contains("--depth")
        );
        assert!(
            parse("--address 127.0.0.1:80 --depth x")
                .unwrap_err()
                .contains("\"x\"")
        );
        assert!(
            parse("--address 127.0.0.1:80 --fast")
                .unwrap_err()
                .contains("--fast")
        );
    }
}
