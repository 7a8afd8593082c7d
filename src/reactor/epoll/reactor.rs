//! The turn on epoll: readiness becomes completions.
//!
//! Owns the tables of listeners, connections and watched descriptors, and the results of calls that
//! were made at submit. Refuses to know what the bytes mean. Results that are at hand are delivered
//! without asking the kernel first, but never twice in a row, so that a socket that always takes
//! more cannot starve the others.

use std::os::fd::RawFd;
use std::time::Duration;

use libc::{EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLRDHUP, epoll_event};

use super::calls::{self, Poller};
use super::interest::Interest;
use super::transfer::{Receive, SendEnd, send_some};
use crate::reactor::Reactor;
use crate::reactor::buffers::{Group, Lease};
use crate::reactor::config::Config;
use crate::reactor::counters::Counters;
use crate::reactor::errors::{Errno, ReactorUnavailable};
use crate::reactor::net;
use crate::reactor::seam::{Completion, Kind, Op, Outcome, SendBuffer, Submit, Token};
use crate::reactor::waker::Waker;

/// The reactor on epoll.
pub struct Epoll {
    poller: Poller,
    events: Vec<epoll_event>,
    /// Tables by the slot of the token.
    connections: Vec<Connection>,
    listeners: Vec<Option<Listener>>,
    watched: Vec<Option<Watched>>,
    group: Group,
    /// A buffer at hand for the next receive: most end in EAGAIN or fill it, both without the
    /// group.
    spare: Option<Lease>,
    /// Results of calls made at submit.
    ready: Vec<Completion>,
    /// Whether the last wait delivered `ready` without asking the kernel.
    skipped: bool,
    waker: Waker,
    counters: Counters,
}

struct Connection {
    interest: Interest,
    generation: u32,
    receiving: bool,
    sending: Option<SendBuffer>,
}

struct Listener {
    interest: Interest,
    token: Token,
}

struct Watched {
    interest: Interest,
    /// `None` when the watch has fired: the registration is kept, disarmed, for the next one.
    token: Option<Token>,
}

/// Events taken per wait. 256 is the ring's batch; what is left is reported again.
const EVENTS_MAX: usize = 256;
/// Connections taken per listener and wait, so that a storm of them cannot starve those that are
/// served.
const ACCEPTS_MAX: usize = 64;

const IN: u32 = EPOLLIN as u32;
const OUT: u32 = EPOLLOUT as u32;
/// Reported whether asked for or not. They end a receive or a send, which finds out what happened.
const BROKEN: u32 = (EPOLLHUP | EPOLLERR) as u32;

const WAKER: Token = Token::new(Kind::Internal, 1, 0);

impl Epoll {
    /// Opens an epoll instance. Works wherever Linux does.
    ///
    /// # Errors
    /// When the configuration is not valid or no descriptor is free.
    pub fn open(config: &Config) -> Result<Self, ReactorUnavailable> {
        config.validate().map_err(ReactorUnavailable::from)?;
        let poller = Poller::open()
            .map_err(|errno| ReactorUnavailable::other(errno, "for an epoll instance"))?;
        let waker = Waker::open()
            .map_err(|error| ReactorUnavailable::other(Errno::of(&error), "for an eventfd"))?;
        Interest::new(waker.fd(), WAKER.to_bits())
            .set(&poller, (EPOLLIN | EPOLLET) as u32)
            .map_err(|errno| ReactorUnavailable::other(errno, "while watching the eventfd"))?;
        Ok(Self {
            poller,
            events: vec![epoll_event { events: 0, u64: 0 }; EVENTS_MAX],
            connections: Vec::new(),
            listeners: Vec::new(),
            watched: Vec::new(),
            group: Group::heap(config.buffers, config.buffer_bytes),
            spare: None,
            ready: Vec::new(),
            skipped: false,
            waker,
            counters: Counters::default(),
        })
    }

    /// The connection of a token, made new when the slot has a new user.
    #[inline]
    fn connection(&mut self, token: Token, socket: RawFd) -> &mut Connection {
        let slot = token.slot() as usize;
        while slot >= self.connections.len() {
            self.connections.push(Connection::vacant());
        }
        let connection = &mut self.connections[slot];
        let mark = mark(token);
        if !connection.interest.is_for(socket, mark) {
            debug_assert!(
                connection.sending.is_none(),
                "slot {slot} was reused too early"
            );
            *connection = Connection::vacant();
            connection.interest = Interest::new(socket, mark);
            connection.generation = token.generation();
        }
        connection
    }

    fn on_recv(&mut self, token: Token, socket: RawFd) {
        let connection = self.connection(token, socket);
        debug_assert!(!connection.receiving, "one receive at a time: {token:?}");
        connection.receiving = true;
        if connection.interest.includes(IN) {
            return;
        }
        let Self {
            poller,
            connections,
            ..
        } = self;
        let connection = &mut connections[token.slot() as usize];
        if let Err(errno) = connection.interest.add(poller, IN) {
            connection.receiving = false;
            self.ready.push(failed(token, errno));
        }
    }

