//! All connections of one worker, and what each completion means for them.
//!
//! Owns the connection table, the listeners and the order of a turn. Refuses to know how ops are
//! done, what bytes mean and who answers. Every method that may need the reactor takes it as `&mut
//! impl Submit`.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use slab::Slab;

use super::clock::Clock;
use super::connection::{Connection, Phase, Recv};
use super::counters::Counters;
use super::deadlines::Deadlines;
use super::handler::Handler;
use super::input::Shared;
use super::journal::Recorder;
use super::pace::Demand;
use super::preface::Opening;
use super::record::Sampling;
use crate::protocol::date::DateLine;
use crate::protocol::{CloseReason, Limits, RequestHead};
use crate::reactor::{
    Arm, Completion, GENERATION_MASK, Kind, Lease, Op, Outcome, SendBuffer, Submit, Token,
};

/// Serves connections: completions in, ops out.
#[derive(Debug)]
pub struct Worker {
    pub(super) connections: Slab<Connection>,
    pub(super) listeners: Vec<Listener>,
    /// Sockets that were accepted before the accept could be stopped, while the table is full.
    pub(super) held: VecDeque<(RawFd, Opening)>,
    pub(super) shared: Shared,
    pub(super) deadlines: Deadlines,
    /// Slots to look at in `flush`, each once.
    pub(super) dirty: Vec<u32>,
    /// Connections that wait for a free buffer, oldest first.
    pub(super) starved: VecDeque<(u32, u32)>,
    /// Connections that the kernel had no memory for, and when they try again.
    pub(super) unlucky: Vec<(u32, u32)>,
    pub(super) retry_at_ms: Option<u64>,
    /// Whether nobody is accepted any more and every answer may be the last of its connection.
    pub(super) winding_down: bool,
    /// Whether idle connections end, too.
    pub(super) draining: bool,
    next_generation: u32,
}

/// A listening socket, and whether it is being accepted from.
#[derive(Debug)]
pub(super) struct Listener {
    pub socket: RawFd,
    pub armed: bool,
    /// When to try again after a failure.
    pub retry_at_ms: Option<u64>,
    pub failures_in_a_row: u32,
}

