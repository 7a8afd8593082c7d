//! The worker on a real reactor, without Python: real sockets, real kernel, hostile sizes.
//!
//! Owns the one question that neither the simulator nor the reactor's tests can answer: whether
//! everything together loses or reorders an answer when the ring is far too small. Every answer
//! names its request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anel::protocol::{Answer, Limits, Payload};
use anel::reactor::{
    AnyReactor, Choice, Config, Counters, Reactor, Waker, listen, local_name, open,
};
use anel::server::{self, Clock, Handler, Request, Responder, Verdict, Worker};

/// Answers with the target of the request.
struct Echo;

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

/// A worker on a thread of its own, until dropped.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Waker,
    totals: Arc<Mutex<(Counters, server::Counters)>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(choice: Choice, config: Config) -> Self {
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
            serve(&mut reactor, &mut worker, &stop_seen);
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

fn serve(reactor: &mut AnyReactor, worker: &mut Worker, stop: &AtomicBool) {
    let started = Instant::now();
    let mut completions = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        worker.flush(reactor, &mut Echo);
        let now_ms = started.elapsed().as_millis() as u64;
        let timeout = worker
            .next_deadline_ms()
            .map(|at_ms| Duration::from_millis((at_ms + 1).saturating_sub(now_ms)));
        reactor
            .wait(timeout, &mut completions)
            .expect("the reactor works");
        worker.on_clock(Clock {
            monotonic_ms: started.elapsed().as_millis() as u64,
            unix_s: 0,
        });
        for completion in completions.drain(..) {
            worker.on_completion(completion, reactor, &mut Echo);
        }
        worker.on_time(reactor, &mut Echo);
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
    let server = Server::start(Choice::IoUring, tiny());

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
    let server = Server::start(Choice::Epoll, tiny());

    run_pipelines(server.address, 200, 24, 2);

    assert_eq!(server.finish().1.requests_total, 200 * 24 * 2);
}

#[test]
fn one_enter_serves_many_requests() {
    let server = Server::start(Choice::IoUring, Config::default());

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
