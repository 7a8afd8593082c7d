//! The client's ring: connect, multishot receive into provided buffers, send; one enter per turn.
//!
//! Owns the io_uring instance and all memory the kernel may touch. That memory is leaked on
//! purpose: this program opens one ring and ends with it, so nothing can be freed too early.
//! Refuses to know HTTP and what a connection is. The unsafe of the load generator is here and in
//! `usage.rs`. Invariants:
//!
//!  * C1: buffers, buffer ring, request bytes and destination address are 'static and never move.
//!  * C2: a buffer belongs to the kernel from `recycle` to the completion that names it; only
//!    between that completion and its `recycle` is it read.
//!  * C3: entry `i` of the buffer ring is written only while the published tail has not reached it.

#![allow(unsafe_code, reason = "the ring shares memory with the kernel")]

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use socket2::SockAddr;

/// What the ring has to be ready for.
pub struct Plan {
    /// Connections that may have an op in flight.
    pub connections: usize,
    /// What every send sends a part of.
    pub block: Vec<u8>,
    /// Where every connect connects to.
    pub address: SocketAddr,
    /// Size of a receive buffer.
    pub buffer_bytes: usize,
}

/// One result.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// What was given with the op.
    pub token: u64,
    /// Bytes or nothing, or a negative errno.
    pub result: i32,
    /// Whether the op lives on.
    pub more: bool,
    buffer: Option<u16>,
}

/// The ring and the memory of its ops.
pub struct Ring {
    ring: IoUring,
    block: &'static [u8],
    address: &'static SockAddr,
    buffers: Buffers,
}

struct Buffers {
    /// First byte of the buffers; `count * size` of them.
    bytes: *mut u8,
    /// Of one buffer.
    size: usize,
    /// First entry of the ring that hands them to the kernel.
    entries: *mut BufRingEntry,
    /// A power of two.
    count: u16,
    /// Where the next entry goes; published by `publish`.
    tail: u16,
}

/// The kernel wants the buffer ring on a page boundary.
#[repr(align(4096))]
#[derive(Clone)]
struct Page {
    _bytes: [u8; PAGE_BYTES],
}

const PAGE_BYTES: usize = 4096;

/// The only group.
const GROUP: u16 = 0;

/// Enough for one send each of thousands of connections per turn; when full, it is submitted early.
const SUBMISSIONS: u32 = 4096;

impl Ring {
    /// Opens the ring and hands all buffers to the kernel. Needs kernel 6.1.
    pub fn open(plan: Plan) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(4 * SUBMISSIONS)
            .build(SUBMISSIONS)?;
        // One buffer per connection, so that a turn in which all of them answer does not starve.
        let count = plan.connections.next_power_of_two().clamp(64, 32_768);
        let count = u16::try_from(count).map_err(|_| ErrorKind::InvalidInput)?;
        let buffers = Buffers::leak(&ring, count, plan.buffer_bytes)?;
        let block = plan.block.leak();
        let address = Box::leak(Box::new(SockAddr::from(plan.address)));
        Ok(Self {
            ring,
            block,
            address,
            buffers,
        })
    }

    /// Connects `socket` to the address of the plan.
    pub fn connect(&mut self, token: u64, socket: RawFd) -> io::Result<()> {
        let entry =
            opcode::Connect::new(Fd(socket), self.address.as_ptr().cast(), self.address.len());
        self.push(&entry.build().user_data(token))
    }

    /// Receives until the peer ends or the buffers run out.
    pub fn receive(&mut self, token: u64, socket: RawFd) -> io::Result<()> {
        self.push(
            &opcode::RecvMulti::new(Fd(socket), GROUP)
                .build()
                .user_data(token),
        )
    }

    /// Sends the bytes of the plan's block from `from` to `to`.
    pub fn send(&mut self, token: u64, socket: RawFd, from: usize, to: usize) -> io::Result<()> {
        let part = &self.block[from..to];
        let length = u32::try_from(part.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let entry = opcode::Send::new(Fd(socket), part.as_ptr(), length).flags(libc::MSG_NOSIGNAL);
        self.push(&entry.build().user_data(token))
    }

    /// Submits everything, waits for a completion or until `longest`, and appends what there is to
    /// `out`.
    pub fn turn(&mut self, longest: Duration, out: &mut Vec<Completion>) -> io::Result<()> {
        self.buffers.publish();
        let timeout = Timespec::from(longest);
        let arguments = SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => {}
            // Nothing came in time; or completions must be taken first.
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        out.extend(self.ring.completion().map(|entry| Completion {
            token: entry.user_data(),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()),
        }));
        Ok(())
    }

    /// The bytes that a receive has brought.
    pub fn bytes(&self, completion: &Completion) -> &[u8] {
        match (completion.buffer, usize::try_from(completion.result)) {
            (Some(id), Ok(length)) => self.buffers.read(id, length),
            _ => &[],
        }
    }

    /// Gives the completion's buffer, if it has one, back to the kernel. To be called once.
    pub fn recycle(&mut self, completion: Completion) {
        if let Some(id) = completion.buffer {
            self.buffers.hand_over(id);
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // Twice: a full queue is submitted once, and is empty after that.
        for _ in 0..2 {
            let mut queue = self.ring.submission();
            // SAFETY: C1: the entry names 'static memory, or the buffer group, which is 'static
            // too.
            if unsafe { queue.push(entry) }.is_ok() {
                return Ok(());
            }
            drop(queue);
            self.ring.submit()?;
        }
        Err(ErrorKind::ResourceBusy.into())
    }
}

impl Buffers {
    fn leak(ring: &IoUring, count: u16, size: usize) -> io::Result<Self> {
        let pages = |bytes: usize| {
            vec![
                Page {
                    _bytes: [0; PAGE_BYTES]
                };
                bytes.div_ceil(PAGE_BYTES)
            ]
            .leak()
        };
        let bytes = pages(usize::from(count) * size).as_mut_ptr().cast::<u8>();
        let entries = pages(usize::from(count) * size_of::<BufRingEntry>());
        let entries = entries.as_mut_ptr().cast::<BufRingEntry>();
        let submitter = ring.submitter();
        // SAFETY: C1: `count` entries from a page boundary, never freed.
        unsafe { submitter.register_buf_ring_with_flags(entries.addr() as u64, count, GROUP, 0)? };
        let mut buffers = Self {
            bytes,
            size,
            entries,
            count,
            tail: 0,
        };
        for id in 0..count {
            buffers.hand_over(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    fn hand_over(&mut self, id: u16) {
        let at = usize::from(self.tail & (self.count - 1));
        let address = self.bytes.wrapping_add(usize::from(id) * self.size);
        let entry = self.entries.wrapping_add(at);
        // SAFETY: C3: `at < count`, and there are as many entries as buffers, so the kernel has
        // consumed this one.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address.addr() as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: C1: `entries` is the first entry of the registered ring, and initialised
        // (zeroes).
        let tail = unsafe { BufRingEntry::tail(self.entries) };
        // SAFETY: C1: the tail is an aligned u16 inside that ring; the kernel only loads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn read(&self, id: u16, length: usize) -> &[u8] {
        assert!(id < self.count && length <= self.size);
        let start = self.bytes.wrapping_add(usize::from(id) * self.size);
        // SAFETY: C2: the completion gave us this buffer, and `recycle` needs `&mut`, so it comes
        // later.
        unsafe { std::slice::from_raw_parts(start, length) }
    }
}

/// ETIME: the wait timed out. EINTR: a signal. EBUSY and EAGAIN: the completion queue is full.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
    error
        .raw_os_error()
        .is_some_and(|errno| passing.contains(&errno))
}
