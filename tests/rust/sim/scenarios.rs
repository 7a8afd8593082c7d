//! Situations worth a name, in a world without faults.
//!
//! Owns one test per promise of the worker. Refuses randomness: what a seed finds belongs here as a
//! scenario once it is understood.

use anel::protocol::{CloseReason, Limits};

use crate::plan::{Mode, Plan};
use crate::socket::End;
use crate::trace::Trace;
use crate::world::World;

pub struct Stage {
    pub world: World,
}

/// A request for an answer of `bytes` bytes.
fn get(index: usize, mode: Mode, bytes: usize) -> String {
    ask("GET", index, mode, bytes, "", "")
}

fn ask(method: &str, index: usize, mode: Mode, bytes: usize, fields: &str, body: &str) -> String {
    let target = Plan::plain(0, index, mode, bytes).target();
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn post(index: usize, mode: Mode, fields: &str, body: &str) -> String {
    ask("POST", index, mode, 5, fields, body)
}

/// The numbers of the answered requests, in order.
fn answered(text: &str) -> Vec<usize> {
    let lines = text
        .split("\r\n")
        .filter_map(|line| line.strip_prefix("X-Request: 0."));
    lines
        .map(|number| number.parse().expect("a number"))
        .collect()
}

impl Stage {
    pub fn new(limits: Limits) -> Self {
        Self::with_buffers(limits, (16, 4096))
    }

    pub fn with_buffers(limits: Limits, buffers: (u16, u32)) -> Self {
        Self {
            world: World::calm(limits, buffers, Trace::Off),
        }
    }

    pub fn connect(&mut self) -> usize {
        self.connect_with_window(1 << 20)
    }

    pub fn connect_with_window(&mut self, window: usize) -> usize {
        let id = self.world.kernel.connect(window);
        self.world.settle();
        id
    }

    pub fn send(&mut self, id: usize, text: &str) {
        self.world.kernel.sockets[id].peer_send(text.as_bytes());
        self.world.settle();
    }

    pub fn half_close(&mut self, id: usize) {
        self.world.kernel.sockets[id].peer_half_close();
        self.world.settle();
    }

    pub fn close(&mut self, id: usize) {
        self.world.kernel.sockets[id].peer_close();
        self.world.settle();
    }

    pub fn read(&mut self, id: usize) -> String {
        let mut all = Vec::new();
        loop {
            let bytes = self.world.kernel.sockets[id].peer_read(usize::MAX);
            if bytes.is_empty() {
                return String::from_utf8(all).expect("ASCII");
            }
            all.extend(bytes);
            self.world.settle();
        }
    }

    pub fn end(&self, id: usize) -> Option<End> {
        self.world.kernel.sockets[id].peer_end()
    }

    pub fn answer(&mut self, index: usize) {
        let World {
            application,
            worker,
            ..
        } = &mut self.world;
        application.answer_one(worker, 0, index);
        self.world.settle();
    }

    pub fn wind_down(&mut self) {
        for client in &mut self.world.clients {
            client.inbox.draining = true;
        }
        self.world.worker.wind_down(&mut self.world.kernel);
        self.world.settle();
    }

    pub fn drain(&mut self) {
        self.world.drain();
        self.world.settle();
    }

    pub fn open(&self) -> usize {
        self.world.worker.connections_open()
    }

    pub fn armed(&self, id: usize) -> bool {
        self.world.kernel.sockets[id].recv_outstanding
    }

    pub fn assert_drained(mut self) {
        self.drain();
        assert!(self.world.worker.is_drained());
        self.world.kernel.assert_quiet();
    }
}

#[test]
fn a_pipeline_of_24_is_answered_in_one_send() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let requests: String = (0..24).map(|index| get(index, Mode::Now, 5)).collect();

    stage.send(id, &requests);

    assert_eq!(answered(&stage.read(id)), (0..24).collect::<Vec<_>>());
    assert_eq!(stage.world.worker.counters().sends_total, 1);
    stage.assert_drained();
}

#[test]
fn late_answers_in_reverse_leave_in_order() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let requests: String = (0..24).map(|index| get(index, Mode::Later, 5)).collect();
    stage.send(id, &requests);

    for index in (1..24).rev() {
        stage.answer(index);
        assert_eq!(stage.read(id), "");
    }
    stage.answer(0);

    assert_eq!(answered(&stage.read(id)), (0..24).collect::<Vec<_>>());
    stage.assert_drained();
}

