//! hyper on a current-thread tokio: the answers of the benchmarks.
//!
//! `pipeline_flush` is what hyper's documentation offers for pipelined requests ("Aggregates
//! flushes to better support pipelined responses", docs.rs/hyper,
//! `server::conn::http1::Builder`). The Builder's date is its own; there is no log.

use std::convert::Infallible;
use std::error::Error;
use std::net::Ipv4Addr;

use anel_rust_peers::{HELLO, MESSAGE, big, port};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

type Answer = Response<Full<Bytes>>;

async fn answer(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path();
    Ok(match (request.method(), path) {
        (&Method::GET, "/") => text(Bytes::from_static(HELLO.as_bytes())),
        (&Method::GET, "/json") => match serde_json::to_vec(&MESSAGE) {
            Ok(body) => whole(body.into(), "application/json"),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
        },
        (&Method::GET, "/big") => text(big()),
        (&Method::POST, "/length" | "/upload") => length(request).await,
        (&Method::GET, _) => match path.strip_prefix("/users/") {
            Some(id) => text(Bytes::from(id.to_owned())),
            None => plain(StatusCode::NOT_FOUND),
        },
        _ => plain(StatusCode::NOT_FOUND),
    })
}

/// Counts a body without keeping it.
async fn length(request: Request<Incoming>) -> Answer {
    let mut body = request.into_body();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => total += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return plain(StatusCode::BAD_REQUEST),
        }
    }
    text(Bytes::from(total.to_string()))
}

fn text(body: Bytes) -> Answer {
    whole(body, "text/plain; charset=utf-8")
}

fn whole(body: Bytes, content_type: &'static str) -> Answer {
    let mut response = Response::new(Full::new(body));
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}

fn plain(status: StatusCode) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = (Ipv4Addr::LOCALHOST, port()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let connection = http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            // A connection that breaks concerns nobody else.
            tokio::spawn(async move { connection.await.ok() });
        }
    })
}
