//! One connection: what epoll reported about it, and the ops that wait for that.
//!
//! Owns the memory that edge-triggered readiness needs. Every arrival is reported once, so what is
//! reported while no receive is armed (paused, starved, cancelled) is kept here until one is, and
//! what a receive leaves unread is kept for the next wait. Refuses to know the other connections
//! and the turn.

use std::mem;
use std::os::fd::RawFd;

use libc::{EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP};

use super::calls::Poller;
use super::interest::Interest;
use super::transfer::{Left, Receive, SendEnd, send_some};
use crate::reactor::errors::Errno;
use crate::reactor::seam::{Completion, Kind, SendBuffer, Token};

/// Data, and only data: a receive that does not fill its buffer has taken all of it (epoll(7)).
pub(super) const IN: u32 = EPOLLIN as u32;

/// Reported whether asked for or not. They end a receive or a send, which finds out what happened.
const BROKEN: u32 = (EPOLLHUP | EPOLLERR) as u32;

/// Everything that a receive finds out about. What is not `IN` comes in addition to data, so the
/// receives go on until there is nothing: a FIN is behind the data, and urgent data, which nobody
/// wants, cuts a receive short (tcp(7)).
const INPUT: u32 = IN | (EPOLLRDHUP | EPOLLPRI) as u32 | BROKEN;

/// What a connection is registered for from its first receive to its end. A receive costs no
/// registration and, unlike with levels, nothing is polled again that was reported already.
const FOR_RECEIVE: u32 = IN | (EPOLLRDHUP | EPOLLPRI | EPOLLET) as u32;

/// Added for ever when a send first finds no room. Not earlier, because a new socket is writable:
/// asking at once would end one wait per connection for nothing.
const FOR_SEND: u32 = (EPOLLOUT | EPOLLET) as u32;

/// A slot's user.
pub(super) struct Connection {
    interest: Interest,
    generation: u32,
    receiving: bool,
    sending: Option<SendBuffer>,
    /// Bits of `INPUT` that were reported and are not used up.
    input: u32,
    /// Whether the reactor's list has it.
    queued: bool,
}

impl Connection {
    /// Nobody.
    pub(super) fn vacant() -> Self {
        Self::new(-1, 0, 0)
    }

    fn new(socket: RawFd, mark: u64, generation: u32) -> Self {
        Self {
            interest: Interest::new(socket, mark),
            generation,
            receiving: false,
            sending: None,
            input: 0,
            queued: false,
        }
    }

    /// Begins anew when the slot has a new user.
    #[inline]
    pub(super) fn settle(&mut self, token: Token, socket: RawFd) {
        // Registered once, whichever op came first.
        let mark = Token::new(Kind::Recv, token.slot(), token.generation()).to_bits();
        if !self.interest.is_for(socket, mark) {
            debug_assert!(self.sending.is_none(), "reused too early: {token:?}");
            *self = Self::new(socket, mark, token.generation());
        }
    }

    pub(super) fn is(&self, generation: u32) -> bool {
        self.generation == generation
    }

    /// The socket is about to be closed, which removes it from epoll.
    pub(super) fn forget(&mut self, socket: RawFd) {
        if self.interest.fd == socket {
            self.interest.forget();
        }
    }

    pub(super) fn arm_receive(&mut self, poller: &Poller) -> Result<(), Errno> {
        debug_assert!(!self.receiving, "one receive at a time");
        // Input that is there already is reported by the registration.
        self.interest.add(poller, FOR_RECEIVE)?;
        self.receiving = true;
        Ok(())
    }

    /// Whether a receive is armed that epoll will say nothing new to; the caller then has to come
    /// back with `resume`. Says so once.
    pub(super) fn wants_queueing(&mut self) -> bool {
        let wants = self.receiving && self.input != 0 && !self.queued;
        self.queued |= wants;
        wants
    }

    /// Sends what fits. `None`: the rest follows when the peer has read.
    pub(super) fn send(
        &mut self,
        poller: &Poller,
        token: Token,
        mut buffer: SendBuffer,
    ) -> Option<Completion> {
        assert!(
            self.sending.is_none(),
            "one send at a time: {token:?} was submitted while another flies"
        );
        if let Some(end) = send_some(self.interest.fd, &mut buffer) {
            return Some(end.completion(token, buffer));
        }
        // Room that came in between is reported by the change.
        match self.interest.add(poller, FOR_SEND) {
            Ok(()) => {
                self.sending = Some(buffer);
                None
            }
            Err(errno) => Some(SendEnd::Broken(errno).completion(token, buffer)),
        }
    }

    /// The op is over; `false` when it was not armed. Unread input stays remembered.
    pub(super) fn cancel_receive(&mut self) -> bool {
        mem::take(&mut self.receiving)
    }

    pub(super) fn cancel_send(&mut self) -> Option<SendBuffer> {
        self.sending.take()
    }

    /// What epoll reports.
    pub(super) fn on_events(
        &mut self,
        events: u32,
        receive: &mut Receive<'_>,
        completions: &mut Vec<Completion>,
    ) {
        if events & (EPOLLOUT as u32 | BROKEN) != 0
            && let Some(mut buffer) = self.sending.take()
        {
            receive.counters.calls += 1;
            match send_some(self.interest.fd, &mut buffer) {
                Some(end) => {
                    let token = receive.token;
                    let token = Token::new(Kind::Send, token.slot(), token.generation());
                    completions.push(end.completion(token, buffer));
                }
                None => self.sending = Some(buffer),
            }
        }
        self.input |= events & INPUT;
        if !self.queued {
            self.receive(receive, completions);
        }
    }

    /// What was queued is looked at again.
    pub(super) fn resume(&mut self, receive: &mut Receive<'_>, completions: &mut Vec<Completion>) {
        self.queued = false;
        self.receive(receive, completions);
    }

    fn receive(&mut self, receive: &mut Receive<'_>, completions: &mut Vec<Completion>) {
        if !self.receiving || self.input == 0 {
            return;
        }
        let short_is_all = self.input == IN;
        match receive.run(self.interest.fd, short_is_all, completions) {
            Left::Nothing => self.input = 0,
            Left::Perhaps => {}
            Left::Over => self.receiving = false,
        }
    }
}
