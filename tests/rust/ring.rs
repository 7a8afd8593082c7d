//! Both reactors against the kernel at hand: what the seam promises, on loopback sockets.
//!
//! Owns small servers on `Submit` and `wait`, without HTTP. Every test that does not name one
//! reactor runs on both. Nothing here waits for time to pass to decide something: conditions have
//! deadlines.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anel::reactor::doctor::Report;
use anel::reactor::{
    AnyReactor, Arm, Choice, Completion, Config, Counters, Epoll, Errno, FlagKnob, Half, Kind,
    Lease, Op, Outcome, Reactor, ReactorUnavailable, Reason, Restrictions, Ring, Rung, SendBuffer,
    Submit, Token, Waker, listen, local_name, open, peer_name,
};
use socket2::SockRef;

const PATIENCE: Duration = Duration::from_secs(30);
const LISTENER: Token = Token::new(Kind::Accept, 0, 1);

type Open<R> = fn(&Config) -> R;

fn ring(config: &Config) -> Ring {
    Ring::open(config).expect("io_uring works on the machine that runs these tests")
}

fn epoll(config: &Config) -> Epoll {
    Epoll::open(config).unwrap()
}

fn ring_elsewhere(config: &Config) -> Elsewhere<Ring> {
    Elsewhere::new(ring(config))
}

fn epoll_elsewhere(config: &Config) -> Elsewhere<Epoll> {
    Elsewhere::new(epoll(config))
}

/// A ring with an experiment of the knob.
fn ring_with(words: &str, config: &Config) -> Ring {
    let flags = FlagKnob::parse(words).unwrap();
    ring(&config.with_flags(flags).unwrap())
}

/// Whether the kernel can do it; if not, the test is skipped by name.
fn can(words: &str) -> bool {
    let flags = FlagKnob::parse(words).unwrap();
    match Ring::open(&Config::default().with_flags(flags).unwrap()) {
        Ok(_) => true,
        Err(error) if error.reason == Reason::FeatureMissing => {
            let line = format!("skipped: {words}: {error}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            false
        }
        Err(error) => panic!("{error}"),
    }
}

const SEND_ZC: &str = "send_zc=1";
const BUNDLE: &str = "bundle=1";
const FILES: &str = "files=1";
const SQPOLL: &str = "sqpoll=20";
const BATCH: &str = "batch=4,batch_us=200";
const SEVERAL: &str = "send_zc=1,bundle=1,files=1,batch=2,batch_us=100";

fn ring_send_zc(config: &Config) -> Ring {
    ring_with(SEND_ZC, config)
}

fn ring_bundle(config: &Config) -> Ring {
    ring_with(BUNDLE, config)
}

fn ring_files(config: &Config) -> Ring {
    ring_with(FILES, config)
}

fn ring_sqpoll(config: &Config) -> Ring {
    ring_with(SQPOLL, config)
}

/// Waits for no more completions than their queue holds.
fn ring_batch(config: &Config) -> Ring {
    let batch = config.completions.min(4);
    ring_with(&format!("batch={batch},batch_us=200"), config)
}

fn ring_several(config: &Config) -> Ring {
    ring_with(SEVERAL, config)
}

macro_rules! with_experiment {
    ($open:ident $words:ident $($name:ident)*) => {
        $(#[test] fn $name() {
            if super::can(super::$words) {
                super::$name(super::$open);
            }
        })*
    };
}

