//! A request's body beyond the call of its handler, without a copy where that can be.
//!
//! Owns what keeps the bytes alive: a share of the receive buffer, or of the vector they were
//! gathered in. Refuses to know who looks at them and for how long; how many receive buffers may be
//! held is decided by whoever holds them.

use std::ops::{Deref, Range};
use std::rc::Rc;

use super::handler::{Body, Request};
use crate::reactor::Lease;

/// Where the bytes of a whole body are.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// In the receive buffer, or in bytes that were carried over from earlier ones.
    Received(Option<&'a Lease>),
    /// In a vector of their own: they came in several pieces.
    Gathered(&'a Rc<Vec<u8>>),
}

/// A body that outlives its call. It stays on its thread, as the buffer does.
#[derive(Debug)]
pub struct HeldBody {
    owner: Owner,
    range: Range<usize>,
}

#[derive(Debug)]
enum Owner {
    Buffer(Lease),
    Vector(Rc<Vec<u8>>),
}

impl HeldBody {
    /// Whether this keeps a receive buffer from being used again.
    #[must_use]
    pub fn holds_buffer(&self) -> bool {
        matches!(self.owner, Owner::Buffer(_))
    }

    /// The bytes in a vector of their own.
    #[must_use]
    pub fn copied(bytes: &[u8]) -> Self {
        Self {
            range: 0..bytes.len(),
            owner: Owner::Vector(Rc::new(bytes.to_vec())),
        }
    }
}

impl Clone for HeldBody {
    fn clone(&self) -> Self {
        let owner = match &self.owner {
            Owner::Buffer(lease) => Owner::Buffer(lease.share()),
            Owner::Vector(vector) => Owner::Vector(Rc::clone(vector)),
        };
        Self {
            owner,
            range: self.range.clone(),
        }
    }
}

impl Deref for HeldBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.owner {
            Owner::Buffer(lease) => &lease[self.range.clone()],
            Owner::Vector(vector) => &vector[self.range.clone()],
        }
    }
}

impl Request<'_> {
    /// The whole body, kept alive; `None` when there is none or it is still arriving. Bytes that
    /// were carried over are copied: they are less than a receive buffer.
    #[must_use]
    pub fn hold_body(&self) -> Option<HeldBody> {
        let Body::Whole(body) = self.body else {
            return None;
        };
        Some(match self.source {
            Source::Gathered(vector) => HeldBody {
                owner: Owner::Vector(Rc::clone(vector)),
                range: 0..vector.len(),
            },
            Source::Received(lease) => lease
                .and_then(|lease| within(lease, body).map(|range| (lease, range)))
                .map_or_else(
                    || HeldBody::copied(body),
                    |(lease, range)| HeldBody {
                        owner: Owner::Buffer(lease.share()),
                        range,
                    },
                ),
        })
    }

    /// The same, but never a share of the receive buffer.
    #[must_use]
    pub fn keep_body(&self) -> Option<HeldBody> {
        match (self.body, self.source) {
            (Body::Whole(body), Source::Received(_)) => Some(HeldBody::copied(body)),
            _ => self.hold_body(),
        }
    }
}

/// Where `part` is in the lease, if it is there.
fn within(lease: &Lease, part: &[u8]) -> Option<Range<usize>> {
    let whole = lease.as_ptr_range();
    let range = part.as_ptr_range();
    let inside = whole.start <= range.start && range.end <= whole.end;
    inside.then(|| {
        let begin = range.start.addr() - whole.start.addr();
        begin..begin + part.len()
    })
}
