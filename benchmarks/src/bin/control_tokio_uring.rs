//! The control on tokio-uring: the same core and handler, a ring that tokio drives through epoll.
//!
//! tokio-uring reads into buffers that it owns meanwhile, so the bytes are copied once more into
//! the worker's. `control_tokio_uring --port N`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use anel::reactor::{Group, Lease, SendBuffer};
use anel_benchmarks::hello::{self, Arguments};
use anel_benchmarks::outside::{self, Runtime};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

struct TokioUring;

/// The stream, and the buffer that its reads lend to the kernel.
struct Reader {
    stream: Rc<TcpStream>,
    buffer: Vec<u8>,
}

/// The size of the worker's receive buffers, so that what was read always fits.
const READ_BYTES: usize = 8192;

impl Runtime for TokioUring {
    type Listener = TcpListener;
    type Reader = Reader;
    type Writer = Rc<TcpStream>;

    fn spawn(task: impl Future<Output = ()> + 'static) {
        tokio_uring::spawn(task);
    }

    async fn accept(listener: &TcpListener) -> io::Result<(RawFd, Reader, Rc<TcpStream>)> {
        let (stream, _) = listener.accept().await?;
        let (socket, stream) = (stream.as_raw_fd(), Rc::new(stream));
        let reader = Reader {
            stream: Rc::clone(&stream),
            buffer: vec![0; READ_BYTES],
        };
        Ok((socket, reader, stream))
    }

    async fn read(reader: &mut Reader, group: &Group) -> io::Result<Lease> {
        let buffer = std::mem::take(&mut reader.buffer);
        let (result, buffer) = reader.stream.read(buffer).await;
        reader.buffer = buffer;
        let lease = group.lend(&reader.buffer[..result?]);
        lease.ok_or_else(|| io::Error::other("every receive buffer is lent"))
    }

    async fn write(stream: &Rc<TcpStream>, buffer: SendBuffer) -> (io::Result<usize>, SendBuffer) {
        let sent = buffer.sent;
        let (result, slice) = stream.write(buffer.bytes.slice(sent..)).submit().await;
        let bytes = slice.into_inner();
        (result, SendBuffer { bytes, sent })
    }

    fn shut_down(stream: &Rc<TcpStream>, how: Shutdown) {
        // Fails where the connection is gone already, which its read or write reports.
        let _ = stream.shutdown(how);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::of_process()?;
    if arguments.config.buffer_bytes as usize != READ_BYTES {
        return Err(format!("buffer_bytes is {READ_BYTES} here").into());
    }
    let listener = std::net::TcpListener::from(hello::listen(arguments.port)?);
    // The ring waits by itself; a socket that does not block would end its accept with EAGAIN.
    listener.set_nonblocking(false)?;
    tokio_uring::builder()
        .entries(4096)
        .uring_builder(tokio_uring::uring_builder().setup_cqsize(16_384))
        .start(async {
            let listener = TcpListener::from_std(listener);
            outside::serve::<TokioUring>("tokio-uring", &arguments.config, listener).await
        })?;
    Ok(())
}