macro_rules! on_both {
    ($($name:ident)*) => {
        mod on_ring { $(#[test] fn $name() { super::$name(super::ring) })* }
        mod on_epoll { $(#[test] fn $name() { super::$name(super::epoll) })* }
        mod on_ring_elsewhere { $(#[test] fn $name() { super::$name(super::ring_elsewhere) })* }
        mod on_epoll_elsewhere { $(#[test] fn $name() { super::$name(super::epoll_elsewhere) })* }
        mod with_send_zc { with_experiment! { ring_send_zc SEND_ZC $($name)* } }
        mod with_bundles { with_experiment! { ring_bundle BUNDLE $($name)* } }
        mod with_files { with_experiment! { ring_files FILES $($name)* } }
        mod with_batches { with_experiment! { ring_batch BATCH $($name)* } }
        mod with_several { with_experiment! { ring_several SEVERAL $($name)* } }
    };
}

on_both! {
    many_connections_are_echoed
    one_buffer_of_each_kind_is_enough
    nothing_is_lost_when_buffers_and_queues_are_tiny
    a_cancelled_receive_ends_once_and_can_be_armed_again
    shutting_down_both_ends_the_receive_and_the_peer_sees_fin
    shutting_down_the_write_half_leaves_the_receive_armed
    a_close_behind_a_reset_is_one_and_not_before
    a_large_send_reaches_a_slow_reader_whole
    a_send_to_a_peer_that_is_gone_brings_its_buffer_home
    a_cancelled_send_brings_its_buffer_home
    another_thread_ends_the_wait
    a_wake_before_the_wait_is_not_lost
    a_foreign_descriptor_is_reported_once_per_ask
    a_timeout_is_not_shortened
    a_cancelled_accept_frees_the_port
    dropping_the_reactor_with_ops_in_flight_frees_the_port
    dropping_the_reactor_in_mid_receive_leaves_new_memory_alone
    dropping_the_reactor_in_mid_send_sends_nothing_of_new_memory
    a_lease_outlives_its_reactor
    tokens_come_back_as_they_went
    a_listener_sets_up_what_it_accepts
    running_out_of_descriptors_is_reported_once
    data_that_comes_while_nothing_receives_is_there_later
    data_that_was_there_before_a_cancel_is_not_lost
    data_that_found_no_buffer_is_there_later
    a_fin_right_behind_data_ends_the_receive
    a_buffer_that_is_exactly_full_hides_nothing
    more_than_a_wait_takes_is_received_without_further_news
    a_full_socket_takes_more_whenever_the_peer_has_read
    a_finished_send_is_not_slept_on
    data_before_the_first_receive_is_received
    urgent_data_hides_nothing
    the_wake_descriptor_is_silent_once_everything_was_taken
    a_reactor_that_has_something_at_hand_does_not_rest
    counters_say_what_was_done
}

/// With a thread of the kernel that polls, submissions take effect when it gets round to them. Left
/// out are the tests in which nothing may happen before a wait, or has to happen within one, the
/// one that counts enters: a full queue is waited for with one, and the one with urgent data: in
/// front of it, TCP answers EAGAIN to a thread that has a signal pending, whatever is behind
/// (`tcp_recvmsg_locked`), and every event of a socket is such a signal to the polling thread. The
/// receive then sleeps on what is in the socket until more comes (6.18, traced).
mod with_sqpoll {
    with_experiment! { ring_sqpoll SQPOLL
        one_buffer_of_each_kind_is_enough
        nothing_is_lost_when_buffers_and_queues_are_tiny
        a_cancelled_receive_ends_once_and_can_be_armed_again
        shutting_down_both_ends_the_receive_and_the_peer_sees_fin
        shutting_down_the_write_half_leaves_the_receive_armed
        a_close_behind_a_reset_is_one_and_not_before
        a_large_send_reaches_a_slow_reader_whole
        another_thread_ends_the_wait
        a_wake_before_the_wait_is_not_lost
        a_foreign_descriptor_is_reported_once_per_ask
        a_timeout_is_not_shortened
        a_cancelled_accept_frees_the_port
        dropping_the_reactor_in_mid_receive_leaves_new_memory_alone
        a_lease_outlives_its_reactor
        tokens_come_back_as_they_went
        a_listener_sets_up_what_it_accepts
        running_out_of_descriptors_is_reported_once
        data_that_comes_while_nothing_receives_is_there_later
        data_that_found_no_buffer_is_there_later
        a_buffer_that_is_exactly_full_hides_nothing
        more_than_a_wait_takes_is_received_without_further_news
        a_full_socket_takes_more_whenever_the_peer_has_read
        the_wake_descriptor_is_silent_once_everything_was_taken
        counters_say_what_was_done
    }
}

/// A reactor whose waiting is done by another loop, on the descriptor that it gives away. The other
/// loop is an epoll reactor.
struct Elsewhere<R> {
    reactor: R,
    waiting: Epoll,
    armed: bool,
}

impl<R: Reactor> Elsewhere<R> {
    fn new(reactor: R) -> Self {
        Self {
            reactor,
            waiting: epoll(&Config::default()),
            armed: false,
        }
    }

    /// Sleeps until the descriptor is readable; says whether it is.
    fn sleep(&mut self, timeout: Option<Duration>) -> Result<bool, Errno> {
        if !self.armed {
            self.armed = true;
            let fd = self.reactor.wake_fd()?;
            let token = Token::new(Kind::Readable, 0, 0);
            self.waiting.submit(token, Op::Readable { fd });
        }
        let mut told = Vec::new();
        self.waiting.wait(timeout, &mut told)?;
        self.armed = told.is_empty();
        Ok(!told.is_empty())
    }
}

impl<R: Reactor> Submit for Elsewhere<R> {
    fn submit(&mut self, token: Token, op: Op) {
        self.reactor.submit(token, op);
    }

    fn free_buffers(&self) -> usize {
        self.reactor.free_buffers()
    }
}

impl<R: Reactor> Reactor for Elsewhere<R> {
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Errno> {
        let wakeups = self.reactor.counters().wakeups;
        loop {
            self.reactor.wait(Some(Duration::ZERO), completions)?;
            let is_over = !completions.is_empty() || self.reactor.counters().wakeups > wakeups;
            if is_over || timeout == Some(Duration::ZERO) {
                return Ok(());
            }
            if self.reactor.rest() {
                break;
            }
        }
        self.sleep(timeout)?;
        self.reactor.wait(Some(Duration::ZERO), completions)
    }

    fn wake_fd(&mut self) -> Result<RawFd, Errno> {
        self.reactor.wake_fd()
    }

    fn is_idle(&mut self) -> bool {
        self.reactor.is_idle()
    }

    fn rest(&mut self) -> bool {
        self.reactor.rest()
    }

    fn waker(&self) -> Waker {
        self.reactor.waker()
    }

    fn counters(&self) -> Counters {
        self.reactor.counters()
    }

    fn name(&self) -> &'static str {
        self.reactor.name()
    }
}

/// An echo server in the shape of the worker: slots, generations, one send at a time.
struct Echo<R> {
    reactor: R,
    /// Closed after the reactor, which may hold an accept on it.
    _listener: OwnedFd,
    address: SocketAddr,
    peers: Vec<Peer>,
    vacant: Vec<u32>,
    starved: Vec<u32>,
    completions: Vec<Completion>,
    ended: usize,
}

#[derive(Default)]
struct Peer {
    socket: RawFd,
    generation: u32,
    out: Vec<u8>,
    sending: bool,
    receiving: bool,
    ended: bool,
}

fn loopback() -> (OwnedFd, SocketAddr) {
    let listener = listen(&"127.0.0.1:0".parse().unwrap(), 1024, false).unwrap();
    let address = local_name(listener.as_raw_fd()).unwrap();
    (listener, address)
}

impl<R: Reactor> Echo<R> {
    fn new(reactor: R) -> Self {
        let (listener, address) = loopback();
        let mut echo = Self {
            reactor,
            address,
            peers: Vec::new(),
            vacant: Vec::new(),
            starved: Vec::new(),
            completions: Vec::new(),
            ended: 0,
            _listener: listener,
        };
        let listener = echo._listener.as_raw_fd();
        echo.reactor.submit(LISTENER, Op::Accept { listener });
        echo
    }

    fn turn(&mut self) {
        self.reactor
            .wait(Some(Duration::from_millis(100)), &mut self.completions)
            .unwrap();
        for completion in std::mem::take(&mut self.completions) {
            self.on_completion(completion);
        }
        if self.reactor.free_buffers() > 0 {
            for slot in std::mem::take(&mut self.starved) {
                self.receive(slot, Arm::AfterStarvation);
            }
        }
    }

    /// Serves until that many connections have come and gone.
    fn serve(&mut self, connections: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.ended < connections {
            assert!(
                Instant::now() < deadline,
                "{} of {connections} ended",
                self.ended
            );
            self.turn();
        }
    }

    fn on_completion(
        &mut self,
        Completion {
            token,
            more,
            outcome,
        }: Completion,
    ) {
        let slot = token.slot();
        match outcome {
            Outcome::Accepted(socket) => {
                let slot = self.vacant.pop().unwrap_or_else(|| {
                    self.peers.push(Peer::default());
                    self.peers.len() as u32 - 1
                });
                let generation = self.peers[slot as usize].generation + 1;
                self.peers[slot as usize] = Peer {
                    socket,
                    generation,
                    ..Peer::default()
                };
                self.receive(slot, Arm::Eager);
            }
            Outcome::Received(lease) => {
                let peer = &mut self.peers[slot as usize];
                assert_eq!(token.generation(), peer.generation);
                peer.out.extend_from_slice(&lease);
                peer.receiving = more;
                drop(lease);
                if !more {
                    self.receive(slot, Arm::Eager);
                }
                self.send(slot);
            }
            Outcome::Starved => {
                self.peers[slot as usize].receiving = more;
                self.starved.push(slot);
            }
            Outcome::Sent(buffer) if buffer.remaining().is_empty() => {
                self.peers[slot as usize].sending = false;
                self.send(slot);
            }
            Outcome::Sent(buffer) => {
                let socket = self.peers[slot as usize].socket;
                self.reactor.submit(token, Op::Send { socket, buffer });
            }
            Outcome::EndOfInput => {
                let peer = &mut self.peers[slot as usize];
                assert!(!more);
                (peer.receiving, peer.ended) = (false, true);
            }
            Outcome::Failed(errno, _) if token.kind() == Kind::Accept => panic!("{errno}"),
            Outcome::Failed(errno, _) => panic!("{token:?}: {errno}"),
            Outcome::Ready => unreachable!(),
        }
        if token.kind() == Kind::Accept {
            if !more {
                let listener = self._listener.as_raw_fd();
                self.reactor.submit(LISTENER, Op::Accept { listener });
            }
            return;
        }
        let peer = &self.peers[slot as usize];
        if peer.ended && !peer.sending {
            let socket = peer.socket;
            self.reactor.submit(token, Op::Close { socket });
            self.peers[slot as usize].ended = false;
            self.vacant.push(slot);
            self.ended += 1;
        }
    }

    fn receive(&mut self, slot: u32, arm: Arm) {
        let peer = &mut self.peers[slot as usize];
        assert!(!peer.receiving);
        peer.receiving = true;
        let token = Token::new(Kind::Recv, slot, peer.generation);
        self.reactor.submit(
            token,
            Op::Recv {
                socket: peer.socket,
                arm,
            },
        );
    }

    fn send(&mut self, slot: u32) {
        let peer = &mut self.peers[slot as usize];
        if peer.sending || peer.out.is_empty() {
            return;
        }
        peer.sending = true;
        let buffer = SendBuffer {
            bytes: std::mem::take(&mut peer.out),
            sent: 0,
        };
        let token = Token::new(Kind::Send, slot, peer.generation);
        self.reactor.submit(
            token,
            Op::Send {
                socket: peer.socket,
                buffer,
            },
        );
    }
}

/// Clients that each send `rounds` messages, and check what comes back.
fn clients(
    address: SocketAddr,
    count: usize,
    rounds: usize,
    bytes: usize,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut streams: Vec<_> = (0..count)
            .map(|_| {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream
            })
            .collect();
        for round in 0..rounds {
            for (number, stream) in streams.iter_mut().enumerate() {
                let message = vec![(round + number) as u8; bytes];
                stream.write_all(&message).unwrap();
            }
            for (number, stream) in streams.iter_mut().enumerate() {
                let mut answer = vec![0; bytes];
                stream.read_exact(&mut answer).unwrap();
                assert!(answer.iter().all(|byte| *byte == (round + number) as u8));
            }
        }
    })
}

fn many_connections_are_echoed<R: Reactor>(open: Open<R>) {
    let mut echo = Echo::new(open(&Config::default()));

    let clients = clients(echo.address, 300, 20, 1000);
    echo.serve(300);

    clients.join().unwrap();
    assert_eq!(echo.reactor.free_buffers(), 512, "every lease came home");
    let counters = echo.reactor.counters();
    assert!(
        counters.enters <= counters.waits + counters.flushes,
        "at most one enter per turn, and one per full queue: {counters:?}"
    );
    assert_eq!((counters.overflows, counters.starved), (0, 0));
}

fn one_buffer_of_each_kind_is_enough<R: Reactor>(open: Open<R>) {
    let config = Config {
        submissions: 1,
        completions: 2,
        buffers: 1,
        buffer_bytes: 64,
        ..Config::default()
    };
    let mut echo = Echo::new(open(&config));

    let clients = clients(echo.address, 5, 3, 200);
    echo.serve(5);

    clients.join().unwrap();
}

fn nothing_is_lost_when_buffers_and_queues_are_tiny<R: Reactor>(open: Open<R>) {
    let config = Config {
        submissions: 8,
        completions: 8,
        buffers: 4,
        buffer_bytes: 64,
        ..Config::default()
    };
    let mut echo = Echo::new(open(&config));
    let is_ring = echo.reactor.name() == "io_uring";

    let clients = clients(echo.address, 200, 5, 1000);
    echo.serve(200);

    clients.join().unwrap();
    assert_eq!(echo.reactor.free_buffers(), 4);
    let counters = echo.reactor.counters();
    assert!(counters.starved > 0, "{counters:?}");
    assert!(
        !is_ring || (counters.overflows > 0 && counters.flushes > 0),
        "{counters:?}"
    );
}

#[test]
fn every_rung_of_the_ladder_serves() {
    let rungs = [
        ("", Rung::Full),
        ("noarray=0", Rung::Deferred),
        ("defer=0", Rung::Cooperative),
        ("single=0", Rung::Minimum),
        ("mshot_recv=0,mshot_accept=0", Rung::Full),
        ("single=0,mshot_recv=0,mshot_accept=0", Rung::Minimum),
        ("restrict=0", Rung::Full),
        ("restrict=0,single=0", Rung::Minimum),
    ];

    for (words, rung) in rungs {
        for (submissions, completions, buffers) in [(256, 4096, 512), (8, 8, 4)] {
            let flags = FlagKnob::parse(words).unwrap();
            let config = Config {
                submissions,
                completions,
                buffers,
                flags,
                ..Config::default()
            };
            let ring = ring(&config);
            let features = ring.features();
            assert!(
                features.rung == rung || features.rung == Rung::Deferred,
                "{features:?}"
            );
            assert_eq!(features.multishot_recv, flags.mshot_recv);
            let restricted = features.restrictions == Restrictions::Registered;
            assert_eq!(restricted, flags.restrict);
            let mut echo = Echo::new(ring);

            let clients = clients(echo.address, 40, 5, 3000);
            echo.serve(40);

            clients.join().unwrap();
        }
    }
}

#[test]
fn every_rung_of_the_ladder_serves_in_another_loop() {
    for words in [
        "",
        "noarray=0",
        "defer=0",
        "single=0",
        "mshot_recv=0,mshot_accept=0",
    ] {
        for (submissions, completions, buffers) in [(256, 4096, 512), (8, 8, 4)] {
            let config = Config {
                submissions,
                completions,
                buffers,
                flags: FlagKnob::parse(words).unwrap(),
                ..Config::default()
            };
            let mut echo = Echo::new(Elsewhere::new(ring(&config)));

            let clients = clients(echo.address, 40, 5, 3000);
            echo.serve(40);

            clients.join().unwrap();
        }
    }
}

fn the_wake_descriptor_is_silent_once_everything_was_taken<R: Reactor>(open: Open<R>) {
    let mut elsewhere = Elsewhere::new(open(&Config::default()));
    let (ours, mut peer) = pair();
    elsewhere.reactor.wake_fd().unwrap();
    elsewhere.submit(
        RECV,
        Op::Recv {
            socket: ours.as_raw_fd(),
            arm: Arm::Eager,
        },
    );
    peer.write_all(b"news").unwrap();
    assert!(matches!(only(&mut elsewhere).outcome, Outcome::Received(_)));

    while !elsewhere.rest() {
        elsewhere
            .reactor
            .wait(Some(Duration::ZERO), &mut Vec::new())
            .unwrap();
    }

    assert!(!elsewhere.sleep(Some(Duration::from_millis(20))).unwrap());
    peer.write_all(b"more").unwrap();
    assert!(elsewhere.sleep(Some(PATIENCE)).unwrap());
}

fn a_reactor_that_has_something_at_hand_does_not_rest<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    reactor.wake_fd().unwrap();
    reactor.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    assert!(reactor.rest() && reactor.is_idle());

    reactor.submit(
        SEND,
        Op::Send {
            socket: ours.as_raw_fd(),
            buffer: SendBuffer {
                bytes: b"to be sent".to_vec(),
                sent: 0,
            },
        },
    );

    assert!(!reactor.is_idle() && !reactor.rest());
    assert!(matches!(only(&mut reactor).outcome, Outcome::Sent(_)));
    peer.read_exact(&mut [0; 10]).unwrap();
}

/// A connected pair: our end, and the peer's.
fn pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours.into(), peer)
}

/// Reads at most a byte. A ring may interrupt a call of its thread: to run a completion, or, some
/// time after its end, to be forgotten by the thread (6.18, measured).
fn read_one(mut stream: &TcpStream) -> std::io::Result<usize> {
    loop {
        let result = stream.read(&mut [0; 1]);
        if !matches!(&result, Err(error) if error.kind() == ErrorKind::Interrupted) {
            return result;
        }
    }
}

/// Waits for the next completions; fails when none comes in time.
fn next(reactor: &mut impl Reactor) -> Vec<Completion> {
    let deadline = Instant::now() + PATIENCE;
    let mut completions = Vec::new();
    while completions.is_empty() {
        assert!(Instant::now() < deadline, "no completion came");
        reactor
            .wait(Some(Duration::from_millis(100)), &mut completions)
            .unwrap();
    }
    completions
}

fn only(reactor: &mut impl Reactor) -> Completion {
    let mut completions = next(reactor);
    assert_eq!(completions.len(), 1, "{completions:?}");
    completions.remove(0)
}

const RECV: Token = Token::new(Kind::Recv, 7, 0xabcdef);
const SEND: Token = Token::new(Kind::Send, 7, 0xabcdef);

fn a_cancelled_receive_ends_once_and_can_be_armed_again<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    let socket = ours.as_raw_fd();
    reactor.submit(
        RECV,
        Op::Recv {
            socket,
            arm: Arm::Eager,
        },
    );
    peer.write_all(b"one").unwrap();
    assert!(matches!(only(&mut reactor).outcome, Outcome::Received(lease) if &*lease == b"one"));

    reactor.submit(RECV, Op::Cancel { target: RECV });

    let Completion {
        token,
        more,
        outcome,
    } = only(&mut reactor);
    assert!(token == RECV && !more);
    assert!(matches!(outcome, Outcome::Failed(errno, None) if errno.is_cancelled()));
    // Cancelling what is gone already is not an error, and not a completion.
    reactor.submit(RECV, Op::Cancel { target: RECV });
    peer.write_all(b"two").unwrap();
    reactor.submit(
        RECV,
        Op::Recv {
            socket,
            arm: Arm::Eager,
        },
    );
    assert!(matches!(only(&mut reactor).outcome, Outcome::Received(lease) if &*lease == b"two"));
}

fn shutting_down_both_ends_the_receive_and_the_peer_sees_fin<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, peer) = pair();
    let socket = ours.as_raw_fd();
    reactor.submit(
        RECV,
        Op::Recv {
            socket,
            arm: Arm::Eager,
        },
    );
    reactor.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();

    reactor.submit(
        RECV,
        Op::Shutdown {
            socket,
            half: Half::Both,
        },
    );

    let Completion {
        token,
        more,
        outcome,
    } = only(&mut reactor);
    assert!(
        token == RECV && !more && matches!(outcome, Outcome::EndOfInput),
        "{outcome:?}"
    );
    assert_eq!(read_one(&peer).unwrap(), 0);
}

