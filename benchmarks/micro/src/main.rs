//! One piece of the core in a loop: `micro CASE COUNT`. Without arguments it names its cases.
//!
//! It is run under callgrind twice, with few and with many rounds; the difference is free of
//! start-up (see `instructions.py`). Nothing here depends on time, addresses or chance, so that
//! the count of a build is always the same. A case prints a sum that depends on every round, and
//! fails when it is not the expected one, so that nothing measured can be left out by the
//! compiler or by mistake.

mod kernel;

use std::error::Error;
use std::hint::black_box;

use anel::protocol::date::DateLine;
use anel::protocol::encode::{Context, encode};
use anel::protocol::{Answer, ConnectionField, Http1, Limits, Payload, RequestHead, Step, Version};
use anel::router::{Params, Pattern, RouteTable};
use anel::server::{Clock, Handler, Request, Responder, Verdict, Worker};
use kernel::Kernel;

/// What `load` sends.
const MINIMAL: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// What `load --headers browser` sends: ten fields, about 0.5 KB.
const BROWSER: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\
Connection: keep-alive\r\nCache-Control: max-age=0\r\nUpgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/126.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nAccept-Encoding: gzip, deflate, br\r\n\
Accept-Language: en-US,en;q=0.9\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

/// Any moment; the same for every run.
const UNIX_S: u64 = 1_795_000_000;

type Outcome = Result<u64, Box<dyn Error>>;

struct Case {
    name: &'static str,
    run: fn(u64) -> Outcome,
    /// What it sums up to per round.
    per_round: u64,
}

const CASES: [Case; 10] = [
    case("parse-minimal", |count| parse(MINIMAL, count), 40),
    case("parse-browser", |count| parse(BROWSER, count), 509),
    case("encode", encode_hello, 129),
    case("route-literal", |count| route(b"/orders/recent", count), 1),
    case("route-parameter", |count| route(b"/users/42", count), 2),
    case("turn-1", |count| turn(MINIMAL, count), 129),
    case(
        "turn-24",
        |count| turn(&MINIMAL.repeat(24), count),
        24 * 129,
    ),
    case(
        "turn-16-browser",
        |count| turn(&BROWSER.repeat(16), count),
        16 * 129,
    ),
    case(
        "turn-24-targets",
        |count| turn(&targets(24), count),
        24 * 129,
    ),
    case("turn-24-unlike", |count| turn(&unlike(24), count), 24 * 129),
];

const fn case(name: &'static str, run: fn(u64) -> Outcome, per_round: u64) -> Case {
    Case {
        name,
        run,
        per_round,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, count] = words.as_slice() else {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        println!("{}", names.join("\n"));
        return Ok(());
    };
    let case = CASES
        .iter()
        .find(|case| case.name == name)
        .ok_or_else(|| format!("no case {name}"))?;
    let count: u64 = count.parse()?;
    let (sum, expected) = ((case.run)(count)?, case.per_round * count);
    if sum != expected {
        return Err(format!("{name}: {sum} after {count} rounds, not {expected}").into());
    }
    println!("{sum}");
    Ok(())
}

/// A head is read, and the request's end found behind it. Sums up its bytes.
fn parse(input: &[u8], count: u64) -> Outcome {
    let mut protocol = Http1::new(Limits::default());
    let mut head = RequestHead::default();
    let mut sum = 0;
    for _ in 0..count {
        let (used, step) = protocol.advance(&mut head, black_box(input));
        let (rest, end) = protocol.advance(&mut head, &input[used..]);
        if !matches!((&step, &end), (Step::Head, Step::End)) {
            return Err(format!("{step:?}, {end:?}").into());
        }
        sum += (used + rest) as u64;
    }
    Ok(sum)
}

/// The answer of a hello is written. Sums up its bytes.
fn encode_hello(count: u64) -> Outcome {
    let mut date = DateLine::new();
    date.update(UNIX_S);
    let context = Context {
        version: Version::Http11,
        head_only: false,
        connection: ConnectionField::Omitted,
    };
    let mut out = Vec::with_capacity(4096);
    let mut sum = 0;
    for _ in 0..count {
        out.clear();
        encode(&mut out, black_box(&hello()), context, &date);
        sum += black_box(&out).len() as u64;
    }
    Ok(sum)
}

/// A route is found among twenty. Sums up one for the route, and one for each placeholder.
fn route(path: &[u8], count: u64) -> Outcome {
    let texts = [
        "/",
        "/health",
        "/login",
        "/logout",
        "/users",
        "/users/{id}",
        "/users/{id}/orders",
        "/users/{id}/orders/{number:int}",
        "/orders",
        "/orders/recent",
        "/orders/{number:int}",
        "/products",
        "/products/{name}",
        "/products/{name}/reviews",
        "/cart",
        "/cart/{line:int}",
        "/search",
        "/static/{path:path}",
        "/metrics",
        "/about",
    ];
    let patterns: Result<Vec<_>, _> = texts.into_iter().map(Pattern::parse).collect();
    let table = RouteTable::new(patterns?.into_iter().map(|one| (one, None)).collect());
    let mut params = Params::new();
    let mut sum = 0;
    for _ in 0..count {
        let found = table.find(b"GET", black_box(path), &mut params);
        sum += u64::from(found.is_some()) + params.len() as u64;
    }
    Ok(sum)
}

/// What a client sends that wants one page after the other: the fields are always the same.
fn targets(depth: usize) -> Vec<u8> {
    let heads = (1..=depth).map(|page| {
        let page = "x".repeat(page);
        format!("GET /pages/{page} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: */*\r\n\r\n")
    });
    heads.collect::<String>().into_bytes()
}

/// Requests of which none has the fields of the one before.
fn unlike(depth: usize) -> Vec<u8> {
    let heads = (1..=depth).map(|id| {
        format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: */*\r\nX-Id: {id:04}\r\n\r\n")
    });
    heads.collect::<String>().into_bytes()
}

/// A turn of the worker without Python: the requests arrive at once on one connection, are
/// answered, and leave in one send. Sums up the bytes sent.
fn turn(requests: &[u8], count: u64) -> Outcome {
    let mut kernel = Kernel::new(requests.to_vec());
    let mut worker = Worker::new(Limits::default());
    worker.add_listener(kernel::LISTENER);
    let mut completions = Vec::new();
    let mut step = |kernel: &mut Kernel| {
        worker.on_clock(Clock {
            monotonic_us: 1_000,
            unix_s: UNIX_S,
        });
        kernel.take(&mut completions);
        for completion in completions.drain(..) {
            worker.on_completion(completion, kernel, &mut Hello);
        }
        worker.on_time(kernel, &mut Hello);
        worker.flush(kernel, &mut Hello);
    };
    step(&mut kernel);
    kernel.connect();
    step(&mut kernel);
    for _ in 0..count {
        kernel.receive();
        // The receive's turn, then that of the send's completion, as with a ring.
        step(&mut kernel);
        step(&mut kernel);
    }
    Ok(kernel.bytes_sent)
}

struct Hello;

impl Handler for Hello {
    fn on_request(&mut self, _request: Request<'_>, responder: Responder<'_>) -> Verdict {
        responder.respond(&hello())
    }
}

fn hello() -> Answer<'static> {
    Answer {
        status: 200,
        content_type: Some(b"text/plain; charset=utf-8"),
        fields: b"",
        payload: Payload::Whole(b"Hello world!"),
        close: false,
    }
}
