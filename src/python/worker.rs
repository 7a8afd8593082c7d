//! The turn: the one place where reactor, worker, Python and asyncio meet.
//!
//! Owns the order of a turn, the GIL around the wait and the clocks. Refuses to know what any of
//! the four does. A turn reads: send what is owed, wait without the GIL, let the worker handle
//! every completion, let due deadlines fire, and go on until asyncio has something to do.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::access_log::{self, AccessLog};
use super::asyncio_view::AsyncioView;
use super::dispatch::Dispatch;
use super::ending::Ending;
use super::errors::{config_error, reactor_unavailable};
use super::measures::Measures;
use super::raw;
use super::routes::{AutomaticMethods, Routes};
use super::row::Row;
use super::scheduling::Scheduling;
use super::settings::{Snapshot, limits, reactor_config};
use super::shared::Shared;
use super::view::Views;
use crate::reactor::{self, AnyReactor, Completion, Errno, Kind, Op, Reactor, Submit, Token};
use crate::router::Params;
use crate::server::{self, Clock};

/// One reactor with its listeners and connections, bound to the thread that made it.
#[pyclass(unsendable, module = "anel._core")]
pub struct Worker {
    pub(super) engine: RefCell<Option<Engine>>,
    pub(super) shared: Rc<Shared>,
    reactor_name: &'static str,
    reactor_notice: Option<String>,
    pub(super) ending_wanted: Cell<Option<Ending>>,
    pub(super) drain_until: Cell<Option<Instant>>,
    pub(super) drained: Cell<bool>,
    /// What was counted when the last turn ended its wait; for handlers, which run within a turn.
    snapshot: Cell<Snapshot>,
    /// Where others read it.
    pub(super) row: Option<Row>,
}

/// What a turn works with.
pub(super) struct Engine {
    pub(super) reactor: AnyReactor,
    pub(super) worker: server::Worker,
    completions: Vec<Completion>,
    pub(super) params: Params,
    started: Instant,
    watched: Option<Watched>,
    scheduling: Scheduling,
}

/// A foreign descriptor whose readiness ends a turn.
struct Watched {
    fd: RawFd,
    armed: bool,
}

