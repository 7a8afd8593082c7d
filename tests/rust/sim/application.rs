//! The handler: does what each request asks for, and keeps book of every exchange.
//!
//! Owns the late answers and the state of every exchange ever seen. Refuses to know bytes. An
//! exchange that is answered twice, abandoned twice, or both, is a panic here.

use std::collections::HashMap;

use anel::protocol::{Answer, CloseReason, Payload};
use anel::server::{Body, ExchangeId, Given, Handler, Request, Responder, Verdict, Worker};

use crate::plan::{Mode, Plan};
use crate::prng::Prng;
use crate::trace::Trace;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Awaited,
    Answered,
    Abandoned,
}

struct Late {
    at_ms: u64,
    exchange: ExchangeId,
    plan: Plan,
    fields: String,
}

pub struct Application {
    exchanges: HashMap<ExchangeId, State>,
    late: Vec<Late>,
    /// How many requests of each client were seen; they must come in order and without a gap.
    pub requests: HashMap<usize, usize>,
    pub abandoned: Vec<(Plan, CloseReason)>,
    plans: HashMap<ExchangeId, Plan>,
    late_ms_max: u64,
    pub now_ms: u64,
    prng: Prng,
    trace: Trace,
}

impl Application {
    pub fn new(prng: Prng, late_ms_max: u64, trace: Trace) -> Self {
        Self {
            exchanges: HashMap::new(),
            late: Vec::new(),
            requests: HashMap::new(),
            abandoned: Vec::new(),
            plans: HashMap::new(),
            late_ms_max,
            now_ms: 0,
            prng,
            trace,
        }
    }

    pub fn next_answer_ms(&self) -> Option<u64> {
        self.late.iter().map(|late| late.at_ms).min()
    }

    /// How many exchanges are neither answered nor abandoned.
    pub fn awaited(&self) -> usize {
        self.exchanges
            .values()
            .filter(|state| **state == State::Awaited)
            .count()
    }

    /// Gives the late answers that are due, in random order; says whether there were any.
    pub fn answer_due(&mut self, worker: &mut Worker) -> bool {
        let now_ms = self.now_ms;
        let (mut due, kept) = std::mem::take(&mut self.late)
            .into_iter()
            .partition::<Vec<_>, _>(|l| l.at_ms <= now_ms);
        self.late = kept;
        let any = !due.is_empty();
        while !due.is_empty() {
            let late = due.swap_remove(self.prng.below(due.len()));
            self.answer(worker, late);
        }
        any
    }

    /// Gives the late answer to one request now. For scenarios.
    pub fn answer_one(&mut self, worker: &mut Worker, client: usize, index: usize) {
        let found = self
            .late
            .iter()
            .position(|l| (l.plan.client, l.plan.index) == (client, index));
        let late = self
            .late
            .swap_remove(found.expect("the request awaits its answer"));
        self.answer(worker, late);
    }

    fn answer(&mut self, worker: &mut Worker, late: Late) {
        let Late {
            exchange,
            plan,
            fields,
            ..
        } = late;
        let body = plan.body();
        let before = self.exchanges[&exchange];
        let taken = worker.respond(exchange, &answer(&plan, &body, &fields), self) != Given::Gone;
        self.trace.say(self.now_ms, || {
            format!("   late {} taken={taken}", plan.target())
        });
        match taken {
            true => assert_eq!(
                before,
                State::Awaited,
                "{exchange:?} was over and took an answer"
            ),
            false => assert_eq!(before, State::Abandoned, "{exchange:?} lost an answer"),
        }
        if taken {
            self.exchanges.insert(exchange, State::Answered);
        }
        let again = worker.respond(exchange, &answer(&plan, &body, &fields), self);
        assert_eq!(again, Given::Gone, "{exchange:?} took two answers");
    }
}

impl Handler for Application {
    fn on_request(&mut self, request: Request<'_>, responder: Responder<'_>) -> Verdict {
        let target = request.head.target.of(request.head_bytes);
        let plan = Plan::parse(target);
        self.trace.say(self.now_ms, || {
            format!("   {:?} {}", request.exchange, plan.target())
        });
        let expected = self.requests.entry(plan.client).or_default();
        assert_eq!(
            plan.index, *expected,
            "client {}: requests out of order",
            plan.client
        );
        *expected += 1;
        let state = match plan.mode {
            Mode::Now | Mode::NowAndClose => State::Answered,
            Mode::Later | Mode::LaterAndClose | Mode::Never => State::Awaited,
        };
        let exchange = request.exchange;
        let body = match request.body {
            Body::Whole(body) => Some(body),
            Body::Absent | Body::Arriving { .. } => None,
        };
        let fields = plan.fields(body);
        if state == State::Answered {
            // Not booked: a number is used up only by an answer that has to be told from others
            // later.
            return responder.respond(&answer(&plan, &plan.body(), &fields));
        }
        assert!(
            self.exchanges.insert(exchange, state).is_none(),
            "{exchange:?} was used before"
        );
        self.plans.insert(exchange, plan);
        let at_ms = match plan.mode {
            Mode::Never => u64::MAX,
            _ => self
                .now_ms
                .saturating_add(self.prng.between(0, self.late_ms_max)),
        };
        self.late.push(Late {
            at_ms,
            exchange,
            plan,
            fields,
        });
        responder.later()
    }

    fn on_abandoned(&mut self, exchange: ExchangeId, reason: CloseReason) {
        self.trace.say(self.now_ms, || {
            format!("   abandoned {exchange:?}: {reason:?}")
        });
        let before = self.exchanges.insert(exchange, State::Abandoned);
        assert_eq!(
            before,
            Some(State::Awaited),
            "{exchange:?} was over and was abandoned"
        );
        self.abandoned.push((self.plans[&exchange], reason));
    }
}

fn answer<'a>(plan: &Plan, body: &'a [u8], fields: &'a str) -> Answer<'a> {
    Answer {
        status: plan.status,
        content_type: Some(b"text/plain"),
        fields: fields.as_bytes(),
        payload: Payload::Whole(body),
        close: plan.closes(),
    }
}