fn a_close_behind_a_reset_is_one_and_not_before<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, peer) = pair();
    let socket = ours.into_raw_fd();
    reactor.submit(
        RECV,
        Op::Recv {
            socket,
            arm: Arm::Eager,
        },
    );
    reactor.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();

    reactor.submit(
        RECV,
        Op::Shutdown {
            socket,
            half: Half::Reset,
        },
    );

    assert!(matches!(only(&mut reactor).outcome, Outcome::EndOfInput));
    peer.set_nonblocking(true).unwrap();
    let early = read_one(&peer).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    peer.set_nonblocking(false).unwrap();
    reactor.submit(RECV, Op::Close { socket });
    reactor.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    let end = read_one(&peer).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

fn shutting_down_the_write_half_leaves_the_receive_armed<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    let socket = ours.as_raw_fd();
    reactor.submit(
        RECV,
        Op::Recv {
            socket,
            arm: Arm::Eager,
        },
    );

    reactor.submit(
        RECV,
        Op::Shutdown {
            socket,
            half: Half::Write,
        },
    );

    assert_eq!(read_one(&peer).unwrap(), 0);
    peer.write_all(b"last words").unwrap();
    let outcome = only(&mut reactor).outcome;
    assert!(matches!(outcome, Outcome::Received(lease) if &*lease == b"last words"));
    drop(peer);
    assert!(matches!(only(&mut reactor).outcome, Outcome::EndOfInput));
}

