//! The handler: does what each request asks for, and keeps book of every exchange.
//!
//! Owns the late answers, the bodies in both directions and the state of every exchange ever seen.
//! Refuses to know bytes on the wire. An exchange that is answered twice, abandoned twice, or both,
//! is a panic here; so is a call that the seam does not allow.

use std::collections::HashMap;
use std::os::fd::RawFd;

use anel::protocol::date::DateLine;
use anel::protocol::encode;
use anel::protocol::{Answer, CloseReason, Framing, Payload, ProtocolError, RequestHead};
use anel::server::{
    Body, BodyPiece, BodyPlan, Delivery, ExchangeId, Flow, Given, Handler, Opening, Proxied,
    Record, Request, Responder, Verdict, Worker,
};

use crate::plan::{Intake, Mode, Plan, Shape};
use crate::prng::Prng;
use crate::records::Book;
use crate::trace::Trace;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Awaited,
    Streaming,
    Answered,
    Abandoned,
}

/// An exchange that is not over within one call.
pub struct Exchange {
    plan: Plan,
    pub state: State,
    head_only: bool,
    /// What it says of a body that is not on its way.
    seen: String,
    /// The body of an answer in pieces, unless it is an echo.
    content: Vec<u8>,
    /// Bytes of the answer's body that were given to the worker.
    produced: usize,
    /// Whether the worker asked to wait.
    waiting: bool,
    arriving: Option<Arriving>,
}

/// The body of a request that comes in pieces.
struct Arriving {
    bytes: Vec<u8>,
    length: Option<u64>,
    /// Whether the handler ever wanted any of it.
    begun: bool,
    /// Whether it wants the next piece.
    asked: bool,
    over: bool,
    failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Answer,
    Produce,
    Read,
}

#[derive(Clone, Copy)]
struct Job {
    at_ms: u64,
    exchange: ExchangeId,
    task: Task,
}

/// What the application saw, for the proof that the seeds reach everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub waits: u64,
    pub writables: u64,
    pub rests: u64,
    pub pieces: u64,
    pub failures: u64,
    pub broken_streams: u64,
    pub lost_pieces: u64,
    pub early_answers: u64,
    pub echoes: u64,
}

pub struct Application {
    pub exchanges: HashMap<ExchangeId, Exchange>,
    jobs: Vec<Job>,
    /// How many requests of each client were seen; they must come in order and without a gap.
    pub requests: HashMap<usize, usize>,
    pub abandoned: Vec<(Plan, CloseReason)>,
    pub told: Told,
    /// What was recorded.
    pub book: Book,
    /// The exchange of each client whose body came in pieces last.
    pub latest: HashMap<usize, ExchangeId>,
    late_ms_max: u64,
    pub piece_bytes_max: usize,
    /// How often a handler rests behind a piece, in percent.
    pub rests: u32,
    /// How connections begin.
    pub opening: Opening,
    /// The headers of the PROXY protocol that came.
    pub proxied: Vec<Proxied>,
    /// The limit that is asked for every body.
    pub body_bytes_max: Option<u64>,
    pub now_ms: u64,
    prng: Prng,
    trace: Trace,
}

/// Bytes that an echo keeps before it wants no more.
const ECHO_HELD_MAX: usize = 500;

impl Application {
    pub fn new(prng: Prng, late_ms_max: u64, trace: Trace) -> Self {
        Self {
            exchanges: HashMap::new(),
            jobs: Vec::new(),
            requests: HashMap::new(),
            abandoned: Vec::new(),
            told: Told::default(),
            book: Book::default(),
            latest: HashMap::new(),
            late_ms_max,
            piece_bytes_max: 1_000,
            rests: 0,
            opening: Opening::Request,
            proxied: Vec::new(),
            body_bytes_max: None,
            now_ms: 0,
            prng,
            trace,
        }
    }

    pub fn next_answer_ms(&self) -> Option<u64> {
        self.jobs.iter().map(|job| job.at_ms).min()
    }

    /// How many exchanges are neither answered nor abandoned.
    pub fn awaited(&self) -> usize {
        let open = self
            .exchanges
            .values()
            .filter(|exchange| exchange.is_open());
        open.count()
    }

    /// How many bytes of a body that is on its way the handler took; `None` when it is over.
    pub fn taken(&self, client: usize) -> Option<(usize, usize)> {
        let exchange = &self.exchanges[self.latest.get(&client)?];
        let arriving = exchange.arriving.as_ref()?;
        let live = exchange.is_open() && !arriving.over;
        live.then_some((exchange.plan.index, arriving.bytes.len()))
    }

