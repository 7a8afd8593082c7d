//! Bodies in pieces, in a world without faults: one test per promise.
//!
//! Owns the scenarios of streamed answers and of bodies that are handed on as they arrive. Refuses
//! randomness, as `scenarios` does.

use anel::protocol::{CloseReason, Limits};
use anel::server::{ExchangeId, Flow};

use crate::plan::{Intake, Mode, Plan, Shape};
use crate::scenarios::Stage;
use crate::socket::End;
use crate::world::World;

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn plan(index: usize, shape: Shape, intake: Intake) -> Plan {
    Plan {
        shape,
        intake,
        ..Plan::plain(0, index, Mode::Later, 5)
    }
}

fn text(method: &str, plan: &Plan, fields: &str, body: &str) -> String {
    let target = plan.target();
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn get(index: usize, shape: Shape) -> String {
    text("GET", &plan(index, shape, Intake::Gathered), "", "")
}

fn post(index: usize, intake: Intake, fields: &str, body: &str) -> String {
    text("POST", &plan(index, Shape::Whole, intake), fields, body)
}

/// What stands behind the last head.
fn body(text: &str) -> &str {
    text.rsplit_once("\r\n\r\n").expect("a head").1
}

impl Stage {
    fn exchange(&self, index: usize) -> ExchangeId {
        self.world.application.exchange(0, index)
    }

    fn give(&mut self, index: usize, piece: &str) -> Flow {
        let id = self.exchange(index);
        let World {
            application,
            worker,
            ..
        } = &mut self.world;
        let flow = application.give(worker, id, piece.as_bytes());
        self.world.settle();
        flow
    }

    fn end_stream(&mut self, index: usize) -> bool {
        let id = self.exchange(index);
        let World {
            application,
            worker,
            ..
        } = &mut self.world;
        let whole = application.end(worker, id);
        self.world.settle();
        whole
    }

    fn abort_stream(&mut self, index: usize) {
        let id = self.exchange(index);
        let World {
            application,
            worker,
            ..
        } = &mut self.world;
        application.abort(worker, id);
        self.world.settle();
    }

    fn read_body(&mut self, index: usize) {
        let id = self.exchange(index);
        let World {
            application,
            worker,
            ..
        } = &mut self.world;
        application.read(worker, id);
        self.world.settle();
    }

    /// What the handler got of a body, and whether that was all.
    fn got(&self, index: usize) -> (String, bool) {
        let (bytes, over) = self.world.application.body(self.exchange(index));
        (String::from_utf8(bytes.to_vec()).expect("ASCII"), over)
    }

    fn has_failed(&self, index: usize) -> bool {
        self.world.application.has_failed(self.exchange(index))
    }

    fn abandoned(&self) -> Vec<(usize, CloseReason)> {
        let all = self.world.application.abandoned.iter();
        all.map(|(plan, reason)| (plan.index, *reason)).collect()
    }

    fn writables(&self) -> u64 {
        self.world.application.told.writables
    }
}

#[test]
fn pieces_leave_at_once_and_the_connection_goes_on_behind_them() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.send(id, &(get(0, Shape::Chunked) + &get(1, Shape::Whole)));
    stage.answer(0);
    assert!(stage.read(id).ends_with("\r\n\r\n"), "the head has left");

    assert_eq!(stage.give(0, "ab"), Flow::Go);
    assert_eq!(stage.read(id), "2\r\nab\r\n");
    assert_eq!(stage.give(0, ""), Flow::Go);
    assert_eq!(stage.read(id), "", "no chunk is empty but the last");
    stage.answer(1);
    assert_eq!(stage.read(id), "", "the next answer waits");
    assert!(stage.end_stream(0));

    let text = stage.read(id);
    assert!(text.starts_with("0\r\n\r\nHTTP/1.1 200 OK\r\n"), "{text}");
    assert_eq!((stage.end(id), stage.open()), (None, 1));
    stage.assert_drained();
}

