//! The worker on a real reactor, without Python: real sockets, real kernel, hostile sizes.
//!
//! Owns the one question that neither the simulator nor the reactor's tests can answer: whether
//! everything together loses or reorders an answer when the ring is far too small. Every answer
//! names its request.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anel::protocol::{Answer, CloseReason, Limits, Payload, RequestHead};
use anel::reactor::{
    AnyReactor, Choice, Config, Counters, Reactor, Waker, listen, local_name, open,
};
use anel::server::{
    self, BodyPiece, BodyPlan, Clock, Delivery, ExchangeId, Flow, Handler, Request, Responder,
    Verdict, Worker,
};

/// A handler, and what it does between two turns.
trait Application: Handler + Default + 'static {
    fn act(&mut self, _worker: &mut Worker) {}
}

/// Answers with the target of the request.
#[derive(Default)]
struct Echo;

impl Application for Echo {}

impl Handler for Echo {
    fn on_request(&mut self, request: Request<'_>, responder: Responder<'_>) -> Verdict {
        responder.respond(&Answer {
            status: 200,
            content_type: Some(b"text/plain"),
            fields: b"",
            payload: Payload::Whole(request.head.target.of(request.head_bytes)),
            close: false,
        })
    }
}

/// Answers with the body of the request, while it arrives.
#[derive(Default)]
struct Pipe {
    passing: HashMap<ExchangeId, Passing>,
}

#[derive(Default)]
struct Passing {
    held: Vec<u8>,
    /// Whether the answer has room.
    open: bool,
    /// Whether the handler waits for the next piece.
    asked: bool,
    ended: bool,
}

/// Bytes on their way through at which the peer is held back.
const PASSING_BYTES_MAX: usize = 64 * 1024;

impl Handler for Pipe {
    fn on_head(&mut self, _head: &RequestHead, _head_bytes: &[u8]) -> BodyPlan {
        BodyPlan {
            delivery: Delivery::Streamed,
            bytes_max: None,
        }
    }

    fn on_request(&mut self, request: Request<'_>, responder: Responder<'_>) -> Verdict {
        let passing = Passing {
            open: true,
            ..Passing::default()
        };
        self.passing.insert(request.exchange, passing);
        responder.respond(&Answer {
            status: 200,
            content_type: None,
            fields: b"",
            payload: Payload::Stream { length: None },
            close: false,
        })
    }

    fn on_body(&mut self, exchange: ExchangeId, piece: BodyPiece<'_>) -> Flow {
        let passing = self.passing.get_mut(&exchange).expect("it was seen");
        match piece {
            BodyPiece::Bytes(bytes) => passing.held.extend_from_slice(bytes),
            BodyPiece::End => passing.ended = true,
            BodyPiece::Failed(error) => panic!("{error:?}"),
        }
        passing.asked = passing.held.len() < PASSING_BYTES_MAX;
        if passing.asked { Flow::Go } else { Flow::Wait }
    }

    fn on_writable(&mut self, exchange: ExchangeId) {
        self.passing.get_mut(&exchange).expect("it was seen").open = true;
    }

    fn on_abandoned(&mut self, _exchange: ExchangeId, reason: CloseReason) {
        panic!("nobody leaves: {reason:?}");
    }
}

impl Application for Pipe {
    fn act(&mut self, worker: &mut Worker) {
        let exchanges: Vec<ExchangeId> = self.passing.keys().copied().collect();
        for exchange in exchanges {
            let passing = self.passing.get_mut(&exchange).expect("it is listed");
            if passing.open && !passing.held.is_empty() {
                let held = std::mem::take(&mut passing.held);
                passing.open = worker.send_body(exchange, &held) == Flow::Go;
            }
            if passing.ended && passing.held.is_empty() {
                self.passing.remove(&exchange);
                assert!(worker.end_body(exchange, self));
            } else if !passing.asked && passing.held.is_empty() {
                passing.asked = true;
                worker.read_body(exchange, self);
            }
        }
    }
}

