//! The turn on epoll: readiness becomes completions.
//!
//! Owns the tables of listeners, connections and watched descriptors, the results of calls made at
//! submit, and the list of connections with unread input. Refuses to know what the bytes mean. What
//! is at hand is delivered together with the events of one epoll_wait that does not sleep: one
//! turn, and a socket that always takes more cannot starve the others.

use std::os::fd::RawFd;
use std::time::Duration;

use libc::{EPOLLET, EPOLLIN, EPOLLONESHOT, epoll_event};

use super::calls::{self, Poller};
use super::connection::{Connection, IN};
use super::interest::Interest;
use super::transfer::{Receive, SendEnd};
use crate::reactor::Reactor;
use crate::reactor::buffers::{Group, Lease};
use crate::reactor::config::Config;
use crate::reactor::counters::Counters;
use crate::reactor::errors::{Errno, ReactorUnavailable};
use crate::reactor::net;
use crate::reactor::seam::{Completion, Kind, Op, Outcome, Submit, Token};
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
    /// Connections to receive from at the next wait, because epoll will not report them again:
    /// each once, by the token of its receive.
    unread: Vec<Token>,
    waker: Waker,
    counters: Counters,
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
            unread: Vec::new(),
            waker,
            counters: Counters::default(),
        })
    }

    fn on_recv(&mut self, token: Token, socket: RawFd) {
        let connection = row(&mut self.connections, token, socket);
        if let Err(errno) = connection.arm_receive(&self.poller) {
            self.ready.push(failed(token, errno));
        } else if connection.wants_queueing() {
            self.unread.push(token);
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
                if !connection.is(target.generation()) {
                    return;
                }
                if target.kind() == Kind::Send {
                    if let Some(buffer) = connection.cancel_send() {
                        self.ready
                            .push(SendEnd::Broken(cancelled).completion(target, buffer));
                    }
                } else if connection.cancel_receive() {
                    self.ready.push(failed(target, cancelled));
                }
            }
            Kind::Accept => {
                let Some(place) = self.listeners.get_mut(slot) else {
                    return;
                };
                if let Some(mut listener) = place.take_if(|listener| listener.token == target) {
                    listener.interest.remove(&self.poller);
                    self.ready.push(failed(target, cancelled));
                }
            }
            Kind::Readable => {
                let Some(Some(watched)) = self.watched.get_mut(slot) else {
                    return;
                };
                if watched.token.take_if(|token| *token == target).is_some() {
                    watched.interest.remove(&self.poller);
                    self.ready.push(failed(target, cancelled));
                }
            }
            Kind::Internal => {}
        }
    }

    fn on_close(&mut self, token: Token, socket: RawFd) {
        if let Some(connection) = self.connections.get_mut(token.slot() as usize) {
            connection.forget(socket);
        }
        self.counters.calls += 1;
        net::close(socket);
    }

    fn on_event(&mut self, event: epoll_event, completions: &mut Vec<Completion>) {
        let epoll_event { events, u64: bits } = event;
        let Some(token) = Token::from_bits(bits) else {
            return;
        };
        match token.kind() {
            Kind::Recv | Kind::Send => self.on_connection(token, Some(events), completions),
            Kind::Accept => self.accept_some(token, completions),
            Kind::Readable => {
                if let Some(Some(watched)) = self.watched.get_mut(token.slot() as usize)
                    && let Some(token) = watched.token.take()
                {
                    completions.push(Completion {
                        token,
                        more: false,
                        outcome: Outcome::Ready,
                    });
                }
            }
            Kind::Internal => {
                self.counters.wakeups += 1;
                self.waker.acknowledge();
            }
        }
    }

    /// `events`: what was reported, or `None` for a connection off the list.
    #[inline]
    fn on_connection(
        &mut self,
        token: Token,
        events: Option<u32>,
        completions: &mut Vec<Completion>,
    ) {
        let Some(connection) = self.connections.get_mut(token.slot() as usize) else {
            return;
        };
        if !connection.is(token.generation()) {
            return;
        }
        let mut receive = Receive {
            token,
            group: &self.group,
            spare: &mut self.spare,
            counters: &mut self.counters,
        };
        match events {
            Some(events) => connection.on_events(events, &mut receive, completions),
            None => connection.resume(&mut receive, completions),
        }
        if connection.wants_queueing() {
            self.unread.push(token);
        }
    }

    /// Receives from those that had more than one wait's share, or input before a receive.
    fn resume_unread(&mut self, completions: &mut Vec<Completion>) {
        // Those that have still more go to the end of the list, for the next wait.
        let mut left = self.unread.len();
        while left > 0 {
            left -= 1;
            let token = self.unread[left];
            self.unread.swap_remove(left);
            self.on_connection(token, None, completions);
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
            self.counters.calls += 1;
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
                    listener.interest.remove(&self.poller);
                    *place = None;
                    completions.push(failed(token, errno));
                    return;
                }
            }
        }
    }
}

/// The connection of a token, made new when the slot has a new user.
#[inline]
fn row(connections: &mut Vec<Connection>, token: Token, socket: RawFd) -> &mut Connection {
    let slot = token.slot() as usize;
    if slot >= connections.len() {
        connections.resize_with(slot + 1, Connection::vacant);
    }
    let connection = &mut connections[slot];
    connection.settle(token, socket);
    connection
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
            Op::Send { socket, buffer } => {
                self.counters.calls += 1;
                let connection = row(&mut self.connections, token, socket);
                self.ready
                    .extend(connection.send(&self.poller, token, buffer));
            }
            Op::Accept { listener } => self.on_accept(token, listener),
            Op::Readable { fd } => self.on_readable(token, fd),
            Op::Shutdown { socket, half } => {
                self.counters.calls += net::shut_down(socket, half);
            }
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
        // A completion may be what a close waits for, so nobody sleeps on one.
        let at_hand = !self.ready.is_empty() || !self.unread.is_empty();
        let timeout = if at_hand {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        completions.append(&mut self.ready);
        self.counters.enters += 1;
        let count = match self.poller.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno(libc::EINTR)) => 0,
            Err(errno) => return Err(errno),
        };
        self.resume_unread(completions);
        for index in 0..count {
            self.on_event(self.events[index], completions);
        }
        self.counters.on_batch(completions.len() - before);
        Ok(())
    }

    fn wake_fd(&mut self) -> Result<RawFd, Errno> {
        Ok(self.poller.fd())
    }

    fn is_idle(&mut self) -> bool {
        self.ready.is_empty() && self.unread.is_empty()
    }

    fn rest(&mut self) -> bool {
        self.is_idle()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.calls += self.poller.changes();
        counters.published()
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
