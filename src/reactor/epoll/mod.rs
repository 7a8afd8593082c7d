//! The reactor on epoll: the same contract without io_uring.
//!
//! Owns readiness: which sockets are registered for what (`interest`), the system calls (`calls`),
//! what their results mean (`transfer`) and the turn (`reactor`). Refuses to know who asks. It is
//! what a worker runs on where io_uring is forbidden, and the control in every benchmark, so it is
//! meant to be as good as epoll gets: a receive costs one call and no registration, a send one call
//! at submit.

mod calls;
mod interest;
mod reactor;
mod transfer;

pub use reactor::Epoll;