/// A worker on a thread of its own, until dropped.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Waker,
    totals: Arc<Mutex<(Counters, server::Counters)>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start<A: Application>(choice: Choice, config: Config) -> Self {
        let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listener = listen(&any_port, 1024, false).expect("a listener");
        let address = local_name(listener.as_raw_fd()).expect("its address");
        let stop = Arc::new(AtomicBool::new(false));
        let totals = Arc::new(Mutex::new(Default::default()));
        let (stop_seen, totals_seen) = (Arc::clone(&stop), Arc::clone(&totals));
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let mut reactor = open(choice, &config).expect("a reactor").reactor;
            sender.send(reactor.waker()).expect("the test waits for it");
            let mut worker = Worker::new(Limits::default());
            worker.add_listener(listener.as_raw_fd());
            serve::<A>(&mut reactor, &mut worker, &stop_seen);
            *totals_seen.lock().expect("no panic") = (reactor.counters(), *worker.counters());
        });
        let waker = receiver.recv().expect("the reactor opened");
        Self {
            address,
            stop,
            waker,
            totals,
            thread: Some(thread),
        }
    }

    fn finish(mut self) -> (Counters, server::Counters) {
        self.stop.store(true, Ordering::SeqCst);
        self.waker.wake();
        self.thread
            .take()
            .expect("once")
            .join()
            .expect("the worker did not panic");
        *self.totals.lock().expect("no panic")
    }
}

fn serve<A: Application>(reactor: &mut AnyReactor, worker: &mut Worker, stop: &AtomicBool) {
    let mut application = A::default();
    let started = Instant::now();
    let mut completions = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        application.act(worker);
        worker.flush(reactor, &mut application);
        let now_ms = started.elapsed().as_millis() as u64;
        let timeout = worker
            .next_deadline_ms()
            .map(|at_ms| Duration::from_millis((at_ms + 1).saturating_sub(now_ms)));
        reactor
            .wait(timeout, &mut completions)
            .expect("the reactor works");
        worker.on_clock(Clock {
            monotonic_us: started.elapsed().as_micros() as u64,
            unix_s: 0,
        });
        for completion in completions.drain(..) {
            worker.on_completion(completion, reactor, &mut application);
        }
        worker.on_time(reactor, &mut application);
    }
}

/// Sends every client's requests in one write each, then reads all answers; several rounds.
fn run_pipelines(address: SocketAddr, connections: usize, depth: usize, rounds: usize) {
    let mut clients: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let client = TcpStream::connect(address).expect("a connection");
            client
                .set_read_timeout(Some(Duration::from_secs(20)))
                .expect("a timeout");
            client
        })
        .collect();
    for round in 0..rounds {
        for (number, client) in clients.iter_mut().enumerate() {
            let requests: String = (0..depth)
                .map(|at| format!("GET /{number}/{round}/{at} HTTP/1.1\r\nHost: h\r\n\r\n"))
                .collect();
            client.write_all(requests.as_bytes()).expect("a write");
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut received = Vec::new();
            for at in 0..depth {
                let target = format!("/{number}/{round}/{at}");
                expect_answer(client, &mut received, &target);
            }
            assert!(
                received.is_empty(),
                "more than {depth} answers for connection {number}"
            );
        }
    }
}

fn expect_answer(client: &mut TcpStream, received: &mut Vec<u8>, target: &str) {
    let head_end = loop {
        let found = received.windows(4).position(|window| window == b"\r\n\r\n");
        match found {
            Some(at) if received.len() >= at + 4 + target.len() => break at + 4,
            _ => read_more(client, received, target),
        }
    };
    let head = String::from_utf8_lossy(&received[..head_end]).into_owned();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {head}");
    assert!(
        head.contains(&format!("Content-Length: {}\r\n", target.len())),
        "{target}: {head}"
    );
    let body = &received[head_end..head_end + target.len()];
    assert_eq!(
        String::from_utf8_lossy(body),
        target,
        "answers are in order"
    );
    received.drain(..head_end + target.len());
}

fn read_more(client: &mut TcpStream, received: &mut Vec<u8>, target: &str) {
    let mut chunk = [0; 16 * 1024];
    let bytes = client
        .read(&mut chunk)
        .unwrap_or_else(|error| panic!("{target}: {error}"));
    assert!(bytes > 0, "{target}: the server closed the connection");
    received.extend_from_slice(&chunk[..bytes]);
}