#[test]
fn a_pipeline_beyond_its_depth_pauses_and_loses_nothing() {
    let mut stage = Stage::new(Limits {
        pipeline_depth_max: 3,
        ..Limits::default()
    });
    let id = stage.connect();
    let requests: String = (0..10).map(|index| get(index, Mode::Later, 5)).collect();

    stage.send(id, &requests);
    assert_eq!(stage.world.application.awaited(), 3);
    for index in 0..10 {
        stage.answer(index);
    }

    assert_eq!(answered(&stage.read(id)), (0..10).collect::<Vec<_>>());
    assert!(stage.armed(id));
    stage.assert_drained();
}

#[test]
fn a_peer_that_never_reads_is_not_read_either() {
    let limits = Limits {
        owed_bytes_max: 10_000,
        head_bytes_max: 4_000,
        ..Limits::default()
    };
    let mut stage = Stage::with_buffers(limits, (4, 512));
    let id = stage.connect_with_window(100);
    stage.world.kernel.send_bytes_max = 10_000 + 2_000;

    for index in 0..400 {
        stage.send(id, &get(index, Mode::Now, 1_000));
    }

    assert!(!stage.armed(id));
    let delivered = stage.world.kernel.sockets[id].delivered;
    assert!(delivered < 4_000 + 4_000, "{delivered}");
    assert_eq!(stage.world.kernel.seen.recv_cancels, 1);
    stage.world.kernel.sockets[id].window = 1 << 20;
    stage.world.settle();
    assert_eq!(answered(&stage.read(id)).len(), 400);
    stage.assert_drained();
}

#[test]
fn a_starving_peer_that_never_reads_is_not_read_either() {
    let limits = Limits {
        owed_bytes_max: 100,
        head_bytes_max: 500,
        ..Limits::default()
    };
    let mut stage = Stage::with_buffers(limits, (1, 64));
    let id = stage.connect_with_window(0);

    let requests: String = (0..100).map(|index| get(index, Mode::Now, 1_000)).collect();
    stage.send(id, &requests);
    stage.world.pass_ms(1_000);

    let delivered = stage.world.kernel.sockets[id].delivered;
    assert!(delivered < 1_000, "{delivered}");
    stage.close(id);
}

