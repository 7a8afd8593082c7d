//! A handler that answers by the plan that each request has in its path.
//!
//! Owns the exchanges that are not over within one call, and does their work at any turn that
//! chance picks. Refuses to know what is on the wire. An exchange that is answered twice, or told
//! of twice, is a panic.

use std::collections::BTreeMap;

use anel::protocol::{Answer, CloseReason, Payload, RequestHead};
use anel::server::{
    Body, BodyPiece, BodyPlan, Delivery, ExchangeId, Flow, Given, Handler, Request, Responder,
    Verdict, Worker,
};

use super::expected::{FAILED, Plan, Shape, announced, description, has_pieces};
use super::wire::Random;

pub struct Application {
    /// In the order in which they were asked; there is one connection only.
    exchanges: BTreeMap<u32, Exchange>,
    random: Random,
}

/// An exchange that is not over.
struct Exchange {
    id: ExchangeId,
    plan: Plan,
    content: Vec<u8>,
    produced: usize,
    body: Intake,
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    /// Nothing (more) will come.
    Over,
    Failed,
    Rests,
    Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Awaited,
    Streaming,
    /// Until there is room.
    Waiting,
}

impl Application {
    pub fn new(random: Random) -> Self {
        Self {
            exchanges: BTreeMap::new(),
            random,
        }
    }

    /// How many exchanges are not over.
    pub fn open(&self) -> usize {
        self.exchanges.len()
    }

    /// Goes on with some of what is to be done.
    pub fn act(&mut self, worker: &mut Worker) {
        let sequences: Vec<u32> = self.exchanges.keys().copied().collect();
        for sequence in sequences {
            if self.random.below(2) == 0 {
                self.step(sequence, worker);
            }
        }
    }

    fn step(&mut self, sequence: u32, worker: &mut Worker) {
        // An earlier step may have ended it.
        let Some(exchange) = self.exchanges.get_mut(&sequence) else {
            return;
        };
        let id = exchange.id;
        if exchange.body == Intake::Rests {
            exchange.body = Intake::Asked;
            return worker.read_body(id, self);
        }
        match exchange.output {
            Output::Waiting => {}
            Output::Streaming => self.produce(id, worker),
            // A late answer waits for the body.
            Output::Awaited if exchange.body == Intake::Asked => {}
            Output::Awaited => self.respond(id, worker),
        }
    }

    fn respond(&mut self, id: ExchangeId, worker: &mut Worker) {
        let exchange = self.exchanges.get_mut(&id.sequence).expect("it is open");
        let failed = exchange.body == Intake::Failed;
        let is_streamed = exchange.plan.is_streamed() && !failed;
        if failed {
            exchange.content = FAILED.to_vec();
        }
        let content = exchange.content.clone();
        let payload = if is_streamed {
            let length = announced(&content);
            Payload::Stream { length }
        } else {
            Payload::Whole(&content)
        };
        match worker.respond(id, &answer(payload), self) {
            Given::Gone => panic!("{id:?} is gone"),
            Given::Whole => drop(self.exchanges.remove(&id.sequence)),
            Given::Streaming => {
                let exchange = self.exchanges.get_mut(&id.sequence).expect("it is open");
                exchange.output = Output::Streaming;
            }
        }
    }

    fn produce(&mut self, id: ExchangeId, worker: &mut Worker) {
        let exchange = self.exchanges.get_mut(&id.sequence).expect("it is open");
        let left = &exchange.content[exchange.produced..];
        if !left.is_empty() {
            let taken = 1 + self.random.below(left.len());
            let flow = worker.send_body(id, &left[..taken]);
            assert_ne!(flow, Flow::Gone, "{id:?} lost a piece");
            exchange.produced += taken;
            if flow == Flow::Wait {
                exchange.output = Output::Waiting;
            }
            return;
        }
        match exchange.body {
            Intake::Rests | Intake::Asked => {}
            Intake::Over => {
                self.exchanges.remove(&id.sequence);
                assert!(worker.end_body(id, self), "{id:?} is as announced");
            }
            Intake::Failed => {
                self.exchanges.remove(&id.sequence);
                worker.abort_body(id, self);
            }
        }
    }

    fn open_exchange(&mut self, id: ExchangeId, exchange: Exchange) {
        let before = self.exchanges.insert(id.sequence, exchange);
        assert!(before.is_none(), "{id:?} is there twice");
    }
}

impl Handler for Application {
    fn on_head(&mut self, head: &RequestHead, head_bytes: &[u8]) -> BodyPlan {
        assert!(has_pieces(head), "there is nothing to ask");
        let delivery = if Plan::of(head.path.of(head_bytes)).arrives {
            Delivery::Streamed
        } else {
            Delivery::Gathered
        };
        BodyPlan {
            delivery,
            bytes_max: None,
        }
    }

    fn on_request(&mut self, request: Request<'_>, responder: Responder<'_>) -> Verdict {
        let (head, bytes) = (request.head, request.head_bytes);
        let plan = Plan::of(head.path.of(bytes));
        let method = head.method.of(bytes);
        let mut content = description(method, head.target.of(bytes), head.fields.len());
        let mut body = Intake::Over;
        match request.body {
            Body::Absent => {}
            Body::Whole(whole) => content.extend_from_slice(whole),
            Body::Arriving { .. } => {
                assert!(plan.arrives && has_pieces(head));
                body = Intake::Rests;
            }
        }
        let length = announced(&content).filter(|_| body == Intake::Over);
        let payload = match plan.shape {
            Shape::Streamed => Payload::Stream { length },
            _ => Payload::Whole(&content),
        };
        let answer = answer(payload);
        let output = match plan.shape {
            Shape::Whole => return responder.respond(&answer),
            Shape::Streamed if !responder.wants_body(&answer) => return responder.respond(&answer),
            Shape::Streamed => Output::Streaming,
            Shape::Later | Shape::LaterStreamed => Output::Awaited,
        };
        let verdict = match output {
            Output::Awaited => responder.later(),
            Output::Streaming | Output::Waiting => responder.respond(&answer),
        };
        let id = request.exchange;
        let exchange = Exchange {
            id,
            plan,
            content,
            produced: 0,
            body,
            output,
        };
        self.open_exchange(id, exchange);
        verdict
    }

    fn on_body(&mut self, id: ExchangeId, piece: BodyPiece<'_>) -> Flow {
        let rests = self.random.below(4) == 0;
        let exchange = self.exchanges.get_mut(&id.sequence).expect("it is open");
        assert_eq!((exchange.id, exchange.body), (id, Intake::Asked));
        exchange.body = match piece {
            BodyPiece::Bytes(bytes) => {
                exchange.content.extend_from_slice(bytes);
                if !rests {
                    return Flow::Go;
                }
                Intake::Rests
            }
            BodyPiece::End => Intake::Over,
            BodyPiece::Failed(_) => Intake::Failed,
        };
        Flow::Wait
    }

    fn on_writable(&mut self, id: ExchangeId) {
        let exchange = self.exchanges.get_mut(&id.sequence).expect("it is open");
        assert_eq!((exchange.id, exchange.output), (id, Output::Waiting));
        exchange.output = Output::Streaming;
    }

    fn on_abandoned(&mut self, id: ExchangeId, _reason: CloseReason) {
        let exchange = self.exchanges.remove(&id.sequence);
        assert_eq!(
            exchange.map(|exchange| exchange.id),
            Some(id),
            "it was open"
        );
    }
}

fn answer(payload: Payload<'_>) -> Answer<'_> {
    Answer {
        status: 200,
        content_type: Some(b"text/plain"),
        fields: b"",
        payload,
        close: false,
    }
}