    fn on_send(&mut self, token: Token, socket: RawFd, mut buffer: SendBuffer) {
        let connection = self.connection(token, socket);
        assert!(
            connection.sending.is_none(),
            "one send at a time: {token:?} was submitted while another flies"
        );
        match send_some(socket, &mut buffer) {
            Some(outcome) => self.ready.push(outcome.completion(token, buffer)),
            None => self.await_room(token, buffer),
        }
    }

    /// The socket is full: the send goes on when the peer has read.
    fn await_room(&mut self, token: Token, buffer: SendBuffer) {
        let Self {
            poller,
            connections,
            ..
        } = self;
        let connection = &mut connections[token.slot() as usize];
        match connection.interest.add(poller, OUT) {
            Ok(()) => connection.sending = Some(buffer),
            Err(errno) => {
                self.ready
                    .push(SendEnd::Broken(errno).completion(token, buffer));
            }
        }
    }

    fn on_accept(&mut self, token: Token, socket: RawFd) {
        let place = place(&mut self.listeners, token);
        let mut interest = Interest::new(socket, token.to_bits());
        match interest.set(&self.poller, IN) {
            Ok(()) => *place = Some(Listener { interest, token }),
            Err(errno) => self.ready.push(failed(token, errno)),
        }
    }

    fn on_readable(&mut self, token: Token, fd: RawFd) {
        let place = place(&mut self.watched, token);
        let mark = Token::new(Kind::Readable, token.slot(), 0).to_bits();
        let watched = match place {
            Some(watched) if watched.interest.is_for(fd, mark) => watched,
            _ => place.insert(Watched {
                interest: Interest::new(fd, mark),
                token: None,
            }),
        };
        watched.token = Some(token);
        match watched
            .interest
            .set(&self.poller, (EPOLLIN | EPOLLONESHOT) as u32)
        {
            Ok(()) => {}
            // A regular file: always readable, as the ring says too.
            Err(Errno(libc::EPERM)) => {
                watched.token = None;
                self.ready.push(Completion {
                    token,
                    more: false,
                    outcome: Outcome::Ready,
                });
            }
            Err(errno) => {
                watched.token = None;
                self.ready.push(failed(token, errno));
            }
        }
    }

    fn on_cancel(&mut self, target: Token) {
        let slot = target.slot() as usize;
        let cancelled = Errno(libc::ECANCELED);
        match target.kind() {
            Kind::Recv | Kind::Send => {
                let Some(connection) = self.connections.get_mut(slot) else {
                    return;
                };
                if connection.generation != target.generation() {
                    return;
                }
                if target.kind() == Kind::Send {
                    if let Some(buffer) = connection.sending.take() {
                        self.ready
                            .push(SendEnd::Broken(cancelled).completion(target, buffer));
                    }
                } else if std::mem::take(&mut connection.receiving) {
                    self.ready.push(failed(target, cancelled));
                }
            }
            Kind::Accept => {
                let Some(place) = self.listeners.get_mut(slot) else {
                    return;
                };
                if let Some(mut listener) = place.take_if(|listener| listener.token == target) {
                    listener.interest.keep_only(&self.poller, 0);
                    self.ready.push(failed(target, cancelled));
                }
            }
            Kind::Readable => {
                let Some(Some(watched)) = self.watched.get_mut(slot) else {
                    return;
                };
                if watched.token.take_if(|token| *token == target).is_some() {
                    watched.interest.keep_only(&self.poller, 0);
                    self.ready.push(failed(target, cancelled));
                }
            }
            Kind::Internal => {}
        }
    }

    fn on_close(&mut self, token: Token, socket: RawFd) {
        if let Some(connection) = self.connections.get_mut(token.slot() as usize) {
            if connection.interest.fd == socket {
                connection.interest.forget();
            }
        }
        net::close(socket);
    }

    fn on_event(&mut self, event: epoll_event, completions: &mut Vec<Completion>) {
        let epoll_event { events, u64: bits } = event;
        let Some(token) = Token::from_bits(bits) else {
            return;
        };
        match token.kind() {
            Kind::Recv | Kind::Send => self.on_connection(token, events, completions),
            Kind::Accept => self.accept_some(token, completions),
            Kind::Readable => {
                if let Some(Some(watched)) = self.watched.get_mut(token.slot() as usize) {
                    if let Some(token) = watched.token.take() {
                        let outcome = Outcome::Ready;
                        completions.push(Completion {
                            token,
                            more: false,
                            outcome,
                        });
                    }
                }
            }
            Kind::Internal => {
                self.counters.wakeups += 1;
                self.waker.acknowledge();
            }
        }
    }

