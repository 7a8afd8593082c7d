//! One io_uring: the queues and the turn.
//!
//! Owns when the kernel is entered. Refuses to know what ops and completions mean (`entries`,
//! `ledger`). It lives on the thread of the process that opened it: the type is not `Send`, and a
//! forked child gets a message in place of a crash.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::IoUring;
use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use socket2::{Domain, Socket, Type};

use super::bell::Bell;
use super::entries::{self, RecvMode};
use super::experiments::{self, Batch};
use super::files::Files;
use super::ladder::{self, Features, Rung};
use super::ledger::Ledger;
use super::provided::Provided;
use crate::reactor::Reactor;
use crate::reactor::buffers::Group;
use crate::reactor::config::Config;
use crate::reactor::counters::Counters;
use crate::reactor::errors::{Errno, ReactorUnavailable};
use crate::reactor::net;
use crate::reactor::origin::Origin;
use crate::reactor::seam::{Arm, Completion, Op, SendBuffer, Submit, Token};
use crate::reactor::waker::Waker;

/// The reactor on io_uring.
pub struct Ring {
    /// Closed first, before anything that the kernel may touch is freed (invariant R3).
    pub(super) io: ManuallyDrop<IoUring>,
    pub(super) provided: ManuallyDrop<Provided>,
    pub(super) ledger: Ledger,
    /// Completions that were found outside a wait.
    pub(super) early: VecDeque<Completion>,
    pub(super) origin: Origin,
    features: Features,
    recv_mode: RecvMode,
    /// What a wait is for.
    batch: Batch,
    files: Files,
    /// For a loop that waits in our place, once there is one.
    bell: Option<Bell>,
}

/// How long one enter may sleep. The kernel's clock takes more, but nobody waits longer on purpose.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often the kernel may refuse to take submissions, with a pause where it lacks memory, before
/// the worker gives up: about a second.
const FLUSH_ATTEMPTS_MAX: u32 = 1000;
/// How long the kernel gets to come to terms with its lack of memory.
const MEMORY_PAUSE: Duration = Duration::from_millis(1);
/// How long the trial receive may take; it is local and ready.
const TRIAL_PATIENCE: Duration = Duration::from_secs(1);
/// Enters in one wait for the sake of overflowed completions. Each brings a queue's worth; what is
/// left comes with the next wait.
const OVERFLOW_ENTERS_MAX: u32 = 16;

impl Ring {
    /// Opens a ring on the calling thread, on the best rung that kernel and knob allow.
    ///
    /// # Errors
    /// Says why this machine refuses, and what would help.
    pub fn open(config: &Config) -> Result<Self, ReactorUnavailable> {
        config.validate().map_err(ReactorUnavailable::from)?;
        let (io, rung, restrictions) = ladder::climb(config)?;
        let experiments = config.flags.experiments;
        experiments::check(&io, &experiments)?;
        let group = Group::heap(config.buffers, config.buffer_bytes);
        let waker = Waker::open()
            .map_err(|error| ReactorUnavailable::other(Errno::of(&error), "for an eventfd"))?;
        // EINVAL means that provided buffer rings, and with them Linux 5.19, are missing.
        let provided = Provided::register(&io, &group, experiments.bundle)
            .map_err(ReactorUnavailable::from_setup)?;
        let files = if experiments.files {
            Files::register(&io).map_err(|errno| {
                ReactorUnavailable::other(errno, "for files=1, a table of registered files")
            })?
        } else {
            Files::default()
        };
        let features = Features {
            rung,
            restrictions,
            multishot_recv: config.flags.mshot_recv,
            multishot_accept: config.flags.mshot_accept,
            submissions: io.params().sq_entries(),
            completions: io.params().cq_entries(),
            experiments,
        };
        let mut ring = Self {
            io: ManuallyDrop::new(io),
            provided: ManuallyDrop::new(provided),
            ledger: Ledger::new(group, waker, experiments.bundle),
            early: VecDeque::new(),
            origin: Origin::here(),
            features,
            recv_mode: RecvMode::new(features.multishot_recv, experiments.bundle),
            batch: Batch::of(&experiments),
            files,
            bell: None,
        };
        if features.multishot_recv {
            let works = ring
                .try_multishot_recv()
                .map_err(|errno| ReactorUnavailable::other(errno, "while trying a receive"))?;
            ring.features.multishot_recv = works;
            ring.recv_mode = RecvMode::new(works, experiments.bundle);
            // The trial was not the worker's, and its buffer is home again.
            ring.ledger.counters = Counters::default();
            ring.provided.publish();
        }
        Ok(ring)
    }