/// Two completions would do; 8 and 4 buffers of 64 bytes are what 200 connections fight for here.
fn tiny() -> Config {
    Config {
        submissions: 8,
        completions: 8,
        buffers: 4,
        buffer_bytes: 64,
        ..Config::default()
    }
}

#[test]
fn a_ring_with_eight_completions_and_four_small_buffers_answers_200_connections_in_order() {
    let server = Server::start::<Echo>(Choice::IoUring, tiny());

    run_pipelines(server.address, 200, 24, 2);

    let (reactor, worker) = server.finish();
    assert_eq!(worker.requests_total, 200 * 24 * 2);
    assert!(
        reactor.overflows > 0 && worker.starved_total > 0,
        "the sizes hurt: {reactor:?}"
    );
}

#[test]
fn epoll_with_four_small_buffers_answers_200_connections_in_order() {
    let server = Server::start::<Echo>(Choice::Epoll, tiny());

    run_pipelines(server.address, 200, 24, 2);

    assert_eq!(server.finish().1.requests_total, 200 * 24 * 2);
}

#[test]
fn one_enter_serves_many_requests() {
    let server = Server::start::<Echo>(Choice::IoUring, Config::default());

    run_pipelines(server.address, 100, 24, 20);

    let (reactor, worker) = server.finish();
    assert!(reactor.enters <= reactor.waits + reactor.overflows + reactor.flushes);
    // The client sends to one connection after the other, so a turn often finds a single batch;
    // even then an enter serves 24 requests, less what connecting takes.
    assert!(
        reactor.enters * 10 < worker.requests_total,
        "{} enters for {} requests",
        reactor.enters,
        worker.requests_total
    );
}

/// Uploads on every connection and reads the same bytes back meanwhile.
fn run_uploads(address: SocketAddr, connections: u8, bytes: usize) {
    let clients: Vec<_> = (0..connections)
        .map(|number| thread::spawn(move || run_upload(address, number, bytes)))
        .collect();
    for client in clients {
        client.join().expect("every byte came back");
    }
}

fn run_upload(address: SocketAddr, number: u8, bytes: usize) {
    let body: Vec<u8> = (0..bytes).map(|at| (at / 7) as u8 ^ number).collect();
    let mut client = TcpStream::connect(address).expect("a connection");
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let mut sender = client.try_clone().expect("the other direction");
    let sent = body.clone();
    let sending = thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {bytes}\r\n\r\n");
        sender.write_all(head.as_bytes()).expect("a write");
        for piece in sent.chunks(50_000) {
            sender.write_all(piece).expect("a write");
        }
    });
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n0\r\n\r\n") {
        read_more(&mut client, &mut received, "an echo");
    }
    sending.join().expect("everything was sent");
    assert!(decode(&received) == body, "the body of connection {number}");
}

/// The body of a chunked response.
fn decode(response: &[u8]) -> Vec<u8> {
    let find = |bytes: &[u8], what: &[u8]| {
        let found = bytes.windows(what.len()).position(|window| window == what);
        found.expect("it is complete")
    };
    let mut rest = &response[find(response, b"\r\n\r\n") + 4..];
    let mut body = Vec::new();
    loop {
        let line = find(rest, b"\r\n");
        let digits = std::str::from_utf8(&rest[..line]).expect("ASCII");
        let size = usize::from_str_radix(digits, 16).expect("a size");
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
        if size == 0 {
            return body;
        }
    }
}

#[test]
fn bodies_pass_through_a_ring_in_both_directions() {
    let config = Config {
        buffers: 16,
        ..Config::default()
    };
    let server = Server::start::<Pipe>(Choice::IoUring, config);

    run_uploads(server.address, 8, 1_500_000);

    let (_, worker) = server.finish();
    assert_eq!((worker.streams_total, worker.bodies_streamed_total), (8, 8));
}

#[test]
fn bodies_pass_through_epoll_in_both_directions() {
    let server = Server::start::<Pipe>(Choice::Epoll, Config::default());

    run_uploads(server.address, 8, 1_500_000);

    let (_, worker) = server.finish();
    assert_eq!((worker.streams_total, worker.bodies_streamed_total), (8, 8));
}