#[pymethods]
impl Worker {
    #[allow(clippy::too_many_arguments)] // Keywords in Python.
    #[new]
    #[pyo3(signature = (app, listeners, routes, *, reactor, limits=None,
                        automatic_methods=true, row=None,
                        access_log=None, on_load=None))]
    fn new(
        py: Python<'_>,
        app: Bound<'_, PyAny>,
        listeners: Vec<RawFd>,
        routes: Bound<'_, PyAny>,
        reactor: &str,
        limits: Option<HashMap<String, u64>>,
        automatic_methods: bool,
        row: Option<Bound<'_, PyAny>>,
        access_log: Option<access_log::Wanted>,
        on_load: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let row = row.map(|row| Row::new(&row)).transpose()?;
        let measures = row.as_ref().map(|_| Box::new(Measures::new()));
        let limits = self::limits(limits.unwrap_or_default())
            .map_err(|message| config_error(py, &message))?;
        let choice = reactor
            .parse()
            .map_err(|error: reactor::ConfigError| config_error(py, &error.to_string()))?;
        let config = reactor_config().map_err(|error| config_error(py, &error.to_string()))?;
        let automatic_methods = if automatic_methods {
            AutomaticMethods::On
        } else {
            AutomaticMethods::Off
        };
        let routes = Routes::from_entries(&routes, automatic_methods)?;
        let opened =
            reactor::open(choice, &config).map_err(|error| reactor_unavailable(py, &error))?;
        let mut worker = server::Worker::new(limits);
        for listener in listeners {
            worker.add_listener(listener);
        }
        // Last of what can fail: it starts a thread.
        let access_log = access_log.map(|wanted| {
            let (log, sampling) = AccessLog::start(py, wanted)?;
            worker.record(sampling);
            Ok::<_, PyErr>(log)
        });
        let reactor_name = opened.reactor.name();
        let engine = Engine {
            reactor: opened.reactor,
            worker,
            completions: Vec::new(),
            params: Params::new(),
            started: Instant::now(),
            watched: None,
            scheduling: Scheduling::new(on_load),
        };
        Ok(Self {
            engine: RefCell::new(Some(engine)),
            shared: Rc::new(Shared::new(
                &app,
                routes,
                Views::new(config.buffers.into()),
                measures,
                access_log.transpose()?,
            )?),
            snapshot: Cell::default(),
            row,
            reactor_name,
            reactor_notice: opened.notice,
            ending_wanted: Cell::new(None),
            drain_until: Cell::new(None),
            drained: Cell::new(false),
        })
    }

    /// `"io_uring"` or `"epoll"`.
    #[getter]
    fn reactor_name(&self) -> &'static str {
        self.reactor_name
    }

    /// Why it is not io_uring, if that was a choice of the machine; else None.
    #[getter]
    fn reactor_notice(&self) -> Option<&str> {
        self.reactor_notice.as_deref()
    }

    /// Serves until asyncio has something to do, a watched descriptor is readable, or the time (in
    /// seconds) is up. True when a watched descriptor may be ready. Raises what a signal handler
    /// raises.
    fn turn(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let Ok(mut engine) = self.engine.try_borrow_mut() else {
            return Ok(true);
        };
        let Some(engine) = engine.as_mut() else {
            return Err(PyRuntimeError::new_err("the worker was stopped"));
        };
        let until = timeout.map(|seconds| {
            // A timer must not be met early, or asyncio would spin until it is due.
            Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, TIMEOUT_S_MAX))
        });
        let asyncio = AsyncioView::new(py, &self.shared)?;
        loop {
            if let Some(readable) = self.step(py, engine, until, &asyncio)? {
                return Ok(readable);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
        }
    }

    /// Serves from now on inside a loop that does the waiting: it calls `serve_ready` when the
    /// returned descriptor is readable, or soon after `ask` was called. `turn` is not used then.
    fn join(&self, event_loop: &Bound<'_, PyAny>, ask: Py<PyAny>) -> PyResult<RawFd> {
        self.join_loop(event_loop, ask)
    }

    /// Serves what is there without waiting. Returns in how many seconds `serve_due` has to be
    /// called; None when an earlier return said so already. Raises what a signal handler raises.
    fn serve_ready(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.guest_turn(py)
    }

    /// The same, at the time that was said last.
    fn serve_due(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.shared.guest.forget_alarm();
        self.guest_turn(py)
    }

    /// Ends turns when this descriptor is readable; it must stay open as long as the worker lives.
    fn watch(&self, fd: RawFd) -> PyResult<()> {
        self.with_engine(|engine| engine.watched = Some(Watched { fd, armed: false }))
    }

    /// Stops accepting; every connection ends with the answer to its next request. Idle ones stay
    /// open until a drain.
    fn wind_down(&self, py: Python<'_>) {
        // A drain that was asked for before does more.
        if self.drain_until.get().is_none() {
            self.ending_wanted.set(Some(Ending::WindDown));
            self.shared.guest.ask_for_turn(py);
        }
    }

    /// Stops accepting and closes what is idle; requests in progress are answered with `Connection:
    /// close`. After so many seconds their tasks are cancelled.
    fn drain(&self, py: Python<'_>, deadline_s: f64) {
        let deadline = Duration::from_secs_f64(deadline_s.clamp(0.0, TIMEOUT_S_MAX));
        self.drain_until.set(Some(Instant::now() + deadline));
        self.ending_wanted.set(Some(Ending::Drain));
        self.shared.guest.ask_for_turn(py);
    }

    /// Whether the listeners have to stay open: somebody may just be accepted.
    fn is_accepting(&self) -> PyResult<bool> {
        self.with_engine(|engine| engine.worker.is_accepting())
    }

    /// Serves a connection that was accepted elsewhere: its descriptor is the worker's from now on.
    fn adopt(&self, py: Python<'_>, socket_fd: RawFd) -> PyResult<()> {
        self.serve_accepted(py, socket_fd)
    }

    /// Whether a drain has come to its end.
    fn is_drained(&self) -> bool {
        self.drained.get()
    }

    /// How many connections are idle, and how many have a request in progress.
    fn connections(&self) -> PyResult<(usize, usize)> {
        self.with_engine(|engine| {
            let busy = engine.worker.connections_busy();
            (engine.worker.connections_open() - busy, busy)
        })
    }

    /// Closes every connection and the reactor. Harmless when that was done already.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let Ok(mut engine) = self.engine.try_borrow_mut() else {
            return Err(PyRuntimeError::new_err(
                "stop() was called from within a handler",
            ));
        };
        if let Some(mut engine) = engine.take() {
            engine.shut_down(py, &self.shared);
            self.publish(py, &engine);
        }
        self.drained.set(true);
        self.shared.stop(py);
        Ok(())
    }

    /// Totals since the start, by name, and a few gauges. Within a handler, as of the last wait.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        if let Ok(engine) = self.engine.try_borrow()
            && let Some(engine) = engine.as_ref()
        {
            self.snapshot.set(engine.snapshot(&self.shared));
        }
        self.snapshot.get().as_dict(py)
    }
}

