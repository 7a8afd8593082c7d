//! The active connections: who has asked what, who has been answered, what went wrong.
//!
//! Owns the sockets and the state of each connection. A connection has one batch under way at a
//! time. Any fault is counted, and the connection replaced, so that a run always ends with numbers.
//! Refuses to know how ops reach the kernel and how results are printed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use socket2::{Domain, Protocol, Socket, Type};

use super::arguments::Arguments;
use super::connection::{Connection, GENERATION_MASK, Kind, split_token, token};
use super::idle::Survivors;
use super::report::{Errors, Report, Window};
use super::ring::{Completion, Plan, Ring};
use super::verify::{Checker, Fault};

/// Longest wait of a turn, so that the end of the window is noticed when the server is silent.
const TURN_MAX: Duration = Duration::from_millis(50);

/// Connections that are being made at a time: within the backlog of every server, or SYNs are lost
/// and come again a second later.
const CONNECTING_MAX: usize = 64;

/// Pause before a refused connect is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Latencies are kept from 100 ns to a minute with three digits.
const LATENCY_NS: (u64, u64, u8) = (100, 60_000_000_000, 3);

/// What the requests of one run have come to.
pub struct Client {
    ring: Ring,
    checker: Checker,
    connections: Vec<Connection>,
    completions: Vec<Completion>,
    retries: Vec<(Instant, usize)>,
    depth: u32,
    request_bytes: usize,
    requests_per_connection: u64,
    phase: Phase,
    domain: Domain,
    sources: u8,
    next_source: u8,
    /// Slots from here on have not been connected yet.
    unopened: usize,
    /// Connections that were open when the first request was sent.
    opened: usize,
    /// Responses of the whole run.
    responses_total: u64,
    window: Counted,
    errors: Errors,
    first_fault: Option<String>,
    connects: u64,
    busy: usize,
}

/// What the window counts.
struct Counted {
    responses: u64,
    bytes: u64,
    latency: Histogram<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connect,
    WarmUp,
    Window,
    Drain,
}

impl Client {
    /// Opens the ring and begins to connect.
    pub fn open(arguments: &Arguments) -> io::Result<Self> {
        let depth = arguments.depth;
        let ring = Ring::open(Plan {
            connections: arguments.connections,
            block: arguments.request.repeat(depth as usize),
            address: arguments.address,
            buffer_bytes: arguments.buffer_bytes,
        })?;
        let connections = (0..arguments.connections).map(|_| Connection::unconnected());
        let mut client = Self {
            ring,
            checker: Checker::new(arguments.expect_status, arguments.expect_body.clone()),
            connections: connections.collect(),
            completions: Vec::new(),
            retries: Vec::new(),
            depth,
            request_bytes: arguments.request.len(),
            requests_per_connection: arguments.requests_per_connection,
            phase: Phase::Connect,
            domain: Domain::for_address(arguments.address),
            sources: arguments.sources,
            next_source: 0,
            unopened: 0,
            opened: 0,
            responses_total: 0,
            window: Counted::new()?,
            errors: Errors::default(),
            first_fault: None,
            connects: 0,
            busy: 0,
        };
        for _ in 0..CONNECTING_MAX {
            client.connect_next()?;
        }
        Ok(client)
    }