#[test]
fn pieces_behind_an_earlier_answer_are_held_and_then_go_on_directly() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.send(id, &(get(0, Shape::Whole) + &get(1, Shape::Chunked)));
    stage.answer(1);
    stage.give(1, "held");
    assert_eq!(stage.read(id), "");

    stage.answer(0);
    assert!(stage.read(id).ends_with("\r\n\r\n4\r\nheld\r\n"));
    stage.give(1, "direct");

    assert_eq!(stage.read(id), "6\r\ndirect\r\n");
    assert!(stage.end_stream(1));
    stage.assert_drained();
}

#[test]
fn a_producer_rests_at_the_limit_and_is_told_once_when_half_has_left() {
    let limits = Limits {
        stream_owed_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect_with_window(300);
    stage.send(id, &get(0, Shape::Chunked));
    stage.answer(0);
    // Head, limit and one piece are the most that is ever owed.
    stage.world.kernel.send_bytes_max = 1_000 + 400;
    let piece = "x".repeat(300);

    let mut given = 0;
    while stage.give(0, &piece) == Flow::Go {
        given += 1;
    }
    assert!((2..=4).contains(&given), "{given}");
    assert_eq!(stage.writables(), 0);
    stage.world.kernel.sockets[id].peer_read(300);
    stage.world.settle();
    assert_eq!(stage.writables(), 0, "more than half is still owed");
    stage.read(id);

    assert_eq!(stage.writables(), 1);
    assert_eq!(stage.give(0, &piece), Flow::Go);
    assert!(stage.end_stream(0));
    stage.read(id);
    assert_eq!(stage.writables(), 1);
    stage.assert_drained();
}

#[test]
fn a_producer_that_waits_out_of_turn_is_told_when_its_turn_has_come() {
    let limits = Limits {
        stream_owed_bytes_max: 100,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect();
    stage.send(id, &(get(0, Shape::Whole) + &get(1, Shape::Chunked)));
    stage.answer(1);
    assert_eq!(stage.give(1, &"x".repeat(100)), Flow::Wait);
    assert_eq!(stage.writables(), 0);

    stage.answer(0);

    assert_eq!(stage.writables(), 1);
    assert!(stage.end_stream(1));
    stage.read(id);
    stage.assert_drained();
}

#[test]
fn what_is_held_out_of_turn_counts_as_owed() {
    let limits = Limits {
        owed_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect();
    stage.send(id, &(get(0, Shape::Whole) + &get(1, Shape::Chunked)));
    stage.answer(1);
    stage.give(1, &"x".repeat(1_000));

    stage.send(id, &get(2, Shape::Whole));

    assert_eq!(stage.world.application.requests[&0], 2, "parsing rests");
    stage.answer(0);
    assert!(stage.end_stream(1));
    stage.answer(2);
    assert!(stage.read(id).ends_with("0.2;0"));
    stage.assert_drained();
}

#[test]
fn a_body_that_is_too_short_ends_its_connection_in_the_middle() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let requests = get(0, Shape::Sized) + &get(1, Shape::Chunked) + &get(2, Shape::Whole);
    stage.send(id, &requests);
    stage.answer(0);
    stage.answer(1);
    stage.give(0, "1234");

    assert!(!stage.end_stream(0));

    assert!(stage.read(id).ends_with("\r\n\r\n1234"));
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 0));
    let behind = [2, 1].map(|index| (index, CloseReason::AnswerIncomplete));
    assert_eq!(stage.abandoned(), behind);
    assert_eq!(stage.give(1, "late"), Flow::Gone);
    stage.assert_drained();
}

