//! The core's `Handler` in Python: finds the route, calls the handler, sends what it made.
//!
//! Owns the path of one request through Python. Refuses to know what responses look like on the
//! wire and what a plain value means (`answer`). A constant route leaves before any Python object
//! is touched.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::answer;
use super::context::{self, Entered};
use super::coroutine;
use super::measures::Answered;
use super::orders::Order;
use super::raw;
use super::request::Request;
use super::response::Response;
use super::routes::{Kind, Target};
use super::shared::Shared;
use super::stream::{self, Producer};
use crate::protocol::date::DateLine;
use crate::protocol::encode;
use crate::protocol::percent::decode_path;
use crate::protocol::{Answer, Payload, ProtocolError, RequestHead};
use crate::router::Params;
use crate::server::{
    self, Body, BodyPiece, BodyPlan, CloseReason, ExchangeId, Flow, Handler, Opening, Proxied,
    Record, Responder, Sender, Verdict,
};

/// Answers requests with Python handlers, for as long as the GIL is held.
pub struct Dispatch<'a, 'py> {
    pub py: Python<'py>,
    pub shared: &'a Rc<Shared>,
    pub params: &'a mut Params,
    /// From the first request on.
    context: Option<Entered<'a, 'py>>,
}

impl<'a, 'py> Dispatch<'a, 'py> {
    pub fn new(py: Python<'py>, shared: &'a Rc<Shared>, params: &'a mut Params) -> Self {
        Self {
            py,
            shared,
            params,
            context: None,
        }
    }

    /// Says that code of the user is about to run, in the context of requests.
    #[inline]
    pub fn enter(&mut self) {
        self.shared.python_ran.set(true);
        if self.context.is_none() {
            self.context = Some(Entered::new(self.py, &self.shared.contexts));
        }
    }
}

impl Handler for Dispatch<'_, '_> {
    fn on_accept(&mut self, socket: RawFd) -> Opening {
        self.shared.peers.opening(socket)
    }

    fn on_proxy_header(&mut self, proxied: Proxied) {
        self.shared.peers.on_proxy_header(self.py, proxied);
    }

    fn on_head(&mut self, head: &RequestHead, head_bytes: &[u8]) -> BodyPlan {
        let path = decode_path(head.path.of(head_bytes));
        let method = head.method.of(head_bytes);
        let routes = &self.shared.routes;
        match routes.find(method, &path, self.params) {
            Some(route) => routes.targets[route].body_plan(),
            None => BodyPlan::default(),
        }
    }

    fn on_request(&mut self, request: server::Request<'_>, responder: Responder<'_>) -> Verdict {
        let shared = self.shared;
        let head = request.head;
        let path = decode_path(head.path.of(request.head_bytes));
        let method = head.method.of(request.head_bytes);
        let route = shared.routes.find(method, &path, self.params);
        let target = route.map(|route| &shared.routes.targets[route]);
        if let Some(Target::Constant(constant)) = target {
            return respond(shared, responder, &constant.answer());
        }
        self.enter();
        let object = match shared.take_request() {
            Some(object) => object.into_bound(self.py),
            None => match Request::new(self.py, shared.clone()) {
                Ok(object) => object.into_bound(self.py),
                Err(error) => {
                    error.write_unraisable(self.py, None);
                    return respond(shared, responder, &OUT_OF_MEMORY);
                }
            },
        };
        let verdict = object
            .get()
            .during(self.py, &request, (route, self.params), || {
                if matches!(request.body, Body::Arriving { .. }) {
                    shared.begin_body(&object, request.exchange);
                }
                let verdict = answer_one(shared, &object, &request.exchange, target, responder);
                if !raw::is_only_ours(&object) {
                    let goes_on = shared.is_pending(request.exchange);
                    object.get().keep(self.py, goes_on);
                }
                verdict
            });
        if raw::is_only_ours(&object) {
            object.get().reset(self.py);
            shared.recycle_request(object.unbind());
        }
        shared.contexts.renew(self.py);
        verdict
    }

