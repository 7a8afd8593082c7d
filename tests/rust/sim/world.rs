//! One run: a worker, its kernel, its application and its clients on a virtual clock.
//!
//! Owns the turn, the clock and the invariants that need a view of everything. Refuses to know how
//! any part works.

use anel::protocol::{CloseReason, Limits};
use anel::reactor::Completion;
use anel::server::{Clock, Counters, Outcome, Sampling, Worker};

use crate::application::{Application, Told};
use crate::client::{Client, Leaving, Reading};
use crate::kernel::{Faults, Kernel, LISTENER, Seen};
use crate::prng::Prng;
use crate::script::{self, Climate};
use crate::socket::End;
use crate::trace::Trace;

pub struct World {
    pub worker: Worker,
    pub kernel: Kernel,
    pub application: Application,
    pub clients: Vec<Client>,
    pub now_ms: u64,
    limits: Limits,
    prng: Prng,
    trace: Trace,
    drain_at_ms: Option<u64>,
    abort_at_ms: Option<u64>,
    is_draining: bool,
    is_aborted: bool,
    /// Turns in a row in which nothing happened and no time passed.
    spins: u32,
    active_at_ms: u64,
}

/// What a run saw, for the proof that the seeds reach everything.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub counters: Counters,
    pub seen: Seen,
    pub abandoned: u64,
    pub timeouts: u64,
    pub given_up: u64,
    pub answers: u64,
    pub continues: u64,
    pub aborted: u64,
    pub drained_early: u64,
    pub told: Told,
    pub chunked: u64,
    pub cut: u64,
    pub records_whole: u64,
    pub records_broken_off: u64,
    pub records_unanswered: u64,
}

const TURNS_MAX: u32 = 200_000;
const SPINS_MAX: u32 = 4;
/// Longer than every deadline.
const QUIET_MS: u64 = 300_000;

/// Runs a seed to its end. Panics when an invariant does not hold.
pub fn run(seed: u64, trace: Trace) -> Report {
    let mut world = World::from_seed(seed, trace);
    world.run_until_quiet();
    world.assert_nothing_open();
    let drained_early = world.is_draining;
    world.drain();
    world.run_until_quiet();
    if !world.worker.is_drained() {
        world.abort();
        world.run_until_quiet();
    }
    world.judge();
    let abandoned = world.application.abandoned.len() as u64;
    let total = |count: fn(&Client) -> usize| world.clients.iter().map(count).sum::<usize>() as u64;
    let told = |is_counted: fn(u16, Outcome) -> bool| {
        let told = world.application.book.told.iter();
        told.filter(|told| is_counted(told.status, told.outcome))
            .count() as u64
    };
    Report {
        counters: *world.worker.counters(),
        seen: world.kernel.seen,
        abandoned,
        timeouts: total(|client| client.inbox.timeouts),
        given_up: total(|client| client.inbox.given_up),
        answers: total(|client| client.inbox.answers),
        continues: total(|client| client.inbox.continues),
        aborted: u64::from(world.is_aborted),
        drained_early: u64::from(drained_early),
        told: world.application.told,
        chunked: total(|client| client.inbox.chunked),
        cut: total(|client| client.inbox.cut),
        records_whole: told(|_, outcome| outcome == Outcome::Whole),
        records_broken_off: told(|status, outcome| {
            status != 499 && matches!(outcome, Outcome::BrokenOff(_))
        }),
        records_unanswered: told(|status, _| status == 499),
    }
}

impl World {
    /// A world without clients and faults, for scenarios.
    pub fn calm(limits: Limits, buffers: (u16, u32), trace: Trace) -> Self {
        let mut prng = Prng::new(1);
        let kernel = Kernel::new(prng.fork(), Faults::default(), buffers, trace);
        let application = Application::new(prng.fork(), 0, trace);
        let mut worker = Worker::new(limits);
        worker.add_listener(LISTENER);
        Self {
            worker,
            kernel,
            application,
            clients: Vec::new(),
            now_ms: 0,
            limits,
            prng,
            trace,
            drain_at_ms: None,
            abort_at_ms: None,
            is_draining: false,
            is_aborted: false,
            spins: 0,
            active_at_ms: 0,
        }
    }

