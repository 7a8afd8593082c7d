//! anel's worker under somebody else's I/O: a reactor made of tasks.
//!
//! Owns how ops become reads and writes of a runtime, and their results completions. Refuses to
//! know which runtime: that is a `Runtime`. Every connection has a task that reads, lets the worker
//! handle what came, and writes what the worker then owes: one read and one write per batch, as in
//! any careful program for such a runtime. Whatever else the worker asks for is rare here and goes
//! through `carry_out`.
//!
//! Three things are simpler than in anel's reactors, without effect on a client that behaves: a
//! cancelled read ends with the next result, a cancelled write by shutting its socket down, and a
//! reset is a FIN. Deadlines are looked at ten times a second.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anel::reactor::{
    Completion, Config, Errno, Group, Half, Kind, Lease, Op, Outcome, SendBuffer, Submit, Token,
};
use anel::server::{self, Limits, Worker};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::hello::{self, Hello};
use crate::tally;

/// What a runtime does with sockets. Everything stays on one thread.
#[expect(async_fn_in_trait, reason = "the futures never leave their thread")]
pub trait Runtime: 'static {
    /// Accepts.
    type Listener: 'static;
    /// The reading half of a connection; its task has it to itself.
    type Reader: 'static;
    /// The writing half.
    type Writer: 'static;

    /// Runs a task beside this one.
    fn spawn(task: impl Future<Output = ()> + 'static);

    /// Takes the next connection, and says which descriptor it has.
    async fn accept(listener: &Self::Listener) -> io::Result<(RawFd, Self::Reader, Self::Writer)>;

    /// Reads once, into a buffer of the group. An empty lease is the end of input.
    async fn read(reader: &mut Self::Reader, group: &Group) -> io::Result<Lease>;

    /// Writes once.
    async fn write(writer: &Self::Writer, buffer: SendBuffer) -> (io::Result<usize>, SendBuffer);

    /// Ends both directions, or the one of writing.
    fn shut_down(writer: &Self::Writer, how: Shutdown);
}

/// A server: one worker and its connections.
pub struct Outside<R: Runtime> {
    core: RefCell<Core>,
    group: Group,
    connections: RefCell<Vec<Option<Rc<Connection<R>>>>>,
    /// Between its accept and the first op about it.
    accepted: RefCell<Option<(R::Reader, R::Writer)>>,
    accepting: Armed,
    operations: Cell<u64>,
    results: Cell<u64>,
}

struct Core {
    worker: Worker,
    handler: Hello,
    desk: Desk,
    start: Instant,
}

struct Connection<R: Runtime> {
    writer: R::Writer,
    generation: u32,
    receiving: Armed,
    closed: Cell<bool>,
}

/// An op that goes on until it is cancelled.
#[derive(Default)]
struct Armed {
    on: Cell<bool>,
    cancelled: Cell<bool>,
    wanted: Notify,
}

impl Armed {
    fn arm(&self) {
        self.on.set(true);
        self.wanted.notify_one();
    }

    fn cancel(&self) {
        self.cancelled.set(self.on.get());
    }

    /// After a result that does not end the op by itself: whether it goes on.
    fn goes_on(&self) -> bool {
        let more = !self.cancelled.take();
        self.on.set(more);
        more
    }

    fn end(&self) -> bool {
        self.cancelled.set(false);
        self.on.set(false);
        false
    }
}

/// Where the worker puts its ops.
struct Desk {
    ops: Vec<(Token, Op)>,
    group: Group,
}

impl Submit for Desk {
    fn submit(&mut self, token: Token, op: Op) {
        self.ops.push((token, op));
    }

    fn free_buffers(&self) -> usize {
        self.group.free()
    }
}

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// The one listener.
const LISTENER: Token = Token::new(Kind::Accept, 0, 0);

