//! Receive buffers: a group of equal ones, and leases on single ones.
//!
//! Owns the memory and who has it: the group (free, or offered to the kernel) or exactly one
//! lease with its shares. Refuses to know the kernel's ring of them (`uring/provided.rs`). A lease
//! takes the buffer out of the group and the drop of its last share puts it back, so the kernel
//! and a lease never own one buffer together and no line here is unsafe. The buffers' heap blocks
//! never move, and a lease keeps the group's memory alive when the reactor is gone (invariant B1).

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

/// Buffers of one size, shared by all connections of a worker. Cloning shares the group.
#[derive(Clone)]
pub struct Group {
    pool: Rc<RefCell<Pool>>,
    buffer_bytes: u32,
}

struct Pool {
    /// A buffer's memory, at the index of its id; `None` while a lease has it.
    slots: Vec<Option<Memory>>,
    /// Ids of buffers that came home and were not given out since.
    home: Vec<u16>,
    lent: usize,
}

/// One buffer. Counted, so that a lease can be shared without an allocation.
type Memory = Rc<Box<[u8]>>;

impl Group {
    /// Allocates `count` buffers of `buffer_bytes` each, all of them free.
    #[must_use]
    pub fn heap(count: u16, buffer_bytes: u32) -> Self {
        let slots = (0..count)
            .map(|_| Some(Rc::new(vec![0; buffer_bytes as usize].into_boxed_slice())))
            .collect();
        // Ids leave from the end; reversed, buffer 0 leaves first.
        let home = (0..count).rev().collect();
        Self {
            pool: Rc::new(RefCell::new(Pool {
                slots,
                home,
                lent: 0,
            })),
            buffer_bytes,
        }
    }

    /// A free buffer with `bytes` in it; `None` when none is free.
    ///
    /// # Panics
    /// When `bytes` is longer than a buffer.
    #[must_use]
    pub fn lend(&self, bytes: &[u8]) -> Option<Lease> {
        let mut lease = self.take()?;
        lease.memory_mut()[..bytes.len()].copy_from_slice(bytes);
        lease.len = bytes.len() as u32;
        Some(lease)
    }

    /// A free buffer that `fill` wrote into, and what else it has to say; `None` when none is free.
    /// Its second result is how many bytes count. For reactors outside of this crate.
    ///
    /// # Errors
    /// Those of `fill`; the buffer is free again then.
    pub fn fill<T, E>(
        &self,
        fill: impl FnOnce(&mut [u8]) -> Result<(T, usize), E>,
    ) -> Option<Result<(T, Lease), E>> {
        let mut lease = self.take()?;
        let mut said = None;
        let filled = lease.fill(|buffer| {
            let (word, filled) = fill(buffer)?;
            said = Some(word);
            Ok(filled)
        });
        Some(filled.map(|_| (said.expect("invariant: it was filled"), lease)))
    }

    /// A free buffer without content; `None` when none is free.
    pub(super) fn take(&self) -> Option<Lease> {
        let id = self.pool.borrow_mut().home.pop()?;
        Some(self.lease(id, 0))
    }

    /// The buffer that the kernel filled.
    ///
    /// # Panics
    /// When a lease has that buffer already: two owners of one memory would be worse.
    pub(super) fn lease(&self, id: u16, len: u32) -> Lease {
        let mut pool = self.pool.borrow_mut();
        let memory = pool.slots[usize::from(id)].take();
        assert!(
            memory.is_some() && len <= self.buffer_bytes,
            "invariant: buffer {id} is ours"
        );
        pool.lent += 1;
        Lease {
            memory,
            len,
            id,
            pool: Rc::clone(&self.pool),
        }
    }

    /// Takes every buffer that came home and shows its id and memory, for offering it to the
    /// kernel. Returns how many there were.
    pub(super) fn offer_home(&self, mut offer: impl FnMut(u16, &mut [u8])) -> usize {
        let pool = &mut *self.pool.borrow_mut();
        let offered = pool.home.len();
        for id in pool.home.drain(..) {
            let memory = pool.slots[usize::from(id)].as_mut().and_then(Rc::get_mut);
            offer(
                id,
                memory.expect("invariant: a buffer at home has one owner"),
            );
        }
        offered
    }

