//! The reactor on io_uring.
//!
//! Owns one ring: its set-up (`ladder`), the buffers it shares with the kernel (`provided`), how
//! ops become entries (`entries`) and entries completions (`ledger`), the turn (`ring`), the news
//! for another loop (`bell`), what the kernel is to refuse (`restrictions`), what experiments need
//! (`experiments`, `files`, `lent`) and the end (`teardown`). Refuses to know who asks. Only this
//! folder names the io-uring crate.

mod bell;
mod descriptors;
mod entries;
mod experiments;
mod files;
mod ladder;
mod ledger;
mod lent;
mod provided;
mod restrictions;
mod ring;
mod teardown;

pub use ladder::{Features, Rung};
pub use restrictions::Restrictions;
pub use ring::Ring;