fn a_large_send_reaches_a_slow_reader_whole<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    let socket = ours.as_raw_fd();
    let bytes: Vec<u8> = (0..4 << 20).map(|index: u32| (index % 251) as u8).collect();
    let expected = bytes.clone();
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        let mut piece = [0; 4096];
        while got.len() < expected.len() {
            let read = peer.read(&mut piece).unwrap();
            assert_ne!(read, 0);
            got.extend_from_slice(&piece[..read]);
            thread::yield_now();
        }
        assert!(got == expected);
    });

    let mut buffer = SendBuffer { bytes, sent: 0 };
    while !buffer.remaining().is_empty() {
        let before = buffer.sent;
        reactor.submit(SEND, Op::Send { socket, buffer });
        let Completion {
            token,
            more,
            outcome,
        } = only(&mut reactor);
        assert!(token == SEND && !more);
        let Outcome::Sent(home) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(home.sent > before || home.remaining().is_empty());
        buffer = home;
    }

    reader.join().unwrap();
}

/// Fills the socket until a send stays in flight.
fn clog(reactor: &mut impl Reactor, socket: RawFd) {
    for _ in 0..100 {
        let buffer = SendBuffer {
            bytes: vec![0; 1 << 20],
            sent: 0,
        };
        reactor.submit(SEND, Op::Send { socket, buffer });
        let mut completions = Vec::new();
        reactor
            .wait(Some(Duration::ZERO), &mut completions)
            .unwrap();
        if completions.is_empty() {
            return;
        }
    }
    panic!("the peer's window never filled");
}

fn a_send_to_a_peer_that_is_gone_brings_its_buffer_home<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, peer) = pair();
    clog(&mut reactor, ours.as_raw_fd());

    // Closing with unread input resets the connection.
    drop(peer);

    let outcome = only(&mut reactor).outcome;
    let Outcome::Failed(errno, Some(buffer)) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(errno.is_reset(), "{errno}");
    assert_eq!(buffer.bytes.len(), 1 << 20);
}

fn a_cancelled_send_brings_its_buffer_home<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, _peer) = pair();
    clog(&mut reactor, ours.as_raw_fd());

    reactor.submit(SEND, Op::Cancel { target: SEND });

    let outcome = only(&mut reactor).outcome;
    let Outcome::Failed(errno, Some(buffer)) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(errno.is_cancelled() && buffer.sent == 0);
}

fn another_thread_ends_the_wait<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let mut completions = Vec::new();

    for round in 1..=100 {
        let waker = reactor.waker();
        let thread = thread::spawn(move || {
            waker.wake();
            waker.wake();
        });
        let deadline = Instant::now() + PATIENCE;
        while reactor.counters().wakeups < round {
            assert!(Instant::now() < deadline);
            reactor.wait(Some(PATIENCE), &mut completions).unwrap();
        }
        thread.join().unwrap();
        // The second wake may have come after the first was acknowledged.
        reactor
            .wait(Some(Duration::ZERO), &mut completions)
            .unwrap();
    }

    assert!(completions.is_empty());
}

fn a_wake_before_the_wait_is_not_lost<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let begun = Instant::now();

    reactor.waker().wake();
    reactor.wait(Some(PATIENCE), &mut Vec::new()).unwrap();
    reactor.waker().wake();
    reactor.wait(Some(PATIENCE), &mut Vec::new()).unwrap();

    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(reactor.counters().wakeups, 2);
    let waker = reactor.waker();
    drop(reactor);
    waker.wake();
}

fn a_foreign_descriptor_is_reported_once_per_ask<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let token = Token::new(Kind::Readable, 2, 9);
    let fd = ours.as_raw_fd();
    let mut completions = Vec::new();

    reactor.submit(token, Op::Readable { fd });
    reactor
        .wait(Some(Duration::ZERO), &mut completions)
        .unwrap();
    assert!(completions.is_empty());
    theirs.write_all(b"x").unwrap();
    // It has the meaning of a level: what is not read is reported to the next one who asks.
    for _ in 0..3 {
        let completion = only(&mut reactor);
        assert!(completion.token == token && !completion.more);
        assert!(matches!(completion.outcome, Outcome::Ready));
        reactor
            .wait(Some(Duration::ZERO), &mut completions)
            .unwrap();
        assert!(completions.is_empty(), "nobody asked");
        reactor.submit(token, Op::Readable { fd });
    }
    next(&mut reactor);

    (&ours).read_exact(&mut [0; 1]).unwrap();
    reactor.submit(token, Op::Readable { fd });
    reactor.submit(token, Op::Cancel { target: token });
    let outcome = only(&mut reactor).outcome;
    assert!(matches!(outcome, Outcome::Failed(errno, None) if errno.is_cancelled()));
}

