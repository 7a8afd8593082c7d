//! The worker without I/O: completions in, ops out, requests to a `Handler`.
//!
//! Owns connections, their order of answers, their deadlines, drain and the counters. Refuses to
//! know a system call, a clock, Python or the meaning of bytes (that is `protocol`). It is driven
//! like this, and in no other order: `on_completion` for every completion of a wait, `on_time`
//! once, then `flush`, then the next wait until `next_deadline_ms`.

#![forbid(unsafe_code)]

mod answers;
mod clock;
mod connection;
mod counters;
mod deadlines;
mod exchange;
mod handler;
mod held;
mod histogram;
mod incoming;
mod input;
mod journal;
mod lifecycle;
mod load;
mod overdue;
mod pace;
mod preface;
mod queue;
mod record;
mod worker;

pub use answers::Given;
pub use clock::Clock;
pub use counters::Counters;
pub use handler::{
    Body, BodyPiece, BodyPlan, Delivery, ExchangeId, Flow, Handler, Request, Responder, Verdict,
};
pub use held::{HeldBody, Source};
pub use histogram::Histogram;
pub use load::{Load, LoadMeter};
pub use preface::{Opening, Proxied};
pub use record::{Asked, KeptAsked, Outcome, Record, Sampling, Sender};
pub use worker::Worker;

pub use crate::protocol::{CloseReason, Limits};