#[test]
fn a_body_that_is_too_long_is_cut_and_ends_its_connection() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.send(id, &(get(0, Shape::Sized) + &get(1, Shape::Whole)));
    stage.answer(0);

    assert_eq!(stage.give(0, "1234567"), Flow::Go);
    assert_eq!(stage.give(0, "89"), Flow::Go);
    assert!(!stage.end_stream(0));

    let text = stage.read(id);
    assert!(text.ends_with("\r\n\r\n12345"), "{text}");
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 0));
    assert_eq!(stage.abandoned(), [(1, CloseReason::AnswerTooLong)]);
    stage.assert_drained();
}

#[test]
fn an_aborted_body_has_no_last_chunk() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let requests = get(0, Shape::Whole) + &get(1, Shape::Chunked) + &get(2, Shape::Whole);
    stage.send(id, &requests);
    stage.answer(1);
    stage.give(1, "ab");

    // Out of turn: it ends where it stands in line.
    stage.abort_stream(1);
    assert_eq!(stage.abandoned(), [(2, CloseReason::AnswerIncomplete)]);
    assert_eq!((stage.read(id), stage.end(id)), (String::new(), None));
    stage.answer(0);

    assert!(stage.read(id).ends_with("\r\n\r\n2\r\nab\r\n"));
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 0));
    stage.assert_drained();
}

#[test]
fn an_answer_to_head_is_whole_although_it_is_streamed() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let head = text("HEAD", &plan(0, Shape::Sized, Intake::Gathered), "", "");
    stage.send(id, &head);

    stage.answer(0);

    let text = stage.read(id);
    assert!(text.contains("Content-Length: 5\r\n"), "{text}");
    assert_eq!(body(&text), "");
    assert_eq!(stage.give(0, "12345"), Flow::Gone);
    stage.assert_drained();
}

#[test]
fn a_body_for_http_1_0_ends_with_its_connection() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let target = plan(0, Shape::Chunked, Intake::Gathered).target();
    let kept = "Connection: keep-alive\r\n";
    stage.send(id, &format!("GET {target} HTTP/1.0\r\n{kept}\r\n"));
    stage.answer(0);
    stage.give(0, "ab");
    stage.give(0, "cd");
    assert_eq!(stage.end(id), None);

    assert!(stage.end_stream(0));

    let text = stage.read(id);
    assert!(text.contains("Connection: close\r\n"), "{text}");
    assert_eq!((body(&text), stage.end(id)), ("abcd", Some(End::Fin)));
    stage.assert_drained();
}

#[test]
fn an_aborted_body_for_http_1_0_ends_in_a_reset() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let target = plan(0, Shape::Chunked, Intake::Gathered).target();
    stage.send(id, &format!("GET {target} HTTP/1.0\r\n\r\n"));
    stage.answer(0);
    stage.give(0, "ab");

    stage.abort_stream(0);

    assert_eq!(body(&stage.read(id)), "ab");
    assert_eq!((stage.end(id), stage.open()), (Some(End::Reset), 0));
    stage.assert_drained();
}

