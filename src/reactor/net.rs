//! Sockets outside the turn: listeners, names of their ends, and direct calls on borrowed
//! descriptors.
//!
//! Owns how a listener is set up. Refuses to know who serves it. Descriptors that come in as
//! numbers are borrowed for one call; the seam promises that they are open for its length
//! (invariant K2).

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::seam::Half;

/// Opens a listening TCP socket. With `reuse_port` several may share the address, one per worker
/// slot, and the kernel spreads connections over them.
///
/// # Errors
/// As `socket`, `bind` and `listen` say.
pub fn listen(address: &SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<OwnedFd> {
    let domain = Domain::for_address(*address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the TIME_WAIT of the connections it leaves behind.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // One meaning on every machine, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit both, which saves two calls per connection (6.18, measured).
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(*address))?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Address of the peer; `None` for a Unix socket, whose clients have none.
///
/// # Errors
/// ENOTCONN when the peer is gone already; EINVAL for a socket of any other family.
pub fn peer_name(socket: RawFd) -> io::Result<Option<SocketAddr>> {
    let address = SockRef::from(&borrow(socket)).peer_addr()?;
    if address.is_unix() {
        return Ok(None);
    }
    internet(address).map(Some)
}

/// Our own address.
///
/// # Errors
/// EINVAL for a socket that is not of the internet.
pub fn local_name(socket: RawFd) -> io::Result<SocketAddr> {
    internet(SockRef::from(&borrow(socket)).local_addr()?)
}

/// Another descriptor of the same socket, closed on exec.
///
/// # Errors
/// EMFILE or ENFILE when there are no descriptors left.
pub fn duplicate(socket: RawFd) -> io::Result<OwnedFd> {
    borrow(socket).try_clone_to_owned()
}

/// Whether this is a socket at all, whatever its state.
pub(super) fn is_socket(fd: RawFd) -> bool {
    SockRef::from(&borrow(fd)).r#type().is_ok()
}

/// shutdown(2), at once. IORING_OP_SHUTDOWN would spawn a kernel worker thread (6.18, measured).
/// A failure means that the connection is gone already, which its other ops report. Returns how
/// many system calls it took.
pub(super) fn shut_down(socket: RawFd, half: Half) -> u64 {
    let socket = borrow(socket);
    let socket = SockRef::from(&socket);
    let how = match half {
        Half::Write => Shutdown::Write,
        Half::Both => Shutdown::Both,
        Half::Reset => {
            // What makes the close a reset.
            let _ = socket.set_linger(Some(Duration::ZERO));
            Shutdown::Read
        }
    };
    let _ = socket.shutdown(how);
    if half == Half::Reset { 2 } else { 1 }
}

/// close(2). Its result says nothing that could be acted upon.
pub(super) fn close(socket: RawFd) {
    // SAFETY: by the seam's contract nothing refers to this descriptor any more, so we are its only
    // owner (invariant K2).
    drop(unsafe { OwnedFd::from_raw_fd(socket) });
}

fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: every caller uses the borrow for one call, during which the seam's contract keeps the
    // descriptor open (invariant K2).
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn internet(address: SockAddr) -> io::Result<SocketAddr> {
    address
        .as_socket()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}