    fn from_seed(seed: u64, trace: Trace) -> Self {
        let mut prng = Prng::new(seed);
        let buffers = (prng.pick(&[1, 2, 4, 64]), prng.pick(&[16, 64, 512, 4096]));
        let limits = limits(buffers.1, &mut prng);
        let mut world = Self::calm(limits, buffers, trace);
        world.worker.record(Sampling::new(1.0, seed));
        let faults = faults(buffers, &mut prng);
        world.kernel = Kernel::new(prng.fork(), faults, buffers, trace);
        world.application = Application::new(prng.fork(), prng.pick(&[0, 5, 200]), trace);
        let piece_bytes_max = prng.pick(&[20, 500, 5_000]);
        world.application.piece_bytes_max = piece_bytes_max;
        world.application.rests = 30;
        let climate = Climate {
            piece_bytes_max,
            head_timeout_ms: limits.head_timeout_ms,
            body_bytes_max: limits.body_bytes_max as usize,
            answer_bytes_max: prng.pick(&[300, 3_000, 20_000]),
            bodies: prng.pick(&[0, 35, 90]),
            later: prng.pick(&[0, 30, 100]),
            streams: prng.pick(&[0, 0, 30, 80]),
            arriving: prng.pick(&[0, 0, 50, 100]),
            stream_bytes_max: limits.stream_bytes_max as usize,
            never: prng.percent(10),
        };
        // Late answers are rendered before anybody knows whether they fit; so are those of one
        // pause.
        let piece_bytes = world.application.piece_bytes_max + 20;
        let stream_bytes = limits.stream_owed_bytes_max as usize + piece_bytes + 400;
        let answer_bytes = (climate.answer_bytes_max + 400).max(stream_bytes);
        let late = if climate.later + climate.streams + climate.arriving > 0 {
            limits.pipeline_depth_max as usize
        } else {
            1
        };
        world.kernel.send_bytes_max = limits.owed_bytes_max as usize + answer_bytes * (late + 1);
        if prng.percent(15) {
            world.kernel.descriptors_max = 1 + prng.below(3);
        }
        let clients = 1 + prng.below(12);
        world.clients = (0..clients)
            .map(|n| script::client(n, &climate, &mut prng))
            .collect();
        if prng.percent(25) {
            let at_ms = prng.between(0, 400);
            world.drain_at_ms = Some(at_ms);
            world.abort_at_ms = prng.percent(60).then(|| at_ms + prng.between(0, 300));
        }
        world.prng = prng;
        world
    }

    /// Turns until nothing will ever happen again, except for attempts to accept in vain.
    pub fn run_until_quiet(&mut self) {
        self.active_at_ms = self.now_ms;
        for _ in 0..TURNS_MAX {
            if !self.turn() || self.now_ms > self.active_at_ms + QUIET_MS {
                return;
            }
        }
        panic!("the run does not end");
    }

    /// One turn, in the order of `python/worker.rs`; `false` when nothing will ever happen again.
    pub fn turn(&mut self) -> bool {
        let mut active = self.act();
        active |= self.grant_wishes();
        self.application.now_ms = self.now_ms;
        active |= self.application.answer_due(&mut self.worker);
        if active {
            self.active_at_ms = self.now_ms;
        }
        let Self {
            worker,
            kernel,
            application,
            ..
        } = self;
        let before = (kernel.submissions, worker.counters().requests_total);
        worker.flush(kernel, application);
        if (kernel.submissions, worker.counters().requests_total) > before {
            self.spins = 0;
        }
        let mut completions = kernel.wait(self.now_ms);
        if completions.is_empty() && !active {
            if !self.pass_time() {
                return false;
            }
            completions = self.kernel.wait(self.now_ms);
        } else {
            self.spins = 0;
        }
        self.deliver(completions);
        self.check_memory();
        true
    }

    /// The part of a turn behind the wait.
    pub fn deliver(&mut self, completions: Vec<Completion>) {
        let Self {
            worker,
            kernel,
            application,
            ..
        } = self;
        application.now_ms = self.now_ms;
        worker.on_clock(Clock {
            monotonic_us: self.now_ms * 1_000,
            unix_s: 0,
        });
        for completion in completions {
            kernel.hand_over(&completion);
            worker.on_completion(completion, kernel, application);
        }
        worker.on_time(kernel, application);
    }