#[test]
fn a_body_for_http_1_0_that_the_peer_does_not_take_in_time_ends_in_a_reset() {
    let limits = Limits {
        send_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect_with_window(200);
    let target = plan(0, Shape::Chunked, Intake::Gathered).target();
    stage.send(id, &format!("GET {target} HTTP/1.0\r\n\r\n"));
    stage.answer(0);
    stage.give(0, &"ab".repeat(500));
    assert!(stage.end_stream(0), "it was made to its end");

    stage.world.pass_ms(1_000);
    stage.world.settle();

    assert!(body(&stage.read(id)).len() < 1_000, "it did not leave");
    assert_eq!((stage.end(id), stage.open()), (Some(End::Reset), 0));
    stage.assert_drained();
}

#[test]
fn who_streams_to_a_peer_that_leaves_is_told_once() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect_with_window(10);
    stage.send(id, &get(0, Shape::Chunked));
    stage.answer(0);

    stage.world.kernel.sockets[id].peer_reset();
    stage.world.settle();

    assert_eq!(stage.abandoned(), [(0, CloseReason::PeerReset)]);
    assert_eq!(stage.give(0, "ab"), Flow::Gone);
    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn a_stream_has_no_deadline_but_its_peer_has() {
    let limits = Limits {
        idle_timeout_ms: 1_000,
        send_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect_with_window(200);
    stage.send(id, &get(0, Shape::Chunked));
    stage.answer(0);
    stage.read(id);

    stage.world.pass_ms(10_000);
    assert_eq!(stage.open(), 1, "nobody is late");
    stage.give(0, &"x".repeat(1_000));
    stage.world.pass_ms(1_000);

    assert_eq!(stage.abandoned(), [(0, CloseReason::SendDeadline)]);
    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn a_connection_is_idle_from_the_end_of_its_stream_on() {
    let limits = Limits {
        idle_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect();
    stage.send(id, &get(0, Shape::Sized));
    stage.answer(0);
    stage.give(0, "12345");
    stage.world.pass_ms(5_000);

    assert!(stage.end_stream(0));

    stage.world.pass_ms(900);
    assert_eq!(stage.open(), 1);
    stage.world.pass_ms(100);
    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn a_drain_ends_a_connection_behind_its_stream() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.send(id, &get(0, Shape::Chunked));
    stage.answer(0);

    stage.drain();
    assert_eq!(stage.world.worker.connections_busy(), 1);
    stage.give(0, "ab");
    assert_eq!(stage.end(id), None);
    assert!(stage.end_stream(0));

    assert!(stage.read(id).ends_with("2\r\nab\r\n0\r\n\r\n"));
    assert_eq!(stage.end(id), Some(End::Fin));
    assert!(stage.world.worker.is_drained());
}

#[test]
fn a_stream_that_begins_in_a_drain_says_that_it_is_the_last() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.send(id, &get(0, Shape::Chunked));

    stage.drain();
    stage.answer(0);

    assert!(stage.read(id).contains("\r\nConnection: close\r\n"));
    assert!(stage.end_stream(0));
    assert!(stage.world.worker.is_drained());
}

#[test]
fn a_body_that_nobody_asks_for_is_not_received() {
    let limits = Limits {
        head_bytes_max: 4_000,
        body_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::with_buffers(limits, (4, 512));
    let id = stage.connect();
    let length = "Content-Length: 100000\r\n";
    stage.send(id, &post(0, Intake::All, length, ""));

    for _ in 0..100 {
        stage.send(id, &"x".repeat(1_000));
    }
    stage.world.pass_ms(10_000);

    assert_eq!(stage.got(0), (String::new(), false));
    assert!(!stage.armed(id) && !stage.has_failed(0));
    let delivered = stage.world.kernel.sockets[id].delivered;
    assert!(delivered < 4_000 + 4_000, "{delivered}");
    stage.read_body(0);
    assert_eq!(stage.got(0).0.len(), 100_000);
    assert!(stage.got(0).1);
}

#[test]
fn a_body_is_handed_on_piece_by_piece_as_long_as_it_is_wanted() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.send(id, &post(0, Intake::All, CHUNKED, "2\r\nab\r\n"));
    assert_eq!(stage.got(0), (String::new(), false));

    stage.read_body(0);
    assert_eq!(stage.got(0), ("ab".to_owned(), false));
    stage.world.application.rests = 100;
    stage.send(id, "2\r\ncd\r\n2\r\nef\r\n0\r\n\r\n");
    assert_eq!(stage.got(0), ("abcd".to_owned(), false));
    stage.read_body(0);
    stage.world.application.rests = 0;
    assert_eq!(stage.got(0), ("abcdef".to_owned(), false));
    stage.read_body(0);

    assert_eq!(stage.got(0), ("abcdef".to_owned(), true));
    stage.send(id, &get(1, Shape::Whole));
    stage.answer(0);
    stage.answer(1);
    assert!(stage.read(id).ends_with("0.1;0"));
    stage.assert_drained();
}

#[test]
fn a_peer_is_told_to_go_on_when_its_body_is_wanted_and_not_before() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let fields = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    stage.send(id, &get(0, Shape::Whole));
    stage.send(id, &post(1, Intake::All, fields, ""));
    assert_eq!(stage.read(id), "");

    stage.read_body(1);
    assert_eq!(stage.read(id), "", "it waits its turn");
    stage.answer(0);
    assert!(
        stage
            .read(id)
            .ends_with("0.0;0HTTP/1.1 100 Continue\r\n\r\n")
    );
    stage.send(id, "abc");

    assert_eq!(stage.got(1), ("abc".to_owned(), true));
    stage.answer(1);
    assert!(stage.read(id).starts_with("HTTP/1.1 200 OK\r\n"));
    stage.assert_drained();
}

#[test]
fn a_peer_that_does_not_wait_is_not_told_to_go_on() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let fields = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    stage.send(id, &post(0, Intake::All, fields, "a"));

    stage.read_body(0);
    stage.send(id, "bc");

    assert_eq!(stage.got(0), ("abc".to_owned(), true));
    assert_eq!(stage.read(id), "");
}

#[test]
fn a_peer_that_loses_patience_is_not_told_to_go_on_later() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let fields = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    stage.send(id, &get(0, Shape::Whole));
    stage.send(id, &post(1, Intake::All, fields, ""));
    stage.read_body(1);

    stage.send(id, "a");
    stage.answer(0);

    assert!(stage.read(id).ends_with("0.0;0"));
    stage.send(id, "bc");
    assert_eq!(stage.got(1), ("abc".to_owned(), true));
}