fn a_timeout_is_not_shortened<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let timeout = Duration::from_micros(30_500);
    let begun = Instant::now();

    reactor.wait(Some(timeout), &mut Vec::new()).unwrap();

    assert!(begun.elapsed() >= timeout);
}

#[test]
fn looking_at_an_idle_ring_costs_no_system_call() {
    let mut ring = ring(&Config::default());
    ring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    let enters = ring.counters().enters;

    for _ in 0..10 {
        ring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    }

    assert_eq!(ring.counters().enters, enters);
}

fn a_cancelled_accept_frees_the_port<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (listener, address) = loopback();
    reactor.submit(
        LISTENER,
        Op::Accept {
            listener: listener.as_raw_fd(),
        },
    );
    reactor.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();

    reactor.submit(LISTENER, Op::Cancel { target: LISTENER });

    let Completion {
        token,
        more,
        outcome,
    } = only(&mut reactor);
    assert!(token == LISTENER && !more);
    assert!(matches!(outcome, Outcome::Failed(errno, None) if errno.is_cancelled()));
    drop(listener);
    assert!(TcpStream::connect(address).is_err());
    listen(&address, 16, false).unwrap();
}

fn dropping_the_reactor_with_ops_in_flight_frees_the_port<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (listener, address) = loopback();
    let (ours, mut peer) = pair();
    let (idle, _idle_peer) = pair();
    let (closing, closing_peer) = pair();
    reactor.submit(
        LISTENER,
        Op::Accept {
            listener: listener.as_raw_fd(),
        },
    );
    reactor.submit(
        RECV,
        Op::Recv {
            socket: idle.as_raw_fd(),
            arm: Arm::Eager,
        },
    );
    clog(&mut reactor, ours.as_raw_fd());
    // Accepted by nobody, and a close that was never submitted.
    let unseen = TcpStream::connect(address).unwrap();
    unseen.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = std::os::fd::IntoRawFd::into_raw_fd(closing);
    reactor.submit(Token::new(Kind::Recv, 9, 1), Op::Close { socket });

    let begun = Instant::now();
    drop(reactor);

    assert!(
        begun.elapsed() < Duration::from_millis(900),
        "the drain ended before its patience"
    );
    drop(listener);
    listen(&address, 16, false).unwrap();
    // Ended by a FIN or a reset, depending on how far the accept had come.
    assert!(matches!(read_one(&unseen), Ok(0) | Err(_)));
    assert_eq!(
        read_one(&closing_peer).unwrap(),
        0,
        "the queued close was not lost"
    );
    drop(ours);
    assert!(peer.read_to_end(&mut Vec::new()).unwrap() > 0);
}

/// Memory that was asked for just now: the allocator gives out first what came home last.
fn new_memory(blocks: usize, bytes: usize) -> Vec<Vec<u8>> {
    (0..blocks).map(|_| vec![NEW; bytes]).collect()
}

const NEW: u8 = 0xaa;

fn dropping_the_reactor_in_mid_receive_leaves_new_memory_alone<R: Reactor>(open: Open<R>) {
    let config = Config {
        buffers: 16,
        buffer_bytes: 4096,
        ..Config::default()
    };
    let mut reactor = open(&config);
    let (ours, mut peer) = pair();
    receive(&mut reactor, &ours, Arm::Eager);
    peer.write_all(&[b'x'; 4096]).unwrap();
    let received = next(&mut reactor);

    drop(reactor);
    let memory = new_memory(64, 4096);
    let unread = 16 * 4096;
    peer.write_all(&vec![b'y'; unread]).unwrap();
    arrived(&ours, unread);

    assert!(memory.concat().iter().all(|byte| *byte == NEW));
    for completion in received {
        let Outcome::Received(lease) = completion.outcome else {
            panic!("{completion:?}")
        };
        assert!(lease.iter().all(|byte| *byte == b'x'));
    }
}

fn dropping_the_reactor_in_mid_send_sends_nothing_of_new_memory<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    clog(&mut reactor, ours.as_raw_fd());

    drop(reactor);
    let memory = new_memory(4, 1 << 20);
    drop(ours);
    let mut received = Vec::new();
    peer.read_to_end(&mut received).unwrap();

    assert!(received.len() > 1 << 16);
    assert!(received.iter().all(|byte| *byte == 0), "only what was sent");
    assert_eq!(memory[0][0], NEW);
}

fn a_lease_outlives_its_reactor<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    reactor.submit(
        RECV,
        Op::Recv {
            socket: ours.as_raw_fd(),
            arm: Arm::Eager,
        },
    );
    peer.write_all(b"kept").unwrap();
    let outcome = only(&mut reactor).outcome;
    let Outcome::Received(lease) = outcome else {
        panic!("{outcome:?}")
    };

    drop(reactor);

    assert_eq!(&*lease, b"kept");
}

fn tokens_come_back_as_they_went<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    for slot in [0, 1, 255, 65_536] {
        for generation in [0, 1, 0x00ff_ffff] {
            let (ours, mut peer) = pair();
            let token = Token::new(Kind::Recv, slot, generation);
            assert_eq!(Token::from_bits(token.to_bits()), Some(token));
            reactor.submit(
                token,
                Op::Recv {
                    socket: ours.as_raw_fd(),
                    arm: Arm::Eager,
                },
            );

            peer.write_all(b"x").unwrap();
            assert_eq!(only(&mut reactor).token, token);
            drop(peer);
            let Completion {
                token: last,
                outcome,
                ..
            } = only(&mut reactor);

            assert!(last == token && matches!(outcome, Outcome::EndOfInput));
            let socket = ours.into_raw_fd();
            reactor.submit(token, Op::Close { socket });
        }
    }
}

fn a_listener_sets_up_what_it_accepts<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (listener, address) = loopback();
    reactor.submit(
        LISTENER,
        Op::Accept {
            listener: listener.as_raw_fd(),
        },
    );
    let client = TcpStream::connect(address).unwrap();

    let Completion { token, outcome, .. } = only(&mut reactor);

    assert_eq!(token, LISTENER);
    let Outcome::Accepted(socket) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        peer_name(socket).unwrap(),
        Some(client.local_addr().unwrap())
    );
    assert_eq!(local_name(socket).unwrap(), address);
    reactor.submit(Token::new(Kind::Recv, 0, 1), Op::Close { socket });
    reactor.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_one(&client).unwrap(), 0);
}

/// Waits until that many bytes are in the socket, unread.
fn arrived(socket: &OwnedFd, bytes: usize) {
    let stream = TcpStream::from(socket.try_clone().unwrap());
    let deadline = Instant::now() + PATIENCE;
    while stream.peek(&mut vec![0; bytes]).unwrap_or(0) < bytes {
        assert!(Instant::now() < deadline, "{bytes} bytes never came");
        thread::yield_now();
    }
}

fn receive(reactor: &mut impl Reactor, socket: &OwnedFd, arm: Arm) {
    let socket = socket.as_raw_fd();
    reactor.submit(RECV, Op::Recv { socket, arm });
}

