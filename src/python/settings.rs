//! Names in Python to numbers in the core, and back.
//!
//! Owns the names of limits and counters as Python sees them: they are those of the structs.
//! Refuses to know what they do.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::access_log::Logged;
use crate::protocol::Limits;
use crate::reactor::{self, Config, ConfigError, FlagKnob};
use crate::server;

/// Calls a macro with the names of all limits.
macro_rules! for_all_limits {
    ($call:ident) => {
        $call!(
            head_bytes_max target_bytes_max fields_max body_bytes_max stream_bytes_max
            chunk_extension_bytes_max trailer_bytes_max pipeline_depth_max owed_bytes_max
            stream_owed_bytes_max connections_max head_timeout_ms body_timeout_ms
            body_bytes_per_s_min idle_timeout_ms send_timeout_ms send_bytes_per_s_min
            handler_timeout_ms linger_bytes_max linger_timeout_ms
        )
    };
}

/// Limits with some of them replaced, or the name that is unknown or out of range.
pub fn limits(chosen: HashMap<String, u64>) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for (name, value) in chosen {
        macro_rules! choose {
            ($($field:ident)*) => {
                match name.as_str() {
                    $(stringify!($field) => {
                        limits.$field = value.try_into().map_err(|_| {
                            format!("limit {name} is out of range: {value}")
                        })?;
                    })*
                    _ => return Err(format!("there is no limit named {name:?}")),
                }
            };
        }
        for_all_limits!(choose);
    }
    Ok(limits)
}

/// Every limit with its default, by name.
#[pyfunction]
pub fn default_limits(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    // All of them: a field that is not named does not compile.
    macro_rules! fill {
        ($($field:ident)*) => {
            let Limits { $($field),* } = Limits::default();
            $(dict.set_item(stringify!($field), $field)?;)*
        };
    }
    for_all_limits!(fill);
    Ok(dict)
}

/// The reactor's sizes, with what the environment forces.
pub fn reactor_config() -> Result<Config, ConfigError> {
    Config::default().with_flags(FlagKnob::from_environment()?)
}

/// Everything that is counted, at one moment.
#[derive(Clone, Copy, Default)]
pub struct Snapshot {
    pub reactor: reactor::Counters,
    pub worker: server::Counters,
    pub connections_open: usize,
    pub access_log: Logged,
}

/// Writes the names of the counters, and what has them, once for both directions.
macro_rules! counted {
    ($($name:ident: $($path:ident).+;)*) => {
        /// Totals, which end in `_total`, and gauges.
        pub const NAMES: [&'static str; [$(stringify!($name)),*].len()] =
            [$(stringify!($name)),*];

        /// The numbers, in the order of their names.
        #[inline]
        pub fn values(&self) -> [u64; Self::NAMES.len()] {
            [$(self.$($path).+ as u64),*]
        }
    };
}

impl Snapshot {
    counted! {
        connections_accepted_total: worker.connections_accepted_total;
        connections_closed_total: worker.connections_closed_total;
        requests_total: worker.requests_total;
        streams_total: worker.streams_total;
        bodies_streamed_total: worker.bodies_streamed_total;
        refusals_total: worker.refusals_total;
        sends_total: worker.sends_total;
        pauses_total: worker.pauses_total;
        shares_total: worker.shares_total;
        starved_total: worker.starved_total;
        accept_pauses_total: worker.accept_pauses_total;
        accept_errors_total: worker.accept_errors_total;
        shortages_total: worker.shortages_total;
        handlers_overdue_total: worker.handlers_overdue_total;
        deadlines_total: worker.deadlines_total;
        answers_dropped_total: worker.answers_dropped_total;
        stale_completions_total: worker.stale_completions_total;
        bytes_received_total: worker.bytes_received_total;
        bytes_sent_total: worker.bytes_sent_total;
        waits_total: reactor.waits;
        enters_total: reactor.enters;
        system_calls_total: reactor.calls;
        submissions_total: reactor.submissions;
        completions_total: reactor.completions;
        overflows_total: reactor.overflows;
        flushes_total: reactor.flushes;
        wakeups_total: reactor.wakeups;
        access_log_lines_total: access_log.lines;
        access_log_dropped_total: access_log.dropped;
        completions_batch_max: reactor.batch_max;
        connections_open: connections_open;
    }

    /// By name: totals, and the number of open connections.
    pub fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in Self::NAMES.into_iter().zip(self.values()) {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }
}