    /// Once nothing happens any more, whoever waits has somebody before it who never answers.
    pub fn assert_nobody_forgotten(&self) {
        for (id, exchange) in &self.exchanges {
            let reads = exchange
                .arriving
                .as_ref()
                .is_some_and(|arriving| arriving.asked && !arriving.over);
            if !exchange.is_open() || !(exchange.waiting || reads) {
                continue;
            }
            let behind = self.exchanges.iter().any(|(other, earlier)| {
                let same = (other.slot, other.generation) == (id.slot, id.generation);
                same && earlier.is_open() && earlier.plan.index < exchange.plan.index
            });
            assert!(behind, "{id:?} is forgotten: {}", exchange.plan.target());
        }
    }

    /// Does what is due, in random order; says whether there was anything.
    pub fn answer_due(&mut self, worker: &mut Worker) -> bool {
        let now_ms = self.now_ms;
        let (mut due, kept) = std::mem::take(&mut self.jobs)
            .into_iter()
            .partition::<Vec<_>, _>(|job| job.at_ms <= now_ms);
        self.jobs = kept;
        let any = !due.is_empty();
        while !due.is_empty() {
            let job = due.swap_remove(self.prng.below(due.len()));
            self.work(worker, job);
        }
        any
    }

    /// Gives the late answer to one request now. For scenarios.
    pub fn answer_one(&mut self, worker: &mut Worker, client: usize, index: usize) {
        let exchanges = &self.exchanges;
        let found = self.jobs.iter().position(|job| {
            let plan = &exchanges[&job.exchange].plan;
            job.task == Task::Answer && (plan.client, plan.index) == (client, index)
        });
        let job = self
            .jobs
            .swap_remove(found.expect("the request awaits its answer"));
        self.work(worker, job);
    }

    /// The exchange of a request. For scenarios.
    pub fn exchange(&self, client: usize, index: usize) -> ExchangeId {
        let found = self
            .exchanges
            .iter()
            .find(|(_, exchange)| (exchange.plan.client, exchange.plan.index) == (client, index));
        *found.expect("the request was seen").0
    }

    /// What a handler got of the body of its request, and whether that was all. For scenarios.
    pub fn body(&self, id: ExchangeId) -> (&[u8], bool) {
        let arriving = self.exchanges[&id].arriving.as_ref();
        let arriving = arriving.expect("a body in pieces");
        (&arriving.bytes, arriving.over)
    }

    /// Whether the body of a request was told to be broken. For scenarios.
    pub fn has_failed(&self, id: ExchangeId) -> bool {
        let arriving = self.exchanges[&id].arriving.as_ref();
        arriving.is_some_and(|arriving| arriving.failed)
    }

    /// Gives a piece of an answer. For scenarios.
    pub fn give(&mut self, worker: &mut Worker, id: ExchangeId, piece: &[u8]) -> Flow {
        let flow = worker.send_body(id, piece);
        let exchange = self.exchanges.get_mut(&id).expect("booked");
        exchange.waiting = flow == Flow::Wait;
        flow
    }

    /// Ends or aborts an answer in pieces. For scenarios.
    pub fn end(&mut self, worker: &mut Worker, id: ExchangeId) -> bool {
        let whole = worker.end_body(id, self);
        self.set(id, State::Answered);
        whole
    }

    pub fn abort(&mut self, worker: &mut Worker, id: ExchangeId) {
        worker.abort_body(id, self);
        self.set(id, State::Answered);
    }

    fn work(&mut self, worker: &mut Worker, job: Job) {
        match job.task {
            Task::Answer => self.answer(worker, job.exchange),
            Task::Produce => self.produce(worker, job.exchange),
            Task::Read => self.read(worker, job.exchange),
        }
    }

