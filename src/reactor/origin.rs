//! Which process a ring belongs to.
//!
//! Owns the answer to "were we forked since?", at the price of one load. Refuses to know what is asked for.
//! A forked child shares the ring's descriptor, but not its mappings (they are not copied into it): without
//! this check its first use would be a segmentation fault. Other threads are kept out by the type, which is
//! not `Send`.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often this process is the child of a fork, counted since the first ring.
static FORKS: AtomicU32 = AtomicU32::new(0);
static WATCH: Once = Once::new();

extern "C" fn on_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The process in which something was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin(u32);

impl Origin {
    pub(super) fn here() -> Self {
        WATCH.call_once(|| {
            // SAFETY: the handler only adds to an atomic, which is allowed in a forked child, and it
            // lives as long as the process (invariant K1). A failure (ENOMEM) leaves the kernel's own
            // check, EEXIST, as the only one.
            let _ = unsafe { libc::pthread_atfork(None, None, Some(on_fork)) };
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.0
    }

    /// # Panics
    /// In a forked child.
    #[inline]
    pub(super) fn assert_here(self) {
        assert!(
            self.is_here(),
            "a ring belongs to the process that opened it: open it after the fork"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use crate::reactor::{Arm, Config, Kind, Op, Outcome, Reactor, Ring, Submit, Token};

    /// Exit codes of the child.
    const KEPT_OUT: i32 = 17;
    const LET_IN: i32 = 18;

    #[test]
    fn a_forked_child_is_kept_out_of_the_ring_and_the_parent_goes_on() {
        let mut ring = Ring::open(&Config {
            buffers: 8,
            ..Config::default()
        })
        .unwrap();
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let (mut verdict, mut childs_verdict) = UnixStream::pair().unwrap();
        let token = Token::new(Kind::Recv, 0, 1);
        ring.submit(
            token,
            Op::Recv {
                socket: ours.as_raw_fd(),
                arm: Arm::Eager,
            },
        );
        ring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();

        // SAFETY: the child only touches the ring, one socket and the exit below, and takes no lock that
        // another thread of this test process may hold (invariant K1).
        let child = unsafe { libc::fork() };
        if child == 0 {
            std::panic::set_hook(Box::new(|_| {}));
            let outcome = catch_unwind(AssertUnwindSafe(|| ring.wait(None, &mut Vec::new())));
            drop(ring);
            let code = if outcome.is_err() { KEPT_OUT } else { LET_IN };
            let _ = childs_verdict.write_all(&[code as u8]);
            // SAFETY: ends the child without running the parent's exit handlers (invariant K1).
            unsafe { libc::_exit(code) };
        }

        let mut code = [0];
        verdict
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        verdict.read_exact(&mut code).unwrap();
        assert_eq!(i32::from(code[0]), KEPT_OUT);
        // The buffers are still shared with the kernel, though their pages were copied for the child.
        for round in 0..20_u8 {
            peer.write_all(&[round; 3]).unwrap();
            let mut completions = Vec::new();
            while completions.is_empty() {
                ring.wait(Some(Duration::from_secs(30)), &mut completions)
                    .unwrap();
            }
            let outcome = &completions[0].outcome;
            assert!(matches!(outcome, Outcome::Received(lease) if **lease == [round; 3]));
        }
        // SAFETY: collects the child that was made above (invariant K1).
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
}