#[test]
fn a_head_that_takes_too_long_is_answered_408() {
    let limits = Limits {
        head_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect();
    for byte in "GET / HTTP/1.1\r\n".chars() {
        stage.send(id, &byte.to_string());
        stage.world.pass_ms(60);
    }
    assert_eq!(stage.end(id), None);

    stage.world.pass_ms(100);

    assert!(stage.read(id).starts_with("HTTP/1.1 408 "));
    assert_eq!(stage.end(id), Some(End::Fin));
    stage.world.pass_ms(limits.linger_timeout_ms);
    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn heads_that_overlap_do_not_share_a_deadline() {
    let limits = Limits {
        head_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect();
    let requests: String = (0..100).map(|index| get(index, Mode::Now, 5)).collect();
    // Every write ends within a head.
    let mut text = String::new();
    for piece in requests.as_bytes().chunks(requests.len() / 100 + 1) {
        stage.send(id, std::str::from_utf8(piece).expect("ASCII"));
        text += &stage.read(id);
        stage.world.pass_ms(50);
    }

    assert_eq!(answered(&text).len(), 100, "{text}");
    stage.assert_drained();
}

#[test]
fn many_short_connections_do_not_hide_the_deadline_of_a_long_one() {
    let mut stage = Stage::new(Limits {
        head_timeout_ms: 1_000,
        ..Limits::default()
    });
    let slow = stage.connect();
    stage.send(slow, "GET ");
    for _ in 0..1_000 {
        let id = stage.connect();
        stage.close(id);
    }

    stage.world.pass_ms(1_000);

    assert!(stage.read(slow).starts_with("HTTP/1.1 408 "));
    let next_ms = stage.world.worker.next_deadline_ms();
    assert!(next_ms.is_some_and(|at_ms| at_ms <= 3_000), "{next_ms:?}");
}

#[test]
fn a_body_that_takes_too_long_is_answered_408() {
    let limits = Limits {
        body_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect();

    stage.send(id, &post(0, Mode::Now, "Content-Length: 5\r\n", "1234"));
    stage.world.pass_ms(1_000);

    assert!(stage.read(id).starts_with("HTTP/1.1 408 "));
    stage.close(id);
    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let limits = Limits {
        idle_timeout_ms: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let fresh = stage.connect();
    let used = stage.connect();
    stage.world.pass_ms(500);
    stage.send(used, &get(0, Mode::Now, 5));
    stage.read(used);

    stage.world.pass_ms(500);
    assert_eq!((stage.end(fresh), stage.end(used)), (Some(End::Fin), None));
    stage.world.pass_ms(500);

    assert_eq!(
        (stage.read(fresh), stage.read(used)),
        (String::new(), String::new())
    );
    assert_eq!(stage.end(used), Some(End::Fin));
    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn a_peer_that_takes_nothing_loses_its_connection() {
    let limits = Limits {
        send_timeout_ms: 1_000,
        send_bytes_per_s_min: 0,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let id = stage.connect_with_window(100);
    stage.send(id, &(get(0, Mode::Now, 5_000) + &get(1, Mode::Later, 5)));

    stage.world.pass_ms(900);
    stage.world.kernel.sockets[id].peer_read(50);
    stage.world.pass_ms(900);
    assert_eq!(stage.open(), 1, "it had taken some");
    stage.world.pass_ms(100);

    assert_eq!(stage.open(), 0);
    let abandoned = &stage.world.application.abandoned;
    assert_eq!(abandoned.len(), 1);
    assert_eq!(
        (abandoned[0].0.index, abandoned[0].1),
        (1, CloseReason::SendDeadline)
    );
    stage.assert_drained();
}

#[test]
fn asking_for_a_body_waits_its_turn() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let expecting = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    stage.send(id, &get(0, Mode::Later, 5));
    stage.send(id, &get(1, Mode::Later, 5));
    stage.send(id, &post(2, Mode::Now, expecting, ""));
    stage.answer(1);
    assert_eq!(stage.read(id), "");

    stage.answer(0);

    let text = stage.read(id);
    assert_eq!(answered(&text), [0, 1]);
    assert!(text.ends_with("HTTP/1.1 100 Continue\r\n\r\n"), "{text}");
    stage.send(id, "abc");
    assert_eq!(answered(&stage.read(id)), [2]);
    stage.assert_drained();
}

#[test]
fn nobody_is_asked_for_a_body_that_has_no_bytes() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();

    stage.send(
        id,
        &post(
            0,
            Mode::Now,
            "Expect: 100-continue\r\nContent-Length: 0\r\n",
            "",
        ),
    );

    let text = stage.read(id);
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
}

#[test]
fn a_mistake_is_refused_behind_everything_before_it() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    let requests = get(0, Mode::Later, 5) + &get(1, Mode::Now, 5) + "broken\r\n\r\n";
    stage.send(id, &(requests + &get(2, Mode::Now, 5)));
    assert_eq!((stage.read(id), stage.end(id)), (String::new(), None));

    stage.answer(0);

    let text = stage.read(id);
    assert_eq!(answered(&text), [0, 1]);
    assert!(text.ends_with("malformed_headers"), "{text}");
    assert!(text.contains("HTTP/1.1 400 Bad Request\r\n"));
    // Lingering: FIN is out, what still comes is drained, no reset.
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 1));
    stage.send(id, &"x".repeat(3_000));
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 1));
    stage.half_close(id);
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 0));
    stage.assert_drained();
}

#[test]
fn lingering_has_a_deadline_and_a_limit() {
    let limits = Limits {
        linger_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let [slow, loud] = [(); 2].map(|()| stage.connect());
    stage.send(slow, "broken\r\n\r\n");
    stage.send(loud, "broken\r\n\r\n");
    assert_eq!(stage.open(), 2);

    stage.send(loud, &"x".repeat(1_000));
    assert_eq!(stage.open(), 1);
    stage.world.pass_ms(limits.linger_timeout_ms);

    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn a_peer_that_half_closes_still_gets_its_answers() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect();
    stage.send(id, &(get(0, Mode::Later, 5) + &get(1, Mode::Now, 5)));
    stage.half_close(id);
    assert_eq!((stage.end(id), stage.open()), (None, 1));

    stage.answer(0);

    assert_eq!(answered(&stage.read(id)), [0, 1]);
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 0));
    stage.assert_drained();
}