    fn on_refusal(&mut self, error: ProtocolError, date: &DateLine, out: &mut Vec<u8>) {
        let answered = self.shared.refusal_handler.as_ref().map(|handler| {
            self.enter();
            let answer = handler.bind(self.py).call1((error.token(),));
            self.shared.contexts.renew(self.py);
            out.extend_from_slice(answer?.cast::<PyBytes>()?.as_bytes());
            Ok::<(), PyErr>(())
        });
        match answered {
            Some(Ok(())) => {}
            Some(Err(failure)) => {
                failure.write_unraisable(self.py, None);
                encode::refusal(out, error, date);
            }
            None => encode::refusal(out, error, date),
        }
        if let Some(measures) = &self.shared.measures {
            measures.on_refusal(error, out);
        }
    }

    fn on_body(&mut self, exchange: ExchangeId, piece: BodyPiece<'_>) -> Flow {
        let request = self.shared.request_of(self.py, exchange);
        match request.and_then(|request| request.get().reader(self.py)) {
            Some(reader) => {
                self.shared.python_ran.set(true);
                reader.get().on_piece(self.py, piece)
            }
            None => Flow::Gone,
        }
    }

    fn on_writable(&mut self, exchange: ExchangeId) {
        match self.shared.producer(self.py, exchange) {
            Some((_, Producer::Pulled(_))) => self.shared.order(self.py, Order::Pull(exchange)),
            Some((_, Producer::Written(writer))) => {
                self.shared.python_ran.set(true);
                writer.get().on_writable(self.py);
            }
            None => {}
        }
    }

    fn on_overdue(&mut self, exchange: ExchangeId) {
        self.shared.order(self.py, Order::Hurry(exchange));
    }

    fn on_abandoned(&mut self, exchange: ExchangeId, reason: CloseReason) {
        if let (Some(measures), CloseReason::HandlerDeadline) = (&self.shared.measures, reason) {
            // The worker itself has answered.
            measures.on_response(503);
        }
        self.shared.abandon(self.py, exchange, reason);
    }

    fn client(&mut self, sender: Sender<'_>) -> Option<IpAddr> {
        self.shared.peers.client(self.py, sender)
    }

    fn on_record(&mut self, record: &Record<'_>) {
        if let Some(log) = &self.shared.access_log {
            log.add(record);
        }
    }
}

/// Answers at once.
#[inline]
fn respond(shared: &Shared, responder: Responder<'_>, answer: &Answer<'_>) -> Verdict {
    if let Some(measures) = &shared.measures {
        measures.on_response(answer.status);
    }
    responder.respond(answer)
}

// The exchange is handed on by reference, because most requests are answered without a look at it.
fn answer_one(
    shared: &Rc<Shared>,
    request: &Bound<'_, Request>,
    exchange: &ExchangeId,
    target: Option<&Target>,
    responder: Responder<'_>,
) -> Verdict {
    let py = request.py();
    let entry = match target {
        Some(Target::Handler { handler, kind, .. }) => Some((handler, *kind)),
        Some(Target::Constant(_)) | None => shared.fallback.as_ref().map(|(h, kind)| (h, *kind)),
    };
    let progress = match entry {
        Some((handler, kind)) => call(shared, request, exchange, handler.bind(py), kind),
        None => answer::unmatched(shared, request)
            .map(Progress::Done)
            .map_err(Box::new),
    };
    let (response, context) = match progress {
        Ok(Progress::Answered(response, context)) => (response, context),
        Ok(Progress::Later) => return responder.later(),
        Ok(Progress::Done(result)) => (answer::from_outcome(shared, request, Ok(result)), None),
        Err(error) => (answer::from_error(shared, request, *error), None),
    };
    if response.get().is_stream(py) {
        return begin_stream(shared, request, *exchange, (response, context), responder);
    }
    let verdict = response
        .get()
        .with_answer(py, |answer| respond(shared, responder, answer));
    shared.recycle_response(response);
    if shared.has_ending(request) {
        follow(shared, request, *exchange, context);
    }
    verdict
}

