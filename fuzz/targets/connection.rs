//! Any bytes as all that a peer ever sends, to a whole worker.
//!
//! Owns the comparison: whatever pieces the bytes come in, whenever the application answers and
//! however slowly the peer reads, it is sent the answers that the protocol's verdict on the uncut
//! bytes calls for, in their order, and then the end of the connection.

use anel::protocol::Limits;
use anel::server::{Clock, Worker};

use super::application::Application;
use super::expected::{Ends, Expected, expected};
use super::line::{LISTENER, Line};
use super::response::{Response, read};
use super::wire::{Outcome, Random, replay};
use super::{control, limits};

/// Runs one input.
///
/// # Panics
/// When something does not hold.
pub fn run(input: &[u8]) {
    let Some((mut random, wire)) = control(input) else {
        return;
    };
    let limits = tight_limits(&mut random);
    let outcome = replay(wire, &[wire.len()], limits);
    let sent = converse(wire, limits, &mut random);
    let asks_for_heads = wire.windows(5).any(|window| window == b"HEAD ");
    judge(&outcome, &sent, asks_for_heads);
}

/// Limits that the pauses of a connection come from, too.
fn tight_limits(random: &mut Random) -> Limits {
    let limits = limits(random);
    let pick = |random: &mut Random, choices: [u32; 3]| choices[random.below(3)];
    Limits {
        stream_bytes_max: limits.body_bytes_max,
        pipeline_depth_max: pick(random, [1, 2, 128]),
        owed_bytes_max: pick(random, [1, 500, 256 * 1024]),
        stream_owed_bytes_max: pick(random, [0, 20, 64 * 1024]),
        linger_bytes_max: pick(random, [1, 30, 1024 * 1024]),
        ..limits
    }
}

/// Lets the worker serve the connection to its end; returns what the peer was sent.
fn converse(wire: &[u8], limits: Limits, random: &mut Random) -> Vec<u8> {
    let mut worker = Worker::new(limits);
    worker.add_listener(LISTENER);
    let mut application = Application::new(Random::new(random.next()));
    let mut line = Line::new(wire, Random::new(random.next()));
    for _ in 0..TURNS_MAX {
        application.act(&mut worker);
        worker.flush(&mut line, &mut application);
        worker.on_clock(Clock {
            monotonic_us: 0,
            unix_s: 0,
        });
        for completion in line.completions() {
            worker.on_completion(completion, &mut line, &mut application);
        }
        worker.on_time(&mut line, &mut application);
        if line.is_closed {
            assert_eq!((worker.connections_open(), application.open()), (0, 0));
            return line.sent;
        }
    }
    panic!("the connection has no end: {worker:?}");
}

fn judge(outcome: &Outcome, sent: &[u8], asks_for_heads: bool) {
    let mut rest = sent;
    let mut may_have_ended = false;
    for expected in expected(outcome) {
        if may_have_ended && rest.is_empty() {
            return;
        }
        let mut may_continue = expected.may_continue;
        let response = loop {
            let found = read(rest, expected.head_only);
            let (response, used) = found.unwrap_or_else(|| panic!("no answer for {expected:?}"));
            rest = &rest[used..];
            if response.status != 100 {
                break response;
            }
            assert!(may_continue, "a 100 that nobody waits for");
            may_continue = false;
        };
        if expected.is_refusal && asks_for_heads && rest.is_empty() && response.body.is_empty() {
            // RFC 9110 9.3.2: the method of a malformed head may be HEAD all the same.
            assert_eq!(
                (response.status, response.closes()),
                (expected.status, true)
            );
        } else if !check(&response, &expected) {
            break;
        }
        // Too much of a body that nobody reads ends the connection, too.
        may_have_ended = expected.ends == Ends::Perhaps;
    }
    assert!(rest.is_empty(), "bytes follow: {}", rest.escape_ascii());
}

/// Whether answers may follow.
fn check(response: &Response, expected: &Expected) -> bool {
    assert_eq!(response.status, expected.status, "{expected:?}");
    assert_eq!(response.is_http10, expected.is_http10, "{expected:?}");
    let is_cut = expected.ends == Ends::Cut && !response.is_complete;
    if !expected.head_only {
        let content = &expected.content;
        assert_eq!(&response.body, content, "{}", content.escape_ascii());
        let until_close = expected.is_http10 && response.field("Content-Length").is_none();
        let is_visible = !until_close;
        assert_eq!(is_cut, expected.ends == Ends::Cut && is_visible);
        assert!(is_cut || response.is_complete);
    }
    match expected.ends {
        Ends::Keeps => assert!(!response.closes(), "{expected:?}: {response:?}"),
        Ends::Closes => assert!(response.closes(), "{expected:?}: {response:?}"),
        Ends::Perhaps | Ends::Silently | Ends::Cut => {}
    }
    !response.closes()
}

/// A turn takes a byte in or out, or does some of the application's work at least every other
/// time; inputs are a few thousand bytes long.
const TURNS_MAX: usize = 200_000;
