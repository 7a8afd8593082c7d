//! What the worker records of exchanges: a book of it, its judgement, and a test per promise.
//!
//! Owns what can be said of a record from the plan that its target spells out. Refuses to know how
//! the worker gathers it.

use std::collections::HashMap;

use anel::protocol::{CloseReason, Limits, ProtocolError};
use anel::server::{Outcome, Record, Sampling};

use crate::plan::{Intake, Mode, Plan, Shape};
use crate::scenarios::Stage;
use crate::world::World;

/// A record that outlives its call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub method: Option<String>,
    pub target: String,
    pub referer: Option<String>,
    pub user_agent: Option<String>,
    pub status: u16,
    pub body_bytes: u64,
    pub duration_us: u64,
    pub outcome: Outcome,
}

/// Everything that was told.
#[derive(Debug, Default)]
pub struct Book {
    pub told: Vec<Told>,
    /// How many refusals the worker asked an answer for.
    pub refusals: usize,
}

impl Book {
    pub fn add(&mut self, record: &Record<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let asked = record.asked();
        self.told.push(Told {
            method: asked.line.map(|(method, _)| text(method)),
            target: text(asked.target),
            referer: asked.referer.map(text),
            user_agent: asked.user_agent.map(text),
            status: record.status,
            body_bytes: record.body_bytes,
            duration_us: record.duration_us,
            outcome: record.outcome,
        });
    }

    /// Every request that was seen, and every refusal, was told once, and as it was. Answers that
    /// were sent whole were told in their order.
    pub fn judge(&self, seen: &HashMap<usize, usize>) {
        let mut next = HashMap::new();
        let mut requests: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut refusals = 0;
        for told in &self.told {
            if let Outcome::Refused(_) = told.outcome {
                refusals += 1;
                continue;
            }
            let plan = Plan::parse(told.target.as_bytes());
            requests.entry(plan.client).or_default().push(plan.index);
            if told.outcome == Outcome::Whole {
                let index: &mut usize = next.entry(plan.client).or_default();
                assert!(plan.index >= *index, "out of order: {told:?}");
                *index = plan.index + 1;
            }
            told.judge(&plan);
        }
        assert_eq!(refusals, self.refusals, "refusals");
        for (client, count) in seen {
            let mut indices = requests.remove(client).unwrap_or_default();
            indices.sort_unstable();
            assert_eq!(indices, (0..*count).collect::<Vec<_>>(), "client {client}");
        }
        assert!(requests.is_empty(), "nobody asked {requests:?}");
    }
}

impl Told {
    fn judge(&self, plan: &Plan) {
        let without = self.method.as_deref() == Some("HEAD") || plan.status == 204;
        let bytes = if without { 0 } else { plan.bytes as u64 };
        // An echo has the length of what it echoes.
        let is_echo = plan.intake == Intake::Echo;
        match self.outcome {
            Outcome::Whole if self.status == 503 => {}
            Outcome::Whole => {
                assert_eq!(self.status, plan.status, "{self:?}");
                assert!(is_echo || self.body_bytes == bytes, "{self:?}");
                assert!(is_echo || without || !plan.is_cut(), "{self:?}");
            }
            Outcome::BrokenOff(_) => {
                let statuses = [plan.status, 499, 503];
                assert!(statuses.contains(&self.status), "{self:?}");
                assert!(is_echo || self.body_bytes <= bytes.max(19), "{self:?}");
            }
            Outcome::Refused(_) => unreachable!("has no plan"),
        }
    }
}

fn recording(limits: Limits) -> Stage {
    let mut stage = Stage::new(limits);
    stage.world.worker.record(Sampling::new(1.0, 0));
    stage
}

fn get(index: usize, mode: Mode, shape: Shape, bytes: usize) -> String {
    let plan = Plan {
        shape,
        ..Plan::plain(0, index, mode, bytes)
    };
    format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", plan.target())
}

impl Stage {
    /// Status, body bytes and outcome of everything that was told.
    fn told(&self) -> Vec<(u16, u64, Outcome)> {
        let told = self.world.application.book.told.iter();
        told.map(|told| (told.status, told.body_bytes, told.outcome))
            .collect()
    }

    fn last(&self) -> &Told {
        let told = &self.world.application.book.told;
        told.last().expect("something was told")
    }
}

