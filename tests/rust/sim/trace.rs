//! What a replayed seed says while it runs.
//!
//! Owns one switch; refuses to cost anything while it is off.

use std::io::Write;

/// Writes a line per happening when a single seed is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    On,
    Off,
}

impl Trace {
    pub fn say(self, now_ms: u64, line: impl FnOnce() -> String) {
        if self == Self::On {
            // A closed stderr is no reason to fail.
            let _ = writeln!(std::io::stderr(), "{now_ms:>8} ms  {}", line());
        }
    }
}
