//! What a reactor has done so far, in plain numbers.
//!
//! Owns the list; refuses to know who publishes it. Counting is an addition on the reactor's own
//! thread.

/// Totals since the reactor was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of `wait`.
    pub waits: u64,
    /// System calls that wait: `io_uring_enter`, or `epoll_wait`.
    pub enters: u64,
    /// Submission queue entries; for epoll, calls on sockets.
    pub submissions: u64,
    /// Completions handed to the worker.
    pub completions: u64,
    /// Times the completion queue had overflowed. Nothing is lost, but a larger queue is faster.
    pub overflows: u64,
    /// Times the submission queue was full before the wait.
    pub flushes: u64,
    /// Receives that found no free buffer.
    pub starved: u64,
    /// Waits that another thread ended.
    pub wakeups: u64,
}
