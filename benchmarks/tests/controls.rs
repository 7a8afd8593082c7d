//! Every control server: the same answers, and an account of them at its end.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let port = free_port();
            let process = Command::new(program)
                .args(["--port", &port.to_string()])
                .args(arguments)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut server = Self { process, port };
            // Somebody else may take the port before the server does; it ends then.
            while server.process.try_wait().unwrap().is_none() {
                if is_listening(port) {
                    return server;
                }
                assert!(Instant::now() < deadline, "{program} does not listen");
                thread::yield_now();
            }
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Everything that comes back until the server closes.
    fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let mut writer = stream.try_clone().unwrap();
        let bytes = bytes.to_vec();
        let writing = thread::spawn(move || {
            writer.write_all(&bytes).unwrap();
            // Too late where the server has closed already, after a refusal.
            let _ = writer.shutdown(Shutdown::Write);
        });
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        writing.join().unwrap();
        text
    }

    /// Ends it, and returns what it printed.
    fn stop(mut self) -> String {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        let mut text = String::new();
        let mut output = self.process.stdout.take().unwrap();
        output.read_to_string(&mut text).unwrap();
        assert!(self.process.wait().unwrap().success());
        text
    }
}

fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    probe.local_addr().unwrap().port()
}

/// Asked of the kernel: a connect in vain may meet itself and take the port.
fn is_listening(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let address = format!("0100007F:{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&*address) && fields.nth(1) == Some(LISTEN)
    })
}

impl Drop for Server {
    /// A test that failed leaves no process behind.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn number(line: &str, field: &str) -> Option<u64> {
    let (_, rest) = line.split_once(&format!("\"{field}\": ")).unwrap();
    rest.split([',', '}']).next().unwrap().parse().ok()
}

fn serves_and_counts(program: &str, arguments: &[&str]) -> String {
    let server = Server::start(program, arguments);

    let once = server.talk(REQUEST.as_bytes());
    // More than fits on its way, so that reading and writing have to take turns.
    let many = server.talk(REQUEST.repeat(20_000).as_bytes());
    let nonsense = server.talk(b"NONSENSE\r\n\r\n");
    let line = server.stop();

    assert!(once.starts_with("HTTP/1.1 200 OK\r\n") && once.ends_with("\r\n\r\nHello world!"));
    assert_eq!(many.matches("Hello world!").count(), 20_000);
    assert!(nonsense.starts_with("HTTP/1.1 400 "), "{nonsense}");
    assert_eq!(line.lines().count(), 1);
    assert_eq!(number(&line, "requests"), Some(20_001));
    assert_eq!(number(&line, "connections"), Some(3));
    let sent = once.len() + many.len() + nonsense.len();
    assert_eq!(number(&line, "bytes_sent"), Some(sent as u64));
    assert!(number(&line, "submissions") > number(&line, "sends"));
    line
}

#[test]
fn the_ring_serves_and_counts() {
    let line = serves_and_counts(
        env!("CARGO_BIN_EXE_control"),
        &["--reactor", "io_uring", "--flags", "buffers=64"],
    );

    assert!(line.contains("\"reactor\": \"io_uring\""));
    assert!(number(&line, "enters") > Some(0) && number(&line, "calls") >= number(&line, "enters"));
}

#[test]
fn epoll_serves_and_counts() {
    let line = serves_and_counts(env!("CARGO_BIN_EXE_control"), &["--reactor", "epoll"]);

    assert!(number(&line, "calls") > number(&line, "enters"));
}

#[test]
fn tokio_serves_and_counts() {
    let line = serves_and_counts(env!("CARGO_BIN_EXE_control_tokio"), &[]);

    assert_eq!(number(&line, "calls"), None, "nobody knows: {line}");
}

#[test]
fn tokio_uring_serves_and_counts() {
    let line = serves_and_counts(env!("CARGO_BIN_EXE_control_tokio_uring"), &[]);

    assert!(line.contains("\"reactor\": \"tokio-uring\""));
}

#[test]
fn an_unknown_argument_is_named() {
    for program in [
        env!("CARGO_BIN_EXE_control"),
        env!("CARGO_BIN_EXE_control_tokio"),
        env!("CARGO_BIN_EXE_control_tokio_uring"),
    ] {
        let output = Command::new(program)
            .args(["--prot", "80"])
            .output()
            .unwrap();

        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("--prot"));
    }
}
