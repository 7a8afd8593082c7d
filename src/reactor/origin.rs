//! Which process a ring belongs to.
//!
//! Owns the answer to "were we forked since?", at the price of one load. Refuses to know what is
//! asked for. A forked child shares the ring's descriptor, but not its mappings (they are not
//! copied into it): without this check its first use would be a segmentation fault. Other threads
//! are kept out by the type, which is not `Send`.

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
            // SAFETY: the handler only adds to an atomic, which is allowed in a forked child, and
            // it lives as long as the process (invariant K1). A failure (ENOMEM) leaves the
            // kernel's own check, EEXIST, as the only one.
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
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::{FORKS, Origin};
    use crate::reactor::{Arm, Config, Kind, Op, Outcome, Reactor, Ring, Submit, Token};

    #[test]
    fn a_forked_child_is_kept_out_of_the_ring_and_the_parent_goes_on() {
        let mut ring = Ring::open(&Config {
            buffers: 8,
            ..Config::default()
        })
        .unwrap();
        let origin = Origin::here();
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

        // SAFETY: the child drops the ring, writes to a socket and exits. It cannot panic, for
        // another thread of this test process may hold the lock of the panic hook (invariant K1).
        let is_child = unsafe { libc::fork() } == 0;
        if is_child {
            drop(ring);
            let _ = childs_verdict.write_all(&[u8::from(origin.is_here())]);
            // Not `exit`: that would run the exit handlers of the parent.
            std::process::abort();
        }

        let mut is_here = [9];
        verdict
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        verdict.read_exact(&mut is_here).unwrap();
        assert_eq!(is_here, [0]);
        // The buffers are still shared with the kernel, though their pages were copied for the
        // child.
        for round in 0..20_u8 {
            peer.write_all(&[round; 3]).unwrap();
            let mut completions = Vec::new();
            ring.wait(Some(Duration::from_secs(30)), &mut completions)
                .unwrap();
            let outcome = &completions[0].outcome;
            assert!(matches!(outcome, Outcome::Received(lease) if **lease == [round; 3]));
        }
    }

    #[test]
    #[should_panic(expected = "open it after the fork")]
    fn a_ring_of_another_process_is_refused() {
        Origin(FORKS.load(Ordering::Relaxed).wrapping_add(1)).assert_here();
    }
}
