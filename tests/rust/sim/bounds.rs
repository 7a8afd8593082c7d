//! What bounds a peer and a handler: pace, time, share of a turn, and memory.
//!
//! Owns one test per bound that needs a clock or a fault. Refuses randomness, as `scenarios` does.

use anel::protocol::{CloseReason, Limits};

use crate::plan::{Mode, Plan};
use crate::scenarios::Stage;
use crate::socket::End;

fn request(client: usize, index: usize, mode: Mode, bytes: usize) -> String {
    let target = Plan::plain(client, index, mode, bytes).target();
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn upload(index: usize, length: usize) -> String {
    let target = Plan::plain(0, index, Mode::Now, 5).target();
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

impl Stage {
    fn counter(&self, read: fn(&anel::server::Counters) -> u64) -> u64 {
        read(self.world.worker.counters())
    }

    fn requests(&self, client: usize) -> usize {
        let requests = &self.world.application.requests;
        requests.get(&client).copied().unwrap_or(0)
    }
}

#[test]
fn a_body_that_trickles_is_answered_408() {
    let mut stage = Stage::new(Limits {
        body_timeout_ms: 1_000,
        body_bytes_per_s_min: 100,
        ..Limits::default()
    });
    let id = stage.connect();
    stage.send(id, &upload(0, 1_000));

    for _ in 0..12 {
        stage.send(id, "x");
        stage.world.pass_ms(100);
    }

    assert!(stage.read(id).starts_with("HTTP/1.1 408 "));
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn a_slow_body_that_keeps_up_is_waited_for() {
    let mut stage = Stage::new(Limits {
        body_timeout_ms: 1_000,
        body_bytes_per_s_min: 100,
        ..Limits::default()
    });
    let id = stage.connect();
    stage.send(id, &upload(0, 1_000));

    for _ in 0..100 {
        stage.send(id, "xxxxxxxxxx");
        stage.world.pass_ms(100);
    }

    assert!(stage.read(id).starts_with("HTTP/1.1 200 "));
    stage.assert_drained();
}

#[test]
fn a_peer_that_takes_its_answer_byte_by_byte_loses_its_connection() {
    let mut stage = Stage::new(Limits {
        send_timeout_ms: 1_000,
        send_bytes_per_s_min: 100,
        ..Limits::default()
    });
    let id = stage.connect_with_window(100);
    stage.send(id, &request(0, 0, Mode::Now, 5_000));

    for _ in 0..12 {
        stage.world.kernel.sockets[id].peer_read(1);
        stage.world.pass_ms(100);
    }

    assert_eq!(stage.open(), 0);
    assert_eq!(stage.counter(|c| c.deadlines_total), 1);
    stage.assert_drained();
}

#[test]
fn a_slow_reader_that_keeps_up_gets_everything() {
    let mut stage = Stage::new(Limits {
        send_timeout_ms: 1_000,
        send_bytes_per_s_min: 100,
        ..Limits::default()
    });
    let id = stage.connect_with_window(100);
    stage.send(id, &request(0, 0, Mode::Now, 1_000));

    for _ in 0..100 {
        stage.world.kernel.sockets[id].peer_read(10);
        stage.world.pass_ms(90);
    }

    assert_eq!(stage.open(), 1);
    stage.read(id);
    stage.assert_drained();
}

#[test]
fn a_handler_that_takes_too_long_is_told_and_then_given_up() {
    let mut stage = Stage::new(Limits {
        handler_timeout_ms: 1_000,
        ..Limits::default()
    });
    let id = stage.connect();
    stage.send(id, &request(0, 0, Mode::Never, 5));

    stage.world.pass_ms(1_000);
    assert_eq!(stage.counter(|c| c.handlers_overdue_total), 1);
    assert_eq!(stage.read(id), "", "it may still answer");
    stage.world.pass_ms(1_000);

    let text = stage.read(id);
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    let abandoned = &stage.world.application.abandoned;
    assert_eq!(abandoned.len(), 1);
    assert_eq!(abandoned[0].1, CloseReason::HandlerDeadline);
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn a_handler_that_was_told_may_still_answer() {
    let mut stage = Stage::new(Limits {
        handler_timeout_ms: 1_000,
        ..Limits::default()
    });
    let id = stage.connect();
    stage.send(id, &request(0, 0, Mode::Later, 5));
    stage.world.pass_ms(1_500);

    stage.answer(0);

    assert!(stage.read(id).starts_with("HTTP/1.1 200 "));
    assert_eq!(stage.counter(|c| c.handlers_overdue_total), 1);
    stage.assert_drained();
}

#[test]
fn each_handler_of_a_pipeline_has_its_own_time() {
    let mut stage = Stage::new(Limits {
        handler_timeout_ms: 1_000,
        ..Limits::default()
    });
    let id = stage.connect();
    stage.send(id, &request(0, 0, Mode::Later, 5));
    stage.world.pass_ms(600);
    stage.send(id, &request(0, 1, Mode::Later, 5));

    stage.world.pass_ms(400);
    assert_eq!(stage.counter(|c| c.handlers_overdue_total), 1);
    stage.world.pass_ms(600);
    assert_eq!(stage.counter(|c| c.handlers_overdue_total), 2);

    stage.answer(0);
    stage.answer(1);
    assert_eq!(stage.read(id).matches("HTTP/1.1 200 ").count(), 2);
    stage.assert_drained();
}

#[test]
fn a_pipeline_is_answered_in_shares_and_others_come_in_between() {
    let mut stage = Stage::new(Limits {
        pipeline_depth_max: 10,
        ..Limits::default()
    });
    let greedy = stage.connect();
    let other = stage.connect();
    let pipeline: String = (0..100).map(|n| request(0, n, Mode::Now, 5)).collect();
    stage.world.kernel.sockets[greedy].peer_send(pipeline.as_bytes());
    stage.world.turn();
    stage.world.kernel.sockets[other].peer_send(request(1, 0, Mode::Now, 5).as_bytes());

    let mut turns = 0;
    while stage.requests(1) == 0 {
        let before = stage.requests(0);
        stage.world.turn();
        assert!(
            stage.requests(0) - before <= 20,
            "a share, and that of the flush"
        );
        turns += 1;
        assert!(turns < 4, "it was kept waiting");
    }

    assert!(stage.requests(0) < 60, "{} came first", stage.requests(0));
    stage.world.settle();
    assert_eq!(stage.requests(0), 100, "nothing is lost");
    assert_eq!(stage.read(greedy).matches("HTTP/1.1 200 ").count(), 100);
    stage.assert_drained();
}

#[test]
fn who_is_accepted_too_early_is_served_when_there_is_room() {
    let mut stage = Stage::new(Limits {
        connections_max: 1,
        ..Limits::default()
    });
    let ids = [0, 1, 2].map(|_| stage.world.kernel.connect(1 << 20));
    for (client, id) in ids.into_iter().enumerate() {
        let text = request(client, 0, Mode::Now, 5);
        stage.world.kernel.sockets[id].peer_send(text.as_bytes());
    }
    stage.world.settle();
    assert_eq!((stage.open(), stage.world.kernel.backlog()), (1, 0));

    for (done, id) in ids.into_iter().enumerate() {
        assert!(stage.read(id).starts_with("HTTP/1.1 200 "));
        assert_eq!(stage.requests(done + 1), 0, "its turn has not come");
        stage.close(id);
    }

    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn a_drain_serves_who_was_accepted_too_early() {
    let mut stage = Stage::new(Limits {
        connections_max: 1,
        ..Limits::default()
    });
    let ids = [0, 1].map(|_| stage.world.kernel.connect(1 << 20));
    let text = request(1, 0, Mode::Now, 5);
    stage.world.kernel.sockets[ids[1]].peer_send(text.as_bytes());
    stage.world.settle();

    stage.drain();

    assert!(stage.read(ids[1]).contains("\r\nConnection: close\r\n"));
    stage.close(ids[1]);
    assert!(stage.world.worker.is_drained());
}

#[test]
fn who_winds_down_answers_the_idle_once_more_and_accepts_nobody() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();

    stage.wind_down();
    assert_eq!(stage.open(), 1, "an idle connection stays");
    let stranger = stage.world.kernel.connect(1 << 20);
    stage.world.settle();
    assert_eq!(stage.open(), 1, "nobody is accepted");
    stage.send(id, &request(0, 0, Mode::Now, 5));

    assert!(stage.read(id).contains("\r\nConnection: close\r\n"));
    stage.close(id);
    assert_eq!(stage.open(), 0);
    assert!(!stage.world.kernel.sockets[stranger].recv_outstanding);
    stage.assert_drained();
}

#[test]
fn what_follows_a_closing_request_is_not_read_for_ever() {
    let mut stage = Stage::new(Limits {
        linger_bytes_max: 1_000,
        ..Limits::default()
    });
    let id = stage.connect();
    let target = Plan::plain(0, 0, Mode::Later, 5).target();
    stage.send(
        id,
        &format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    );

    for _ in 0..100 {
        stage.send(id, &"x".repeat(100));
    }
    assert!(!stage.armed(id), "the rest stays with the peer");
    let received = stage.counter(|c| c.bytes_received_total);
    assert!(received < 1_000 + 4_096 + 200, "{received} bytes");

    stage.answer(0);
    assert!(stage.read(id).starts_with("HTTP/1.1 200 "));
    assert_eq!(stage.end(id), Some(End::Fin), "not a reset");
    stage.close(id);
    stage.assert_drained();
}

#[test]
fn a_send_that_finds_no_memory_is_made_again() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.world.kernel.faults.shortage = 100;
    stage.world.kernel.sockets[id].peer_send(request(0, 0, Mode::Now, 500).as_bytes());
    stage.world.turn();
    assert_eq!(stage.requests(0), 0, "nor does it receive");

    stage.world.kernel.faults.shortage = 0;
    stage.world.pass_ms(20);
    assert_eq!(stage.requests(0), 1);
    stage.read(id);

    stage.world.kernel.sockets[id].peer_send(request(0, 1, Mode::Now, 500).as_bytes());
    while stage.requests(0) == 1 {
        stage.world.turn();
    }
    stage.world.kernel.faults.shortage = 100;
    stage.world.turn();
    stage.world.turn();
    assert_eq!(stage.read(id), "");
    assert!(stage.counter(|c| c.shortages_total) > 1);

    stage.world.kernel.faults.shortage = 0;
    stage.world.pass_ms(20);
    assert!(stage.read(id).starts_with("HTTP/1.1 200 "));
    assert_eq!(stage.open(), 1);
    stage.assert_drained();
}

#[test]
fn a_lasting_lack_of_memory_is_not_met_with_spinning() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.world.kernel.sockets[id].peer_send(request(0, 0, Mode::Now, 500).as_bytes());
    while stage.requests(0) == 0 {
        stage.world.turn();
    }
    stage.world.kernel.faults.shortage = 100;

    let before = stage.counter(|c| c.shortages_total);
    stage.world.pass_ms(1_000);
    let tries = stage.counter(|c| c.shortages_total) - before;

    assert!((50..=200).contains(&tries), "{tries} attempts in a second");
    stage.world.kernel.faults.shortage = 0;
    stage.world.pass_ms(20);
    stage.read(id);
    stage.assert_drained();
}