/// Answers with more than any socket takes at once.
#[derive(Default)]
struct Huge;

const HUGE_BYTES: usize = 32 << 20;

impl Handler for Huge {
    fn on_request(&mut self, _request: Request<'_>, responder: Responder<'_>) -> Verdict {
        responder.respond(&Answer {
            status: 200,
            content_type: None,
            fields: b"",
            payload: Payload::Whole(&vec![b'h'; HUGE_BYTES]),
            close: false,
        })
    }
}

/// Which is dropped first.
#[derive(Clone, Copy)]
enum First {
    Worker,
    Reactor,
}

/// Drops everything while one client is being sent an answer and another sends a body; then both
/// directions go on without us, next to memory that is in use again.
fn drop_in_mid_exchange(choice: Choice, first: First) {
    let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
    let listener = listen(&any_port, 16, false).expect("a listener");
    let address = local_name(listener.as_raw_fd()).expect("its address");
    let mut reactor = open(choice, &Config::default()).expect("a reactor").reactor;
    let mut worker = Worker::new(Limits::default());
    worker.add_listener(listener.as_raw_fd());
    let mut reader = TcpStream::connect(address).expect("a connection");
    let mut writer = TcpStream::connect(address).expect("a connection");
    let asks = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let begins = b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\nbegun";
    reader.write_all(asks).expect("a write");
    writer.write_all(begins).expect("a write");
    let sent = (asks.len() + begins.len()) as u64;
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_amid = |worker: &Worker| {
        let counters = worker.counters();
        counters.sends_total > 0 && counters.bytes_received_total == sent
    };
    let mut completions = Vec::new();
    while !is_amid(&worker) {
        assert!(Instant::now() < deadline, "{:?}", worker.counters());
        worker.flush(&mut reactor, &mut Huge);
        let tick = Some(Duration::from_millis(10));
        reactor
            .wait(tick, &mut completions)
            .expect("the reactor works");
        for completion in completions.drain(..) {
            worker.on_completion(completion, &mut reactor, &mut Huge);
        }
    }
    worker.flush(&mut reactor, &mut Huge);

    match first {
        First::Worker => {
            drop(worker);
            drop(reactor);
        }
        First::Reactor => {
            drop(reactor);
            drop(worker);
        }
    }
    let memory = vec![0xaa_u8; HUGE_BYTES];
    writer.write_all(&[b'y'; 1 << 16]).expect("a write");
    let received = read_what_is_there(&mut reader);

    let head_end = received.windows(4).position(|window| window == b"\r\n\r\n");
    let body = &received[head_end.expect("a head") + 4..];
    assert!(body.len() < HUGE_BYTES, "it was in the middle");
    assert!(body.iter().all(|byte| *byte == b'h'));
    assert!(memory.iter().all(|byte| *byte == 0xaa));
}

/// Everything that was sent by a side which sends nothing more.
fn read_what_is_there(client: &mut TcpStream) -> Vec<u8> {
    client.set_nonblocking(true).expect("a mode");
    let mut received = Vec::new();
    let ended = client.read_to_end(&mut received);
    let nothing_more = ended.map_err(|error| error.kind());
    assert_eq!(nothing_more, Err(std::io::ErrorKind::WouldBlock));
    received
}

#[test]
fn a_worker_dropped_before_its_ring_in_mid_exchange_touches_nothing_more() {
    drop_in_mid_exchange(Choice::IoUring, First::Worker);
}

#[test]
fn a_worker_dropped_behind_its_ring_in_mid_exchange_touches_nothing_more() {
    drop_in_mid_exchange(Choice::IoUring, First::Reactor);
}

#[test]
fn a_worker_dropped_before_epoll_in_mid_exchange_touches_nothing_more() {
    drop_in_mid_exchange(Choice::Epoll, First::Worker);
}

#[test]
fn a_worker_dropped_behind_epoll_in_mid_exchange_touches_nothing_more() {
    drop_in_mid_exchange(Choice::Epoll, First::Reactor);
}
