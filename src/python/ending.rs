//! How a worker ends while it serves: wound down, drained.
//!
//! Owns what is asked for between two turns, and a drain's deadline. Refuses to know who asks, and
//! why.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::dispatch::Dispatch;
use super::worker::{Engine, Worker};

/// What was asked for while the engine may be in use; brought about at the next turn.
#[derive(Clone, Copy)]
pub enum Ending {
    /// Accept nobody, and close behind every answer.
    WindDown,
    /// Close what is idle, too.
    Drain,
}

impl Worker {
    /// Serves who was accepted behind the last accept of ours.
    pub(super) fn serve_accepted(&self, py: Python<'_>, socket: RawFd) -> PyResult<()> {
        self.with_engine(|engine| {
            let mut dispatch = Dispatch::new(py, &self.shared, &mut engine.params);
            engine.worker.adopt(socket, &mut dispatch);
        })?;
        self.shared.guest.ask_for_turn(py);
        Ok(())
    }

    /// Brings about what was asked for, and what a drain's deadline asks for.
    pub(super) fn go_on_ending(&self, py: Python<'_>, engine: &mut Engine) -> PyResult<()> {
        match self.ending_wanted.take() {
            Some(Ending::WindDown) => engine.worker.wind_down(&mut engine.reactor),
            Some(Ending::Drain) => engine.worker.drain(&mut engine.reactor),
            None => {}
        }
        let Some(until) = self.drain_until.get() else {
            return Ok(());
        };
        if engine.worker.is_drained() {
            self.drained.set(true);
        } else if Instant::now() >= until {
            // Cancelled handlers still answer (503); their connections end behind that.
            if !self.shared.cancel_pending(py)? {
                let mut dispatch = Dispatch::new(py, &self.shared, &mut engine.params);
                engine.worker.abort_all(&mut engine.reactor, &mut dispatch);
            }
            self.drain_until.set(Some(Instant::now() + AFTER_CANCEL));
        }
        Ok(())
    }
}

/// How long cancelled handlers get to answer before their connections are cut.
const AFTER_CANCEL: Duration = Duration::from_millis(500);