    fn answer(&mut self, worker: &mut Worker, id: ExchangeId) {
        let exchange = &self.exchanges[&id];
        let (plan, before) = (exchange.plan, exchange.state);
        let fields = exchange.fields();
        let expected = match exchange.wants_pieces() {
            _ if before == State::Abandoned => Given::Gone,
            true => Given::Streaming,
            false => Given::Whole,
        };
        let unread = exchange.arriving.as_ref().is_some_and(|a| !a.over);
        let body = plan.body();
        let payload = exchange.payload(&body);
        let given = worker.respond(id, &answer(&plan, payload, &fields), self);
        self.trace.say(self.now_ms, || {
            format!("   late {} {given:?}", plan.target())
        });
        assert_eq!(given, expected, "{id:?} was {before:?}");
        match given {
            Given::Gone => {}
            Given::Whole => self.set(id, State::Answered),
            Given::Streaming => {
                self.set(id, State::Streaming);
                self.plan_ahead(id, Task::Produce);
            }
        }
        self.told.early_answers += u64::from(unread && given == Given::Whole);
        let again = worker.respond(id, &answer(&plan, Payload::Whole(&body), &fields), self);
        assert_eq!(again, Given::Gone, "{id:?} took two answers");
    }

    /// Gives the next piece of an answer, or its end.
    fn produce(&mut self, worker: &mut Worker, id: ExchangeId) {
        let wanted = match self.prng.below(6) {
            0 => 0,
            1 => self.piece_bytes_max,
            _ => self.prng.below(self.piece_bytes_max),
        };
        let Self { exchanges, .. } = self;
        let exchange = exchanges.get_mut(&id).expect("booked");
        if exchange.state == State::Abandoned {
            assert_eq!(worker.send_body(id, b"piece"), Flow::Gone);
            self.told.lost_pieces += 1;
            return;
        }
        if exchange.state != State::Streaming || exchange.waiting {
            return;
        }
        let plan = exchange.plan;
        let content = match &exchange.arriving {
            Some(arriving) if plan.intake == Intake::Echo => &arriving.bytes,
            _ => &exchange.content,
        };
        let taken = wanted.min(content.len() - exchange.produced);
        let flow = worker.send_body(id, &content[exchange.produced..][..taken]);
        let has_more = exchange.produced + taken < content.len();
        assert_ne!(flow, Flow::Gone, "{id:?} lost a piece");
        exchange.produced += taken;
        exchange.waiting = flow == Flow::Wait;
        self.told.waits += u64::from(flow == Flow::Wait);
        if exchange.has_produced_all() {
            return self.finish(worker, id);
        }
        let goes_on = flow == Flow::Go && has_more;
        let rests = plan.intake == Intake::Echo
            && exchange
                .arriving
                .as_ref()
                .is_some_and(|a| !a.asked && !a.over);
        if goes_on {
            self.plan_ahead(id, Task::Produce);
        }
        if rests {
            self.plan_ahead(id, Task::Read);
        }
    }

    fn finish(&mut self, worker: &mut Worker, id: ExchangeId) {
        let exchange = self.exchanges.get_mut(&id).expect("booked");
        exchange.state = State::Answered;
        let failed = exchange.arriving.as_ref().is_some_and(|a| a.failed);
        let plan = exchange.plan;
        self.trace
            .say(self.now_ms, || format!("   ends {}", plan.target()));
        self.told.echoes += u64::from(plan.intake == Intake::Echo);
        match plan.shape {
            _ if plan.intake == Intake::Echo && failed => worker.abort_body(id, self),
            Shape::AbortedSized | Shape::AbortedChunked => worker.abort_body(id, self),
            Shape::Long => {
                assert_ne!(worker.send_body(id, b"excess"), Flow::Gone);
                assert!(!worker.end_body(id, self), "{id:?} was too long");
            }
            Shape::Short => assert!(!worker.end_body(id, self), "{id:?} was too short"),
            _ => assert!(worker.end_body(id, self), "{id:?} was as long as announced"),
        }
        self.told.broken_streams += u64::from(plan.is_cut() || plan.shape == Shape::Long);
        // Everything that comes behind the end is harmless.
        assert!(!worker.end_body(id, self));
        worker.abort_body(id, self);
        assert_eq!(worker.send_body(id, b"behind"), Flow::Gone);
    }

    pub fn read(&mut self, worker: &mut Worker, id: ExchangeId) {
        let exchange = self.exchanges.get_mut(&id).expect("booked");
        let is_open = exchange.is_open();
        let arriving = exchange.arriving.as_mut().expect("a body on its way");
        // It is harmless when it comes too late.
        let plan = exchange.plan;
        let begins = plan.intake == Intake::Echo && exchange.state == State::Awaited;
        let begins = begins && !std::mem::replace(&mut arriving.begun, true);
        arriving.asked |= is_open && !arriving.over;
        worker.read_body(id, self);
        if begins {
            self.plan_answer(id, &plan);
        }
    }

