//! The access log of a worker: what is recorded of exchanges goes to a thread that writes it.
//!
//! Owns the records of the current turn. Refuses to format, to write and to wait: all of that is
//! done elsewhere (`log_line`, `log_writer`), on another core where there is one.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;

use super::errors::{config_error, setup_error};
use super::log_batch::Batch;
use super::log_line::{Format, Lines};
use super::log_writer::{Sink, Tally, Writer};
use crate::server::{Record, Sampling};

/// An access log that is written.
#[derive(Debug)]
pub struct AccessLog {
    turn: RefCell<Batch>,
    /// None once it is closed.
    writer: RefCell<Option<Writer>>,
    tally: Arc<Tally>,
}

/// Where to (None is standard output), in which format, and which share of the exchanges.
pub type Wanted = (Option<PathBuf>, String, f64);

impl AccessLog {
    /// Opens the file and starts the thread. Says which exchanges are to be recorded.
    pub fn start(py: Python<'_>, (path, format, rate): Wanted) -> PyResult<(Self, Sampling)> {
        let format: Format = format
            .parse()
            .map_err(|()| config_error(py, &format!("there is no log format {format:?}")))?;
        let tally = Arc::new(Tally::default());
        let sink = match &path {
            Some(path) => Sink::open(path),
            None => Sink::stdout(),
        };
        let writer = sink
            .and_then(|sink| Writer::start(sink, Lines::new(format), Arc::clone(&tally)))
            .map_err(|error| {
                let path = path.as_deref().unwrap_or(Path::new("stdout")).display();
                let reason = format!("cannot write the access log {path}");
                setup_error(py, error.raw_os_error(), reason)
            })?;
        let log = Self {
            turn: RefCell::default(),
            writer: RefCell::new(Some(writer)),
            tally,
        };
        Ok((log, Sampling::new(rate, seed())))
    }

    /// Adds an exchange that is over.
    pub fn add(&self, record: &Record<'_>) {
        self.turn.borrow_mut().add(record);
    }

    /// Hands on what was added, if anything was.
    #[inline]
    pub fn hand_over(&self) {
        let mut turn = self.turn.borrow_mut();
        if !turn.is_empty() {
            self.hand_over_some(&mut turn);
        }
    }

    fn hand_over_some(&self, turn: &mut Batch) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        turn.stamp(unix.unwrap_or_default().as_millis() as u64);
        match &*self.writer.borrow() {
            Some(writer) => writer.take(turn),
            None => turn.clear(),
        }
    }

    /// Everything is written, or given up, when this returns.
    pub fn close(&self, py: Python<'_>) {
        self.hand_over();
        if let Some(writer) = self.writer.take() {
            py.detach(|| writer.close());
        }
    }

    /// How many lines were written, and how many dropped.
    pub fn logged(&self) -> Logged {
        Logged {
            lines: self.tally.written(),
            dropped: self.tally.dropped(),
        }
    }
}

/// What became of the lines.
#[derive(Clone, Copy, Default)]
pub struct Logged {
    pub lines: u64,
    pub dropped: u64,
}

/// Another number in every worker.
fn seed() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    // A fork has the keys of its parent.
    hasher.write_u32(process::id());
    hasher.finish()
}
