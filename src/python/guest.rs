//! The turn of a worker that is a guest in somebody else's loop.
//!
//! Owns when that loop is asked for a turn and how much one turn may do. Refuses to wait: the loop
//! watches the reactor's descriptor, and calls. Between two of its calls nothing of ours runs, so
//! whatever is left for the next turn has to ask for it.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::coroutine;
use super::worker::{Engine, Worker};
use crate::reactor::Reactor;

/// What connects the worker with the loop it is a guest of, if it is.
#[derive(Default)]
pub struct Guest {
    /// Has the loop call `serve_ready` soon.
    ask: RefCell<Option<Py<PyAny>>>,
    /// Whether a turn is running, or was asked for and has not begun.
    turn_is_due: Cell<bool>,
    /// The time for which the loop was given an alarm.
    alarm_at: Cell<Option<Instant>>,
}

impl Guest {
    /// To be called by whatever leaves something for the next turn. Costs nothing where the worker
    /// does the waiting itself: there the next turn comes anyway.
    pub fn ask_for_turn(&self, py: Python<'_>) {
        let ask = match &*self.ask.borrow() {
            Some(ask) if !self.turn_is_due.replace(true) => ask.clone_ref(py),
            _ => return,
        };
        if let Err(error) = ask.call0(py) {
            self.turn_is_due.set(false);
            error.write_unraisable(py, None);
        }
    }

    /// The alarm has gone off.
    pub fn forget_alarm(&self) {
        self.alarm_at.set(None);
    }

    /// Breaks the cycle between the worker and the loop.
    pub fn leave(&self) {
        let ask = self.ask.take();
        drop(ask);
    }

    /// In how many seconds the loop has to call, unless it was told to call no later than that.
    fn next_alarm(&self, at: Option<Instant>) -> Option<f64> {
        let at = at?;
        if self.alarm_at.get().is_some_and(|set| set <= at) {
            return None;
        }
        self.alarm_at.set(Some(at));
        let rest = at.saturating_duration_since(Instant::now());
        Some(rest.max(ALARM_MIN).as_secs_f64())
    }
}

impl Worker {
    /// Makes the worker a guest of this loop. The descriptor stays the worker's.
    pub(super) fn join_loop(
        &self,
        event_loop: &Bound<'_, PyAny>,
        ask: Py<PyAny>,
    ) -> PyResult<RawFd> {
        let mut wake_fd = Ok(-1);
        self.with_engine(|engine| wake_fd = engine.reactor.wake_fd())?;
        let wake_fd = wake_fd.map_err(io::Error::from)?;
        *self.shared.async_support.borrow_mut() = Some(coroutine::support(event_loop)?);
        self.shared.guest.ask.replace(Some(ask));
        Ok(wake_fd)
    }

    /// One turn that does not wait. Returns what `Guest::next_alarm` says.
    pub(super) fn guest_turn(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let Ok(mut engine) = self.engine.try_borrow_mut() else {
            // A patched loop that runs within a handler, which is within a turn.
            return Ok(None);
        };
        let Some(engine) = engine.as_mut() else {
            return Err(PyRuntimeError::new_err("the worker was stopped"));
        };
        let guest = &self.shared.guest;
        guest.turn_is_due.set(true);
        if let Some(row) = &self.row {
            row.wake(py);
        }
        let served = self.serve_at_hand(py, engine);
        guest.turn_is_due.set(false);
        served?;
        if self.drain_until.get().is_some() && engine.worker.is_drained() {
            self.drained.set(true);
        }
        self.publish(py, engine);
        if !engine.reactor.rest() || self.owes(engine) {
            guest.ask_for_turn(py);
        }
        let deadline = engine.worker.next_deadline_ms();
        let deadline = deadline.map(|at_ms| engine.instant(at_ms));
        let drain = self.drain_until.get().filter(|_| !self.drained.get());
        Ok(guest.next_alarm(deadline.into_iter().chain(drain).min()))
    }

    /// Serves until nothing is left that needs no waiting, or the others on the loop have waited
    /// for long enough.
    fn serve_at_hand(&self, py: Python<'_>, engine: &mut Engine) -> PyResult<()> {
        for step in 0..STEPS_MAX {
            self.pay(py, engine)?;
            if step > 0 && engine.reactor.is_idle() && !self.owes(engine) {
                break;
            }
            self.collect(py, engine, Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Whether the next step has something to submit.
    fn owes(&self, engine: &Engine) -> bool {
        let now_ms = engine.clock().monotonic_ms();
        let is_due = |at_ms| at_ms <= now_ms;
        self.shared.has_orders()
            || self.ending_wanted.get().is_some()
            || engine.worker.next_deadline_ms().is_some_and(is_due)
    }
}

/// Steps of one turn: one takes the requests, one sends the answers, and two are for what those
/// sends led to on a fast network. More would keep the loop's other callbacks waiting.
const STEPS_MAX: u32 = 4;

/// Shortest alarm, in seconds. Loops count in milliseconds, and a shorter one would go off again
/// and again until the worker's clock has moved.
const ALARM_MIN: Duration = Duration::from_millis(1);
