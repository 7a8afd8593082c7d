//! A kernel that keeps the promises of the seam and nothing else, at the worst moments a seed can
//! find.
//!
//! Owns sockets, the ops in flight with their payloads, receive buffers and the faults. Refuses to
//! know HTTP. Every op is checked on submission: what the seam forbids is a panic here.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;

use anel::reactor::{
    Arm, Completion, Errno, Group, Half, Kind, Lease, Op, Outcome, SendBuffer, Submit, Token,
};

use crate::prng::Prng;
use crate::socket::{Receiving, Sending, Socket};
use crate::trace::Trace;

/// How often what goes wrong, in percent of the occasions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub short_send: u32,
    pub short_recv: u32,
    /// A multishot receive or accept that ends although nothing is wrong.
    pub early_end: u32,
    pub delay: u32,
    pub delay_ms_max: u64,
    pub accept_error: u32,
    /// A receive or send that finds no memory. Nothing is lost by that.
    pub shortage: u32,
    /// A connection that breaks without its peer wanting it.
    pub reset: u32,
    /// A completion for a slot that has moved on.
    pub stale: u32,
    /// Receive buffers that somebody keeps for a while.
    pub hostage: u32,
    /// Completions that stay in the queue while new ops are submitted.
    pub slow_queue: u32,
}

/// How often it did go wrong; the seeds together must have seen all of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub short_sends: u64,
    pub early_ends: u64,
    pub starved: u64,
    pub recv_cancels: u64,
    pub cancels_too_late: u64,
    pub descriptor_limits: u64,
    pub accept_errors: u64,
    pub recv_shortages: u64,
    pub send_shortages: u64,
    pub resets: u64,
    pub stale: u64,
    pub lingers: u64,
    pub descriptors_reused: u64,
}

struct Listening {
    backlog: VecDeque<usize>,
    armed: Option<Receiving>,
    outstanding: bool,
}

pub struct Kernel {
    pub sockets: Vec<Socket>,
    pub group: Group,
    pub seen: Seen,
    pub faults: Faults,
    /// Open sockets at which accepting says EMFILE.
    pub descriptors_max: usize,
    /// Largest single send that the worker may make.
    pub send_bytes_max: usize,
    pub buffer_bytes: usize,
    /// Ops taken so far: a worker that asks for something does not spin.
    pub submissions: u64,
    listeners: BTreeMap<RawFd, Listening>,
    descriptors: BTreeMap<RawFd, usize>,
    retired: VecDeque<(u32, u32)>,
    hostages: Vec<(u64, Lease)>,
    queue: VecDeque<Completion>,
    prng: Prng,
    now_ms: u64,
    trace: Trace,
}

pub const LISTENER: RawFd = 3;
const DESCRIPTOR_FIRST: RawFd = 10;

impl Kernel {
    pub fn new(
        prng: Prng,
        faults: Faults,
        (buffers, buffer_bytes): (u16, u32),
        trace: Trace,
    ) -> Self {
        let listening = Listening {
            backlog: VecDeque::new(),
            armed: None,
            outstanding: false,
        };
        Self {
            sockets: Vec::new(),
            group: Group::heap(buffers, buffer_bytes),
            seen: Seen::default(),
            faults,
            descriptors_max: usize::MAX,
            send_bytes_max: usize::MAX,
            buffer_bytes: buffer_bytes as usize,
            submissions: 0,
            listeners: BTreeMap::from([(LISTENER, listening)]),
            descriptors: BTreeMap::new(),
            retired: VecDeque::new(),
            hostages: Vec::new(),
            queue: VecDeque::new(),
            prng,
            now_ms: 0,
            trace,
        }
    }

    /// A peer connects: it lies in the accept queue, and may send already.
    pub fn connect(&mut self, window: usize) -> usize {
        let id = self.sockets.len();
        self.sockets.push(Socket::new(window));
        let listening = self.listeners.get_mut(&LISTENER).expect("there is one");
        listening.backlog.push_back(id);
        id
    }