    fn set(&mut self, id: ExchangeId, state: State) {
        self.exchanges.get_mut(&id).expect("booked").state = state;
    }

    fn plan_ahead(&mut self, exchange: ExchangeId, task: Task) {
        // A body in pieces takes no longer than its peer has patience.
        let late_ms_max = match task {
            Task::Answer => self.late_ms_max,
            Task::Produce | Task::Read => self.late_ms_max.min(10),
        };
        let at_ms = self.now_ms + self.prng.between(0, late_ms_max);
        self.jobs.push(Job {
            at_ms,
            exchange,
            task,
        });
    }

    fn plan_answer(&mut self, exchange: ExchangeId, plan: &Plan) {
        match plan.mode {
            Mode::Never => self.jobs.push(Job {
                at_ms: u64::MAX,
                exchange,
                task: Task::Answer,
            }),
            _ => self.plan_ahead(exchange, Task::Answer),
        }
    }
}

impl Exchange {
    fn is_open(&self) -> bool {
        matches!(self.state, State::Awaited | State::Streaming)
    }

    fn echoes(&self) -> bool {
        self.plan.intake == Intake::Echo && self.arriving.is_some()
    }

    fn wants_pieces(&self) -> bool {
        let streams = self.plan.streams() || self.echoes();
        streams && !self.head_only && self.plan.status != 204
    }

    fn fields(&self) -> String {
        let failed = |arriving: &&Arriving| arriving.failed && self.plan.intake == Intake::All;
        let seen = match &self.arriving {
            Some(arriving) if failed(&arriving) => "failed".to_owned(),
            Some(arriving) => self.plan.seen(Some(&arriving.bytes)),
            None => self.seen.clone(),
        };
        self.plan.fields(&seen)
    }

    fn payload<'a>(&self, body: &'a [u8]) -> Payload<'a> {
        match &self.arriving {
            Some(arriving) if self.plan.intake == Intake::Echo => Payload::Stream {
                length: arriving.length,
            },
            _ if self.plan.streams() => Payload::Stream {
                length: self.plan.announced(),
            },
            _ => Payload::Whole(body),
        }
    }

    fn has_produced_all(&self) -> bool {
        match &self.arriving {
            Some(arriving) if self.plan.intake == Intake::Echo => {
                arriving.over && self.produced == arriving.bytes.len()
            }
            _ => self.produced == self.plan.bytes,
        }
    }
}

impl Handler for Application {
    fn on_accept(&mut self, _socket: RawFd) -> Opening {
        self.opening
    }

    fn on_proxy_header(&mut self, proxied: Proxied) {
        self.proxied.push(proxied);
    }