#[test]
fn half_closing_during_a_pause_loses_nothing() {
    let mut stage = Stage::new(Limits {
        pipeline_depth_max: 1,
        ..Limits::default()
    });
    let id = stage.connect();
    stage.send(
        id,
        &(get(0, Mode::Later, 5) + &get(1, Mode::Later, 5) + "GET /trunc"),
    );
    stage.half_close(id);

    stage.answer(0);
    stage.answer(1);

    let text = stage.read(id);
    assert_eq!(answered(&text), [0, 1]);
    assert!(text.contains("HTTP/1.1 400 "), "{text}");
    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn a_late_answer_that_closes_abandons_what_is_behind_it() {
    let mut stage = Stage::new(Limits {
        pipeline_depth_max: 3,
        ..Limits::default()
    });
    let id = stage.connect();
    let requests: String = (0..8)
        .map(|index| get(index, [Mode::Later, Mode::LaterAndClose][index % 2], 5))
        .collect();
    stage.send(id, &requests);

    stage.answer(1);
    stage.answer(0);

    let text = stage.read(id);
    assert_eq!(answered(&text), [0, 1]);
    assert_eq!(text.matches("Connection: close\r\n").count(), 1);
    let abandoned: Vec<_> = stage
        .world
        .application
        .abandoned
        .iter()
        .map(|a| a.0.index)
        .collect();
    assert_eq!(abandoned, [2]);
    // More was on its way: FIN, not a reset that destroys the answer.
    assert_eq!((stage.end(id), stage.open()), (Some(End::Fin), 1));
    stage.send(id, "more");
    assert_eq!(stage.end(id), Some(End::Fin));
    stage.close(id);
    assert_eq!(stage.open(), 0);
    stage.assert_drained();
}

#[test]
fn without_descriptors_accepting_rests_until_one_is_free() {
    let mut stage = Stage::new(Limits::default());
    stage.world.kernel.descriptors_max = 2;
    let first = stage.connect();
    for _ in 0..4 {
        stage.connect();
    }

    let failures = stage.world.kernel.seen.descriptor_limits;
    stage.world.pass_ms(1_000);
    let tries = stage.world.kernel.seen.descriptor_limits - failures;
    assert!((5..=20).contains(&tries), "{tries} attempts in a second");

    stage.close(first);
    stage.world.pass_ms(1);
    assert_eq!(
        stage.world.kernel.backlog(),
        2,
        "the place was taken at once"
    );
    assert_eq!(stage.open(), 2);
}

#[test]
fn a_full_worker_accepts_again_when_a_connection_closes() {
    let mut stage = Stage::new(Limits {
        connections_max: 1,
        ..Limits::default()
    });
    let first = stage.connect();
    let second = stage.connect();
    assert_eq!((stage.open(), stage.world.kernel.backlog()), (1, 1));
    assert!(!stage.world.kernel.is_accepting());

    stage.close(first);

    assert_eq!((stage.open(), stage.world.kernel.backlog()), (1, 0));
    stage.send(second, &get(0, Mode::Now, 5));
    assert_eq!(answered(&stage.read(second)), [0]);
    stage.assert_drained();
}

#[test]
fn a_full_worker_without_descriptors_does_not_spin() {
    let mut stage = Stage::new(Limits {
        connections_max: 1,
        ..Limits::default()
    });
    stage.world.kernel.descriptors_max = 1;
    stage.world.kernel.connect(1 << 20);
    stage.connect();
    stage.connect();

    assert!(
        stage
            .world
            .worker
            .next_deadline_ms()
            .is_some_and(|at_ms| at_ms > 1_000)
    );
}

#[test]
fn a_drain_closes_what_is_idle_and_answers_what_is_not() {
    let mut stage = Stage::new(Limits::default());
    let [idle, busy, sending] = [(); 3].map(|()| stage.connect());
    stage.send(busy, &get(0, Mode::Later, 5));
    stage.send(sending, &post(1, Mode::Now, "Content-Length: 3\r\n", "a"));

    stage.drain();

    assert_eq!(stage.end(idle), Some(End::Fin));
    assert_eq!(
        (stage.open(), stage.world.worker.connections_busy()),
        (2, 2)
    );
    assert!(!stage.world.kernel.is_accepting());
    stage.answer(0);
    stage.send(sending, "bc");
    for id in [busy, sending] {
        let text = stage.read(id);
        assert_eq!(answered(&text).len(), 1);
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
        assert_eq!(stage.end(id), Some(End::Fin));
    }
    assert!(stage.world.worker.is_drained());
    stage.world.kernel.assert_quiet();
}

#[test]
fn a_drain_reads_a_request_that_waits_for_a_buffer() {
    let mut stage = Stage::with_buffers(Limits::default(), (1, 4096));
    let id = stage.connect();
    let held = stage.world.kernel.group.lend(b"held");
    stage.send(id, &get(0, Mode::Now, 5));
    assert!(!stage.armed(id));

    stage.drain();
    drop(held);
    stage.world.pass_ms(2);

    let text = stage.read(id);
    assert_eq!(answered(&text), [0]);
    assert!(text.contains("Connection: close"));
    assert!(stage.world.worker.is_drained());
}

#[test]
fn a_connection_taken_during_a_drain_is_served_if_it_has_asked() {
    let mut stage = Stage::new(Limits::default());
    stage.world.settle();
    let [silent, asking] = [(); 2].map(|()| stage.world.kernel.connect(1 << 20));
    let request = get(0, Mode::Now, 5);
    stage.world.kernel.sockets[asking].peer_send(request.as_bytes());
    let accepted = stage.world.kernel.wait(0);
    stage.world.drain();
    stage.world.deliver(accepted);

    stage.world.settle();
    stage.world.pass_ms(1);

    let text = stage.read(asking);
    assert_eq!(answered(&text), [0]);
    assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    assert_eq!(
        (stage.read(silent), stage.end(silent)),
        (String::new(), Some(End::Fin))
    );
    assert!(stage.world.worker.is_drained());
}

#[test]
fn the_end_of_a_drain_leaves_nothing_behind() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect_with_window(10);
    stage.send(id, &(get(0, Mode::Now, 100) + &get(1, Mode::Never, 5)));
    stage.drain();
    assert!(!stage.world.worker.is_drained());

    stage.world.abort();
    stage.world.settle();

    assert_eq!(
        stage.world.application.abandoned[0].1,
        CloseReason::DrainDeadline
    );
    assert!(stage.world.worker.is_drained());
    stage.world.kernel.assert_quiet();
}

