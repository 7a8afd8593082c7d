//! What the kernel holds of ours, and what its completions mean.
//!
//! Owns the payloads of sends in flight, the count of ops in flight and the translation of
//! completion queue entries. Refuses to know queues and waiting. A payload stays here from submit
//! to the op's last completion (invariant R2).

use std::os::fd::RawFd;

use io_uring::cqueue;

use super::entries;
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
    handed: Handed,
}

impl Ledger {
    pub(super) fn new(group: Group, waker: Waker) -> Self {
        Self {
            sends: Vec::new(),
            in_flight: 0,
            group,
            counters: Counters::default(),
            waker,
            waker_armed: false,
            trial: None,
            handed: Handed::default(),
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
    }

    /// Translates one entry. Our own ops end here.
    #[inline]
    pub(super) fn on_entry(&mut self, entry: &cqueue::Entry, completions: &mut Vec<Completion>) {
        let (result, flags) = (entry.result(), entry.flags());
        let Some(token) = Token::from_bits(entry.user_data()) else {
            debug_assert!(false, "invariant: every op of ours carries a token");
            return;
        };
        let more = cqueue::more(flags);
        let outcome = match token.kind() {
            Kind::Recv => self.received(result, flags),
            Kind::Send => self.sent(token, result),
            Kind::Accept => self.accepted(result, more),
            Kind::Readable if result < 0 => Outcome::Failed(Errno(-result), None),
            Kind::Readable => Outcome::Ready,
            Kind::Internal => return self.on_internal(token, result, more, flags),
        };
        if !more {
            self.in_flight -= 1;
        }
        self.counters.completions += 1;
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

    fn accepted(&mut self, result: i32, more: bool) -> Outcome {
        if result < 0 {
            return Outcome::Failed(Errno(-result), None);
        }
        // Linux 6.6 to 6.8-rc3 could end a multishot accept with a poll mask (195) in place of a
        // descriptor when completions overflowed (liburing 1062). Taking it would close or serve
        // some other file, so the last result of an accept is believed only if it is a socket that
        // is new.
        if !more && (self.handed.contains(result) || !net::is_socket(result)) {
            return Outcome::Failed(Errno(libc::EAGAIN), None);
        }
        self.handed.insert(result);
        Outcome::Accepted(result)
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

/// Descriptors that were handed out as accepted and not closed through us: one bit each.
#[derive(Default)]
struct Handed {
    words: Vec<u64>,
}

impl Handed {
    fn place(fd: RawFd) -> (usize, u64) {
        (fd as usize / 64, 1 << (fd % 64))
    }

    fn insert(&mut self, fd: RawFd) {
        let (word, bit) = Self::place(fd);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= bit;
    }

    fn remove(&mut self, fd: RawFd) {
        let (word, bit) = Self::place(fd);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !bit;
        }
    }

    fn contains(&self, fd: RawFd) -> bool {
        let (word, bit) = Self::place(fd);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(Group::heap(2, 64), Waker::open().unwrap())
    }

    #[test]
    fn descriptors_are_remembered_until_they_are_closed() {
        let mut handed = Handed::default();

        handed.insert(195);

        assert!(handed.contains(195) && !handed.contains(194) && !handed.contains(9999));
        handed.remove(195);
        handed.remove(9999);
        assert!(!handed.contains(195));
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