#[test]
fn nothing_asks_for_a_body_within_the_answer() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let plan = Plan {
        mode: Mode::Now,
        ..plan(0, Shape::Whole, Intake::Echo)
    };
    let fields = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    stage.send(id, &text("POST", &plan, fields, ""));
    let head = stage.read(id);
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");

    stage.read_body(0);
    assert_eq!(stage.read(id), "");
    // It may send the body all the same.
    stage.send(id, "abc");

    assert_eq!(stage.got(0), ("abc".to_owned(), true));
    stage.give(0, "abc");
    assert!(stage.end_stream(0));
    assert_eq!(
        (stage.read(id), stage.end(id)),
        ("abc".to_owned(), Some(End::Fin))
    );
    stage.assert_drained();
}

#[test]
fn a_peer_that_is_told_late_to_go_on_has_its_time_from_then_on() {
    let limits = Limits {
        body_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect();
    let fields = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    stage.send(id, &get(0, Shape::Whole));
    stage.send(id, &post(1, Intake::All, fields, ""));
    stage.read_body(1);
    stage.world.pass_ms(5_000);
    stage.answer(0);

    stage.world.pass_ms(900);
    assert!(!stage.has_failed(1));
    stage.world.pass_ms(100);

    assert!(stage.has_failed(1));
}

#[test]
fn an_answer_without_the_body_that_a_peer_holds_back_ends_the_connection() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let fields = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    stage.send(id, &post(0, Intake::Nothing, fields, ""));

    stage.answer(0);

    let text = stage.read(id);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    assert_eq!(stage.end(id), Some(End::Fin));
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn a_head_that_is_held_back_still_asks_for_the_body_of_its_echo() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let fields = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    stage.send(id, &get(0, Shape::Whole));
    stage.send(id, &post(1, Intake::Echo, fields, ""));
    stage.read_body(1);
    stage.answer(1);

    stage.answer(0);

    let text = stage.read(id);
    assert!(text.contains("0.0;0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"));
    stage.send(id, "abc");
    assert_eq!(stage.got(1), ("abc".to_owned(), true));
    assert_eq!(stage.give(1, "abc"), Flow::Go);
    assert!(stage.end_stream(1));
    assert_eq!(stage.read(id), "abc");
    stage.assert_drained();
}