/// Serves until SIGTERM or SIGINT, then prints what was counted. `Runtime` is the one that polls
/// this future.
///
/// # Errors
/// When signals cannot be had or nobody reads the output.
pub async fn serve<R: Runtime>(
    name: &str,
    config: &Config,
    listener: R::Listener,
) -> io::Result<()> {
    let group = Group::heap(config.buffers, config.buffer_bytes);
    let server = Rc::new(Outside::<R> {
        core: RefCell::new(Core {
            worker: Worker::new(Limits::default()),
            handler: Hello,
            desk: Desk {
                ops: Vec::new(),
                group: group.clone(),
            },
            start: Instant::now(),
        }),
        group,
        connections: RefCell::new(Vec::new()),
        accepted: RefCell::new(None),
        accepting: Armed::default(),
        operations: Cell::new(0),
        results: Cell::new(0),
    });
    // The number stands for the listener, which is not the worker's to accept from here.
    server.core.borrow_mut().worker.add_listener(-1);
    server.step(None, None);
    R::spawn(Rc::clone(&server).accept_all(listener));
    R::spawn(Rc::clone(&server).tick());
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    std::future::poll_fn(|context| {
        let stopped = terminate.poll_recv(context).is_ready();
        if stopped || interrupt.poll_recv(context).is_ready() {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    })
    .await;
    let counters: server::Counters = *server.core.borrow().worker.counters();
    let reactor = tally::Reactor::Foreign {
        operations: server.operations.get(),
        results: server.results.get(),
    };
    tally::print(name, &counters, reactor)
}

impl<R: Runtime> Outside<R> {
    /// One turn of the worker, about one result. Returns what the connection `mine` owes: its task
    /// writes that itself, which spares a task and a wake-up.
    fn step(
        self: &Rc<Self>,
        completion: Option<Completion>,
        mine: Option<u32>,
    ) -> Option<SendBuffer> {
        let mut ops = {
            let core = &mut *self.core.borrow_mut();
            let (worker, desk, handler) = (&mut core.worker, &mut core.desk, &mut core.handler);
            worker.on_clock(hello::read_clock(core.start));
            if let Some(completion) = completion {
                self.results.set(self.results.get() + 1);
                worker.on_completion(completion, desk, handler);
            }
            worker.on_time(desk, handler);
            worker.flush(desk, handler);
            std::mem::take(&mut desk.ops)
        };
        let mut owed = None;
        for (token, op) in ops.drain(..) {
            match op {
                Op::Send { buffer, .. } if mine == Some(token.slot()) => {
                    self.operations.set(self.operations.get() + 1);
                    owed = Some(buffer);
                }
                op => self.carry_out(token, op),
            }
        }
        // Its memory is used again. Nothing above ran the worker, so its place is empty.
        self.core.borrow_mut().desk.ops = ops;
        owed
    }

    fn carry_out(self: &Rc<Self>, token: Token, op: Op) {
        match op {
            Op::Accept { .. } => self.accepting.arm(),
            Op::Recv { .. } => self.receive(token),
            Op::Send { buffer, .. } => {
                if let Some(connection) = self.connection(token) {
                    self.operations.set(self.operations.get() + 1);
                    let server = Rc::clone(self);
                    R::spawn(async move { server.pay(token.slot(), &connection, buffer).await });
                }
            }
            Op::Shutdown { half, .. } => {
                if let Some(connection) = self.connection(token) {
                    let how = match half {
                        Half::Write => Shutdown::Write,
                        Half::Both | Half::Reset => Shutdown::Both,
                    };
                    R::shut_down(&connection.writer, how);
                }
            }
            Op::Close { .. } => self.close(token),
            Op::Cancel { target } => self.cancel(target),
            Op::Readable { .. } => unreachable!("invariant: only the Python package watches files"),
        }
    }

    fn connection(&self, token: Token) -> Option<Rc<Connection<R>>> {
        let connections = self.connections.borrow();
        let connection = connections.get(token.slot() as usize)?.as_ref()?;
        (connection.generation == token.generation()).then(|| Rc::clone(connection))
    }

    /// Arms a receive. The first of a connection begins its task.
    fn receive(self: &Rc<Self>, token: Token) {
        if let Some(connection) = self.connection(token) {
            return connection.receiving.arm();
        }
        let Some((reader, writer)) = self.accepted.take() else {
            return;
        };
        let connection = Rc::new(Connection {
            writer,
            generation: token.generation(),
            receiving: Armed::default(),
            closed: Cell::new(false),
        });
        connection.receiving.arm();
        let slot = token.slot() as usize;
        let mut connections = self.connections.borrow_mut();
        if slot >= connections.len() {
            connections.resize_with(slot + 1, || None);
        }
        connections[slot] = Some(Rc::clone(&connection));
        R::spawn(Rc::clone(self).converse(token.slot(), connection, reader));
    }

    /// The task of the connection drops the socket.
    fn close(&self, token: Token) {
        self.operations.set(self.operations.get() + 1);
        if let Some(connection) = self.connection(token) {
            self.connections.borrow_mut()[token.slot() as usize] = None;
            connection.closed.set(true);
            connection.receiving.wanted.notify_one();
        } else {
            self.accepted.take();
        }
    }

    fn cancel(&self, target: Token) {
        match target.kind() {
            Kind::Accept => self.accepting.cancel(),
            Kind::Recv => {
                if let Some(connection) = self.connection(target) {
                    connection.receiving.cancel();
                }
            }
            _ => {
                if let Some(connection) = self.connection(target) {
                    R::shut_down(&connection.writer, Shutdown::Both);
                }
            }
        }
    }

    async fn accept_all(self: Rc<Self>, listener: R::Listener) {
        loop {
            while !self.accepting.on.get() {
                self.accepting.wanted.notified().await;
            }
            self.operations.set(self.operations.get() + 1);
            let (more, outcome) = match R::accept(&listener).await {
                Ok((socket, reader, writer)) => {
                    self.accepted.replace(Some((reader, writer)));
                    (self.accepting.goes_on(), Outcome::Accepted(socket))
                }
                Err(error) => (self.accepting.end(), failed(&error, None)),
            };
            let token = LISTENER;
            let completion = Completion {
                token,
                more,
                outcome,
            };
            self.step(Some(completion), None);
        }
    }

    async fn converse(
        self: Rc<Self>,
        slot: u32,
        connection: Rc<Connection<R>>,
        mut reader: R::Reader,
    ) {
        let token = Token::new(Kind::Recv, slot, connection.generation);
        loop {
            while !connection.receiving.on.get() {
                if connection.closed.get() {
                    return;
                }
                connection.receiving.wanted.notified().await;
            }
            self.operations.set(self.operations.get() + 1);
            let (more, outcome) = match R::read(&mut reader, &self.group).await {
                Ok(lease) if lease.is_empty() => (connection.receiving.end(), Outcome::EndOfInput),
                Ok(lease) => (connection.receiving.goes_on(), Outcome::Received(lease)),
                Err(error) => (connection.receiving.end(), failed(&error, None)),
            };
            let completion = Completion {
                token,
                more,
                outcome,
            };
            if let Some(buffer) = self.step(Some(completion), Some(slot)) {
                self.pay(slot, &connection, buffer).await;
            }
        }
    }

    /// Writes, until the connection owes nothing more.
    async fn pay(self: &Rc<Self>, slot: u32, connection: &Connection<R>, buffer: SendBuffer) {
        let token = Token::new(Kind::Send, slot, connection.generation);
        let mut owed = Some(buffer);
        while let Some(buffer) = owed {
            let (result, mut buffer) = R::write(&connection.writer, buffer).await;
            let outcome = match result {
                Ok(sent) => {
                    buffer.sent += sent;
                    Outcome::Sent(buffer)
                }
                Err(error) => failed(&error, Some(buffer)),
            };
            let completion = Completion {
                token,
                more: false,
                outcome,
            };
            owed = self.step(Some(completion), Some(slot));
        }
    }

    async fn tick(self: Rc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            self.step(None, None);
        }
    }
}

fn failed(error: &io::Error, buffer: Option<SendBuffer>) -> Outcome {
    /// EIO, for an error that never was a system call's.
    const OTHER: i32 = 5;
    Outcome::Failed(Errno(error.raw_os_error().unwrap_or(OTHER)), buffer)
}
