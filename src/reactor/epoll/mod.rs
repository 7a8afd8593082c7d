//! The reactor on epoll: the same contract without io_uring.
//!
//! Owns readiness: which sockets are registered for what (`interest`), the system calls (`calls`),
//! what their results mean (`transfer`), what is remembered of a connection (`connection`) and the
//! turn (`reactor`). Refuses to know who asks. It is what a worker runs on where io_uring is
//! forbidden, and the control in every benchmark, so it is meant to be as good as epoll gets:
//! registered once and for edges, a receive costs one call, a send one call at submit.

mod calls;
mod connection;
mod interest;
mod reactor;
mod transfer;

pub use reactor::Epoll;