    /// Buffers that no lease has.
    #[must_use]
    pub fn free(&self) -> usize {
        let pool = self.pool.borrow();
        pool.slots.len() - pool.lent
    }

    /// Size of one buffer.
    pub(super) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Buffers altogether.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pool.borrow().slots.len()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Group({} of {} free, {} bytes)",
            self.free(),
            self.count(),
            self.buffer_bytes
        )
    }
}

/// A buffer with received bytes, ours until it and its shares are dropped. It stays on its thread.
pub struct Lease {
    /// `None` only while it is being dropped.
    memory: Option<Memory>,
    len: u32,
    id: u16,
    pool: Rc<RefCell<Pool>>,
}

impl Lease {
    /// The same bytes for somebody else. The buffer goes home when both are dropped.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            memory: self.memory.clone(),
            len: self.len,
            id: self.id,
            pool: Rc::clone(&self.pool),
        }
    }

    /// Lets `fill` write into the whole buffer; what it returns is how much of it counts.
    pub(super) fn fill<E>(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let memory = self.memory_mut();
        let size = memory.len();
        let filled = fill(memory)?;
        assert!(filled <= size, "invariant: a fill stays in its buffer");
        self.len = filled as u32;
        Ok(filled)
    }

    /// Whether not a byte more would have fitted: then there may be more to receive.
    pub(super) fn is_full(&self) -> bool {
        self.len as usize == self.memory().len()
    }

    fn memory(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |memory| memory)
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        let memory = self.memory.as_mut().and_then(Rc::get_mut);
        memory.expect("invariant: a lease that is being filled is not shared")
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.memory()[..self.len as usize]
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take()
            && Rc::strong_count(&memory) == 1
        {
            let mut pool = self.pool.borrow_mut();
            pool.slots[usize::from(self.id)] = Some(memory);
            pool.home.push(self.id);
            pool.lent -= 1;
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_its_buffer_until_it_is_dropped() {
        let group = Group::heap(2, 64);

        let first = group.lend(b"first").unwrap();
        let second = group.lend(b"second").unwrap();

        assert_eq!((&*first, &*second), (&b"first"[..], &b"second"[..]));
        assert!(group.lend(b"third").is_none() && group.free() == 0);
        drop(first);
        assert_eq!(group.free(), 1);
        assert_eq!(&*group.lend(b"third").unwrap(), b"third");
        assert_eq!(&*second, b"second");
    }

    #[test]
    fn a_buffer_comes_home_with_the_last_share_of_its_lease() {
        let group = Group::heap(1, 64);
        let lease = group.lend(b"kept").unwrap();
        let share = lease.share();

        drop(lease);
        assert!(group.free() == 0 && &*share == b"kept");
        drop(share);

        assert_eq!(group.free(), 1);
    }

    #[test]
    #[should_panic(expected = "invariant: a lease that is being filled is not shared")]
    fn a_shared_lease_is_never_filled() {
        let group = Group::heap(1, 64);
        let mut lease = group.take().unwrap();
        let _share = lease.share();

        let _ = lease.fill(|_| Ok::<usize, ()>(0));
    }

    #[test]
    fn a_lease_outlives_its_group() {
        let group = Group::heap(1, 64);
        let lease = group.lend(b"kept").unwrap();

        drop(group);

        assert_eq!(&*lease, b"kept");
    }

    #[test]
    fn memory_comes_home_to_the_same_address() {
        let group = Group::heap(1, 64);
        let lease = group.lend(b"x").unwrap();
        let address = lease.as_ptr();

        drop(lease);

        let mut offered = Vec::new();
        assert_eq!(
            group.offer_home(|id, bytes| offered.push((id, bytes.as_ptr()))),
            1
        );
        assert_eq!(offered, [(0, address)]);
        assert!(
            group.take().is_none(),
            "what was offered to the kernel is not ours to take"
        );
    }

    #[test]
    #[should_panic(expected = "invariant: buffer 0 is ours")]
    fn one_buffer_is_never_leased_twice() {
        let group = Group::heap(1, 64);
        let _lease = group.take().unwrap();

        let _ = group.lease(0, 1);
    }
}
