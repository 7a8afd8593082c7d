//! What the kernel holds of ours, and what its completions mean.
//!
//! Owns the payloads of sends in flight, the count of ops in flight and the translation of
//! completion queue entries. Refuses to know queues and waiting. A payload stays here from submit
//! to the op's last completion (invariant R2).

use std::os::fd::RawFd;

use io_uring::cqueue;

use super::descriptors::Descriptors;
use super::entries;
use super::lent::Lent;
use super::provided::Provided;
use crate::reactor::buffers::Group;
use crate::reactor::counters::Counters;
use crate::reactor::errors::Errno;
use crate::reactor::net;
use crate::reactor::seam::{Completion, Kind, Outcome, SendBuffer, Token};
use crate::reactor::waker::Waker;

pub(super) struct Ledger {
    /// Sends in flight, at the slot of their token.
    sends: Vec<Option<SendBuffer>>,
    /// Ops whose last completion has not been seen. Silent ops do not count.
    pub in_flight: usize,
    pub group: Group,
    pub counters: Counters,
    pub waker: Waker,
    pub waker_armed: bool,
    /// Result of the trial receive, while there is one.
    pub trial: Option<i32>,
    /// Accepted, and not closed through us.
    handed: Descriptors,
    /// Payloads of sends without copying. The place in `sends` is then held by an empty buffer.
    pub lent: Lent,
    /// Longer results of receives are spread over several buffers.
    piece_bytes_max: i32,
}

impl Ledger {
    /// `bundles`: whether one result of a receive may fill several buffers.
    pub(super) fn new(group: Group, waker: Waker, bundles: bool) -> Self {
        let piece_bytes_max = if bundles {
            group.buffer_bytes() as i32
        } else {
            i32::MAX
        };
        Self {
            sends: Vec::new(),
            in_flight: 0,
            group,
            counters: Counters::default(),
            waker,
            waker_armed: false,
            trial: None,
            handed: Descriptors::default(),
            lent: Lent::default(),
            piece_bytes_max,
        }
    }

    /// Keeps a payload until its completion, and shows what is to be sent. Its heap block does not
    /// move.
    #[inline]
    pub(super) fn keep(&mut self, token: Token, buffer: SendBuffer) -> &[u8] {
        let slot = token.slot() as usize;
        if slot >= self.sends.len() {
            self.sends.resize_with(slot + 1, || None);
        }
        let place = &mut self.sends[slot];
        assert!(
            place.is_none(),
            "one send at a time: {token:?} was submitted while another flies"
        );
        place.insert(buffer).remaining()
    }

    pub(super) fn on_close(&mut self, socket: RawFd) {
        self.handed.remove(socket);
    }

    /// Forgets the payloads of sends that the kernel did not give back: it may still read them.
    pub(super) fn leak_payloads(&mut self) {
        for buffer in self.sends.drain(..).flatten() {
            std::mem::forget(buffer);
        }
        self.lent.leak();
    }

    /// Translates one entry. Our own ops end here.
    #[inline]
    pub(super) fn on_entry(
        &mut self,
        entry: &cqueue::Entry,
        provided: &Provided,
        completions: &mut Vec<Completion>,
    ) {
        let (result, flags) = (entry.result(), entry.flags());
        let Some(token) = Token::from_bits(entry.user_data()) else {
            debug_assert!(false, "invariant: every op of ours carries a token");
            return;
        };
        let more = cqueue::more(flags);
        let outcome = match token.kind() {
            Kind::Recv if result > self.piece_bytes_max => {
                self.unbundle(token, result, flags, provided, completions)
            }
            Kind::Recv => self.received(result, flags),
            Kind::Send => self.sent(token, result),
            Kind::Accept => self.accepted(result, more),
            Kind::Readable if result < 0 => Outcome::Failed(Errno(-result), None),
            Kind::Readable => Outcome::Ready,
            Kind::Internal if token.generation() == entries::LENT => {
                return self.on_lent(token, result, flags, completions);
            }
            Kind::Internal => return self.on_internal(token, result, more, flags),
        };
        if !more {
            self.in_flight -= 1;
        }
        completions.push(Completion {
            token,
            more,
            outcome,
        });
    }

    #[inline]
    fn received(&mut self, result: i32, flags: u32) -> Outcome {
        let lease =
            cqueue::buffer_select(flags).map(|id| self.group.lease(id, result.max(0) as u32));
        match (result, lease) {
            (1.., Some(lease)) => Outcome::Received(lease),
            // Some kernels attach a buffer to the end of input; dropping the lease brings it home.
            (0, _) => Outcome::EndOfInput,
            (result, _) if result == -libc::ENOBUFS => {
                self.counters.starved += 1;
                Outcome::Starved
            }
            (..0, _) => Outcome::Failed(Errno(-result), None),
            (1.., None) => Outcome::Failed(Errno(libc::EIO), None),
        }
    }

