//! The no-Python control: anel's core under a handler of ten lines.
//!
//! Same reactor, worker and protocol as the Python package, same bytes on the wire. What a Python
//! row costs above this one is the price of Python. `control --port N [--reactor
//! auto|io_uring|epoll]`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anel::protocol::{Answer, Payload};
use anel::reactor::{self, AnyReactor, Choice, Config, Reactor};
use anel::server::{Clock, Handler, Limits, Request, Responder, Verdict, Worker};

/// The same number as everywhere else in the comparison.
const BACKLOG: i32 = 1024;

struct Hello;

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

fn main() -> Result<(), Box<dyn Error>> {
    let (port, choice) = arguments()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = reactor::listen(&address, BACKLOG, false)?;
    let mut worker = Worker::new(Limits::default());
    worker.add_listener(listener.as_raw_fd());
    // The types differ from here on, so that nothing is dispatched at run time.
    match reactor::open(choice, &Config::default())?.reactor {
        AnyReactor::Ring(ring) => serve(ring, worker),
        AnyReactor::Epoll(epoll) => serve(epoll, worker),
    }
}

/// The turn, for ever: wait, handle, flush.
fn serve(mut reactor: impl Reactor, mut worker: Worker) -> Result<(), Box<dyn Error>> {
    let mut handler = Hello;
    let mut completions = Vec::new();
    let start = Instant::now();
    loop {
        let clock = read_clock(start)?;
        worker.on_clock(clock);
        for completion in completions.drain(..) {
            worker.on_completion(completion, &mut reactor, &mut handler);
        }
        worker.on_time(&mut reactor, &mut handler);
        worker.flush(&mut reactor, &mut handler);
        let pause_ms = worker
            .next_deadline_ms()
            .map(|at| at.saturating_sub(clock.monotonic_ms()));
        reactor.wait(pause_ms.map(Duration::from_millis), &mut completions)?;
    }
}

fn read_clock(start: Instant) -> Result<Clock, Box<dyn Error>> {
    let monotonic_us = u64::try_from(start.elapsed().as_micros())?;
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(Clock {
        monotonic_us,
        unix_s,
    })
}

fn arguments() -> Result<(u16, Choice), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--port", port] => Ok((port.parse()?, Choice::Auto)),
        ["--port", port, "--reactor", reactor] => Ok((port.parse()?, reactor.parse()?)),
        _ => Err("usage: control --port N [--reactor auto|io_uring|epoll]".into()),
    }
}