    fn on_connection(&mut self, token: Token, events: u32, completions: &mut Vec<Completion>) {
        let Self {
            poller,
            connections,
            group,
            spare,
            counters,
            ..
        } = self;
        let Some(connection) = connections.get_mut(token.slot() as usize) else {
            return;
        };
        if connection.generation != token.generation() {
            return;
        }
        let mut used = 0;
        if events & (OUT | BROKEN) != 0 {
            if let Some(mut buffer) = connection.sending.take() {
                used |= OUT | BROKEN;
                counters.submissions += 1;
                match send_some(connection.interest.fd, &mut buffer) {
                    Some(outcome) => {
                        let token = Token::new(Kind::Send, token.slot(), token.generation());
                        completions.push(outcome.completion(token, buffer));
                    }
                    None => connection.sending = Some(buffer),
                }
            }
        }
        if connection.receiving && events & (IN | EPOLLRDHUP as u32 | BROKEN) != 0 {
            used |= IN | BROKEN;
            let token = Token::new(Kind::Recv, token.slot(), token.generation());
            let mut receive = Receive {
                token,
                group,
                spare,
                counters,
            };
            connection.receiving = receive.run(connection.interest.fd, completions);
        }
        // Something is registered that nothing waits for; it would be reported again and again.
        if events & !used & (IN | OUT | BROKEN) != 0 {
            let wanted = if connection.receiving { IN } else { 0 }
                | if connection.sending.is_some() { OUT } else { 0 };
            connection.interest.keep_only(poller, wanted);
        }
    }

    fn accept_some(&mut self, token: Token, completions: &mut Vec<Completion>) {
        let Some(place) = self.listeners.get_mut(token.slot() as usize) else {
            return;
        };
        let Some(listener) = place.as_mut().filter(|listener| listener.token == token) else {
            return;
        };
        for _ in 0..ACCEPTS_MAX {
            self.counters.submissions += 1;
            match calls::accept(listener.interest.fd) {
                Ok(socket) => {
                    let outcome = Outcome::Accepted(socket);
                    completions.push(Completion {
                        token,
                        more: true,
                        outcome,
                    });
                }
                Err(Errno(libc::EAGAIN)) => return,
                // The peer gave up while queued, or a signal came: the next one may be fine.
                Err(Errno(libc::ECONNABORTED | libc::EINTR | libc::EPROTO)) => {}
                Err(errno) => {
                    listener.interest.keep_only(&self.poller, 0);
                    *place = None;
                    completions.push(failed(token, errno));
                    return;
                }
            }
        }
    }
}

impl Connection {
    fn vacant() -> Self {
        Self {
            interest: Interest::new(-1, 0),
            generation: 0,
            receiving: false,
            sending: None,
        }
    }
}

/// A connection is registered once, whichever op came first.
fn mark(token: Token) -> u64 {
    Token::new(Kind::Recv, token.slot(), token.generation()).to_bits()
}

fn failed(token: Token, errno: Errno) -> Completion {
    Completion {
        token,
        more: false,
        outcome: Outcome::Failed(errno, None),
    }
}

fn place<T>(table: &mut Vec<Option<T>>, token: Token) -> &mut Option<T> {
    let slot = token.slot() as usize;
    if slot >= table.len() {
        table.resize_with(slot + 1, || None);
    }
    &mut table[slot]
}

impl Submit for Epoll {
    fn submit(&mut self, token: Token, op: Op) {
        self.counters.submissions += 1;
        match op {
            Op::Recv { socket, .. } => self.on_recv(token, socket),
            Op::Send { socket, buffer } => self.on_send(token, socket, buffer),
            Op::Accept { listener } => self.on_accept(token, listener),
            Op::Readable { fd } => self.on_readable(token, fd),
            Op::Shutdown { socket, half } => net::shut_down(socket, half),
            Op::Close { socket } => self.on_close(token, socket),
            Op::Cancel { target } => self.on_cancel(target),
        }
    }

    fn free_buffers(&self) -> usize {
        self.group.free() + usize::from(self.spare.is_some())
    }
}

impl Reactor for Epoll {
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Errno> {
        let before = completions.len();
        self.counters.waits += 1;
        let at_hand = !self.ready.is_empty();
        completions.append(&mut self.ready);
        self.skipped = at_hand && !self.skipped;
        if !self.skipped {
            let timeout = if at_hand {
                Some(Duration::ZERO)
            } else {
                timeout
            };
            self.counters.enters += 1;
            let count = match self.poller.wait(&mut self.events, timeout) {
                Ok(count) => count,
                Err(Errno(libc::EINTR)) => 0,
                Err(errno) => return Err(errno),
            };
            for index in 0..count {
                self.on_event(self.events[index], completions);
            }
        }
        self.counters.completions += (completions.len() - before) as u64;
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn name(&self) -> &'static str {
        "epoll"
    }
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoll")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
