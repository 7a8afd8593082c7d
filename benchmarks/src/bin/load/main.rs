//! An HTTP/1.1 load generator that counts and checks every response: one thread, one ring.
//!
//! Closed loop: each connection writes `--depth` requests at once, waits for as many responses and
//! starts again, so latency is that of a saturated server, per batch. This file owns the order of
//! events (idle connections, warm-up, measured window, drain) and refuses to know bytes and ops.

mod arguments;
mod client;
mod connection;
mod idle;
mod report;
mod ring;
mod usage;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use arguments::{Arguments, Parsed};
use client::Client;
use idle::IdleConnections;
use report::{Report, Window};
use usage::CpuUsage;

/// How long unanswered requests are waited for after the window; a server that needs longer has
/// lost them.
const DRAIN: Duration = Duration::from_secs(2);

/// How long making the connections may take: 10,000 of them within the backlog of a slow server.
const CONNECT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(arguments)) => arguments,
        Ok(Parsed::Help) => return say(&mut io::stdout(), arguments::USAGE, ExitCode::SUCCESS),
        Err(problem) => {
            let text = format!("load: {problem}\n\n{}", arguments::USAGE);
            return say(&mut io::stderr(), &text, ExitCode::from(2));
        }
    };
    match run(&arguments) {
        Ok(report) => {
            let text = if arguments.json {
                report.to_json()
            } else {
                report.to_text()
            };
            // A rate with wrong responses in it is not a rate: scripts see the failure.
            let code = if report.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            };
            say(&mut io::stdout(), &text, code)
        }
        Err(error) => say(
            &mut io::stderr(),
            &format!("load: {error}"),
            ExitCode::from(3),
        ),
    }
}

/// Idle connections, connects, warm-up, window, drain: in this order.
fn run(arguments: &Arguments) -> io::Result<Report> {
    let idle = IdleConnections::open(arguments)?;
    let mut client = Client::open(arguments)?;

    client.connect_all(Instant::now() + CONNECT)?;
    client.run_until(Instant::now() + arguments.warmup)?;

    client.begin_window();
    mark(arguments, "begin")?;
    let (begin, cpu_begin) = (Instant::now(), CpuUsage::of_this_process()?);
    client.run_until(begin + arguments.duration)?;
    let (elapsed, cpu_end) = (begin.elapsed(), CpuUsage::of_this_process()?);
    mark(arguments, "end")?;
    client.end_window();

    client.drain(Instant::now() + DRAIN)?;
    let window = Window {
        elapsed,
        cpu: cpu_end.since(cpu_begin),
    };
    Ok(client.into_report(window, idle.survivors()))
}

/// Tells whoever reads our output that the measured window begins or ends now.
fn mark(arguments: &Arguments, name: &str) -> io::Result<()> {
    if !arguments.marks {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{{\"mark\":\"{name}\"}}")?;
    out.flush()
}

fn say(out: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    match writeln!(out, "{text}") {
        Ok(()) => code,
        // Nobody reads the result any more.
        Err(_) => ExitCode::from(3),
    }
}
