//! may_minihttp with one worker: the answers of the benchmarks that it can give.
//!
//! Set up as in its example `techempower_no_db`: a pool of coroutines with small stacks. It
//! writes an answer that does not fit the socket's buffer only when the next request comes, and
//! reads no chunked body, so `/big` and `/length` are not served.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;

use anel_rust_peers::{HELLO, MESSAGE, port};
use may_minihttp::{HttpServer, HttpService, Request, Response};

#[derive(Clone)]
struct Answers;

impl HttpService for Answers {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        match request.path() {
            "/" => text(response).body(HELLO),
            "/json" => {
                let body = serde_json::to_vec(&MESSAGE)?;
                response
                    .header("Content-Type: application/json")
                    .body_vec(body);
            }
            path => match path.strip_prefix("/users/") {
                Some(id) => text(response).body_vec(id.as_bytes().to_vec()),
                None => {
                    response.status_code(404, "Not Found");
                }
            },
        }
        Ok(())
    }
}

fn text<'a, 'b>(response: &'a mut Response<'b>) -> &'a mut Response<'b> {
    response.header("Content-Type: text/plain; charset=utf-8")
}

fn main() -> Result<(), Box<dyn Error>> {
    may::config()
        .set_workers(1)
        .set_pool_capacity(500)
        .set_stack_size(0x1000);
    let server = HttpServer(Answers).start((Ipv4Addr::LOCALHOST, port()?))?;
    server
        .join()
        .map_err(|_| "the server's coroutine panicked".into())
}
