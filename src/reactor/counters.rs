//! What a reactor has done so far, in plain numbers.
//!
//! Owns the list; refuses to know who publishes it. Counting is an addition on the reactor's own
//! thread.

/// Totals since the reactor was opened, and one maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of `wait`.
    pub waits: u64,
    /// Calls of `io_uring_enter` or `epoll_wait`.
    pub enters: u64,
    /// System calls on the reactor's thread altogether: `enters`, and whatever is not an entry of
    /// the ring. On epoll these are receives, sends, accepts, registrations, shutdowns and closes.
    /// Opening and dropping the reactor is not counted.
    pub calls: u64,
    /// Submission queue entries; on epoll, ops.
    pub submissions: u64,
    /// Completion queue entries, the ring's own included; on epoll, completions of ops.
    pub completions: u64,
    /// Most `completions` that were taken at once.
    pub batch_max: u64,
    /// Times the completion queue had overflowed. Nothing is lost, but a larger queue is faster.
    pub overflows: u64,
    /// Times the submission queue was full before the wait.
    pub flushes: u64,
    /// Receives that found no free buffer.
    pub starved: u64,
    /// Waits that another thread ended.
    pub wakeups: u64,
}

impl Counters {
    /// Counts what was taken at once.
    #[inline]
    pub(super) fn on_batch(&mut self, completions: usize) {
        let completions = completions as u64;
        self.completions += completions;
        self.batch_max = self.batch_max.max(completions);
    }

    /// As they are published: while counting, `calls` is what there is besides `enters`.
    pub(super) fn published(self) -> Self {
        Self {
            calls: self.calls + self.enters,
            ..self
        }
    }
}