impl Worker {
    pub(super) fn with_engine<R>(&self, act: impl FnOnce(&mut Engine) -> R) -> PyResult<R> {
        match self.engine.try_borrow_mut().as_deref_mut() {
            Ok(Some(engine)) => Ok(act(engine)),
            Ok(None) => Err(PyRuntimeError::new_err("the worker was stopped")),
            Err(_) => Err(PyRuntimeError::new_err("the worker is in a turn")),
        }
    }

    /// One wait and everything that follows from it. `Some` ends the turn, and says whether a
    /// watched descriptor is readable.
    fn step(
        &self,
        py: Python<'_>,
        engine: &mut Engine,
        until: Option<Instant>,
        asyncio: &AsyncioView<'_>,
    ) -> PyResult<Option<bool>> {
        let shared = &self.shared;
        self.pay(py, engine)?;
        engine.arm_watch();
        // A signal that came since Python last looked interrupts no wait.
        py.check_signals()?;
        // Only code that ran can have given asyncio something to do.
        let mut has_work = shared.python_ran.take() && asyncio.has_work();
        let timeout = if has_work || shared.has_orders() {
            Some(Duration::ZERO)
        } else {
            engine.timeout(until)
        };
        let readable = self.collect(py, engine, timeout)?;
        has_work |= shared.python_ran.take() && asyncio.has_work();
        Ok((readable || has_work).then_some(readable))
    }

    /// The first half of a step: everything that is owed is submitted.
    pub(super) fn pay(&self, py: Python<'_>, engine: &mut Engine) -> PyResult<()> {
        let shared = &self.shared;
        self.go_on_ending(py, engine)?;
        shared.views.release();
        engine.carry_out_orders(py, shared);
        if let Some(error) = shared.fatal.take() {
            return Err(error);
        }
        engine.flush(py, shared);
        if let Some(log) = &shared.access_log {
            log.hand_over();
        }
        Ok(())
    }

    /// Shows others what was counted until a rest, if they are to see it.
    pub(super) fn publish(&self, py: Python<'_>, engine: &Engine) {
        if let Some(row) = &self.row {
            row.publish(py, &engine.snapshot(&self.shared), &self.shared);
        }
    }

    /// The second half: what comes meanwhile is served. Says whether a watched descriptor is
    /// readable.
    pub(super) fn collect(
        &self,
        py: Python<'_>,
        engine: &mut Engine,
        timeout: Option<Duration>,
    ) -> PyResult<bool> {
        self.publish(py, engine);
        let waited = match (&self.row, &self.shared.measures) {
            (Some(row), Some(measures)) => engine.wait_measured(py, timeout, row, measures),
            _ => engine.wait(py, timeout),
        };
        waited.map_err(|errno| PyOSError::new_err((errno.0, errno.to_string())))?;
        self.snapshot.set(engine.snapshot(&self.shared));
        if engine.completions.is_empty() {
            py.check_signals()?;
        }
        let readable = engine.take_completions(py, &self.shared);
        match self.shared.fatal.take() {
            Some(error) => Err(error),
            None => Ok(readable),
        }
    }
}

impl Engine {
    fn snapshot(&self, shared: &Shared) -> Snapshot {
        Snapshot {
            reactor: self.reactor.counters(),
            worker: *self.worker.counters(),
            connections_open: self.worker.connections_open(),
            access_log: shared
                .access_log
                .as_ref()
                .map(AccessLog::logged)
                .unwrap_or_default(),
        }
    }

    pub(super) fn clock(&self) -> Clock {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Clock {
            monotonic_us: self.started.elapsed().as_micros() as u64,
            unix_s: unix.as_secs(),
        }
    }