/// Runs what follows an answer.
#[inline(never)]
fn follow(
    shared: &Shared,
    request: &Bound<'_, Request>,
    exchange: ExchangeId,
    context: Option<Bound<'_, PyAny>>,
) {
    let py = request.py();
    context::within(py, context, || {
        shared.log(request);
        if request.get().has_ending(py) {
            shared.finish(request, exchange);
        }
    });
}

/// Answers with a response whose body is streamed: now its head, or all that a HEAD request gets.
#[cold]
fn begin_stream<'py>(
    shared: &Rc<Shared>,
    request: &Bound<'py, Request>,
    exchange: ExchangeId,
    (response, context): (Bound<'py, Response>, Option<Bound<'py, PyAny>>),
    responder: Responder<'_>,
) -> Verdict {
    let py = request.py();
    let made_in = match &context {
        Some(context) => Some(context.clone().unbind()),
        None => stream::context_of(&response),
    };
    let (response, opened) = stream::opened(shared, request, response, made_in);
    let (wanted, verdict) = response.get().with_answer(py, |answer| {
        let wanted = responder.wants_body(answer);
        (wanted, respond(shared, responder, answer))
    });
    shared.recycle_response(response);
    context::within(py, context.clone(), || shared.log(request));
    match opened {
        Some(opened) if wanted => {
            shared.begin_stream(request, exchange, opened);
            if let Some(context) = context {
                shared.end_in(exchange, context.unbind());
            }
            return verdict;
        }
        Some(opened) => opened.discard(shared, request),
        None => {}
    }
    context::within(py, context, || shared.finish(request, exchange));
    verdict
}

/// What became of a call.
enum Progress<'py> {
    /// The answer is there; in which context it was made, if that is another than the request's.
    Answered(Bound<'py, Response>, Option<Bound<'py, PyAny>>),
    /// The handler returned something that is no response yet.
    Done(Bound<'py, PyAny>),
    Later,
}

/// An error has a box, else every result would be moved with room for one.
type Called<'py> = Result<Progress<'py>, Box<PyErr>>;

#[inline]
fn call<'py>(
    shared: &Rc<Shared>,
    request: &Bound<'py, Request>,
    exchange: &ExchangeId,
    handler: &Bound<'py, PyAny>,
    kind: Kind,
) -> Called<'py> {
    let called = shared.measures.is_some().then(Instant::now);
    let progress = call_now(shared, request, exchange, handler, kind);
    if let (Some(measures), Some(called)) = (&shared.measures, called) {
        match progress {
            Ok(Progress::Later) => shared.called_at(*exchange, called),
            _ => measures.on_handled(Answered::AtOnce, called.elapsed()),
        }
    }
    progress
}

// It has one caller; as a call of its own it costs 16 instructions a request (callgrind).
#[inline(always)]
fn call_now<'py>(
    shared: &Rc<Shared>,
    request: &Bound<'py, Request>,
    exchange: &ExchangeId,
    handler: &Bound<'py, PyAny>,
    kind: Kind,
) -> Called<'py> {
    let result = raw::call_one(handler, request.as_any())?;
    let result = match kind {
        Kind::Sync => result,
        Kind::AwaitFree => coroutine::run_to_end(&result)?,
        Kind::Awaits => return start(shared, request, exchange, result),
    };
    let result = match result.cast_into_exact::<Response>() {
        Ok(response) => return Ok(Progress::Answered(response, None)),
        Err(other) => other.into_inner(),
    };
    if kind == Kind::Sync && !answer::is_plain(&result) && coroutine::is_awaitable(&result) {
        return start(shared, request, exchange, result);
    }
    Ok(Progress::Done(result))
}

#[inline]
fn start<'py>(
    shared: &Rc<Shared>,
    request: &Bound<'py, Request>,
    exchange: &ExchangeId,
    awaitable: Bound<'py, PyAny>,
) -> Called<'py> {
    let early = coroutine::start(shared, request, *exchange, awaitable)?;
    Ok(early.map_or(Progress::Later, |early| {
        Progress::Answered(early.response, early.context)
    }))
}

/// When not even a request object can be made.
const OUT_OF_MEMORY: Answer<'static> = Answer {
    status: 503,
    content_type: None,
    fields: b"",
    payload: Payload::Whole(b""),
    close: true,
};