    /// Everything that completed until now, or some of it.
    pub fn wait(&mut self, now_ms: u64) -> Vec<Completion> {
        self.now_ms = now_ms;
        self.hostages.retain(|(until_ms, _)| *until_ms > now_ms);
        if self.prng.percent(self.faults.hostage)
            && let Some(lease) = self.group.lend(b"held")
        {
            self.hostages
                .push((now_ms + self.prng.between(1, 20), lease));
        }
        self.work();
        let taken = if self.prng.percent(self.faults.slow_queue) {
            1 + self.prng.below(3)
        } else {
            self.queue.len()
        };
        let mut batch: Vec<_> = self.queue.drain(..taken.min(self.queue.len())).collect();
        if self.prng.percent(self.faults.stale)
            && let Some(stale) = self.stale()
        {
            let at = self.prng.below(batch.len() + 1);
            batch.insert(at, stale);
        }
        batch
    }

    /// When something completes even if nobody does anything.
    pub fn next_event_ms(&self) -> Option<u64> {
        let accepting = self.listeners.values().filter_map(|listening| {
            let armed = listening.armed.as_ref()?;
            let runnable = (!listening.backlog.is_empty()).then_some(armed.not_before_ms);
            runnable.into_iter().chain(armed.cancel_at_ms).min()
        });
        let free = self.group.free();
        let working = self
            .descriptors
            .values()
            .filter_map(|id| self.sockets[*id].next_ms(free));
        let queued = (!self.queue.is_empty()).then_some(self.now_ms);
        accepting.chain(working).chain(queued).min()
    }

    /// Called right before the worker sees a completion: from here on the op is not in flight.
    pub fn hand_over(&mut self, completion: &Completion) {
        self.trace.say(self.now_ms, || {
            format!(
                "<- {:?} more={} {}",
                completion.token,
                completion.more,
                told(completion)
            )
        });
        let Completion { token, more, .. } = completion;
        if token.kind() == Kind::Accept {
            let listening = self.listeners.values_mut().nth(token.slot() as usize);
            listening.expect("a listener").outstanding = *more;
            return;
        }
        let Some(socket) = self.find(*token) else {
            return;
        };
        match token.kind() {
            Kind::Recv => {
                socket.recv_outstanding = *more;
                if let Outcome::Failed(errno, _) = &completion.outcome {
                    socket.recv_failed |= !errno.is_cancelled() && !errno.is_shortage();
                }
                socket.declined |=
                    matches!(completion.outcome, Outcome::Starved | Outcome::Failed(..));
            }
            Kind::Send => socket.send_outstanding = false,
            _ => unreachable!("the worker asks for nothing else"),
        }
    }

    /// After the end: nothing in flight, every socket closed, every buffer home.
    pub fn assert_quiet(&mut self) {
        self.hostages.clear();
        assert!(
            self.queue.is_empty(),
            "completions are left: {:?}",
            self.queue
        );
        assert!(
            self.listeners.values().all(|l| !l.outstanding),
            "an accept is in flight"
        );
        for (id, socket) in self.sockets.iter().enumerate() {
            assert!(
                !socket.recv_outstanding,
                "a receive of socket {id} is in flight"
            );
            assert!(
                !socket.send_outstanding,
                "a send of socket {id} is in flight"
            );
            assert!(
                socket.fd.is_none(),
                "socket {id} was accepted and never closed"
            );
        }
        assert_eq!(self.group.free(), self.group.count(), "a lease leaked");
    }

    /// Whether connections wait to be accepted.
    pub fn backlog(&self) -> usize {
        self.listeners
            .values()
            .map(|listening| listening.backlog.len())
            .sum()
    }

    /// Whether an accept is armed, as far as the worker can know.
    pub fn is_accepting(&self) -> bool {
        self.listeners
            .values()
            .any(|listening| listening.outstanding)
    }

    fn find(&mut self, token: Token) -> Option<&mut Socket> {
        let identity = Some((token.slot(), token.generation()));
        let Self {
            descriptors,
            sockets,
            ..
        } = self;
        let id = descriptors
            .values()
            .find(|id| sockets[**id].identity == identity)?;
        Some(&mut sockets[*id])
    }

    /// The socket of an op; checks that it is open and belongs to the token.
    fn open(&mut self, token: Token, fd: RawFd) -> &mut Socket {
        let id = self.descriptors.get(&fd);
        let id = *id.unwrap_or_else(|| panic!("{token:?} is for descriptor {fd}, which is closed"));
        let identity = Some((token.slot(), token.generation()));
        if self.sockets[id].identity.is_none() {
            let shared = self.descriptors.values().any(|other| {
                self.sockets[*other]
                    .identity
                    .is_some_and(|i| i.0 == token.slot())
            });
            assert!(
                !shared,
                "{token:?}: the slot belongs to another open socket"
            );
            self.sockets[id].identity = identity;
        }
        assert_eq!(
            self.sockets[id].identity, identity,
            "{token:?} is for somebody else's socket"
        );
        &mut self.sockets[id]
    }

