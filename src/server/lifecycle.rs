//! The end of a turn and the end of a connection.
//!
//! Owns `flush` (everything owed leaves, reading goes on or rests), deadlines, drain and the
//! closing sequence. Refuses to know why an answer was given.

use super::connection::{Phase, Recv, Tail};
use super::deadlines::Check;
use super::handler::{ExchangeId, Handler};
use super::pace::{Demand, Pace};
use super::worker::Worker;
use crate::protocol::{CloseReason, ProtocolError};
use crate::reactor::{Arm, Half, Kind, Op, SendBuffer, Submit, Token};

impl Worker {
    /// Lets everything that is due happen.
    pub fn on_time<S: Submit, H: Handler>(&mut self, submit: &mut S, handler: &mut H) {
        let now_ms = self.shared.now_ms;
        while let Some(check) = self.deadlines.take_due(now_ms) {
            let Some(connection) = self.connections.get_mut(check.slot as usize) else {
                continue;
            };
            if connection.generation != check.generation || connection.check_at_ms != check.at_ms {
                continue;
            }
            connection.check_at_ms = u64::MAX;
            match connection.deadline(&self.shared.limits) {
                Some((at_ms, CloseReason::HandlerDeadline)) if at_ms <= now_ms => {
                    self.on_overdue(check.slot, handler);
                }
                Some((at_ms, reason)) if at_ms <= now_ms => {
                    self.on_deadline(check.slot, reason, submit, handler);
                }
                Some(_) | None => self.schedule(check.slot),
            }
        }
    }

    /// Submits what the turn produced: one send per connection, re-armed receives, closings.
    pub fn flush<S: Submit, H: Handler>(&mut self, submit: &mut S, handler: &mut H) {
        self.retry_unlucky();
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            self.flush_connection(slot, submit, handler);
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
        self.feed_starved(submit);
        // Last: a connection that was closed just now may have made room, and nothing else may ever
        // happen.
        self.open_held();
        self.arm_listeners(submit);
    }