    /// Makes all connections, then lets each send its first batch; fails when that takes until
    /// `end`.
    pub fn connect_all(&mut self, end: Instant) -> io::Result<()> {
        while self.opened < self.connections.len() {
            let now = Instant::now();
            if now >= end {
                let (opened, wanted) = (self.opened, self.connections.len());
                let fault = self.first_fault.as_deref().unwrap_or("no answer");
                let words = format!("{opened} of {wanted} connections made: {fault}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, words));
            }
            self.retry_connects(now)?;
            self.turn(TURN_MAX.min(end - now))?;
        }
        self.phase = Phase::WarmUp;
        for slot in 0..self.connections.len() {
            if self.connections[slot].connected {
                self.begin_batch(slot)?;
            }
        }
        Ok(())
    }

    /// Lets requests and responses flow until `end`.
    pub fn run_until(&mut self, end: Instant) -> io::Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            self.retry_connects(now)?;
            self.turn(TURN_MAX.min(end - now))?;
        }
    }

    /// From now on responses count.
    pub fn begin_window(&mut self) {
        self.phase = Phase::Window;
    }

    /// From now on nothing counts and nothing new is asked.
    pub fn end_window(&mut self) {
        self.phase = Phase::Drain;
    }

    /// Waits for what is still owed to us, until `end` at the latest.
    pub fn drain(&mut self, end: Instant) -> io::Result<()> {
        while self.busy > 0 && Instant::now() < end {
            self.turn(TURN_MAX)?;
        }
        let owed = self
            .connections
            .iter()
            .map(|connection| u64::from(connection.outstanding));
        self.errors.unanswered += owed.sum::<u64>();
        Ok(())
    }

    /// The result of the run.
    pub fn into_report(self, window: Window, idle: Survivors) -> Report {
        let mut errors = self.errors;
        errors.idle_lost = (idle.opened - idle.alive) as u64;
        Report {
            window,
            responses: self.window.responses,
            bytes: self.window.bytes,
            latency: self.window.latency,
            responses_total: self.responses_total,
            parsed_in_full: self.checker.parsed_in_full,
            connects: self.connects,
            connections: self.connections.len(),
            depth: self.depth,
            idle,
            errors,
            first_fault: self.first_fault,
        }
    }

    fn turn(&mut self, longest: Duration) -> io::Result<()> {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.turn(longest, &mut completions)?;
        for completion in completions.drain(..) {
            self.on_completion(completion)?;
        }
        self.completions = completions;
        Ok(())
    }

    fn on_completion(&mut self, completion: Completion) -> io::Result<()> {
        let (kind, generation, slot) = split_token(completion.token);
        if self.connections[slot].generation == generation {
            match kind {
                Kind::Connect => self.on_connect(slot, completion.result)?,
                Kind::Send => self.on_send(slot, completion.result)?,
                Kind::Receive => self.on_receive(slot, &completion)?,
            }
        }
        self.ring.recycle(completion);
        Ok(())
    }

    fn on_connect(&mut self, slot: usize, result: i32) -> io::Result<()> {
        if result < 0 {
            self.errors.connect += 1;
            self.note(|| format!("connect: {}", io::Error::from_raw_os_error(-result)));
            self.disconnect(slot);
            self.retries.push((Instant::now() + RETRY_PAUSE, slot));
            return Ok(());
        }
        self.connects += 1;
        self.connections[slot].connected = true;
        self.arm(slot)?;
        if self.phase == Phase::Connect {
            self.opened += 1;
            return self.connect_next();
        }
        self.begin_batch(slot)
    }

    fn on_send(&mut self, slot: usize, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[slot];
        connection.sending = false;
        let Ok(sent) = usize::try_from(result) else {
            // After an announced close the rest of the batch cannot be sent; that is not an error.
            if !connection.closing {
                self.errors.socket += 1;
                self.note(|| format!("send: {}", io::Error::from_raw_os_error(-result)));
            }
            return self.replace(slot);
        };
        connection.unsent.0 += sent;
        if connection.unsent.0 < connection.unsent.1 {
            return self.send_rest(slot);
        }
        self.continue_after_batch(slot)
    }

    fn on_receive(&mut self, slot: usize, completion: &Completion) -> io::Result<()> {
        if completion.result == -libc::ENOBUFS {
            return self.arm(slot);
        }
        if completion.result <= 0 {
            return self.on_end(slot, completion.result);
        }
        let connection = &mut self.connections[slot];
        let bytes = self.ring.bytes(completion);
        let fed = match self.checker.feed(&mut connection.progress, bytes) {
            Ok(fed) => fed,
            Err(fault) => return self.on_fault(slot, &fault),
        };
        connection.closing |= fed.close;
        self.responses_total += u64::from(fed.responses);
        if self.phase == Phase::Window {
            self.window.responses += u64::from(fed.responses);
            self.window.bytes += bytes.len() as u64;
        }
        let ended_early = connection.outstanding < fed.responses;
        let is_surplus =
            connection.outstanding == fed.responses && !connection.progress.is_between_responses();
        if ended_early || is_surplus {
            self.errors.surplus += 1;
            self.note(|| String::from("more bytes than the requests ask for"));
            return self.replace(slot);
        }
        connection.outstanding -= fed.responses;
        connection.answered += u64::from(fed.responses);
        if !completion.more {
            self.arm(slot)?;
        }
        if self.connections[slot].outstanding == 0 && fed.responses > 0 {
            self.end_batch(slot);
            return self.continue_after_batch(slot);
        }
        Ok(())
    }

    /// The server has closed or reset the connection.
    fn on_end(&mut self, slot: usize, result: i32) -> io::Result<()> {
        let connection = &self.connections[slot];
        if result < 0 {
            self.errors.socket += 1;
            self.note(|| format!("receive: {}", io::Error::from_raw_os_error(-result)));
        } else if connection.outstanding > 0 && !connection.closing {
            self.errors.closed_early += u64::from(connection.outstanding);
            let owed = connection.outstanding;
            self.note(|| format!("connection closed with {owed} responses owed"));
        }
        self.replace(slot)
    }

    fn on_fault(&mut self, slot: usize, fault: &Fault) -> io::Result<()> {
        match fault {
            Fault::WrongStatus(_) => self.errors.wrong_status += 1,
            Fault::WrongBody(_) => self.errors.wrong_body += 1,
            Fault::NoLength | Fault::Malformed(_) => self.errors.malformed += 1,
        }
        self.note(|| fault.explain());
        self.replace(slot)
    }

    fn begin_batch(&mut self, slot: usize) -> io::Result<()> {
        if matches!(self.phase, Phase::Connect | Phase::Drain) {
            return Ok(());
        }
        let connection = &mut self.connections[slot];
        let left = match self.requests_per_connection {
            0 => u64::from(self.depth),
            limit => limit - connection.answered,
        };
        let count = u32::try_from(left).unwrap_or(u32::MAX).min(self.depth);
        connection.outstanding = count;
        connection.unsent = (0, count as usize * self.request_bytes);
        connection.started = Instant::now();
        self.busy += 1;
        self.send_rest(slot)
    }

    fn end_batch(&mut self, slot: usize) {
        self.busy -= 1;
        if self.phase == Phase::Window {
            let elapsed = self.connections[slot].started.elapsed().as_nanos();
            self.window
                .latency
                .saturating_record(u64::try_from(elapsed).unwrap_or(u64::MAX));
        }
    }

    /// Begins the next batch when all of the last one is sent and answered.
    fn continue_after_batch(&mut self, slot: usize) -> io::Result<()> {
        let connection = &self.connections[slot];
        if connection.outstanding > 0 || connection.sending {
            return Ok(());
        }
        let limit = self.requests_per_connection;
        if connection.closing || (limit > 0 && connection.answered >= limit) {
            return self.replace(slot);
        }
        self.begin_batch(slot)
    }

    fn send_rest(&mut self, slot: usize) -> io::Result<()> {
        let connection = &mut self.connections[slot];
        let Some(socket) = &connection.socket else {
            return Ok(());
        };
        connection.sending = true;
        let token = token(Kind::Send, connection.generation, slot);
        let (from, to) = connection.unsent;
        self.ring.send(token, socket.as_raw_fd(), from, to)
    }

    fn arm(&mut self, slot: usize) -> io::Result<()> {
        let connection = &self.connections[slot];
        let Some(socket) = &connection.socket else {
            return Ok(());
        };
        let token = token(Kind::Receive, connection.generation, slot);
        self.ring.receive(token, socket.as_raw_fd())
    }

    fn connect_next(&mut self) -> io::Result<()> {
        if self.unopened == self.connections.len() {
            return Ok(());
        }
        self.unopened += 1;
        self.connect(self.unopened - 1)
    }

    fn connect(&mut self, slot: usize) -> io::Result<()> {
        let socket = Socket::new(self.domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if self.sources > 1 {
            // A connection that this side ends keeps its port for a minute. One address has 28,000
            // of them, which last for less than a second.
            self.next_source = (self.next_source + 1) % self.sources;
            let source = IpAddr::from(Ipv4Addr::new(127, 1, 0, self.next_source));
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        let token = token(Kind::Connect, self.connections[slot].generation, slot);
        self.ring.connect(token, socket.as_raw_fd())?;
        self.connections[slot].socket = Some(socket);
        Ok(())
    }

    fn retry_connects(&mut self, now: Instant) -> io::Result<()> {
        if self.retries.first().is_none_or(|(at, _)| *at > now) {
            return Ok(());
        }
        for (_, slot) in std::mem::take(&mut self.retries) {
            self.connect(slot)?;
        }
        Ok(())
    }

    /// Closes a connection and, unless the run is at its end, opens another in its place.
    fn replace(&mut self, slot: usize) -> io::Result<()> {
        self.disconnect(slot);
        if self.phase == Phase::Drain {
            return Ok(());
        }
        self.connect(slot)
    }

    fn disconnect(&mut self, slot: usize) {
        let next = self.connections[slot].generation.wrapping_add(1) & GENERATION_MASK;
        let fresh = Connection {
            generation: next,
            ..Connection::unconnected()
        };
        let old = std::mem::replace(&mut self.connections[slot], fresh);
        self.busy -= usize::from(old.outstanding > 0);
        if let (Some(socket), true) = (&old.socket, old.connected) {
            // Ends the armed receive, which would keep the socket open. It may be closed already.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Keeps the first fault's words; the others are only counted.
    fn note(&mut self, words: impl FnOnce() -> String) {
        if self.first_fault.is_none() {
            self.first_fault = Some(words());
        }
    }
}

impl Counted {
    fn new() -> io::Result<Self> {
        let (low, high, digits) = LATENCY_NS;
        let latency = Histogram::new_with_bounds(low, high, digits).map_err(io::Error::other)?;
        Ok(Self {
            responses: 0,
            bytes: 0,
            latency,
        })
    }
}