    fn post(&mut self, token: Token, more: bool, outcome: Outcome) {
        self.queue.push_back(Completion {
            token,
            more,
            outcome,
        });
    }

    fn not_before_ms(&mut self) -> u64 {
        if self.prng.percent(self.faults.delay) {
            self.now_ms + self.prng.between(1, self.faults.delay_ms_max.max(1))
        } else {
            self.now_ms
        }
    }

    fn stale(&mut self) -> Option<Completion> {
        let (slot, generation) = *self
            .retired
            .get(self.prng.below(self.retired.len().max(1)))?;
        let (kind, outcome) = match self.prng.below(4) {
            0 => (Kind::Recv, Outcome::Failed(Errno(libc::ECANCELED), None)),
            1 => (
                Kind::Recv,
                self.group.lend(b"GET /").map(Outcome::Received)?,
            ),
            2 => (
                Kind::Send,
                Outcome::Sent(SendBuffer {
                    bytes: b"late".to_vec(),
                    sent: 2,
                }),
            ),
            _ => (Kind::Recv, Outcome::Starved),
        };
        self.seen.stale += 1;
        Some(Completion {
            token: Token::new(kind, slot, generation),
            more: false,
            outcome,
        })
    }

    /// Lets every op do what it can, sockets in random order.
    fn work(&mut self) {
        self.work_accept();
        let mut ids: Vec<usize> = self.descriptors.values().copied().collect();
        for index in (1..ids.len()).rev() {
            ids.swap(index, self.prng.below(index + 1));
        }
        for id in ids {
            if self.prng.percent(50) {
                self.work_send(id);
                self.work_recv(id);
            } else {
                self.work_recv(id);
                self.work_send(id);
            }
        }
    }

    fn work_accept(&mut self) {
        for (slot, fd) in self
            .listeners
            .keys()
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
            .enumerate()
        {
            let token = Token::new(Kind::Accept, slot as u32, 0);
            while let Some(outcome) = self.accept(fd) {
                let failed = matches!(outcome, Outcome::Failed(..));
                let ends = failed || self.prng.percent(self.faults.early_end);
                if ends {
                    self.listeners.get_mut(&fd).expect("there is one").armed = None;
                    self.seen.early_ends += u64::from(!failed);
                }
                self.post(token, !ends, outcome);
            }
        }
    }