impl Worker {
    /// A worker without listeners.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            connections: Slab::new(),
            listeners: Vec::new(),
            held: VecDeque::new(),
            shared: Shared {
                limits,
                date: DateLine::default(),
                head: RequestHead::default(),
                counters: Counters::default(),
                now_ms: 0,
                now_us: 0,
                turn: 0,
                lease: None,
                spares: Vec::new(),
                recorder: None,
            },
            deadlines: Deadlines::default(),
            dirty: Vec::new(),
            starved: VecDeque::new(),
            unlucky: Vec::new(),
            retry_at_ms: None,
            winding_down: false,
            draining: false,
            next_generation: 0,
        }
    }

    /// Accepts from this socket, which the caller keeps open, from the next `flush` on.
    pub fn add_listener(&mut self, socket: RawFd) {
        self.listeners.push(Listener {
            socket,
            armed: false,
            retry_at_ms: None,
            failures_in_a_row: 0,
        });
    }

    /// Tells the handler of exchanges that are over, through `Handler::on_record`: of those that
    /// begin from now on.
    pub fn record(&mut self, sampling: Sampling) {
        self.shared.recorder = Some(Box::new(Recorder::new(sampling)));
    }

    /// Begins a turn: everything until the next call happens at this time.
    pub fn on_clock(&mut self, clock: Clock) {
        self.shared.now_ms = clock.monotonic_ms();
        self.shared.now_us = clock.monotonic_us;
        self.shared.turn = self.shared.turn.wrapping_add(1);
        self.shared.date.update(clock.unix_s);
    }

    /// Takes one completion. Answers it leads to are sent by the next `flush`.
    pub fn on_completion<S: Submit, H: Handler>(
        &mut self,
        completion: Completion,
        submit: &mut S,
        handler: &mut H,
    ) {
        let Completion {
            token,
            more,
            outcome,
        } = completion;
        match token.kind() {
            Kind::Recv => self.on_recv(token, more, outcome, submit, handler),
            Kind::Send => self.on_send(token, outcome, submit, handler),
            Kind::Accept => self.on_accept(token, more, outcome, submit, handler),
            Kind::Readable | Kind::Internal => {}
        }
    }

    /// The totals so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        self.connections.len()
    }

    /// The `Date` line of this turn, for answers made outside of a handler.
    #[must_use]
    pub fn date(&self) -> &DateLine {
        &self.shared.date
    }

    /// Puts the slot on the list of `flush`.
    pub(super) fn mark(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// The connection that a completion belongs to, or `None` and a count when its slot has moved
    /// on.
    fn connection(&mut self, token: Token) -> Option<&mut Connection> {
        let found = self.connections.get_mut(token.slot() as usize);
        if found
            .as_ref()
            .is_none_or(|c| c.generation != token.generation())
        {
            self.shared.counters.stale_completions_total += 1;
            return None;
        }
        found
    }

    fn on_recv<S: Submit, H: Handler>(
        &mut self,
        token: Token,
        more: bool,
        outcome: Outcome,
        submit: &mut S,
        handler: &mut H,
    ) {
        let slot = token.slot();
        let Some(connection) = self.connection(token) else {
            return;
        };
        if !more {
            connection.recv = Recv::Idle;
        }
        match outcome {
            Outcome::Received(lease) => self.on_received(slot, &lease, submit, handler),
            Outcome::EndOfInput => {
                connection.recv = Recv::Ended;
                let ends_now = connection.phase == Phase::Open && !connection.paused;
                if ends_now && let Some(connection) = self.connections.get_mut(slot as usize) {
                    connection.on_end_of_input(slot, &mut self.shared, handler);
                }
            }
            Outcome::Starved => {
                connection.declined = true;
                connection.recv = Recv::Starved;
                self.starved.push_back((slot, token.generation()));
                self.shared.counters.starved_total += 1;
            }
            Outcome::Failed(errno, _) if errno.is_cancelled() => connection.declined = true,
            Outcome::Failed(errno, _) if errno.is_shortage() => {
                // What the peer sent is still there; the kernel may have memory for it soon.
                connection.declined = true;
                connection.recv = Recv::Starved;
                self.on_shortage(slot, token.generation());
            }
            Outcome::Failed(errno, _) => {
                connection.recv = Recv::Ended;
                let reset = errno.is_reset();
                let reason = if reset {
                    CloseReason::PeerReset
                } else {
                    CloseReason::SocketError
                };
                self.abort(slot, reason, submit, handler);
            }
            Outcome::Accepted(_) | Outcome::Sent(_) | Outcome::Ready => {}
        }
        self.mark(slot);
    }

    fn on_received<S: Submit, H: Handler>(
        &mut self,
        slot: u32,
        lease: &Lease,
        submit: &mut S,
        handler: &mut H,
    ) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        let shared = &mut self.shared;
        shared.counters.bytes_received_total += lease.len() as u64;
        let reads_on = connection.reads_on();
        match &mut connection.phase {
            Phase::Open if connection.paused => {
                connection.carry.extend_from_slice(lease);
                // Bytes go on arriving until the cancel takes effect: what is on the way is kept.
                let held_max = shared.limits.head_bytes_max as usize;
                if connection.carry.len() > held_max && connection.recv == Recv::Armed {
                    connection.recv = Recv::Cancelling;
                    let target = Token::new(Kind::Recv, slot, connection.generation);
                    submit.submit(target, Op::Cancel { target });
                }
            }
            Phase::Open if !reads_on => {
                connection.unread_input = true;
                connection.discarded_bytes += lease.len();
                if connection.has_heard_enough(&shared.limits) && connection.recv == Recv::Armed {
                    connection.recv = Recv::Cancelling;
                    let target = Token::new(Kind::Recv, slot, connection.generation);
                    submit.submit(target, Op::Cancel { target });
                }
            }
            Phase::Open => {
                shared.lease = Some(lease.share());
                connection.on_input(lease, slot, shared, handler);
                shared.lease = None;
            }
            Phase::Lingering { bytes_left, .. } => {
                *bytes_left = bytes_left.saturating_sub(lease.len() as u32);
            }
            Phase::ShutDown => {}
        }
    }

    fn on_send<S: Submit, H: Handler>(
        &mut self,
        token: Token,
        outcome: Outcome,
        submit: &mut S,
        handler: &mut H,
    ) {
        let slot = token.slot();
        let now_ms = self.shared.now_ms;
        let demand = Demand::on_send(&self.shared.limits);
        let Some(connection) = self.connection(token) else {
            return;
        };
        match outcome {
            Outcome::Sent(buffer) => {
                let left = buffer.remaining().len();
                let sent = connection.in_flight_bytes - left;
                let goes_on = left > 0 && connection.phase != Phase::ShutDown;
                connection.in_flight_bytes = left;
                connection.sent_bytes += sent as u64;
                if left > 0 {
                    connection.send_pace.on_bytes(sent, now_ms, demand);
                }
                self.shared.counters.bytes_sent_total += sent as u64;
                if goes_on {
                    self.send(slot, buffer, submit);
                } else {
                    self.on_send_home(slot, buffer);
                }
                if let Some(connection) = self.connections.get_mut(slot as usize) {
                    connection.wake_producer(slot, &self.shared.limits, handler);
                }
                if goes_on {
                    return;
                }
            }
            Outcome::Failed(errno, Some(buffer))
                if errno.is_shortage() && connection.phase != Phase::ShutDown =>
            {
                connection.sending = false;
                connection.in_flight_bytes = 0;
                let behind = std::mem::take(&mut connection.out);
                connection.out = [buffer.remaining(), &behind].concat();
                self.shared.recycle(buffer.bytes);
                return self.on_shortage(slot, token.generation());
            }
            Outcome::Failed(errno, buffer) => {
                let reset = errno.is_reset() || errno.is_cancelled();
                self.on_send_home(slot, buffer.unwrap_or_default());
                let reason = if reset {
                    CloseReason::PeerReset
                } else {
                    CloseReason::SocketError
                };
                self.abort(slot, reason, submit, handler);
            }
            _ => {}
        }
        self.mark(slot);
    }

    /// The kernel had no memory for an op. It is made again a little later: at once, it would only
    /// burn the core.
    fn on_shortage(&mut self, slot: u32, generation: u32) {
        self.shared.counters.shortages_total += 1;
        self.unlucky.push((slot, generation));
        let at_ms = self.shared.now_ms + SHORTAGE_RETRY_MS;
        self.retry_at_ms.get_or_insert(at_ms);
    }

    fn on_send_home(&mut self, slot: u32, buffer: SendBuffer) {
        if let Some(connection) = self.connections.get_mut(slot as usize) {
            connection.sending = false;
            connection.in_flight_bytes = 0;
            connection.idle_since_ms = self.shared.now_ms;
        }
        self.shared.recycle(buffer.bytes);
    }

    fn on_accept<S: Submit, H: Handler>(
        &mut self,
        token: Token,
        more: bool,
        outcome: Outcome,
        submit: &mut S,
        handler: &mut H,
    ) {
        let now_ms = self.shared.now_ms;
        let room = self.room();
        let Some(listener) = self.listeners.get_mut(token.slot() as usize) else {
            return;
        };
        listener.armed = more;
        match outcome {
            Outcome::Accepted(socket) => {
                listener.failures_in_a_row = 0;
                if room == 1 && more {
                    submit.submit(token, Op::Cancel { target: token });
                }
                let opening = handler.on_accept(socket);
                if room == 0 && !self.draining {
                    self.held.push_back((socket, opening));
                } else {
                    self.open(socket, opening);
                }
            }
            Outcome::Failed(errno, _) if !errno.is_cancelled() => {
                self.shared.counters.accept_errors_total += 1;
                // Without descriptors, or when it fails again and again, trying at once would only
                // burn the core; a connection that closes, or a while, brings the next attempt.
                listener.failures_in_a_row += 1;
                if errno.is_descriptor_limit() || listener.failures_in_a_row > 8 {
                    listener.retry_at_ms = Some(now_ms + ACCEPT_RETRY_MS);
                    self.shared.counters.accept_pauses_total += 1;
                }
            }
            _ => {}
        }
    }

    /// Serves a connection that the caller has accepted; its descriptor is the worker's from now
    /// on. For who came when the last accept was cancelled already, so limits are not asked.
    pub fn adopt<H: Handler>(&mut self, socket: RawFd, handler: &mut H) {
        let opening = handler.on_accept(socket);
        self.open(socket, opening);
    }

    /// How many more connections there may be.
    pub(super) fn room(&self) -> usize {
        let connections_max = self.shared.limits.connections_max as usize;
        connections_max.saturating_sub(self.connections.len())
    }

    pub(super) fn open(&mut self, socket: RawFd, opening: Opening) {
        self.next_generation = (self.next_generation + 1) & GENERATION_MASK;
        let mut connection = Connection::new(
            socket,
            self.next_generation,
            &self.shared.limits,
            self.shared.now_ms,
        );
        connection.draining = self.winding_down;
        if opening != Opening::Request {
            connection.open_as(opening, &mut self.shared);
        }
        let slot = self.connections.insert(connection) as u32;
        self.shared.counters.connections_accepted_total += 1;
        self.mark(slot);
    }

    /// Hands a buffer to the reactor.
    pub(super) fn send<S: Submit>(&mut self, slot: u32, buffer: SendBuffer, submit: &mut S) {
        if let Some(connection) = self.connections.get_mut(slot as usize) {
            connection.sending = true;
            connection.in_flight_bytes = buffer.remaining().len();
            self.shared.counters.sends_total += 1;
            let token = Token::new(Kind::Send, slot, connection.generation);
            submit.submit(
                token,
                Op::Send {
                    socket: connection.socket,
                    buffer,
                },
            );
        }
    }

    /// Arms a receive.
    pub(super) fn receive<S: Submit>(&mut self, slot: u32, arm: Arm, submit: &mut S) {
        if let Some(connection) = self.connections.get_mut(slot as usize) {
            connection.recv = Recv::Armed;
            connection.declined = false;
            let token = Token::new(Kind::Recv, slot, connection.generation);
            submit.submit(
                token,
                Op::Recv {
                    socket: connection.socket,
                    arm,
                },
            );
        }
        if self.draining {
            // What it does not bring at once is not waited for.
            self.mark(slot);
        }
    }
}

impl Shared {
    /// Keeps an empty vector for the next connection that owes something, unless it grew unusually
    /// large.
    pub(super) fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spares.len() < SPARES_MAX && (1..=SPARE_BYTES_MAX).contains(&bytes.capacity()) {
            bytes.clear();
            self.spares.push(bytes);
        }
    }
}

/// How long accepting rests after it failed for want of descriptors. 100 ms is arbitrary: short for
/// a peer, long for a processor.
const ACCEPT_RETRY_MS: u64 = 100;

/// How long a connection rests when the kernel had no memory for it. 10 ms is arbitrary.
const SHORTAGE_RETRY_MS: u64 = 10;

/// Send buffers kept for reuse: enough for a turn's worth of connections.
const SPARES_MAX: usize = 128;

/// Largest send buffer that is kept; larger ones are given back to the allocator.
const SPARE_BYTES_MAX: usize = 64 * 1024;