    /// What this ring got from its kernel.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// Multishot is a flag, not an opcode, so the kernel cannot be asked: a receive on a socket
    /// pair with a byte in it tells. Linux 5.19 answers EINVAL.
    fn try_multishot_recv(&mut self) -> Result<bool, Errno> {
        let (near, far) =
            Socket::pair(Domain::UNIX, Type::STREAM, None).map_err(|error| Errno::of(&error))?;
        far.send(b"?").map_err(|error| Errno::of(&error))?;
        self.push_counted(&entries::recv(
            entries::TRIAL,
            near.as_raw_fd(),
            Arm::Eager,
            RecvMode::new(true, false),
        ));
        // The end of input ends the op, so that nothing of the trial is left behind.
        drop(OwnedFd::from(far));
        let mut none = Vec::new();
        let deadline = Instant::now() + TRIAL_PATIENCE;
        while self.ledger.in_flight > 0 && Instant::now() < deadline {
            self.enter(Some(TRIAL_PATIENCE), Batch::ONE)?;
            self.reap(&mut none);
        }
        Ok(self.ledger.trial.take().is_some_and(|result| result >= 0))
    }

    /// A send without copying.
    #[cold]
    fn lend(&mut self, token: Token, socket: RawFd, buffer: SendBuffer) -> Entry {
        self.ledger.keep(token, SendBuffer::default());
        let (token, bytes) = self.ledger.lent.keep(token, buffer);
        entries::send_zc(token, socket, bytes)
    }

    /// Queues an entry; enters the kernel if there is no room.
    #[inline]
    pub(super) fn push(&mut self, entry: &Entry) {
        self.ledger.counters.submissions += 1;
        for _ in 0..FLUSH_ATTEMPTS_MAX {
            // SAFETY: what the entry points to is owned by the ledger until the op's last
            // completion, and descriptors are kept open by the seam's contract (invariant R2).
            if unsafe { self.io.submission().push(entry) }.is_ok() {
                return;
            }
            self.flush();
        }
        panic!(
            "the kernel takes no submissions: {} enters refused",
            FLUSH_ATTEMPTS_MAX
        );
    }

    #[inline]
    pub(super) fn push_counted(&mut self, entry: &Entry) {
        self.push(entry);
        self.ledger.in_flight += 1;
    }

    /// Makes room in the submission queue. Completions that are in the way are kept for the next
    /// wait.
    #[cold]
    fn flush(&mut self) {
        self.ledger.counters.flushes += 1;
        let result = if self.features.rung == Rung::Polled {
            self.await_thread()
        } else {
            self.ledger.counters.enters += 1;
            self.io.submit()
        };
        let refused = result.err().map(|error| Errno::of(&error));
        if refused.is_some() {
            let mut found = Vec::new();
            self.reap(&mut found);
            self.early.extend(found);
        }
        if refused == Some(Errno(libc::EAGAIN)) {
            thread::sleep(MEMORY_PAUSE);
        }
    }

    /// Sleeps until the kernel's thread has made room in the submission queue.
    fn await_thread(&mut self) -> io::Result<usize> {
        if self.thread_sleeps() {
            self.ledger.counters.enters += 1;
            self.io.submit()?;
        }
        self.ledger.counters.enters += 1;
        self.io.submitter().squeue_wait()
    }

    /// Whether the kernel's thread has to be woken before it takes submissions.
    fn thread_sleeps(&mut self) -> bool {
        self.io.submission().need_wakeup()
    }

    /// Submits everything and waits. What ended the wait is not known afterwards: an enter that
    /// submitted reports the count even when it was interrupted or timed out (6.18, measured).
    pub(super) fn enter(&mut self, timeout: Option<Duration>, batch: Batch) -> Result<(), Errno> {
        self.ledger.counters.enters += 1;
        let timespec;
        let mut arguments = batch.apply(SubmitArgs::new(), timeout);
        if let Some(timeout) = timeout {
            timespec = Timespec::from(timeout.min(WAIT_MAX));
            arguments = arguments.timespec(&timespec);
        }
        let submitter = self.io.submitter();
        self.judge(submitter.submit_with_args(batch.completions(), &arguments))
    }

    /// Submits everything and runs what is due, without waiting. A ring on which nothing happens
    /// costs no system call, where the kernel says so in shared memory.
    fn look(&mut self) -> Result<(), Errno> {
        let spares = match self.features.rung {
            Rung::Polled => !self.thread_sleeps() && !self.io.submission().cq_overflow(),
            rung => rung.has_taskrun_flag() && self.needs_no_enter(),
        };
        if spares {
            return Ok(());
        }
        self.ledger.counters.enters += 1;
        self.judge(self.io.submit())
    }

    /// Whether nothing is to be submitted and, as far as shared memory says, nothing is to be run.
    fn needs_no_enter(&mut self) -> bool {
        let submission = self.io.submission();
        submission.is_empty() && !submission.taskrun() && !submission.cq_overflow()
    }