#[test]
fn an_exchange_is_told_when_its_answer_has_left() {
    let mut stage = recording(Limits::default());
    let id = stage.connect_with_window(0);
    let fields = "User-Agent: one\r\nreferer: /a\r\nUser-Agent: two\r\n";
    let target = Plan::plain(0, 0, Mode::Now, 5).target();

    stage.send(
        id,
        &format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
    );
    assert_eq!(stage.told(), []);
    stage.world.pass_ms(30);
    stage.world.kernel.sockets[id].window = 1 << 20;
    stage.world.settle();

    let expected = Told {
        method: Some("GET".to_owned()),
        target,
        referer: Some("/a".to_owned()),
        user_agent: Some("one".to_owned()),
        status: 200,
        body_bytes: 5,
        duration_us: 30_000,
        outcome: Outcome::Whole,
    };
    assert_eq!(stage.world.application.book.told, [expected]);
    stage.assert_drained();
}

#[test]
fn pipelined_exchanges_are_told_in_order_whatever_order_they_are_answered_in() {
    let mut stage = recording(Limits::default());
    let id = stage.connect();
    let modes = [Mode::Later, Mode::Now, Mode::Later];
    let requests: String = (0..3)
        .map(|index| get(index, modes[index], Shape::Whole, 10 + index))
        .collect();
    stage.send(id, &requests);

    stage.answer(2);
    assert_eq!(stage.told(), []);
    stage.answer(0);

    let whole = |bytes| (200, bytes, Outcome::Whole);
    assert_eq!(stage.told(), [whole(10), whole(11), whole(12)]);
    stage.assert_drained();
}

#[test]
fn a_peer_that_leaves_within_an_answer_is_told_with_what_it_took() {
    let mut stage = recording(Limits::default());
    let id = stage.connect_with_window(1_000);
    stage.send(id, &get(0, Mode::Now, Shape::Whole, 5_000));

    stage.world.kernel.sockets[id].peer_reset();
    stage.world.settle();

    let (status, bytes, outcome) = stage.told()[0];
    assert_eq!(status, 200);
    assert!((500..1_000).contains(&bytes), "{bytes}");
    assert_eq!(outcome, Outcome::BrokenOff(CloseReason::PeerReset));
    stage.assert_drained();
}

#[test]
fn a_peer_that_leaves_before_its_answer_is_told_with_499() {
    let mut stage = recording(Limits::default());
    let id = stage.connect();
    stage.send(id, &get(0, Mode::Later, Shape::Whole, 5));

    stage.world.kernel.sockets[id].peer_reset();
    stage.world.settle();

    let outcome = Outcome::BrokenOff(CloseReason::PeerReset);
    assert_eq!(stage.told(), [(499, 0, outcome)]);
    stage.assert_drained();
}

