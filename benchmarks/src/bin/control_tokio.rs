//! The control on tokio: the same core and handler, readiness from tokio's current-thread runtime.
//!
//! Reads go straight into the worker's receive buffers. `control_tokio --port N`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::Poll;

use anel::reactor::{Group, Lease, SendBuffer};
use anel_benchmarks::hello::{self, Arguments};
use anel_benchmarks::outside::{self, Runtime};
use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::LocalSet;

struct Tokio;

impl Runtime for Tokio {
    type Listener = TcpListener;
    type Reader = OwnedReadHalf;
    type Writer = OwnedWriteHalf;

    fn spawn(task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }

    async fn accept(listener: &TcpListener) -> io::Result<(RawFd, OwnedReadHalf, OwnedWriteHalf)> {
        let (stream, _) = listener.accept().await?;
        let socket = stream.as_raw_fd();
        let (reader, writer) = stream.into_split();
        Ok((socket, reader, writer))
    }

    /// `poll_read` and not `try_read`: it knows that a read which does not fill its buffer has
    /// emptied the socket, and spares the call that would say so.
    async fn read(reader: &mut OwnedReadHalf, group: &Group) -> io::Result<Lease> {
        poll_fn(|context| {
            let filled = group.fill(|bytes| {
                let mut bytes = ReadBuf::new(bytes);
                match Pin::new(&mut *reader).poll_read(context, &mut bytes) {
                    Poll::Ready(result) => Ok((result, bytes.filled().len())),
                    Poll::Pending => Err(()),
                }
            });
            match filled {
                None => Poll::Ready(Err(io::Error::other("every receive buffer is lent"))),
                Some(Err(())) => Poll::Pending,
                Some(Ok((result, lease))) => Poll::Ready(result.map(|()| lease)),
            }
        })
        .await
    }

    async fn write(writer: &OwnedWriteHalf, buffer: SendBuffer) -> (io::Result<usize>, SendBuffer) {
        loop {
            match writer.try_write(buffer.remaining()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = writer.writable().await {
                        return (Err(error), buffer);
                    }
                }
                result => return (result, buffer),
            }
        }
    }

    fn shut_down(writer: &OwnedWriteHalf, how: Shutdown) {
        // Fails where the connection is gone already, which its read or write reports.
        let _ = SockRef::from(writer.as_ref()).shutdown(how);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::of_process()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = std::net::TcpListener::from(hello::listen(arguments.port)?);
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(listener)?;
        outside::serve::<Tokio>("tokio", &arguments.config, listener).await
    })?;
    Ok(())
}