/// Takes what there is without a pause; there may be nothing.
fn look(reactor: &mut impl Reactor) -> Vec<Completion> {
    let mut completions = Vec::new();
    reactor
        .wait(Some(Duration::ZERO), &mut completions)
        .unwrap();
    completions
}

/// What the armed receive brings until that many bytes are there or it ends; its end.
fn collect(reactor: &mut impl Reactor, bytes: &mut Vec<u8>, enough: usize) -> Option<Outcome> {
    let mut end = None;
    while end.is_none() && bytes.len() < enough {
        for completion in next(reactor) {
            assert!(completion.token == RECV && end.is_none());
            match completion.outcome {
                Outcome::Received(lease) => {
                    assert!(
                        completion.more,
                        "the tests run on a kernel that has multishot"
                    );
                    bytes.extend_from_slice(&lease);
                }
                outcome => {
                    assert!(!completion.more);
                    end = Some(outcome);
                }
            }
        }
    }
    end
}

fn is_cancelled(outcome: Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Failed(errno, None)) if errno.is_cancelled())
}

fn data_that_comes_while_nothing_receives_is_there_later<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    let mut bytes = Vec::new();
    for round in 1..=3 {
        receive(&mut reactor, &ours, Arm::Eager);
        reactor.submit(RECV, Op::Cancel { target: RECV });
        assert!(is_cancelled(collect(&mut reactor, &mut bytes, 1 << 20)));

        peer.write_all(b"unseen").unwrap();
        arrived(&ours, 6);
        assert!(look(&mut reactor).is_empty(), "nobody asked");
        receive(&mut reactor, &ours, Arm::Eager);

        assert!(collect(&mut reactor, &mut bytes, 6 * round).is_none());
        assert_eq!(bytes, b"unseen".repeat(round));
        reactor.submit(RECV, Op::Cancel { target: RECV });
        assert!(is_cancelled(collect(&mut reactor, &mut bytes, 1 << 20)));
    }
}

fn data_that_was_there_before_a_cancel_is_not_lost<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    receive(&mut reactor, &ours, Arm::Eager);
    look(&mut reactor);
    peer.write_all(b"early").unwrap();
    arrived(&ours, 5);

    reactor.submit(RECV, Op::Cancel { target: RECV });
    // The ring may deliver the data first; the end comes all the same.
    let mut bytes = Vec::new();
    assert!(is_cancelled(collect(&mut reactor, &mut bytes, 1 << 20)));
    receive(&mut reactor, &ours, Arm::Eager);
    collect(&mut reactor, &mut bytes, 5);

    assert_eq!(bytes, b"early");
}

fn one_buffer() -> Config {
    Config {
        buffers: 1,
        buffer_bytes: 64,
        ..Config::default()
    }
}

/// Has a receive end for want of a buffer: the only one is returned with "one" in it, while "two"
/// is in the socket.
fn starve(reactor: &mut impl Reactor, ours: &OwnedFd, peer: &mut TcpStream) -> Lease {
    receive(reactor, ours, Arm::Eager);
    peer.write_all(b"one").unwrap();
    let mut completions = next(reactor);
    let Completion {
        more,
        outcome: Outcome::Received(held),
        ..
    } = completions.remove(0)
    else {
        panic!("not received")
    };
    if !more {
        // A bundle that takes the last buffer ends its receive.
        receive(reactor, ours, Arm::Eager);
    }
    peer.write_all(b"two").unwrap();
    if completions.is_empty() {
        completions = next(reactor);
    }
    assert!(matches!(completions[0].outcome, Outcome::Starved) && !completions[0].more);
    arrived(ours, 3);
    held
}

fn data_that_found_no_buffer_is_there_later<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&one_buffer());
    let (ours, mut peer) = pair();
    let held = starve(&mut reactor, &ours, &mut peer);
    assert!(look(&mut reactor).is_empty(), "nobody asked");

    assert_eq!(&*held, b"one");
    drop(held);
    receive(&mut reactor, &ours, Arm::AfterStarvation);

    let Completion { outcome, .. } = next(&mut reactor).remove(0);
    assert!(matches!(outcome, Outcome::Received(lease) if &*lease == b"two"));
}

#[test]
fn a_polling_thread_finds_the_buffer_that_a_receive_is_armed_for() {
    if !can(SQPOLL) {
        return;
    }
    // It does not fall asleep, and so takes the receive although nobody waits.
    let mut reactor = ring_with("sqpoll=60000", &one_buffer());
    let (ours, mut peer) = pair();
    drop(starve(&mut reactor, &ours, &mut peer));

    receive(&mut reactor, &ours, Arm::AfterStarvation);

    let stream = TcpStream::from(ours.try_clone().unwrap());
    let deadline = Instant::now() + PATIENCE;
    let empty = Err(ErrorKind::WouldBlock);
    while stream.peek(&mut [0; 1]).map_err(|error| error.kind()) != empty {
        assert!(Instant::now() < deadline, "the receive found no buffer");
        thread::yield_now();
    }
    let Completion { outcome, .. } = only(&mut reactor);
    assert!(matches!(outcome, Outcome::Received(lease) if &*lease == b"two"));
}

fn a_fin_right_behind_data_ends_the_receive<R: Reactor>(open: Open<R>) {
    // Whether a receive is armed, and if not, whether a wait comes in between.
    for (armed, seen) in [(true, false), (false, true), (false, false)] {
        let mut reactor = open(&Config::default());
        let (ours, mut peer) = pair();
        receive(&mut reactor, &ours, Arm::Eager);
        look(&mut reactor);
        let mut bytes = Vec::new();
        if !armed {
            reactor.submit(RECV, Op::Cancel { target: RECV });
            assert!(is_cancelled(collect(&mut reactor, &mut bytes, 1)));
        }

        peer.write_all(b"last words").unwrap();
        drop(peer);
        arrived(&ours, 10);
        if seen {
            assert!(look(&mut reactor).is_empty(), "nobody asked");
        }
        if !armed {
            receive(&mut reactor, &ours, Arm::Eager);
        }
        let end = collect(&mut reactor, &mut bytes, 1 << 20);

        assert!(matches!(end, Some(Outcome::EndOfInput)), "{end:?}");
        assert_eq!(bytes, b"last words");
    }
}

fn a_buffer_that_is_exactly_full_hides_nothing<R: Reactor>(open: Open<R>) {
    let config = Config {
        buffers: 8,
        buffer_bytes: 64,
        ..Config::default()
    };
    let mut reactor = open(&config);
    let (ours, mut peer) = pair();
    receive(&mut reactor, &ours, Arm::Eager);

    let mut expected = Vec::new();
    let mut bytes = Vec::new();
    for piece in [64, 1, 64, 128, 63, 65] {
        let message = vec![piece as u8; piece];
        peer.write_all(&message).unwrap();
        expected.extend(message);
        assert!(collect(&mut reactor, &mut bytes, expected.len()).is_none());
        assert!(look(&mut reactor).is_empty());
    }
    peer.write_all(&[7; 64]).unwrap();
    drop(peer);
    expected.extend([7; 64]);

    let end = collect(&mut reactor, &mut bytes, 1 << 20);
    assert!(matches!(end, Some(Outcome::EndOfInput)), "{end:?}");
    assert!(bytes == expected);
}

