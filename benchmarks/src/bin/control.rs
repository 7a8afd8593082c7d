//! The no-Python control: anel's core under a handler of ten lines, on anel's reactors.
//!
//! Same reactor, worker and protocol as the Python package, same bytes on the wire. What a Python
//! row costs above this one is the price of Python. SIGTERM or SIGINT ends it with a line of JSON
//! on stdout that says what was counted. `control --port N [--reactor auto|io_uring|epoll]
//! [--flags WORDS]`; the words are those of `ANEL_URING_FLAGS`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anel::reactor::{self, AnyReactor, Reactor, Waker};
use anel::server::{Limits, Worker};
use anel_benchmarks::hello::{self, Arguments, Hello};
use anel_benchmarks::tally;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::of_process()?;
    let listener = hello::listen(arguments.port)?;
    let mut worker = Worker::new(Limits::default());
    worker.add_listener(listener.as_raw_fd());
    // The types differ from here on, so that nothing is dispatched at run time.
    match reactor::open(arguments.choice, &arguments.config)?.reactor {
        AnyReactor::Ring(ring) => serve(ring, worker),
        AnyReactor::Epoll(epoll) => serve(epoll, worker),
    }
}

/// The turn, until a signal: wait, handle, flush.
fn serve(mut reactor: impl Reactor, mut worker: Worker) -> Result<(), Box<dyn Error>> {
    let stopped = stop_on_signal(reactor.waker())?;
    let mut handler = Hello;
    let mut completions = Vec::new();
    let start = Instant::now();
    while !stopped.load(Ordering::Acquire) {
        let clock = hello::read_clock(start);
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
    let counters = tally::Reactor::Ours(reactor.counters());
    tally::print(reactor.name(), worker.counters(), counters)?;
    Ok(())
}

/// A signal that comes between the check and the wait would be slept on; a thread of its own ends
/// the wait whenever it comes.
fn stop_on_signal(waker: Waker) -> io::Result<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopped);
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new()
        .name(String::from("signals"))
        .spawn(move || {
            if signals.forever().next().is_some() {
                flag.store(true, Ordering::Release);
                waker.wake();
            }
        })?;
    Ok(stopped)
}