#[test]
fn what_is_asked_behind_the_last_answer_is_told_with_499() {
    let mut stage = recording(Limits::default());
    let id = stage.connect();
    let first = get(0, Mode::LaterAndClose, Shape::Whole, 5);
    stage.send(id, &(first + &get(1, Mode::Later, Shape::Whole, 5)));

    stage.answer(0);

    let outcome = Outcome::BrokenOff(CloseReason::HandlerAsked);
    let expected = [(499, 0, outcome), (200, 5, Outcome::Whole)];
    assert_eq!(stage.told(), expected);
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn a_body_in_chunks_is_told_without_their_framing() {
    let mut stage = recording(Limits::default());
    let id = stage.connect();
    stage.send(id, &get(0, Mode::Later, Shape::Chunked, 6));

    stage.answer(0);
    stage.give_piece("abc");
    stage.give_piece("def");
    assert_eq!(stage.told(), []);
    stage.end_body();

    assert_eq!(stage.told(), [(200, 6, Outcome::Whole)]);
    stage.assert_drained();
}

#[test]
fn a_body_that_is_too_short_is_told_as_broken_off() {
    let mut stage = recording(Limits::default());
    let id = stage.connect();
    stage.send(id, &get(0, Mode::Later, Shape::Short, 6));

    stage.answer(0);
    stage.give_piece("abc");
    stage.end_body();

    let outcome = Outcome::BrokenOff(CloseReason::AnswerIncomplete);
    assert_eq!(stage.told(), [(200, 3, outcome)]);
    stage.assert_drained();
}

#[test]
fn a_head_that_is_refused_is_told_as_it_came() {
    let mut stage = recording(Limits::default());
    let id = stage.connect();

    stage.send(id, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n");

    let told = stage.last();
    assert_eq!(told.status, 400);
    assert_eq!(
        told.outcome,
        Outcome::Refused(ProtocolError::VersionInvalid)
    );
    assert_eq!(
        (told.method.as_deref(), &told.target[..]),
        (Some("GET"), "/a b")
    );
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn a_body_that_is_refused_is_told_with_its_head() {
    let mut stage = recording(Limits {
        body_bytes_max: 10,
        ..Limits::default()
    });
    let id = stage.connect();

    stage.send(
        id,
        "POST / HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\nContent-Length: 11\r\n\r\n",
    );

    let told = stage.last();
    assert_eq!(told.status, 413);
    assert_eq!(told.user_agent.as_deref(), Some("me"));
    assert_eq!(told.target, "/");
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn a_slow_head_is_told_with_the_time_it_took() {
    let mut stage = recording(Limits {
        head_timeout_ms: 1_000,
        ..Limits::default()
    });
    let id = stage.connect();

    stage.send(id, "GET /slow HTTP/1.1\r\n");
    stage.world.pass_ms(1_000);

    let told = stage.last();
    assert_eq!((told.status, told.duration_us), (408, 1_000_000));
    assert_eq!(told.target, "/slow");
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn the_time_of_a_request_begins_with_its_head_and_not_with_its_body() {
    let mut stage = recording(Limits::default());
    let id = stage.connect();
    let target = Plan::plain(0, 0, Mode::Now, 5).target();
    let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");

    stage.send(id, &(head + "ab"));
    stage.world.pass_ms(500);
    stage.send(id, "cd");

    assert_eq!(stage.last().duration_us, 500_000);
    stage.assert_drained();
}

#[test]
fn what_is_not_chosen_is_not_told_unless_it_fails() {
    let mut stage = Stage::new(Limits::default());
    stage.world.worker.record(Sampling::new(0.0, 0));
    let id = stage.connect();
    let failing = |index, mode| {
        let target = Plan {
            status: 500,
            ..Plan::plain(0, index, mode, 5)
        }
        .target();
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
    };

    stage.send(id, &get(0, Mode::Now, Shape::Whole, 5));
    stage.send(id, &get(1, Mode::Later, Shape::Whole, 5));
    stage.answer(1);
    stage.send(id, &failing(2, Mode::Now));
    stage.send(id, &failing(3, Mode::Later));
    stage.answer(3);

    let failure = (500, 5, Outcome::Whole);
    assert_eq!(stage.told(), [failure, failure]);
    stage.assert_drained();
}

#[test]
fn a_peer_that_never_reads_cannot_make_the_worker_keep_much_of_what_it_sends() {
    let limits = Limits {
        owed_bytes_max: 50_000,
        ..Limits::default()
    };
    let mut stage = recording(limits);
    let id = stage.connect_with_window(100);
    let target = |index| Plan::plain(0, index, Mode::Now, 5).target();
    let agent = "x".repeat(5_000);

    for index in 0..100 {
        let head = format!("GET {} HTTP/1.1\r\nHost: a\r\n", target(index));
        stage.send(id, &format!("{head}User-Agent: {agent}\r\n\r\n"));
    }

    assert!(stage.world.application.requests[&0] < 15);
    stage.world.kernel.sockets[id].window = 1 << 20;
    stage.world.settle();
    assert_eq!(stage.told().len(), 100);
    stage.assert_drained();
}

#[test]
fn an_idle_connection_keeps_no_records() {
    let mut stage = recording(Limits::default());
    let id = stage.connect();
    for index in 0..3 {
        stage.send(id, &get(index, Mode::Now, Shape::Whole, 5));
    }

    assert_eq!(stage.told().len(), 3);
    // It is back among the spare ones of the worker.
    let worker = format!("{:?}", stage.world.worker);
    assert!(worker.contains("spares: [Journal {"), "{worker}");
    stage.assert_drained();
}

impl Stage {
    fn give_piece(&mut self, piece: &str) {
        let World {
            application,
            worker,
            ..
        } = &mut self.world;
        let id = application.exchange(0, 0);
        application.give(worker, id, piece.as_bytes());
        self.world.settle();
    }

    fn end_body(&mut self) {
        let World {
            application,
            worker,
            ..
        } = &mut self.world;
        let id = application.exchange(0, 0);
        application.end(worker, id);
        self.world.settle();
    }
}