#[test]
fn what_an_early_answer_leaves_is_thrown_away_for_the_next_request() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let length = "Content-Length: 1000\r\n";
    stage.send(id, &post(0, Intake::Nothing, length, "a"));
    stage.answer(0);
    let text = stage.read(id);
    assert!(!text.contains("Connection: close"), "{text}");

    stage.send(id, &("b".repeat(999) + &get(1, Shape::Whole)));
    stage.answer(1);

    assert!(stage.read(id).ends_with("0.1;0"));
    assert_eq!(stage.got(0), (String::new(), false));
    stage.assert_drained();
}

#[test]
fn an_answer_that_leaves_too_much_unread_ends_the_connection_and_survives() {
    let limits = Limits {
        linger_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect();
    let length = "Content-Length: 1100\r\n";
    stage.send(id, &post(0, Intake::Nothing, length, "a"));

    stage.answer(0);

    let text = stage.read(id);
    assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    stage.send(id, &"b".repeat(900));
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 1));
    stage.close(id);
    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn a_body_that_is_left_on_the_last_request_is_lingered_for() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let fields = "Connection: close\r\nContent-Length: 1000\r\n";
    stage.send(id, &post(0, Intake::Nothing, fields, "a"));

    stage.answer(0);

    assert!(stage.read(id).starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 1));
    stage.send(id, &"b".repeat(999));
    assert_eq!(stage.end(id), Some(End::Fin));
    stage.close(id);
    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn a_body_without_an_end_is_not_thrown_away_for_ever() {
    let limits = Limits {
        linger_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect();
    stage.send(id, &post(0, Intake::Nothing, CHUNKED, ""));
    stage.answer(0);
    assert!(!stage.read(id).contains("Connection: close"));

    stage.send(id, "3e8\r\n");
    stage.send(id, &("x".repeat(1_000) + "\r\n"));
    assert_eq!(stage.end(id), None);
    stage.send(id, "1\r\nx\r\n");

    assert_eq!(stage.end(id), Some(End::Fin));
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn a_drain_does_not_wait_for_a_body_that_nobody_reads() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.send(id, &post(0, Intake::Nothing, CHUNKED, ""));
    stage.answer(0);
    stage.read(id);

    stage.drain();

    assert_eq!(stage.end(id), Some(End::Fin));
    stage.close(id);
    assert!(stage.world.worker.is_drained());
}

#[test]
fn a_wrong_chunk_is_told_to_the_handler_whose_answer_is_the_last() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let requests = post(0, Intake::All, CHUNKED, "2\r\nab\r\nno size\r\n");
    stage.send(id, &(requests + &get(1, Shape::Whole)));
    assert!(!stage.has_failed(0), "nobody has looked");

    stage.read_body(0);
    assert_eq!(stage.got(0), ("ab".to_owned(), true));
    assert!(stage.has_failed(0));
    assert_eq!((stage.read(id), stage.end(id)), (String::new(), None));
    stage.answer(0);

    let text = stage.read(id);
    assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    assert_eq!(stage.end(id), Some(End::Fin));
    assert_eq!(stage.world.application.requests[&0], 1);
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn the_end_of_input_within_a_body_is_told_when_the_handler_comes_to_it() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let length = "Content-Length: 3\r\n";
    stage.send(id, &post(0, Intake::All, length, "ab"));
    stage.half_close(id);
    assert!(!stage.has_failed(0));

    stage.read_body(0);

    assert_eq!(stage.got(0), ("ab".to_owned(), true));
    assert!(stage.has_failed(0));
    stage.answer(0);
    assert!(stage.read(id).contains("X-Body: failed\r\n"));
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 0));
    stage.assert_drained();
}