fn more_than_a_wait_takes_is_received_without_further_news<R: Reactor>(open: Open<R>) {
    let config = Config {
        buffers: 256,
        buffer_bytes: 64,
        ..Config::default()
    };
    let mut reactor = open(&config);
    let (ours, mut peer) = pair();
    let message: Vec<u8> = (0..64 * 200)
        .map(|index: u32| (index % 251) as u8)
        .collect();
    peer.write_all(&message).unwrap();
    arrived(&ours, message.len());

    receive(&mut reactor, &ours, Arm::Eager);

    let mut bytes = Vec::new();
    assert!(collect(&mut reactor, &mut bytes, message.len()).is_none());
    assert!(bytes == message);
    assert_eq!(reactor.free_buffers(), 256);
}

fn a_full_socket_takes_more_whenever_the_peer_has_read<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    peer.set_nonblocking(true).unwrap();
    for _ in 0..3 {
        clog(&mut reactor, ours.as_raw_fd());

        let deadline = Instant::now() + PATIENCE;
        let mut completions = Vec::new();
        while completions.is_empty() {
            assert!(Instant::now() < deadline, "the send never went on");
            let _ = peer.read(&mut [0; 1 << 16]);
            completions = look(&mut reactor);
        }

        let Completion { token, outcome, .. } = completions.remove(0);
        let Outcome::Sent(buffer) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(token == SEND && (buffer.sent > 0 || buffer.remaining().is_empty()));
    }
}

fn a_finished_send_is_not_slept_on<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    let socket = ours.as_raw_fd();
    receive(&mut reactor, &ours, Arm::Eager);
    look(&mut reactor);
    let begun = Instant::now();

    let bytes = b"answer".to_vec();
    let buffer = SendBuffer { bytes, sent: 0 };
    reactor.submit(SEND, Op::Send { socket, buffer });
    let mut completions = Vec::new();
    reactor.wait(Some(PATIENCE), &mut completions).unwrap();

    assert!(begun.elapsed() < PATIENCE);
    assert!(matches!(completions[0].outcome, Outcome::Sent(_)));
    peer.read_exact(&mut [0; 6]).unwrap();
}

fn data_before_the_first_receive_is_received<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    // The slot is in use by a send already when the data comes.
    clog(&mut reactor, ours.as_raw_fd());
    peer.write_all(b"hello").unwrap();
    arrived(&ours, 5);
    assert!(look(&mut reactor).is_empty());

    receive(&mut reactor, &ours, Arm::Eager);

    let mut bytes = Vec::new();
    assert!(collect(&mut reactor, &mut bytes, 5).is_none());
    assert_eq!(bytes, b"hello");
}

/// A receive stops in front of urgent data although there is more.
fn urgent_data_hides_nothing<R: Reactor>(open: Open<R>) {
    for armed in [true, false] {
        let mut reactor = open(&Config::default());
        let (ours, mut peer) = pair();
        if armed {
            receive(&mut reactor, &ours, Arm::Eager);
            look(&mut reactor);
        }
        peer.write_all(b"before").unwrap();
        assert_eq!(SockRef::from(&peer).send_out_of_band(b"!").unwrap(), 1);
        peer.write_all(b"behind").unwrap();
        arrived(&ours, 6);
        if !armed {
            receive(&mut reactor, &ours, Arm::Eager);
        }

        let mut bytes = Vec::new();
        assert!(collect(&mut reactor, &mut bytes, 12).is_none());

        assert_eq!(bytes, b"beforebehind");
    }
}

#[test]
fn epoll_delivers_finished_sends_together_with_what_came_meanwhile() {
    let mut reactor = epoll(&Config::default());
    let (ours, mut peer) = pair();
    let socket = ours.as_raw_fd();
    receive(&mut reactor, &ours, Arm::Eager);
    peer.write_all(b"question").unwrap();
    arrived(&ours, 8);
    let bytes = b"answer".to_vec();
    let buffer = SendBuffer { bytes, sent: 0 };
    reactor.submit(SEND, Op::Send { socket, buffer });

    let completions = look(&mut reactor);

    assert_eq!(completions.len(), 2, "{completions:?}");
    assert!(matches!(completions[0].outcome, Outcome::Sent(_)));
    assert!(matches!(completions[1].outcome, Outcome::Received(_)));
}

/// The limit is the process's, so the test runs itself again in a process of its own.
fn running_out_of_descriptors_is_reported_once<R: Reactor>(open: Open<R>) {
    if std::env::var_os("ANEL_TEST_FEW_DESCRIPTORS").is_some() {
        return run_out_of_descriptors(open(&Config::default()));
    }
    let name = open(&Config::default()).name();
    let module = if name == "epoll" {
        "on_epoll"
    } else {
        "on_ring"
    };
    let output = Command::new("sh")
        .arg("-c")
        .arg("ulimit -n 64; exec \"$0\" --exact \"$1\"")
        .arg(std::env::current_exe().unwrap())
        .arg(format!(
            "{module}::running_out_of_descriptors_is_reported_once"
        ))
        .env("ANEL_TEST_FEW_DESCRIPTORS", "1")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && words.contains("1 passed"),
        "{words}"
    );
}

fn run_out_of_descriptors(mut reactor: impl Reactor) {
    let (listener, address) = loopback();
    let listener = listener.as_raw_fd();
    reactor.submit(LISTENER, Op::Accept { listener });
    reactor.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    let mut files: Vec<_> = (0..64)
        .map_while(|_| std::fs::File::open("/dev/null").ok())
        .collect();
    files.pop();
    let _client = TcpStream::connect(address).unwrap();

    let Completion {
        token,
        more,
        outcome,
    } = only(&mut reactor);
    assert!(token == LISTENER && !more);
    let Outcome::Failed(errno, None) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(errno.is_descriptor_limit(), "{errno}");
    let mut completions = Vec::new();
    reactor
        .wait(Some(Duration::from_millis(20)), &mut completions)
        .unwrap();
    assert!(
        completions.is_empty(),
        "it is said once, and the wait sleeps: {completions:?}"
    );

    files.clear();
    reactor.submit(LISTENER, Op::Accept { listener });
    assert!(matches!(only(&mut reactor).outcome, Outcome::Accepted(_)));
}

#[test]
fn a_ring_that_reads_slowly_takes_more_ops_than_its_queue() {
    let config = Config {
        submissions: 8,
        completions: 8,
        ..Config::default()
    };
    let mut ring = ring(&config);
    let pairs: Vec<_> = (0..100).map(|_| pair()).collect();

    for (slot, (ours, _)) in pairs.iter().enumerate() {
        let buffer = SendBuffer {
            bytes: vec![slot as u8; 10],
            sent: 0,
        };
        let token = Token::new(Kind::Send, slot as u32, 1);
        ring.submit(
            token,
            Op::Send {
                socket: ours.as_raw_fd(),
                buffer,
            },
        );
    }
    let mut sent = 0;
    while sent < 100 {
        sent += next(&mut ring).len();
    }

    for (slot, (_, peer)) in pairs.iter().enumerate() {
        let mut bytes = [0; 10];
        (&*peer).read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [slot as u8; 10]);
    }
}

#[test]
fn the_choice_is_obeyed_and_explained() {
    let config = Config::default();

    let opened = open(Choice::Auto, &config).unwrap();
    assert!(matches!(opened.reactor, AnyReactor::Ring(_)) && opened.notice.is_none());
    let opened = open(Choice::Epoll, &config).unwrap();
    assert_eq!((opened.reactor.name(), opened.notice), ("epoll", None));

    let wrong = Config {
        buffers: 3,
        ..config
    };
    for choice in [Choice::Auto, Choice::IoUring, Choice::Epoll] {
        let error: ReactorUnavailable = open(choice, &wrong).unwrap_err();
        assert_eq!(
            (error.reason, error.errno),
            (Reason::ConfigInvalid, Errno(22))
        );
        assert!(error.to_string().contains("buffers is 3"), "{error}");
    }
}

