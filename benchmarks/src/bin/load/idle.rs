//! Connections that make one request and then stay silent for the rest of the run.
//!
//! Owns their sockets. A server must hold them without losing any: how many are still open at the
//! end is part of the result. Refuses to know the ring: an idle connection costs this client
//! nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::arguments::Arguments;
use super::verify::{Checker, Progress};

/// Longest wait for the one response of an idle connection.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many idle connections were opened, and how many were still open at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Survivors {
    /// Opened, each with one checked exchange.
    pub opened: usize,
    /// Open and silent at the end.
    pub alive: usize,
}

/// The open idle connections.
pub struct IdleConnections {
    streams: Vec<TcpStream>,
}

impl IdleConnections {
    /// Opens `arguments.idle` connections one after the other; fails when the server answers one
    /// wrongly.
    pub fn open(arguments: &Arguments) -> io::Result<Self> {
        let mut checker = Checker::new(arguments.expect_status, arguments.expect_body.clone());
        let mut streams = Vec::with_capacity(arguments.idle);
        for number in 0..arguments.idle {
            let stream = exchange_once(arguments, &mut checker).map_err(|error| {
                io::Error::new(error.kind(), format!("idle connection {number}: {error}"))
            })?;
            streams.push(stream);
        }
        Ok(Self { streams })
    }

    /// Counts those that the server has neither closed nor sent anything to.
    pub fn survivors(&self) -> Survivors {
        let alive = self
            .streams
            .iter()
            .filter(|stream| is_silent(stream))
            .count();
        Survivors {
            opened: self.streams.len(),
            alive,
        }
    }
}

fn exchange_once(arguments: &Arguments, checker: &mut Checker) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&arguments.address, EXCHANGE_TIMEOUT)?;
    stream.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
    stream.write_all(&arguments.request)?;
    let mut progress = Progress::default();
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let fed = checker
            .feed(&mut progress, &buffer[..count])
            .map_err(|fault| io::Error::new(ErrorKind::InvalidData, fault.explain()))?;
        if fed.responses > 0 {
            return Ok(stream);
        }
    }
}

fn is_silent(stream: &TcpStream) -> bool {
    let would_block = |error: io::Error| error.kind() == ErrorKind::WouldBlock;
    stream.set_nonblocking(true).is_ok() && stream.peek(&mut [0]).is_err_and(would_block)
}
