//! The handler that all control servers run, and what else they have in common.
//!
//! Owns the answer, the listener, the clock and the command line. Refuses to know who does the I/O.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anel::protocol::{Answer, Payload};
use anel::reactor::{self, Choice, Config, FlagKnob};
use anel::server::{Clock, Handler, Request, Responder, Verdict};

/// The same number as everywhere else in the comparison.
const BACKLOG: i32 = 1024;

/// Answers `GET /` as every hello in this directory does.
#[derive(Debug)]
pub struct Hello;

impl Handler for Hello {
    fn on_request(&mut self, request: Request<'_>, responder: Responder<'_>) -> Verdict {
        let path = request.head.path.of(request.head_bytes);
        let (status, body) = if path == b"/" {
            (200, "Hello world!")
        } else {
            (404, "Not Found")
        };
        responder.respond(&Answer {
            status,
            content_type: Some(b"text/plain; charset=utf-8"),
            fields: b"",
            payload: Payload::Whole(body.as_bytes()),
            close: false,
        })
    }
}

/// A listening socket on loopback.
///
/// # Errors
/// As `socket`, `bind` and `listen` say.
pub fn listen(port: u16) -> io::Result<OwnedFd> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    reactor::listen(&address, BACKLOG, false)
}

/// Both clocks, the monotonic one from `start`.
#[must_use]
pub fn read_clock(start: Instant) -> Clock {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    Clock {
        monotonic_us: start.elapsed().as_micros() as u64,
        unix_s: unix.unwrap_or_default().as_secs(),
    }
}

/// A checked command line: `--port N [--reactor auto|io_uring|epoll] [--flags WORDS]`.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    /// Where to listen.
    pub port: u16,
    /// Which of anel's reactors.
    pub choice: Choice,
    /// Its sizes, with the words of `ANEL_URING_FLAGS` that `--flags` has.
    pub config: Config,
}

impl Arguments {
    /// Reads the command line of this process.
    ///
    /// # Errors
    /// A sentence that names what is wrong.
    pub fn of_process() -> Result<Self, Box<dyn Error>> {
        let mut words = std::env::args().skip(1);
        let (mut port, mut choice) = (None, Choice::Auto);
        let mut flags = FlagKnob::from_environment()?;
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word} needs a value"))?;
            match word.as_str() {
                "--port" => port = Some(value.parse()?),
                "--reactor" => choice = value.parse()?,
                "--flags" => flags = FlagKnob::parse(&value)?,
                _ => return Err(format!("unknown argument {word:?}").into()),
            }
        }
        Ok(Self {
            port: port.ok_or("--port is required")?,
            choice,
            config: Config::default().with_flags(flags)?,
        })
    }
}