#[test]
fn the_doctor_finds_what_the_tests_run_on() {
    let report = Report::collect(&Config::default());

    assert_eq!(report.auto, Some("io_uring"));
    assert!(
        report
            .ring
            .is_ok_and(|features| features.completions == 4096)
    );
    assert!(report.kernel.contains('.') && report.notice.is_none());
}

#[test]
fn an_experiment_shows_in_the_features() {
    for (words, flag) in [(SQPOLL, "SQPOLL"), ("sqpoll=20,sqpoll_cpu=0", "SQ_AFF")] {
        if can(words) {
            let features = ring_with(words, &Config::default()).features();

            assert_eq!(features.rung, Rung::Polled);
            assert!(features.setup_flags().contains(&flag));
            assert_eq!(features.experiments.words().join(","), words);
        }
    }
    if can(SEND_ZC) {
        let operations = ring_send_zc(&Config::default()).features().operations();
        assert!(operations.is_some_and(|names| names.contains(&"SEND_ZC")));
    }
}

#[test]
fn a_processor_that_is_not_there_is_refused_whatever_the_choice() {
    let flags = FlagKnob::parse("sqpoll=20,sqpoll_cpu=100000").unwrap();
    let config = Config::default().with_flags(flags).unwrap();

    for choice in [Choice::Auto, Choice::IoUring] {
        let error = open(choice, &config).unwrap_err();
        assert_eq!(error.reason, Reason::FeatureMissing);
        assert!(error.to_string().contains("sqpoll_cpu=100000"), "{error}");
    }
}

#[test]
fn a_bundle_is_one_entry_and_arrives_in_pieces_and_in_order() {
    if !can(BUNDLE) {
        return;
    }
    let config = Config {
        buffers: 16,
        buffer_bytes: 64,
        ..Config::default()
    };
    let mut ring = ring_with(BUNDLE, &config);
    let (ours, mut peer) = pair();
    let sent: Vec<u8> = (0..16 * 64).map(|index: u32| index as u8).collect();
    let mut bytes = Vec::new();

    // The second round finds the buffers in another order than the first.
    for (round, length) in [(1, 900), (2, 650), (3, 1000)] {
        peer.write_all(&sent[..length]).unwrap();
        arrived(&ours, length);
        let before = ring.counters().completions;
        if round == 1 {
            receive(&mut ring, &ours, Arm::Eager);
        }
        bytes.clear();
        assert!(collect(&mut ring, &mut bytes, length).is_none());

        assert_eq!(bytes, sent[..length]);
        let entries = ring.counters().completions - before;
        assert!(
            entries < 8,
            "{entries} entries for {length} bytes in 64 each"
        );
    }
}

#[test]
fn sends_that_wait_for_their_notification_do_not_block_the_next() {
    if !can(SEND_ZC) {
        return;
    }
    let mut ring = ring_send_zc(&Config::default());
    let (ours, mut peer) = pair();
    let socket = ours.as_raw_fd();

    // The peer reads nothing meanwhile, so the kernel lets go of none of them.
    for number in 0..20u8 {
        let buffer = SendBuffer {
            bytes: vec![number; 1000],
            sent: 0,
        };
        ring.submit(SEND, Op::Send { socket, buffer });
        let outcome = only(&mut ring).outcome;
        assert!(matches!(outcome, Outcome::Sent(home) if home.remaining().is_empty()));
    }

    let mut bytes = vec![0; 20_000];
    peer.read_exact(&mut bytes).unwrap();
    assert!(
        bytes
            .chunks(1000)
            .zip(0..20u8)
            .all(|(piece, number)| piece == [number; 1000])
    );
}

#[test]
fn a_wait_for_a_batch_ends_with_it_or_with_its_time() {
    if !can(BATCH) {
        return;
    }
    let mut ring = ring_with("batch=2,batch_us=300000", &Config::default());
    let pairs = [pair(), pair()];
    for (slot, (ours, _)) in (0..).zip(&pairs) {
        let socket = ours.as_raw_fd();
        let token = Token::new(Kind::Recv, slot, 1);
        let arm = Arm::Eager;
        ring.submit(token, Op::Recv { socket, arm });
    }
    look(&mut ring);
    for (_, peer) in &pairs {
        (&*peer).write_all(b"both").unwrap();
    }
    let begun = Instant::now();
    let mut completions = Vec::new();
    ring.wait(None, &mut completions).unwrap();
    assert!(completions.len() == 2 && begun.elapsed() < Duration::from_millis(300));

    (&pairs[0].1).write_all(b"alone").unwrap();
    let begun = Instant::now();
    completions.clear();
    ring.wait(None, &mut completions).unwrap();

    assert!(completions.len() == 1 && begun.elapsed() >= Duration::from_millis(290));
}

#[test]
fn a_registered_socket_closes_like_any_other() {
    if !can(FILES) {
        return;
    }
    let mut ring = ring_files(&Config::default());
    for _ in 0..3 {
        let (ours, mut peer) = pair();
        let socket = ours.into_raw_fd();
        let calls = ring.counters().calls - ring.counters().enters;
        let buffer = SendBuffer {
            bytes: b"bye".to_vec(),
            sent: 0,
        };
        ring.submit(SEND, Op::Send { socket, buffer });
        assert!(matches!(only(&mut ring).outcome, Outcome::Sent(_)));

        ring.submit(SEND, Op::Close { socket });
        look(&mut ring);

        let mut bytes = Vec::new();
        assert_eq!(peer.read_to_end(&mut bytes).unwrap(), 3);
        let registrations = ring.counters().calls - ring.counters().enters - calls;
        assert_eq!(
            registrations, 2,
            "one when it was first used, one at its end"
        );
    }
}

fn counters_say_what_was_done<R: Reactor>(open: Open<R>) {
    let mut reactor = open(&Config::default());
    let (ours, mut peer) = pair();
    let socket = ours.as_raw_fd();
    receive(&mut reactor, &ours, Arm::Eager);
    let before = reactor.counters();
    peer.write_all(b"news").unwrap();
    assert!(matches!(only(&mut reactor).outcome, Outcome::Received(_)));
    let half = Half::Write;
    reactor.submit(RECV, Op::Shutdown { socket, half });

    let after = reactor.counters();

    assert!(after.completions > before.completions && after.batch_max >= 1);
    assert!(after.enters > before.enters);
    assert!(
        after.calls > after.enters,
        "the shutdown is a call: {after:?}"
    );
    assert!(after.submissions > 0 && after.waits > before.waits);
}

#[test]
fn the_benchmarks_compare_rings_that_can_be_had() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/benchmarks/reactors/engines.toml"
    );
    let file: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let commands = file["engine"].as_array().unwrap();
    let commands = commands
        .iter()
        .map(|engine| engine["command"].as_array().unwrap());

    let mut tried = 0;
    for command in commands {
        let mut words = command.iter().map(|word| word.as_str().unwrap());
        if words.any(|word| word == "--flags") {
            let words = words.next().unwrap();
            if can(words) {
                let mut echo = Echo::new(ring_with(words, &Config::default()));
                let clients = clients(echo.address, 10, 3, 3000);
                echo.serve(10);
                clients.join().unwrap();
            }
            tried += 1;
        }
    }

    assert!(tried >= 10, "{tried}");
}