    #[inline]
    fn sent(&mut self, token: Token, result: i32) -> Outcome {
        let place = self.sends.get_mut(token.slot() as usize);
        let mut buffer = place
            .and_then(Option::take)
            .expect("invariant: the payload of a send is kept until its completion");
        if result < 0 {
            return Outcome::Failed(Errno(-result), Some(buffer));
        }
        buffer.sent += result as usize;
        Outcome::Sent(buffer)
    }

    /// Several buffers that one receive filled, in the order in which the kernel was given them.
    /// All but the last are full. That one is returned; those before it have their own completions.
    #[cold]
    fn unbundle(
        &mut self,
        token: Token,
        result: i32,
        flags: u32,
        provided: &Provided,
        completions: &mut Vec<Completion>,
    ) -> Outcome {
        let Some(first) = cqueue::buffer_select(flags) else {
            return Outcome::Failed(Errno(libc::EIO), None);
        };
        let (mut left, full) = (result as u32, self.group.buffer_bytes());
        let mut ids = provided.offered_from(first);
        let mut next = |len| {
            let id = ids.next().expect("invariant: the order has no end");
            Outcome::Received(self.group.lease(id, len))
        };
        while left > full {
            left -= full;
            completions.push(Completion {
                token,
                more: true,
                outcome: next(full),
            });
        }
        next(left)
    }

    /// A send without copying; its notification is nobody else's business.
    fn on_lent(
        &mut self,
        token: Token,
        result: i32,
        flags: u32,
        completions: &mut Vec<Completion>,
    ) {
        let Some((token, outcome)) = self.lent.on_entry(token, result, flags) else {
            return;
        };
        self.sends[token.slot() as usize] = None;
        self.in_flight -= 1;
        completions.push(Completion {
            token,
            more: false,
            outcome,
        });
    }

    fn accepted(&mut self, result: i32, more: bool) -> Outcome {
        if result < 0 {
            return Outcome::Failed(Errno(-result), None);
        }
        // Linux 6.6 to 6.8-rc3 could end a multishot accept with a poll mask (195) in place of a
        // descriptor when completions overflowed (liburing 1062). Taking it would close or serve
        // some other file, so the last result of an accept is believed only if it is a socket that
        // is new.
        if !more && !self.is_new_socket(result) {
            return Outcome::Failed(Errno(libc::EAGAIN), None);
        }
        self.handed.insert(result);
        Outcome::Accepted(result)
    }

    fn is_new_socket(&mut self, fd: RawFd) -> bool {
        if self.handed.contains(fd) {
            return false;
        }
        self.counters.calls += 1;
        net::is_socket(fd)
    }

    fn on_internal(&mut self, token: Token, result: i32, more: bool, flags: u32) {
        if token == entries::WAKER {
            self.counters.wakeups += 1;
            self.waker.acknowledge();
            self.waker_armed = more;
        } else if token == entries::TRIAL {
            self.trial.get_or_insert(result);
            if let Some(id) = cqueue::buffer_select(flags) {
                drop(self.group.lease(id, 0));
            }
        } else {
            // A silent op that failed: the target of a cancel was faster, or a descriptor was
            // closed already. It is not counted as in flight.
            return;
        }
        if !more {
            self.in_flight -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(Group::heap(2, 64), Waker::open().unwrap(), false)
    }

    #[test]
    fn the_last_result_of_an_accept_must_be_a_new_socket() {
        let mut ledger = ledger();
        let stdin = 0;

        assert!(matches!(
            ledger.accepted(stdin, false),
            Outcome::Failed(Errno(libc::EAGAIN), None)
        ));
        assert!(matches!(ledger.accepted(500, true), Outcome::Accepted(500)));
        assert!(matches!(ledger.accepted(500, false), Outcome::Failed(..)));
    }

    #[test]
    #[should_panic(expected = "one send at a time")]
    fn a_second_send_on_a_slot_is_a_programmers_error() {
        let mut ledger = ledger();
        let token = Token::new(Kind::Send, 3, 1);

        ledger.keep(
            token,
            SendBuffer {
                bytes: b"a".to_vec(),
                sent: 0,
            },
        );
        ledger.keep(
            token,
            SendBuffer {
                bytes: b"b".to_vec(),
                sent: 0,
            },
        );
    }
}