    fn on_head(&mut self, head: &RequestHead, head_bytes: &[u8]) -> BodyPlan {
        assert!(!matches!(head.framing, Framing::None | Framing::Length(0)));
        let target = head.target.of(head_bytes);
        // Some bodies are refused for what they are, whoever asks.
        let gathered = target == b"/" || Plan::parse(target).intake == Intake::Gathered;
        let delivery = if gathered {
            Delivery::Gathered
        } else {
            Delivery::Streamed
        };
        BodyPlan {
            delivery,
            bytes_max: self.body_bytes_max,
        }
    }

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
        let id = request.exchange;
        let mut exchange = Exchange {
            plan,
            state: State::Awaited,
            head_only: request.head.method.of(request.head_bytes) == b"HEAD",
            seen: String::new(),
            content: if plan.streams() {
                plan.body()
            } else {
                Vec::new()
            },
            produced: 0,
            waiting: false,
            arriving: None,
        };
        match request.body {
            Body::Absent => exchange.seen = plan.seen(None),
            Body::Whole(body) => exchange.seen = plan.seen(Some(body)),
            Body::Arriving { length } => {
                self.latest.insert(plan.client, id);
                exchange.arriving = Some(Arriving {
                    bytes: Vec::new(),
                    length,
                    begun: false,
                    asked: false,
                    over: false,
                    failed: false,
                });
            }
        }
        let fields = exchange.fields();
        let reads = exchange.arriving.is_some() && plan.intake != Intake::Nothing;
        let body = plan.body();
        let given = answer(&plan, exchange.payload(&body), &fields);
        let status_and_method = !exchange.head_only && plan.status != 204;
        assert_eq!(responder.wants_body(&given), status_and_method);
        let is_late = matches!(plan.mode, Mode::Later | Mode::LaterAndClose | Mode::Never);
        let is_booked = is_late || exchange.wants_pieces() || exchange.arriving.is_some();
        let verdict = if is_late {
            // Who reads asks for the body before the answer begins: the peer may wait for that.
            if !reads || !matches!(plan.intake, Intake::All | Intake::Echo) {
                self.plan_answer(id, &plan);
            }
            responder.later()
        } else {
            exchange.state = State::Answered;
            if exchange.wants_pieces() {
                exchange.state = State::Streaming;
                self.plan_ahead(id, Task::Produce);
            }
            responder.respond(&given)
        };
        if reads {
            self.plan_ahead(id, Task::Read);
        }
        if is_booked {
            // Others are not booked: a number is used up only by what has to be told from others
            // later.
            let before = self.exchanges.insert(id, exchange);
            assert!(before.is_none(), "{id:?} was used before");
        }
        verdict
    }

    fn on_refusal(&mut self, error: ProtocolError, date: &DateLine, out: &mut Vec<u8>) {
        self.book.refusals += 1;
        encode::refusal(out, error, date);
    }

    fn on_record(&mut self, record: &Record<'_>) {
        self.book.add(record);
    }

    fn on_body(&mut self, id: ExchangeId, piece: BodyPiece<'_>) -> Flow {
        let chance = self.prng.percent(self.rests);
        let exchange = self.exchanges.get_mut(&id).expect("booked");
        assert!(exchange.is_open(), "{id:?} is over and gets {piece:?}");
        let (plan, state) = (exchange.plan, exchange.state);
        let arriving = exchange.arriving.as_mut().expect("a body on its way");
        assert!(arriving.asked && !arriving.over, "{id:?} did not ask");
        self.told.pieces += 1;
        let flow = match piece {
            BodyPiece::Bytes(bytes) => {
                assert!(!bytes.is_empty());
                arriving.bytes.extend_from_slice(bytes);
                let held = arriving.bytes.len().saturating_sub(exchange.produced);
                match plan.intake {
                    Intake::First => Flow::Gone,
                    Intake::Echo if held > ECHO_HELD_MAX => Flow::Wait,
                    _ if chance => Flow::Wait,
                    _ => Flow::Go,
                }
            }
            BodyPiece::End => Flow::Gone,
            BodyPiece::Failed(_) => {
                arriving.failed = true;
                self.told.failures += 1;
                Flow::Gone
            }
        };
        arriving.asked = flow == Flow::Go;
        arriving.over = flow == Flow::Gone;
        let over = arriving.over;
        self.trace.say(self.now_ms, || {
            format!("   {id:?} gets {piece:?}: {flow:?}")
        });
        match plan.intake {
            Intake::All if over => self.plan_answer(id, &plan),
            Intake::Echo if state == State::Streaming => self.plan_ahead(id, Task::Produce),
            _ => {}
        }
        if flow == Flow::Wait {
            self.told.rests += 1;
            // An echo reads on when it has passed on what it has.
            if plan.intake != Intake::Echo || state == State::Awaited {
                self.plan_ahead(id, Task::Read);
            }
        }
        flow
    }

    fn on_writable(&mut self, id: ExchangeId) {
        let exchange = self.exchanges.get_mut(&id).expect("booked");
        assert_eq!(exchange.state, State::Streaming, "{id:?} is not streaming");
        assert!(exchange.waiting, "{id:?} does not wait");
        exchange.waiting = false;
        self.told.writables += 1;
        self.trace
            .say(self.now_ms, || format!("   {id:?} is writable"));
        self.plan_ahead(id, Task::Produce);
    }

    fn on_abandoned(&mut self, id: ExchangeId, reason: CloseReason) {
        self.trace
            .say(self.now_ms, || format!("   abandoned {id:?}: {reason:?}"));
        let exchange = self.exchanges.get_mut(&id).expect("booked");
        assert!(exchange.is_open(), "{id:?} was over and was abandoned");
        if exchange.state == State::Streaming {
            // It finds out with its next piece, too.
            exchange.waiting = false;
        }
        exchange.state = State::Abandoned;
        let plan = exchange.plan;
        self.abandoned.push((plan, reason));
    }
}

fn answer<'a>(plan: &Plan, payload: Payload<'a>, fields: &'a str) -> Answer<'a> {
    Answer {
        status: plan.status,
        content_type: Some(b"text/plain"),
        fields: fields.as_bytes(),
        payload,
        close: plan.closes(),
    }
}