    /// Turns until nothing more happens at this time. For scenarios.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let Self {
                worker,
                kernel,
                application,
                ..
            } = self;
            worker.flush(kernel, application);
            let completions = kernel.wait(self.now_ms);
            if completions.is_empty() && !worker.wants_turn() {
                return;
            }
            self.deliver(completions);
        }
        panic!("the worker never rests");
    }

    /// Lets so much time pass, with a turn whenever the worker asks for one.
    pub fn pass_ms(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        self.settle();
        while self.now_ms < until_ms {
            let next_ms = self.worker.next_deadline_ms().unwrap_or(until_ms);
            self.now_ms = next_ms.clamp(self.now_ms + 1, until_ms);
            self.deliver(Vec::new());
            self.settle();
        }
    }

    /// Lets the clock go on to whatever comes next.
    fn pass_time(&mut self) -> bool {
        let deadline = self.worker.next_deadline_ms();
        let sockets = &self.kernel.sockets;
        let clients = self
            .clients
            .iter()
            .filter_map(|client| client.next_act_ms(client.socket.map(|id| &sockets[id])));
        let wishes = [self.drain_at_ms, self.abort_at_ms].into_iter().flatten();
        let answers = self
            .application
            .next_answer_ms()
            .filter(|at_ms| *at_ms < u64::MAX);
        let next = clients.chain(deadline).chain(wishes).chain(answers);
        let Some(next_ms) = next.chain(self.kernel.next_event_ms()).min() else {
            return false;
        };
        if next_ms > self.now_ms {
            self.now_ms = next_ms;
            self.spins = 0;
        } else {
            self.spins += 1;
            assert!(
                self.spins < SPINS_MAX,
                "the worker spins: its deadline is {deadline:?}"
            );
        }
        true
    }

    fn act(&mut self) -> bool {
        let mut active = false;
        for client in &mut self.clients {
            if client.socket.is_none() && client.connect_at_ms <= self.now_ms {
                client.socket = Some(self.kernel.connect(client.window));
                active = true;
            }
            if let Some(id) = client.socket {
                let socket = &mut self.kernel.sockets[id];
                active |= client.act(socket, self.now_ms, &mut self.prng, self.trace);
            }
        }
        active
    }

    fn grant_wishes(&mut self) -> bool {
        let due = |at_ms: &mut u64| *at_ms <= self.now_ms;
        let drain = self.drain_at_ms.take_if(due).is_some();
        let abort = self.abort_at_ms.take_if(due).is_some();
        if drain {
            self.drain();
        }
        if abort {
            self.abort();
        }
        drain || abort
    }

    pub fn drain(&mut self) {
        self.trace.say(self.now_ms, || "== drain".to_owned());
        self.is_draining = true;
        for client in &mut self.clients {
            client.inbox.draining = true;
        }
        self.worker.drain(&mut self.kernel);
    }

    pub fn abort(&mut self) {
        self.trace.say(self.now_ms, || "== abort".to_owned());
        self.is_aborted = true;
        for client in &mut self.clients {
            client.inbox.cut_by_force = true;
        }
        self.application.now_ms = self.now_ms;
        self.worker
            .abort_all(&mut self.kernel, &mut self.application);
    }

    /// What was received and not handed to the application is bounded, also for peers that never
    /// read.
    fn check_memory(&self) {
        for client in &self.clients {
            let socket = match client.socket {
                Some(id) => &self.kernel.sockets[id],
                None => continue,
            };
            let given_up = self.application.abandoned.iter().any(|(plan, reason)| {
                (plan.client, *reason) == (client.number, CloseReason::HandlerDeadline)
            });
            if client.request_ends.is_empty() || socket.shut_write || self.is_draining || given_up {
                continue;
            }
            let buffers = self.kernel.group.count() * self.kernel.buffer_bytes;
            let delivered = socket.delivered - socket.delivered_in_spite;
            if let Some((index, taken)) = self.application.taken(client.number)
                && let Some(begin) = client.arrivals.get(&index)
            {
                let held = delivered.saturating_sub(begin + taken);
                let held_max = self.limits.head_bytes_max as usize + 2 * buffers;
                assert!(
                    held <= held_max,
                    "client {}: {held} bytes of a body held",
                    client.number
                );
            }
            let seen = self
                .application
                .requests
                .get(&client.number)
                .copied()
                .unwrap_or(0);
            if client.closing_at.is_some_and(|index| seen > index) {
                continue;
            }
            let Some(next) = client.request_ends.get(seen) else {
                continue;
            };
            let began = if seen == 0 {
                0
            } else {
                client.request_ends[seen - 1]
            };
            let held = delivered.saturating_sub(began);
            let held_max = self.limits.head_bytes_max as usize + (next - began) + 2 * buffers;
            assert!(
                held <= held_max,
                "client {}: {held} bytes held",
                client.number
            );
        }
    }

    /// Once nothing happens any more, only forgotten answers keep connections.
    fn assert_nothing_open(&self) {
        let open = self.worker.connections_open();
        let awaited = self.application.awaited();
        assert!(open == 0 || awaited > 0, "{open} connections are stuck");
        self.application.assert_nobody_forgotten();
        if !self.is_draining {
            assert!(
                self.kernel.is_accepting() || open > 0,
                "nobody accepts any more"
            );
            let full =
                open >= self.limits.connections_max as usize || open >= self.kernel.descriptors_max;
            assert!(
                self.kernel.backlog() == 0 || full,
                "connections wait to be accepted"
            );
        }
    }

    fn judge(&mut self) {
        assert_eq!(self.worker.connections_open(), 0, "a slot leaked");
        assert!(self.worker.is_drained(), "the drain has no end");
        assert_eq!(self.worker.connections_busy(), 0);
        self.kernel.assert_quiet();
        assert_eq!(
            self.application.awaited(),
            0,
            "exchanges were neither answered nor abandoned"
        );
        let counters = self.worker.counters();
        assert_eq!(
            counters.connections_accepted_total,
            counters.connections_closed_total
        );
        assert_eq!(
            counters.stale_completions_total, self.kernel.seen.stale,
            "stale completions"
        );
        self.application.book.judge(&self.application.requests);
        for client in &self.clients {
            self.judge_client(client);
        }
    }

    fn judge_client(&self, client: &Client) {
        let Some(id) = client.socket else { return };
        let (socket, number) = (&self.kernel.sockets[id], client.number);
        let was_accepted = socket.identity.is_some();
        let cut = socket.faulted || self.is_aborted || !was_accepted;
        if cut || !client.is_strict {
            return;
        }
        assert!(
            !socket.closed_on_declined,
            "client {number}: closed on bytes it was sent"
        );
        assert!(
            client.inbox.is_between_answers(),
            "client {number}: an answer was cut off"
        );
        if self.is_draining && client.end.is_some() {
            return;
        }
        let inbox = &client.inbox;
        assert!(
            inbox.is_satisfied(),
            "client {number} misses {:?}",
            inbox.expected.front()
        );
        if client.leaving != Leaving::WhenSatisfied || inbox.closed {
            assert!(client.end.is_some(), "client {number} never saw the end");
        }
        let polite = client.reading == Reading::Prompt && client.writes.is_empty();
        if polite && !inbox.closed {
            assert_ne!(client.end, Some(End::Reset), "client {number} was reset");
        }
    }
}