    fn judge(&self, result: io::Result<usize>) -> Result<(), Errno> {
        let Err(error) = result else { return Ok(()) };
        match error.raw_os_error() {
            // Timed out; a signal came; the completion queue must be read first.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY) => Ok(()),
            Some(libc::EAGAIN) => {
                thread::sleep(MEMORY_PAUSE);
                Ok(())
            }
            _ => Err(Errno::of(&error)),
        }
    }

    /// Reads the completion queue, with one move of its head.
    #[inline]
    pub(super) fn reap(&mut self, completions: &mut Vec<Completion>) {
        let Self {
            io,
            ledger,
            provided,
            ..
        } = self;
        let queue = io.completion();
        ledger.counters.on_batch(queue.len());
        for entry in queue {
            ledger.on_entry(&entry, provided, completions);
        }
    }

    /// Completions that did not fit into their queue wait in the kernel for an enter.
    #[cold]
    fn settle_overflow(&mut self, completions: &mut Vec<Completion>) -> Result<(), Errno> {
        self.ledger.counters.overflows += 1;
        for _ in 0..OVERFLOW_ENTERS_MAX {
            self.look()?;
            self.reap(completions);
            if !self.io.submission().cq_overflow() {
                break;
            }
        }
        Ok(())
    }
}

impl Submit for Ring {
    #[inline]
    fn submit(&mut self, token: Token, op: Op) {
        self.origin.assert_here();
        match op {
            Op::Recv { socket, arm } => {
                if arm == Arm::AfterStarvation {
                    // A polling thread of the kernel may take the receive before the next wait
                    // offers the buffers that it is armed for.
                    self.provided.publish();
                }
                let flags = self.files.flags(&self.io, socket);
                let entry = entries::recv(token, socket, arm, self.recv_mode);
                self.push_counted(&entry.flags(flags));
            }
            Op::Send { socket, buffer } => {
                let flags = self.files.flags(&self.io, socket);
                let entry = if self.features.experiments.send_zc {
                    self.lend(token, socket, buffer)
                } else {
                    let bytes = self.ledger.keep(token, buffer);
                    entries::send(token, socket, bytes)
                };
                self.push_counted(&entry.flags(flags));
            }
            Op::Accept { listener } => {
                let entry = entries::accept(token, listener, &self.features);
                self.push_counted(&entry);
            }
            Op::Readable { fd } => self.push_counted(&entries::readable(token, fd)),
            Op::Shutdown { socket, half } => {
                self.ledger.counters.calls += net::shut_down(socket, half);
            }
            Op::Close { socket } => {
                self.files.remove(&self.io, socket);
                self.ledger.on_close(socket);
                self.push(&entries::close(socket));
            }
            Op::Cancel { target } => {
                let target = self.ledger.lent.token_of(target).unwrap_or(target);
                self.push(&entries::cancel(target));
            }
        }
    }

    fn free_buffers(&self) -> usize {
        self.ledger.group.free()
    }
}

impl Reactor for Ring {
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Errno> {
        self.origin.assert_here();
        self.ledger.counters.waits += 1;
        self.provided.publish();
        if !self.ledger.waker_armed {
            self.push_counted(&entries::watch_waker(self.ledger.waker.fd()));
            self.ledger.waker_armed = true;
        }
        let early = !self.early.is_empty();
        completions.extend(self.early.drain(..));
        if early || timeout == Some(Duration::ZERO) {
            self.look()?;
        } else {
            self.enter(timeout, self.batch)?;
        }
        self.reap(completions);
        if self.io.submission().cq_overflow() {
            self.settle_overflow(completions)?;
        }
        Ok(())
    }

    fn wake_fd(&mut self) -> Result<RawFd, Errno> {
        self.origin.assert_here();
        let bell = match self.bell.take() {
            Some(bell) => bell,
            None => Bell::hang(&self.io, &self.ledger.waker)?,
        };
        Ok(self.bell.insert(bell).fd())
    }

    fn is_idle(&mut self) -> bool {
        self.early.is_empty() && self.needs_no_enter() && self.io.completion().is_empty()
    }

    fn rest(&mut self) -> bool {
        self.provided.publish();
        if let Some(bell) = &self.bell {
            self.ledger.counters.calls += 1;
            bell.clear();
        }
        self.is_idle()
    }

    fn waker(&self) -> Waker {
        self.ledger.waker.clone()
    }

    fn counters(&self) -> Counters {
        let mut counters = self.ledger.counters;
        counters.calls += self.files.calls;
        counters.published()
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("features", &self.features)
            .field("in_flight", &self.ledger.in_flight)
            .finish_non_exhaustive()
    }
}