    /// When a deadline of the worker has surely passed.
    pub(super) fn instant(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms + 1)
    }

    /// How long the wait may last.
    fn timeout(&self, until: Option<Instant>) -> Option<Duration> {
        if self.worker.wants_turn() {
            return Some(Duration::ZERO);
        }
        let elapsed = self.started.elapsed();
        let deadline = self.worker.next_deadline_ms().map(|at_ms| {
            // Rounded up: a deadline that is checked early only costs another turn.
            Duration::from_millis(at_ms + 1).saturating_sub(elapsed)
        });
        let asyncio = until.map(|until| until.saturating_duration_since(Instant::now()));
        match (deadline, asyncio) {
            (Some(deadline), Some(asyncio)) => Some(deadline.min(asyncio)),
            (deadline, asyncio) => deadline.or(asyncio),
        }
    }

    fn arm_watch(&mut self) {
        if let Some(watched) = &mut self.watched
            && !watched.armed
        {
            watched.armed = true;
            let token = Token::new(Kind::Readable, 0, 0);
            self.reactor.submit(token, Op::Readable { fd: watched.fd });
        }
    }

    fn carry_out_orders(&mut self, py: Python<'_>, shared: &Rc<Shared>) {
        let mut dispatch = Dispatch::new(py, shared, &mut self.params);
        shared.carry_out(&mut self.worker, &mut dispatch);
    }

    fn flush(&mut self, py: Python<'_>, shared: &Rc<Shared>) {
        let mut dispatch = Dispatch::new(py, shared, &mut self.params);
        self.worker.flush(&mut self.reactor, &mut dispatch);
    }

    fn take_completions(&mut self, py: Python<'_>, shared: &Rc<Shared>) -> bool {
        let mut readable = false;
        let clock = self.clock();
        self.worker.on_clock(clock);
        self.scheduling
            .on_wait(py, self.completions.len(), clock.monotonic_ms());
        let mut dispatch = Dispatch::new(py, shared, &mut self.params);
        for completion in self.completions.drain(..) {
            if completion.token.kind() == Kind::Readable {
                readable = true;
            } else {
                self.worker
                    .on_completion(completion, &mut self.reactor, &mut dispatch);
            }
        }
        self.worker.on_time(&mut self.reactor, &mut dispatch);
        if readable && let Some(watched) = &mut self.watched {
            watched.armed = false;
        }
        readable
    }

    /// Ends every connection; bounded, because the kernel owes us only completions of what was
    /// cancelled. What handlers have answered is sent first: `loop.stop()` in a handler does not
    /// take its answer away.
    fn shut_down(&mut self, py: Python<'_>, shared: &Rc<Shared>) {
        self.worker.drain(&mut self.reactor);
        self.carry_out_orders(py, shared);
        self.flush(py, shared);
        if self.wait(py, Some(Duration::ZERO)).is_err() {
            return;
        }
        for _ in 0..SHUTDOWN_WAITS {
            let mut dispatch = Dispatch::new(py, shared, &mut self.params);
            self.worker.abort_all(&mut self.reactor, &mut dispatch);
            drop(dispatch);
            self.flush(py, shared);
            let timeout = if self.worker.is_drained() {
                Duration::ZERO
            } else {
                SHUTDOWN_WAIT
            };
            if self.wait(py, Some(timeout)).is_err() {
                return;
            }
            self.take_completions(py, shared);
            if self.worker.is_drained() && timeout.is_zero() {
                return;
            }
        }
    }

    /// Waits for completions, which join those that were not taken yet.
    fn wait(&mut self, py: Python<'_>, timeout: Option<Duration>) -> Result<(), Errno> {
        let (reactor, completions) = (&mut self.reactor, &mut self.completions);
        raw::without_gil(py, || reactor.wait(timeout, completions))
    }

    /// The same for a worker that publishes what it does.
    fn wait_measured(
        &mut self,
        py: Python<'_>,
        timeout: Option<Duration>,
        row: &Row,
        measures: &Measures,
    ) -> Result<(), Errno> {
        let (reactor, completions) = (&mut self.reactor, &mut self.completions);
        let before = completions.len();
        let (waited, until_gil) = raw::without_gil_timed(py, || reactor.wait(timeout, completions));
        row.wake(py);
        measures.on_wait(self.completions.len() - before, until_gil);
        waited
    }
}

/// Longest timeout that is passed on, in seconds: a day. Python's own limit is of the same kind.
const TIMEOUT_S_MAX: f64 = 86_400.0;

/// Waits, and their length, in which a stopped worker collects what the kernel still holds.
const SHUTDOWN_WAITS: u32 = 20;
const SHUTDOWN_WAIT: Duration = Duration::from_millis(50);