fn limits(buffer_bytes: u32, prng: &mut Prng) -> Limits {
    Limits {
        head_bytes_max: prng.pick(&[600, 2_000, 32 * 1024]),
        target_bytes_max: 300,
        body_bytes_max: prng.pick(&[400, 5_000]),
        pipeline_depth_max: prng.pick(&[1, 2, 5, 128]),
        owed_bytes_max: prng.pick(&[1, 500, 10_000, 256 * 1024]),
        stream_owed_bytes_max: prng.pick(&[0, 1, 700, 64 * 1024]),
        stream_bytes_max: 20_000,
        connections_max: prng.pick(&[1, 3, 60_000, 60_000]),
        head_timeout_ms: if buffer_bytes < 64 { 3_000 } else { 1_000 },
        body_timeout_ms: prng.pick(&[6_000, 60_000]),
        body_bytes_per_s_min: prng.pick(&[0, 240]),
        send_bytes_per_s_min: prng.pick(&[0, 240, 2_000]),
        handler_timeout_ms: prng.pick(&[0, 5_000]),
        idle_timeout_ms: prng.pick(&[2_000, 75_000]),
        send_timeout_ms: prng.pick(&[2_000, 60_000]),
        linger_bytes_max: prng.pick(&[1_000, 40_000, 1024 * 1024]),
        linger_timeout_ms: prng.pick(&[500, 2_000]),
        ..Limits::default()
    }
}

fn faults((buffers, buffer_bytes): (u16, u32), prng: &mut Prng) -> Faults {
    if prng.percent(15) {
        return Faults::default();
    }
    // A peer that is punctual must not be made late by a kernel that takes 30 ms for 16 bytes.
    let delays: &[u64] = if buffer_bytes < 512 {
        &[1]
    } else {
        &[1, 5, 30]
    };
    let hostages: &[u32] = if buffers < 4 { &[0] } else { &[0, 0, 20] };
    Faults {
        short_send: prng.pick(&[0, 10, 70]),
        short_recv: prng.pick(&[0, 20, 80]),
        early_end: prng.pick(&[0, 10, 100]),
        delay: prng.pick(&[0, 10, 50]),
        delay_ms_max: prng.pick(delays),
        accept_error: prng.pick(&[0, 0, 20]),
        shortage: prng.pick(&[0, 0, 10]),
        reset: prng.pick(&[0, 0, 0, 1, 5]),
        stale: prng.pick(&[0, 10]),
        hostage: prng.pick(hostages),
        slow_queue: prng.pick(&[0, 30, 80]),
    }
}