    fn accept(&mut self, fd: RawFd) -> Option<Outcome> {
        let now_ms = self.now_ms;
        let listening = self.listeners.get_mut(&fd)?;
        let armed = listening.armed.as_ref()?;
        if armed.cancel_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return Some(Outcome::Failed(Errno(libc::ECANCELED), None));
        }
        if armed.not_before_ms > now_ms || listening.backlog.is_empty() {
            return None;
        }
        if self.descriptors.len() >= self.descriptors_max {
            self.seen.descriptor_limits += 1;
            return Some(Outcome::Failed(Errno(libc::EMFILE), None));
        }
        if self.prng.percent(self.faults.accept_error) {
            self.seen.accept_errors += 1;
            let errno =
                self.prng
                    .pick(&[libc::ECONNABORTED, libc::ENFILE, libc::ENOBUFS, libc::EINTR]);
            return Some(Outcome::Failed(Errno(errno), None));
        }
        let id = listening.backlog.pop_front()?;
        // The lowest free number, as the kernel does: descriptors are reused at once.
        let free = (DESCRIPTOR_FIRST..).find(|fd| !self.descriptors.contains_key(fd));
        let socket = free.expect("numbers are plenty");
        self.seen.descriptors_reused +=
            u64::from(self.sockets.iter().any(|other| other.had == Some(socket)));
        self.descriptors.insert(socket, id);
        self.sockets[id].fd = Some(socket);
        self.sockets[id].had = Some(socket);
        self.trace.say(self.now_ms, || {
            format!("   socket {id} is descriptor {socket}")
        });
        Some(Outcome::Accepted(socket))
    }

    fn work_recv(&mut self, id: usize) {
        for _ in 0..4 {
            let Some((token, outcome)) = self.receive(id) else {
                return;
            };
            let last = !matches!(outcome, Outcome::Received(_));
            let early = !last && self.prng.percent(self.faults.early_end);
            if last || early {
                self.sockets[id].recv = None;
                self.seen.early_ends += u64::from(early);
            } else {
                let not_before_ms = self.not_before_ms();
                if let Some(armed) = &mut self.sockets[id].recv {
                    armed.not_before_ms = not_before_ms;
                }
            }
            self.post(token, !(last || early), outcome);
        }
    }

    fn receive(&mut self, id: usize) -> Option<(Token, Outcome)> {
        let Self {
            sockets,
            prng,
            faults,
            seen,
            group,
            now_ms,
            ..
        } = self;
        let socket = &mut sockets[id];
        let armed = socket.recv.as_mut()?;
        let token = armed.token;
        if armed.cancel_at_ms.is_some_and(|at_ms| at_ms <= *now_ms) {
            seen.recv_cancels += 1;
            return Some((token, Outcome::Failed(Errno(libc::ECANCELED), None)));
        }
        let tries = armed.arm == Arm::Eager && !std::mem::replace(&mut armed.tried, true);
        if tries && group.free() == 0 {
            seen.starved += 1;
            return Some((token, Outcome::Starved));
        }
        if armed.not_before_ms > *now_ms {
            return None;
        }
        if socket.reset {
            let told = std::mem::replace(&mut socket.reset_told, true);
            let reset = Outcome::Failed(Errno(libc::ECONNRESET), None);
            return Some((token, if told { Outcome::EndOfInput } else { reset }));
        }
        if socket.rx.is_empty() {
            return (socket.rx_fin || socket.shut_read).then_some((token, Outcome::EndOfInput));
        }
        if prng.percent(faults.shortage) {
            seen.recv_shortages += 1;
            return Some((token, Outcome::Failed(Errno(libc::ENOMEM), None)));
        }
        if prng.percent(faults.reset) {
            seen.resets += 1;
            socket.break_down();
            socket.reset_told = true;
            let errno = prng.pick(&[libc::ECONNRESET, libc::ETIMEDOUT, libc::EIO]);
            return Some((token, Outcome::Failed(Errno(errno), None)));
        }
        let mut taken = socket.rx.len().min(self.buffer_bytes);
        if prng.percent(faults.short_recv) {
            taken = 1 + prng.below(taken);
        }
        let bytes: Vec<u8> = socket.rx.iter().copied().take(taken).collect();
        let Some(lease) = group.lend(&bytes) else {
            seen.starved += 1;
            return Some((token, Outcome::Starved));
        };
        socket.rx.drain(..taken);
        socket.delivered += taken;
        if socket
            .recv
            .as_ref()
            .is_some_and(|armed| armed.cancel_at_ms.is_some())
        {
            socket.delivered_in_spite += taken;
        }
        Some((token, Outcome::Received(lease)))
    }

    fn work_send(&mut self, id: usize) {
        let Self {
            sockets,
            prng,
            faults,
            seen,
            now_ms,
            ..
        } = self;
        let socket = &mut sockets[id];
        let broken = socket.reset || socket.shut_write;
        let room = socket.window.saturating_sub(socket.inbox.len());
        let runnable = broken || room > 0;
        let due = socket
            .send
            .as_ref()
            .is_some_and(|sending| sending.not_before_ms <= *now_ms);
        if !due || !runnable {
            return;
        }
        let Some(Sending {
            token, mut buffer, ..
        }) = socket.send.take()
        else {
            return;
        };
        if broken || prng.percent(faults.reset) {
            if !broken {
                seen.resets += 1;
                socket.break_down();
            }
            let errno = prng.pick(&[libc::EPIPE, libc::ECONNRESET]);
            return self.post(token, false, Outcome::Failed(Errno(errno), Some(buffer)));
        }
        if prng.percent(faults.shortage) {
            seen.send_shortages += 1;
            let errno = prng.pick(&[libc::ENOMEM, libc::ENOBUFS]);
            return self.post(token, false, Outcome::Failed(Errno(errno), Some(buffer)));
        }
        let mut taken = buffer.remaining().len().min(room);
        if prng.percent(faults.short_send) {
            taken = 1 + prng.below(taken);
        }
        seen.short_sends += u64::from(taken < buffer.remaining().len());
        if socket.peer_gone {
            // The peer's kernel answers bytes for a closed socket with a reset.
            socket.reset = true;
        } else {
            socket.inbox.extend(&buffer.remaining()[..taken]);
        }
        buffer.sent += taken;
        self.post(token, false, Outcome::Sent(buffer));
    }

    fn close(&mut self, token: Token, fd: RawFd) {
        let socket = self.open(token, fd);
        assert!(
            !socket.recv_outstanding,
            "{token:?} is closed with a receive in flight"
        );
        assert!(
            !socket.send_outstanding,
            "{token:?} is closed with a send in flight"
        );
        socket.close();
        let identity = socket.identity;
        self.descriptors.remove(&fd);
        self.retired.extend(identity);
        if self.retired.len() > 32 {
            self.retired.pop_front();
        }
    }

    fn cancel(&mut self, target: Token) {
        let at_ms = self.now_ms + self.prng.below(1 + self.faults.delay_ms_max as usize) as u64;
        if target.kind() == Kind::Accept {
            let listening = self.listeners.values_mut().nth(target.slot() as usize);
            if let Some(armed) = listening.and_then(|listening| listening.armed.as_mut()) {
                armed.cancel_at_ms.get_or_insert(at_ms);
            }
            return;
        }
        assert_eq!(
            target.kind(),
            Kind::Recv,
            "only receives and accepts are cancelled"
        );
        let socket = self.find(target);
        match socket.and_then(|socket| socket.recv.as_mut()) {
            Some(armed) => {
                assert!(
                    armed.cancel_at_ms.is_none(),
                    "{target:?} is cancelled twice"
                );
                armed.cancel_at_ms = Some(at_ms);
            }
            None => self.seen.cancels_too_late += 1,
        }
    }
}