#[test]
fn a_send_that_comes_home_short_after_the_end_is_not_continued() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.connect_with_window(10);
    let request = get(0, Mode::Now, 100);
    stage.world.kernel.sockets[id].peer_send(request.as_bytes());
    let received = stage.world.kernel.wait(0);
    stage.world.deliver(received);
    let World {
        worker,
        kernel,
        application,
        ..
    } = &mut stage.world;
    worker.flush(kernel, application);
    let short = kernel.wait(0);
    assert_eq!(short.len(), 1);
    stage.world.abort();
    stage.world.deliver(short);

    stage.world.settle();

    assert_eq!(
        (stage.open(), stage.world.worker.counters().sends_total),
        (0, 1)
    );
    stage.assert_drained();
}

#[test]
fn an_accept_that_fails_during_a_drain_does_not_spin() {
    let mut stage = Stage::new(Limits::default());
    stage.world.kernel.descriptors_max = 0;
    let World {
        worker,
        kernel,
        application,
        ..
    } = &mut stage.world;
    worker.flush(kernel, application);
    kernel.connect(10);
    let failed = kernel.wait(0);
    stage.world.drain();
    stage.world.deliver(failed);

    stage.world.settle();

    assert_eq!(stage.world.worker.next_deadline_ms(), None);
    assert!(stage.world.worker.is_drained());
}

#[test]
fn four_small_buffers_serve_200_connections() {
    let mut stage = Stage::with_buffers(Limits::default(), (4, 64));
    let ids: Vec<usize> = (0..200)
        .map(|_| stage.world.kernel.connect(1 << 20))
        .collect();
    for (client, id) in ids.iter().enumerate() {
        for index in 0..3 {
            let target = Plan::plain(client, index, Mode::Now, 20).target();
            let text = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
            stage.world.kernel.sockets[*id].peer_send(text.as_bytes());
        }
    }

    stage.world.pass_ms(200);

    for id in ids {
        assert_eq!(stage.read(id).matches("HTTP/1.1 200 OK\r\n").count(), 3);
    }
    assert!(stage.world.kernel.seen.starved > 100);
    stage.assert_drained();
}
