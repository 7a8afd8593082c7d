//! The ring of receive buffers that is shared with the kernel.
//!
//! Owns its memory and its tail. Refuses to know what is in the buffers, and who has those that are
//! not offered: that is `Group`. An entry is written while the kernel cannot see it, and becomes
//! visible when `publish` moves the tail (invariant B2).

use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::reactor::buffers::Group;
use crate::reactor::errors::Errno;

/// The one buffer group of a ring.
pub(super) const GROUP_ID: u16 = 0;

/// The kernel wants page alignment; 4 KiB entries of 16 bytes hold 256 buffers.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Kernel-shared ring of free buffers.
pub(super) struct Provided {
    pages: Vec<Page>,
    group: Group,
    mask: u16,
    tail: u16,
    /// Who is where; only for bundles, in which the kernel names the first buffer alone.
    order: Option<Order>,
}

/// The order in which buffers were offered. The kernel fills them in this one.
struct Order {
    /// The buffer at each place of the ring.
    ids: Vec<u16>,
    /// The last place of each buffer.
    places: Vec<u16>,
}

impl Provided {
    /// Registers a ring for all buffers of the group; with `bundles`, for receives that fill
    /// several of them. The caller must keep the value until the ring
    /// `io` is closed, or `retire` has returned `Ok`.
    pub(super) fn register(io: &IoUring, group: &Group, bundles: bool) -> Result<Self, Errno> {
        let count = group.count();
        assert!(
            count.is_power_of_two(),
            "invariant: the configuration was validated"
        );
        let bytes = count * size_of::<BufRingEntry>();
        let mut pages: Vec<Page> = (0..bytes.div_ceil(size_of::<Page>()))
            .map(|_| Page([0; 4096]))
            .collect();
        let address = pages.as_mut_ptr() as u64;
        // SAFETY: the address is page-aligned and has room for `count` entries; the pages are owned
        // by the value returned, which the ring's owner drops after the ring (invariants B2, R3).
        let registered = unsafe {
            io.submitter()
                .register_buf_ring_with_flags(address, count as u16, GROUP_ID, 0)
        };
        registered.map_err(|error| Errno::of(&error))?;
        let mut provided = Self {
            pages,
            group: group.clone(),
            mask: (count - 1) as u16,
            tail: 0,
            order: bundles.then(|| Order {
                ids: vec![0; count],
                places: vec![0; count],
            }),
        };
        provided.publish();
        Ok(provided)
    }

    /// Offers every buffer that came home since the last call, with one move of the tail.
    #[inline]
    pub(super) fn publish(&mut self) {
        let base = self.pages.as_mut_ptr().cast::<BufRingEntry>();
        let (mask, mut tail, order) = (self.mask, self.tail, &mut self.order);
        let offered = self.group.offer_home(|id, bytes| {
            let place = base.wrapping_add(usize::from(tail & mask));
            // SAFETY: the masked index is in bounds of the pages, zeroed memory is a valid entry,
            // and the kernel reads no entry behind the tail (invariant B2).
            let entry = unsafe { &mut *place };
            // Entry 0's `resv` is the tail: the three fields are written one by one.
            entry.set_addr(bytes.as_mut_ptr() as u64);
            entry.set_len(bytes.len() as u32);
            entry.set_bid(id);
            if let Some(order) = order {
                order.ids[usize::from(tail & mask)] = id;
                order.places[usize::from(id)] = tail & mask;
            }
            tail = tail.wrapping_add(1);
        });
        if offered == 0 {
            return;
        }
        self.tail = tail;
        // SAFETY: `base` is the first entry of the registered ring, and initialised (invariant B2).
        let shared_tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: the tail is aligned, lives as long as `pages` and is only touched atomically
        // (invariant B2).
        let shared_tail = unsafe { AtomicU16::from_ptr(shared_tail.cast_mut()) };
        shared_tail.store(tail, Ordering::Release);
    }

    /// This buffer and those that were offered behind it, without end. A place is offered again
    /// only after its buffer came home, so what the kernel filled and did not report yet is still
    /// there.
    ///
    /// # Panics
    /// Without bundles.
    pub(super) fn offered_from(&self, id: u16) -> impl Iterator<Item = u16> {
        let order = self.order.as_ref().expect("invariant: bundles are on");
        let first = usize::from(order.places[usize::from(id)]);
        let (before, behind) = order.ids.split_at(first);
        behind.iter().chain(before).copied().cycle()
    }

    /// Takes the buffers back from the kernel.
    pub(super) fn retire(&self, io: &IoUring) -> Result<(), Errno> {
        io.submitter()
            .unregister_buf_ring(GROUP_ID)
            .map_err(|error| Errno::of(&error))
    }
}
