//! The exchanges of the benchmarks, as these peers answer them: bodies, and the one argument.

use std::sync::OnceLock;

use bytes::Bytes;
use serde::Serialize;

/// The answer to `GET /`.
pub const HELLO: &str = "Hello world!";

/// What `GET /json` encodes for every answer.
#[derive(Serialize)]
pub struct Message {
    message: &'static str,
}

/// The object of `GET /json`.
pub const MESSAGE: Message = Message { message: HELLO };

/// The answer to `GET /big`: a mebibyte that was made once.
pub fn big() -> Bytes {
    static BIG: OnceLock<Bytes> = OnceLock::new();
    BIG.get_or_init(|| Bytes::from(b"0123456789abcdef".repeat(65_536)))
        .clone()
}

/// The port after `--port`; the error is a sentence for people.
///
/// # Errors
/// When the command line is anything else.
pub fn port() -> Result<u16, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [name, port] if name == "--port" => port.parse().map_err(|_| format!("no port: {port}")),
        _ => Err(String::from("usage: --port N")),
    }
}