impl Submit for Kernel {
    fn submit(&mut self, token: Token, op: Op) {
        self.trace
            .say(self.now_ms, || format!("-> {token:?} {}", asked(&op)));
        let not_before_ms = self.not_before_ms();
        let send_bytes_max = self.send_bytes_max;
        self.submissions += 1;
        match op {
            Op::Accept { listener } => {
                let listening = self.listeners.get_mut(&listener).expect("a listener");
                assert!(!listening.outstanding, "{token:?} is armed twice");
                listening.outstanding = true;
                listening.armed = Some(Receiving::new(token, Arm::Eager, not_before_ms));
            }
            Op::Recv { socket, arm } => {
                assert_eq!(token.kind(), Kind::Recv);
                let socket = self.open(token, socket);
                assert!(!socket.recv_outstanding, "{token:?} is armed twice");
                assert!(
                    !socket.recv_failed,
                    "{token:?} receives from a broken socket"
                );
                assert!(
                    !socket.shut_read,
                    "{token:?} receives from a socket that is shut down"
                );
                socket.recv_outstanding = true;
                socket.declined = false;
                socket.delivered_in_spite = 0;
                socket.recv = Some(Receiving::new(token, arm, not_before_ms));
            }
            Op::Send { socket, buffer } => {
                assert_eq!(token.kind(), Kind::Send);
                let socket = self.open(token, socket);
                assert!(!socket.send_outstanding, "{token:?} sends twice at a time");
                assert!(
                    !socket.shut_write,
                    "{token:?} sends on a socket that is shut down"
                );
                assert!(!buffer.remaining().is_empty(), "{token:?} sends nothing");
                let bytes = buffer.bytes.len();
                assert!(
                    bytes <= send_bytes_max,
                    "{token:?} owes {bytes} > {send_bytes_max}"
                );
                socket.send_outstanding = true;
                socket.send = Some(Sending {
                    token,
                    buffer,
                    not_before_ms,
                });
            }
            Op::Shutdown { socket, half } => {
                let socket = self.open(token, socket);
                socket.shut_down(half);
                self.seen.lingers += u64::from(half == Half::Write);
            }
            Op::Close { socket } => self.close(token, socket),
            Op::Cancel { target } => self.cancel(target),
            Op::Readable { .. } => panic!("the worker watches no foreign descriptors"),
        }
    }

    fn free_buffers(&self) -> usize {
        self.group.free()
    }
}

fn asked(op: &Op) -> String {
    match op {
        Op::Send { socket, buffer } => format!("Send {socket}: {} bytes", buffer.remaining().len()),
        other => format!("{other:?}"),
    }
}

fn told(completion: &Completion) -> String {
    match &completion.outcome {
        Outcome::Received(lease) => format!("Received {:?}", String::from_utf8_lossy(lease)),
        Outcome::Sent(buffer) => format!("Sent, {} left", buffer.remaining().len()),
        Outcome::Failed(errno, _) => format!("Failed {errno:?}"),
        other => format!("{other:?}"),
    }
}