    /// When the worker wants to run again even if nothing completes.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let retries = self
            .listeners
            .iter()
            .filter_map(|listener| listener.retry_at_ms);
        let accept = if self.takes_connections() {
            retries.min()
        } else {
            None
        };
        // Connections that still found no buffer: look again soon, some come back with every turn.
        let starved = (!self.starved.is_empty()).then_some(self.shared.now_ms + 1);
        let flush = self.wants_turn().then_some(self.shared.now_ms);
        let retry = self.retry_at_ms;
        [self.deadlines.next_at_ms(), accept, starved, flush, retry]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the next turn has something to do, whatever completes until then.
    #[must_use]
    pub fn wants_turn(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Stops accepting, closes what is idle; every other connection ends behind its current
    /// requests.
    pub fn drain<S: Submit>(&mut self, submit: &mut S) {
        self.draining = true;
        self.open_held();
        self.wind_down(submit);
    }

    /// Stops accepting, and has every connection end with the answer to its next request. Until
    /// `drain`, idle ones stay open: their peers may be sending that request just now.
    pub fn wind_down<S: Submit>(&mut self, submit: &mut S) {
        self.winding_down = true;
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            listener.retry_at_ms = None;
            if listener.armed {
                let target = Token::new(Kind::Accept, index as u32, 0);
                submit.submit(target, Op::Cancel { target });
            }
        }
        for (slot, connection) in &mut self.connections {
            connection.draining = true;
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push(slot as u32);
            }
        }
    }

    /// Whether the kernel may still accept from a listener, which has to stay open meanwhile.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        self.listeners.iter().any(|listener| listener.armed)
    }

    /// Whether a drain has come to its end.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining && self.connections.is_empty() && !self.is_accepting()
    }

    /// How many connections have a request in progress.
    #[must_use]
    pub fn connections_busy(&self) -> usize {
        self.connections
            .iter()
            .filter(|(_, connection)| !connection.is_idle())
            .count()
    }

    /// Ends every connection at once.
    pub fn abort_all<S: Submit, H: Handler>(&mut self, submit: &mut S, handler: &mut H) {
        let slots: Vec<u32> = self
            .connections
            .iter()
            .map(|(slot, _)| slot as u32)
            .collect();
        for slot in slots {
            self.abort(slot, CloseReason::DrainDeadline, submit, handler);
            self.mark(slot);
        }
    }

    /// Ends a connection without waiting for what it is owed.
    pub(super) fn abort<S: Submit, H: Handler>(
        &mut self,
        slot: u32,
        reason: CloseReason,
        submit: &mut S,
        handler: &mut H,
    ) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        connection.closing = Some(reason);
        if !connection.owes_nothing() {
            connection.break_off();
        }
        let generation = connection.generation;
        connection.queue.abandon(|sequence| {
            handler.on_abandoned(
                ExchangeId {
                    slot,
                    generation,
                    sequence,
                },
                reason,
            );
        });
        connection.out = Vec::new();
        connection.carry = Vec::new();
        connection.gathering = None;
        connection.incoming = None;
        connection.paused = false;
        if !connection.sending {
            connection.tell_last_records(reason, &mut self.shared, handler);
        }
        self.shut_down(slot, submit);
    }

    fn on_deadline<S: Submit, H: Handler>(
        &mut self,
        slot: u32,
        reason: CloseReason,
        submit: &mut S,
        handler: &mut H,
    ) {
        self.shared.counters.deadlines_total += 1;
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        let error = match reason {
            CloseReason::HeadDeadline => Some(ProtocolError::HeadTimeout),
            CloseReason::BodyDeadline => Some(ProtocolError::BodyTimeout),
            _ => None,
        };
        match error {
            // RFC 9110 15.5.9: the peer is told that it was too slow.
            Some(error) if connection.phase == Phase::Open => {
                if connection.incoming.is_some() {
                    connection.fail_body(error, reason, slot, &mut self.shared, handler);
                } else {
                    let carry = std::mem::take(&mut connection.carry);
                    connection.refuse(error, &carry, slot, &mut self.shared, handler);
                }
                connection.closing = Some(reason);
                connection.carry = Vec::new();
                connection.head_since_ms = None;
            }
            _ => self.abort(slot, reason, submit, handler),
        }
        self.mark(slot);
    }

    fn flush_connection<S: Submit, H: Handler>(
        &mut self,
        slot: u32,
        submit: &mut S,
        handler: &mut H,
    ) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        connection.dirty = false;
        let shared = &mut self.shared;
        if connection.journal.is_some() {
            connection.tell_records(shared, handler);
        }
        if connection.paused {
            connection.read_on(slot, shared, handler);
        }
        if connection.paused && connection.is_spent(&shared.limits) {
            // The next turn gives it a new share. `dirty` is empty now: it is the next turn's.
            connection.dirty = true;
            self.dirty.push(slot);
        }
        if !connection.sending && !connection.out.is_empty() {
            let bytes = connection.take_output();
            connection.send_pace = Pace::new(shared.now_ms, Demand::on_send(&shared.limits));
            self.send(slot, SendBuffer { bytes, sent: 0 }, submit);
        }
        self.flush_input(slot, submit);
        self.schedule(slot);
    }

    /// Reading goes on, or the connection's end begins.
    fn flush_input<S: Submit>(&mut self, slot: u32, submit: &mut S) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if self.draining && connection.closing.is_none() && connection.is_at_rest() {
            connection.stop_reading(CloseReason::Draining);
        }
        let ends = connection.closing.is_some() && connection.owes_nothing();
        if connection.owes_nothing() && connection.out.capacity() > 0 {
            // What is not being filled belongs to the worker, not to an idle connection.
            let bytes = std::mem::take(&mut connection.out);
            self.shared.recycle(bytes);
        }
        match connection.phase {
            Phase::Open if ends && connection.tail == Tail::Broken => self.shut_down(slot, submit),
            Phase::Open if ends && connection.leaves_input_unread() => self.linger(slot, submit),
            Phase::Open if ends => self.shut_down(slot, submit),
            Phase::Open if connection.has_heard_enough(&self.shared.limits) => {}
            Phase::Open if connection.recv == Recv::Idle && !connection.paused => {
                self.receive(slot, Arm::Eager, submit);
            }
            Phase::Lingering { bytes_left: 0, .. } => self.shut_down(slot, submit),
            Phase::Lingering { .. } if connection.recv == Recv::Ended => {
                self.shut_down(slot, submit);
            }
            Phase::Lingering { .. } if connection.recv == Recv::Idle => {
                self.receive(slot, Arm::Eager, submit);
            }
            Phase::ShutDown if connection.is_released() => self.close(slot, submit),
            _ => {}
        }
    }

    /// FIN goes out, and what the peer still sends is thrown away: closing with unread bytes would
    /// send a reset, which may destroy our last answer before the peer reads it (RFC 9112 9.6).
    fn linger<S: Submit>(&mut self, slot: u32, submit: &mut S) {
        let limits = self.shared.limits;
        let until_ms = self.shared.now_ms + limits.linger_timeout_ms;
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if connection.recv == Recv::Ended {
            return self.shut_down(slot, submit);
        }
        connection.phase = Phase::Lingering {
            until_ms,
            bytes_left: limits.linger_bytes_max,
        };
        let socket = connection.socket;
        let token = Token::new(Kind::Internal, slot, connection.generation);
        let idle = connection.recv == Recv::Idle;
        submit.submit(
            token,
            Op::Shutdown {
                socket,
                half: Half::Write,
            },
        );
        if idle {
            self.receive(slot, Arm::Eager, submit);
        }
    }

    /// Both directions end now; the socket is closed when the kernel has let go of it.
    fn shut_down<S: Submit>(&mut self, slot: u32, submit: &mut S) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        connection.phase = Phase::ShutDown;
        let (socket, is_released) = (connection.socket, connection.is_released());
        let half = match connection.tail {
            Tail::Plain | Tail::Bare => Half::Both,
            Tail::Broken => Half::Reset,
        };
        if !is_released || half == Half::Reset {
            // A close with an armed receive would send no FIN: the op holds the file. This ends the
            // op first.
            let token = Token::new(Kind::Internal, slot, connection.generation);
            submit.submit(token, Op::Shutdown { socket, half });
        }
        if is_released {
            self.close(slot, submit);
        }
    }

    fn close<S: Submit>(&mut self, slot: u32, submit: &mut S) {
        let Some(connection) = self.connections.try_remove(slot as usize) else {
            return;
        };
        let token = Token::new(Kind::Internal, slot, connection.generation);
        submit.submit(
            token,
            Op::Close {
                socket: connection.socket,
            },
        );
        self.shared.counters.connections_closed_total += 1;
        for listener in &mut self.listeners {
            if listener.retry_at_ms.is_some() {
                listener.retry_at_ms = Some(self.shared.now_ms);
            }
        }
    }

    /// Makes sure that the heap looks at the connection no later than its deadline.
    fn schedule(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if let Some((at_ms, _)) = connection.deadline(&self.shared.limits)
            && at_ms < connection.check_at_ms
        {
            connection.check_at_ms = at_ms;
            let generation = connection.generation;
            self.deadlines.push(Check {
                at_ms,
                slot,
                generation,
            });
        }
        let Self {
            connections,
            deadlines,
            ..
        } = self;
        if deadlines.is_overgrown(connections.len()) {
            deadlines.sweep(|check| {
                connections.get(check.slot as usize).is_some_and(|c| {
                    c.generation == check.generation && c.check_at_ms == check.at_ms
                })
            });
        }
    }

    fn arm_listeners<S: Submit>(&mut self, submit: &mut S) {
        if !self.takes_connections() {
            return;
        }
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let rests = listener
                .retry_at_ms
                .is_some_and(|at_ms| at_ms > self.shared.now_ms);
            if !listener.armed && !rests {
                listener.armed = true;
                listener.retry_at_ms = None;
                let token = Token::new(Kind::Accept, index as u32, 0);
                submit.submit(
                    token,
                    Op::Accept {
                        listener: listener.socket,
                    },
                );
            }
        }
    }

    /// Whether there is a reason to accept at all.
    fn takes_connections(&self) -> bool {
        !self.winding_down && self.room() > 0
    }

    /// Who was accepted too early is served as soon as there is room; at once in a drain, which
    /// waits for nobody.
    fn open_held(&mut self) {
        while (self.draining || self.room() > 0)
            && let Some((socket, opening)) = self.held.pop_front()
        {
            self.open(socket, opening);
        }
    }

    /// What found no memory is tried again when its time has come.
    fn retry_unlucky(&mut self) {
        let now_ms = self.shared.now_ms;
        if self.retry_at_ms.take_if(|at_ms| *at_ms <= now_ms).is_none() {
            return;
        }
        for (slot, generation) in std::mem::take(&mut self.unlucky) {
            let connection = self.connections.get(slot as usize);
            if let Some(connection) = connection.filter(|c| c.generation == generation) {
                if connection.recv == Recv::Starved {
                    self.starved.push_back((slot, generation));
                }
                self.mark(slot);
            }
        }
    }

    /// Re-arms as many starved connections as there are buffers; the others wait for the next turn.
    fn feed_starved<S: Submit>(&mut self, submit: &mut S) {
        if self.starved.is_empty() {
            return;
        }
        let mut buffers = submit.free_buffers();
        while buffers > 0
            && let Some((slot, generation)) = self.starved.pop_front()
        {
            let starving = self
                .connections
                .get_mut(slot as usize)
                .filter(|connection| {
                    connection.generation == generation && connection.recv == Recv::Starved
                });
            match starving {
                // The end of the pause arms it: one buffer per starvation would add up without end.
                Some(connection) if connection.paused => connection.recv = Recv::Idle,
                Some(connection) if connection.phase != Phase::ShutDown => {
                    self.receive(slot, Arm::AfterStarvation, submit);
                    buffers -= 1;
                }
                Some(_) | None => {}
            }
        }
    }
}
