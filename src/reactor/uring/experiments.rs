//! What the kernel has to have for the experiments of the knob.
//!
//! Owns the questions to the kernel and how long a wait goes on. Refuses to do without: whoever
//! asks for an experiment measures it, so a kernel that lacks it is an error.

use std::time::Duration;

use io_uring::IoUring;
use io_uring::opcode;
use io_uring::register::Probe;
use io_uring::types::SubmitArgs;

use crate::reactor::errors::{Errno, ReactorUnavailable};
use crate::reactor::knob::Experiments;

/// Refuses what this kernel cannot do. `sqpoll` and `files` are found out by asking for them.
pub(super) fn check(io: &IoUring, experiments: &Experiments) -> Result<(), ReactorUnavailable> {
    let parameters = io.params();
    if experiments.bundle && !parameters.is_feature_recvsend_bundle() {
        return Err(ReactorUnavailable::lacks("bundle", "6.10"));
    }
    if experiments.batch.is_some() && !parameters.is_feature_min_timeout() {
        return Err(ReactorUnavailable::lacks("batch", "6.12"));
    }
    if experiments.send_zc && !knows(opcode::SendZc::CODE)? {
        return Err(ReactorUnavailable::lacks("send_zc", "6.0"));
    }
    Ok(())
}

/// Whether the kernel has an operation. It is asked through a ring of its own, because the one that
/// serves takes no such question any more.
fn knows(operation: u8) -> Result<bool, ReactorUnavailable> {
    let mut probe = Probe::new();
    IoUring::new(1)
        .and_then(|io| io.submitter().register_probe(&mut probe))
        .map_err(|error| ReactorUnavailable::from_setup(Errno::of(&error)))?;
    Ok(probe.is_supported(operation))
}

/// How many completions a wait is for, and how long it insists on more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    completions: u32,
    patience_us: u32,
}

impl Batch {
    /// The first completion ends the wait.
    pub(super) const ONE: Self = Self {
        completions: 1,
        patience_us: 0,
    };

    pub(super) fn of(experiments: &Experiments) -> Self {
        match (experiments.batch, experiments.batch_us) {
            (Some(completions), Some(patience_us)) => Self {
                completions,
                patience_us,
            },
            _ => Self::ONE,
        }
    }

    pub(super) fn completions(self) -> usize {
        self.completions as usize
    }

    /// Adds the patience to a wait, which it must not make longer. Without any, the field has the
    /// value that it has on kernels that do not know it.
    #[inline]
    pub(super) fn apply<'a, 'b>(
        self,
        arguments: SubmitArgs<'a, 'b>,
        timeout: Option<Duration>,
    ) -> SubmitArgs<'a, 'b> {
        let whole = timeout.map_or(u128::MAX, |timeout| timeout.as_micros());
        arguments.min_wait_usec(whole.min(u128::from(self.patience_us)) as u32)
    }
}
