//! The readiness-style comparison: tokio-uring drives its ring through epoll; httparse; one thread.
//!
//! Answers the bytes that every hello in this directory answers. Written the way its documentation
//! suggests, with one read and one write per batch, so that the comparison is with the runtime, not
//! with careless code. `tokio_uring_hello --port N`.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tokio_uring::net::{TcpListener, TcpStream};

/// Holds a batch of 24 small requests several times over.
const READ_BYTES: usize = 16 * 1024;

/// A peer whose unfinished head is longer than this is dropped.
const HEAD_BYTES_MAX: usize = 32 * 1024;

const FIELDS_MAX: usize = 32;

const BODY: &str = "Hello world!";

/// The response with its date, made anew when a second has passed.
struct Hello {
    bytes: Vec<u8>,
    fresh_until: Instant,
}

fn main() -> io::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port()?));
    tokio_uring::builder()
        .entries(4096)
        .uring_builder(tokio_uring::uring_builder().setup_cqsize(16_384))
        .start(async move {
            let listener = TcpListener::bind(address)?;
            let hello = Rc::new(RefCell::new(Hello::new(Instant::now())));
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio_uring::spawn(serve(stream, Rc::clone(&hello)));
            }
        })
}

fn port() -> io::Result<u16> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [name, port] if name == "--port" => port.parse().map_err(io::Error::other),
        _ => Err(io::Error::other("usage: tokio_uring_hello --port N")),
    }
}

async fn serve(stream: TcpStream, hello: Rc<RefCell<Hello>>) {
    // A connection's error ends that connection and nothing else.
    let _ = converse(&stream, &hello).await;
}

async fn converse(stream: &TcpStream, hello: &RefCell<Hello>) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut carry = Vec::new();
    let mut out = Vec::new();
    loop {
        let (result, returned) = stream.read(buffer).await;
        buffer = returned;
        let count = result?;
        if count == 0 {
            return Ok(());
        }
        let requests = if carry.is_empty() {
            let (requests, used) = count_requests(&buffer[..count])?;
            carry.extend_from_slice(&buffer[used..count]);
            requests
        } else {
            carry.extend_from_slice(&buffer[..count]);
            let (requests, used) = count_requests(&carry)?;
            carry.drain(..used);
            requests
        };
        if carry.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("head too large"));
        }
        if requests > 0 {
            hello.borrow_mut().append(requests, &mut out);
            let (result, returned) = stream.write_all(out).await;
            result?;
            out = returned;
            out.clear();
        }
    }
}

/// Complete request heads at the beginning of `bytes`, and where they end. Bodies are not expected.
fn count_requests(bytes: &[u8]) -> io::Result<(usize, usize)> {
    let (mut requests, mut used) = (0, 0);
    while used < bytes.len() {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Request::new(&mut fields);
        match head.parse(&bytes[used..]).map_err(io::Error::other)? {
            httparse::Status::Complete(count) => {
                used += count;
                requests += 1;
            }
            httparse::Status::Partial => break,
        }
    }
    Ok((requests, used))
}

impl Hello {
    fn new(now: Instant) -> Self {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let bytes = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Date: {date}\r\n\r\n{BODY}",
            BODY.len()
        );
        Self {
            bytes: bytes.into_bytes(),
            fresh_until: now + Duration::from_secs(1),
        }
    }

    fn append(&mut self, count: usize, out: &mut Vec<u8>) {
        let now = Instant::now();
        if now >= self.fresh_until {
            *self = Self::new(now);
        }
        for _ in 0..count {
            out.extend_from_slice(&self.bytes);
        }
    }
}
