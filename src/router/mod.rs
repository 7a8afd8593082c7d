//! Paths to routes: patterns are compiled once, then every request is looked up here.
//!
//! Owns the pattern language and the order of decision. Input: a method and a percent-decoded path,
//! as bytes. Output: the number of the first registered route that matches, and where its
//! placeholders are. Refuses to know requests, handlers, percent encoding and Python; it keeps
//! nothing from a lookup.

#![forbid(unsafe_code)]

mod index;
mod params;
mod pattern;
mod placeholder;
mod table;

pub use params::Params;
pub use pattern::{Pattern, PatternError, PatternFault, Placeholder};
pub use placeholder::PlaceholderKind;
pub use table::RouteTable;