#[test]
fn a_body_has_to_go_on_while_it_is_waited_for() {
    let limits = Limits {
        body_timeout_ms: 1_000,
        body_bytes_per_s_min: 0,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect();
    stage.send(id, &post(0, Intake::All, CHUNKED, ""));
    stage.world.pass_ms(5_000);
    stage.read_body(0);
    for _ in 0..5 {
        stage.world.pass_ms(900);
        stage.send(id, "1\r\nx\r\n");
    }
    assert_eq!(stage.got(0), ("xxxxx".to_owned(), false));
    assert!(!stage.has_failed(0), "there was progress");

    stage.world.pass_ms(1_000);

    assert!(stage.has_failed(0));
    stage.answer(0);
    assert!(stage.read(id).contains("\r\nConnection: close\r\n"));
    // More may be on its way: FIN, not a reset that destroys the answer.
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 1));
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn a_handler_that_wants_no_more_answers_when_it_likes() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let length = "Content-Length: 6\r\n";
    stage.send(id, &post(0, Intake::First, length, "ab"));
    stage.read_body(0);
    stage.send(id, &("cdef".to_owned() + &get(1, Shape::Whole)));
    assert_eq!(stage.got(0), ("ab".to_owned(), true));

    stage.answer(1);
    stage.answer(0);

    assert!(stage.read(id).ends_with("0.1;0"));
    stage.assert_drained();
}

#[test]
fn a_handler_can_lower_and_raise_the_limit_of_its_body() {
    let limits = Limits {
        body_bytes_max: 10,
        stream_bytes_max: 10,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let too_large = "Content-Length: 11\r\n";
    for (index, intake) in [Intake::Gathered, Intake::All].into_iter().enumerate() {
        stage.world.application.body_bytes_max = Some(11);
        let id = stage.connect();
        stage.send(id, &post(index, intake, too_large, "12345678901"));
        if intake == Intake::All {
            stage.read_body(index);
            assert_eq!(stage.got(index).0.len(), 11);
        }
        stage.close(id);

        for max in [None, Some(10), Some(3)] {
            stage.world.application.body_bytes_max = max;
            let id = stage.connect();
            stage.send(id, &post(index + 1, intake, too_large, ""));
            assert!(stage.read(id).starts_with("HTTP/1.1 413 "));
            stage.close(id);
        }
    }
}

#[test]
fn a_body_of_unknown_length_fails_at_its_limit() {
    let mut stage = Stage::new(Limits::default());
    stage.world.application.body_bytes_max = Some(3);
    let id = stage.connect();
    stage.send(id, &post(0, Intake::All, CHUNKED, "2\r\nab\r\n2\r\ncd\r\n"));

    stage.read_body(0);

    assert!(stage.has_failed(0));
    assert_eq!(stage.got(0).0, "ab");
}

#[test]
fn a_peer_that_leaves_in_its_body_abandons_its_request() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.send(id, &post(0, Intake::All, CHUNKED, "2\r\nab\r\n"));
    stage.read_body(0);

    stage.world.kernel.sockets[id].peer_reset();
    stage.world.settle();

    assert_eq!(stage.abandoned(), [(0, CloseReason::PeerReset)]);
    assert_eq!(stage.got(0), ("ab".to_owned(), false));
    stage.read_body(0);
    stage.assert_drained();
}

#[test]
fn an_echo_runs_in_both_directions_at_once() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.send(id, &post(0, Intake::Echo, CHUNKED, ""));
    stage.read_body(0);
    stage.answer(0);
    stage.read(id);

    for piece in ["ab", "cd"] {
        stage.send(id, &format!("2\r\n{piece}\r\n"));
        assert!(stage.got(0).0.ends_with(piece));
        stage.give(0, piece);
        assert_eq!(stage.read(id), format!("2\r\n{piece}\r\n"));
    }
    stage.send(id, "0\r\n\r\n");
    assert!(stage.end_stream(0));

    assert_eq!(stage.read(id), "0\r\n\r\n");
    stage.send(id, &get(1, Shape::Whole));
    stage.answer(1);
    assert!(stage.read(id).ends_with("0.1;0"));
    stage.assert_drained();
}
