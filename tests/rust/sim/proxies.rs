//! Connections that begin with a header of the PROXY protocol, or may not begin at all.
//!
//! Owns one test per promise of the worker, as `scenarios` does. What a header may look like is
//! said by `tests/cases/proxy`.

use anel::protocol::Limits;
use anel::server::Opening;

use crate::plan::{Mode, Plan};
use crate::scenarios::Stage;
use crate::socket::End;

const HEADER: &str = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";

fn stage(opening: Opening) -> Stage {
    let limits = Limits {
        head_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    stage.world.application.opening = opening;
    stage
}

fn get() -> String {
    let target = Plan::plain(0, 0, Mode::Now, 5).target();
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// The connection has ended without an answer, and nothing is left of it.
fn assert_ended(mut stage: Stage, id: usize, end: End) {
    assert_eq!(stage.read(id), "");
    assert_eq!(stage.end(id), Some(end));
    assert_eq!(stage.open(), 0);
    assert!(stage.world.application.requests.is_empty());
    stage.assert_drained();
}

#[test]
fn what_is_behind_the_header_is_served_however_it_was_cut() {
    let input = HEADER.to_owned() + &get();
    for cut in 0..input.len() {
        let mut stage = stage(Opening::ProxyHeader);
        let id = stage.connect();

        stage.send(id, &input[..cut]);
        stage.send(id, &input[cut..]);

        assert!(stage.read(id).starts_with("HTTP/1.1 200 "), "{cut}");
        let told = &stage.world.application.proxied;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].client, "192.0.2.1:56324".parse().ok());
        assert_eq!(stage.end(id), None);
        stage.assert_drained();
    }
}

#[test]
fn only_the_first_request_has_a_header_before_it() {
    let mut stage = stage(Opening::ProxyHeader);
    let id = stage.connect();
    stage.send(id, &(HEADER.to_owned() + &get()));
    stage.read(id);

    stage.send(id, HEADER);

    assert!(stage.read(id).starts_with("HTTP/1.1 400 "));
    assert_eq!(stage.world.application.proxied.len(), 1);
    stage.world.pass_ms(10_000);
    stage.assert_drained();
}

#[test]
fn a_request_without_a_header_ends_the_connection_without_an_answer() {
    let mut stage = stage(Opening::ProxyHeader);
    let id = stage.connect();

    stage.send(id, &get());

    assert_ended(stage, id, End::Fin);
}

#[test]
fn the_header_has_the_time_of_a_head_and_no_answer_when_it_is_late() {
    let mut stage = stage(Opening::ProxyHeader);
    let (silent, slow) = (stage.connect(), stage.connect());
    for byte in HEADER[..20].chars() {
        stage.send(slow, &byte.to_string());
        stage.world.pass_ms(49);
    }
    assert_eq!((stage.end(silent), stage.end(slow)), (None, None));

    stage.world.pass_ms(20);

    assert_eq!(
        (stage.read(silent), stage.end(silent)),
        (String::new(), Some(End::Fin))
    );
    assert_ended(stage, slow, End::Fin);
}

#[test]
fn the_time_of_the_first_head_begins_behind_the_header() {
    let mut stage = stage(Opening::ProxyHeader);
    let id = stage.connect();
    stage.world.pass_ms(900);
    stage.send(id, HEADER);
    stage.send(id, &get()[..10]);
    stage.world.pass_ms(900);

    stage.send(id, &get()[10..]);

    assert!(stage.read(id).starts_with("HTTP/1.1 200 "));
    stage.assert_drained();
}

#[test]
fn a_proxy_that_only_looks_whether_we_are_there_is_not_answered() {
    for sent in ["", &HEADER[..9]] {
        let mut stage = stage(Opening::ProxyHeader);
        let id = stage.connect();
        stage.send(id, sent);

        stage.half_close(id);

        assert_ended(stage, id, End::Fin);
    }
}

#[test]
fn a_drain_does_not_wait_for_a_header() {
    let mut stage = stage(Opening::ProxyHeader);
    let id = stage.connect();

    stage.drain();

    assert!(stage.world.worker.is_drained());
    assert_eq!(stage.end(id), Some(End::Fin));
    stage.world.kernel.assert_quiet();
}

#[test]
fn a_peer_that_may_not_speak_is_closed_and_its_slot_is_free() {
    let mut stage = stage(Opening::Refused);
    let ids = [stage.connect(), stage.connect()];

    for id in ids {
        assert!(stage.end(id).is_some());
    }
    let counters = stage.world.worker.counters();
    assert_eq!(counters.refusals_total, 2);
    assert_eq!(counters.connections_closed_total, 2);
    stage.world.application.opening = Opening::Request;
    let id = stage.connect();
    stage.send(id, &get());
    assert!(stage.read(id).starts_with("HTTP/1.1 200 "));
    stage.assert_drained();
}
