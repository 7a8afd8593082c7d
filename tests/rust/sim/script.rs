//! Scripts for clients: requests, mistakes and manners, drawn from a seed.
//!
//! Owns what peers do on the internet, as far as we thought of it. Refuses to run anything.

use crate::client::{Client, Gate, Leaving, Reading, Write};
use crate::inbox::{Ends, Expected};
use crate::plan::{Intake, Mode, Plan, Shape};
use crate::prng::Prng;

/// What a run allows its clients.
#[derive(Clone, Copy, Debug)]
pub struct Climate {
    pub head_timeout_ms: u64,
    pub body_bytes_max: usize,
    pub stream_bytes_max: usize,
    pub answer_bytes_max: usize,
    /// Requests with a body, in percent.
    pub bodies: u32,
    /// In percent of the requests.
    pub later: u32,
    /// Answers in pieces, in percent.
    pub streams: u32,
    pub piece_bytes_max: usize,
    /// Bodies that are handed on as they arrive, in percent.
    pub arriving: u32,
    /// Whether handlers may forget to answer: only a drain's deadline ends those.
    pub never: bool,
}

/// One request, with what it expects.
struct Draft {
    head: Vec<u8>,
    /// Sent when the 100 has come.
    rest: Vec<u8>,
    waits_for_continue: bool,
    expected: Expected,
    /// Whether nothing is answered behind it.
    closes: bool,
    /// Whether the connection may end behind it, or it is unclear how much of it is read.
    is_vague: bool,
    /// Whether its body has a length and comes in pieces.
    arrives: bool,
}

/// Draws a whole client.
pub fn client(number: usize, climate: &Climate, prng: &mut Prng) -> Client {
    let mut client = Client::new(number);
    client.connect_at_ms = if prng.percent(50) {
        0
    } else {
        prng.between(0, 300)
    };
    client.window = prng.pick(&[64, 700, 4096, 65_536]);
    client.stays_ms = prng.pick(&[0, 0, 5, 100, 5_000]);
    let manner = prng.below(102);
    let requests = match manner {
        0..3 => 0,
        3..10 | 84..90 => prng.below(60),
        97.. => 30 + prng.below(40),
        _ => 1 + prng.below(8),
    };
    let sequential = prng.percent(30);
    // A body would give the head's deadline a new start.
    let bodies = if manner >= 97 { 0 } else { climate.bodies };
    let climate = &Climate { bodies, ..*climate };
    let closing_at = prng.percent(40).then(|| prng.below(2 * requests + 1));
    let surplus = prng.percent(40);
    let mut drafts = Vec::new();
    for index in 0..requests {
        let draft = request(number, index, closing_at == Some(index), climate, prng);
        let closes = draft.closes;
        drafts.push(draft);
        if closes && !surplus {
            break;
        }
    }
    let closes = drafts.iter().any(|draft| draft.closes);
    lay_out(&mut client, drafts, sequential, climate, prng);
    // Through a keyhole, the 100 may come too late for the body's deadline.
    client.inbox.may_time_out = client.window < 4096 && !client.inbox.continues_at.is_empty();
    leave(&mut client, manner, closes, climate, prng);
    client
}

/// How the client ends what it began.
fn leave(client: &mut Client, manner: usize, closes: bool, climate: &Climate, prng: &mut Prng) {
    match manner {
        0..10 => client.leaving = Leaving::Never,
        10..40 => {}
        40..50 => client.leaving = Leaving::HalfClose,
        50..60 if !closes => mistake(client, climate, prng),
        60..68 if !closes => truncated(client, climate, prng),
        68..76 => {
            client.is_strict = false;
            client.leaving = Leaving::ResetAt(client.connect_at_ms + prng.between(0, 60));
        }
        76..84 => {
            client.is_strict = false;
            client.leaving = Leaving::CloseAt(client.connect_at_ms + prng.between(0, 60));
        }
        84..90 => {
            client.is_strict = false;
            client.reading = Reading::Never;
            client.window = prng.pick(&[0, 1, 500]);
            client.leaving = Leaving::Never;
        }
        90..94 => slow_down(client, climate, prng),
        94..97 => {
            client.reading = Reading::Slow(1 + prng.below(300), 5);
            // It may read a 100 too late for the body's deadline.
            client.inbox.may_time_out = !client.inbox.continues_at.is_empty();
        }
        _ => chatter(client, prng),
    }
}

/// Cuts the requests into writes.
fn lay_out(
    client: &mut Client,
    drafts: Vec<Draft>,
    sequential: bool,
    climate: &Climate,
    prng: &mut Prng,
) {
    let pace = prng.below(4);
    let mut continues = 0;
    let mut sent = 0;
    let mut closed = false;
    let mut vague = false;
    for (index, draft) in drafts.into_iter().enumerate() {
        let gate = if sequential {
            Gate::Answers(index)
        } else {
            Gate::Open
        };
        if draft.arrives {
            client.arrivals.insert(index, sent + draft.head.len());
        }
        sent += draft.head.len() + draft.rest.len();
        client.request_ends.push(sent);
        vague |= draft.is_vague;
        if !closed {
            client.inbox.expected.push_back(draft.expected);
        }
        closed |= draft.closes;
        if closed {
            client.closing_at.get_or_insert(index);
        }
        if draft.waits_for_continue {
            continues += 1;
            client.inbox.continues_at.push(index);
            write(client, gate, draft.head, pace, climate, prng);
            write(
                client,
                Gate::Continues(continues),
                draft.rest,
                pace,
                climate,
                prng,
            );
        } else {
            let bytes = [draft.head, draft.rest].concat();
            write(client, gate, bytes, pace, climate, prng);
        }
    }
    if vague {
        client.request_ends.clear();
    }
}

fn write(
    client: &mut Client,
    gate: Gate,
    bytes: Vec<u8>,
    pace: usize,
    climate: &Climate,
    prng: &mut Prng,
) {
    // Well under the deadlines, so that whoever is refused for slowness was slow.
    let (pieces, gap_ms) = match pace {
        0 => (1, 0),
        1 => (4, 1),
        2 => (20, climate.head_timeout_ms / 80),
        _ => (bytes.len().min(200), 1),
    };
    let mut at = 0;
    for piece in 0..pieces {
        let left = bytes.len() - at;
        let taken = if piece + 1 == pieces {
            left
        } else {
            prng.below(2 + 2 * left / pieces)
        };
        let taken = taken.min(left);
        if taken == 0 {
            continue;
        }
        let gate = if at == 0 { gate } else { Gate::Open };
        let gap_ms = if pace == 2 && at == 0 {
            10
        } else {
            prng.between(0, gap_ms)
        };
        // A write never waits for more room than a socket has.
        for chunk in bytes[at..at + taken].chunks(8 * 1024) {
            client.writes.push_back(Write {
                gate,
                gap_ms,
                bytes: chunk.to_vec(),
            });
        }
        at += taken;
    }
}

fn request(
    client: usize,
    index: usize,
    closing: bool,
    climate: &Climate,
    prng: &mut Prng,
) -> Draft {
    let status = prng.pick(&[200, 200, 200, 404, 204, 500]);
    let bytes = match prng.below(10) {
        0 => climate.answer_bytes_max,
        1..4 => 0,
        _ => prng.below(300),
    };
    let http10 = prng.percent(15);
    let has_body = prng.percent(climate.bodies);
    let shape = shape(climate, prng);
    let bytes = match shape {
        Shape::Whole => bytes,
        // In at most so many pieces.
        _ => bytes.min(climate.piece_bytes_max * 50),
    };
    let plan = Plan {
        client,
        index,
        mode: mode(closing && prng.percent(40), climate, prng),
        status,
        bytes,
        shape,
        intake: Intake::Gathered,
    };
    let asks_to_close = closing && !plan.closes();
    let chunked = has_body && !http10 && prng.percent(50);
    let asks = has_body && !http10 && prng.percent(25);
    let body = has_body.then(|| body(climate, prng));
    // One that says that it is empty is complete with its head.
    let arrives = chunked || body.as_ref().is_some_and(|body| !body.is_empty());
    let plan = if arrives && prng.percent(climate.arriving) {
        arriving(plan, asks, prng)
    } else {
        plan
    };
    let version = if http10 { "1.0" } else { "1.1" };
    let connection = match (http10, asks_to_close) {
        (true, false) => "Connection: keep-alive\r\n",
        (false, true) => "Connection: close\r\n",
        _ => "",
    };
    let method = if has_body {
        "POST"
    } else {
        prng.pick(&["GET", "GET", "HEAD"])
    };
    let line = format!(
        "{method} {} HTTP/{version}\r\nHost: a\r\n{connection}",
        plan.target()
    );
    let expect = if asks { "Expect: 100-continue\r\n" } else { "" };
    let (framing, rest) = match &body {
        None => (String::new(), Vec::new()),
        Some(body) if chunked => ("Transfer-Encoding: chunked\r\n".into(), chunks(body, prng)),
        Some(body) => (format!("Content-Length: {}\r\n", body.len()), body.clone()),
    };
    let head = format!("{line}{expect}{framing}\r\n").into_bytes();
    let waits_for_continue = asks && !rest.is_empty();
    let head_only = method == "HEAD";
    let silent = head_only || status == 204;
    let ends = match ends(&plan, http10, silent) {
        Ends::Keeps | Ends::Maybe if asks_to_close => Ends::SaysClose,
        ends => ends,
    };
    let expected = Expected::Answer {
        plan,
        body,
        http10,
        head_only,
        ends,
        fails: false,
    };
    Draft {
        head,
        rest,
        waits_for_continue,
        expected,
        closes: asks_to_close || !matches!(ends, Ends::Keeps | Ends::Maybe),
        is_vague: ends == Ends::Maybe,
        arrives: plan.intake != Intake::Gathered && !chunked,
    }
}

/// What the answer does to the connection, as far as the application has a say.
fn ends(plan: &Plan, http10: bool, silent: bool) -> Ends {
    let streams = plan.streams() && !silent && plan.intake != Intake::Echo;
    match plan.shape {
        _ if streams && plan.is_cut() => Ends::Cut,
        _ if plan.closes() => Ends::SaysClose,
        Shape::Long if streams => Ends::Silently,
        Shape::Chunked if streams && http10 => Ends::SaysClose,
        _ => match plan.intake {
            Intake::Gathered | Intake::All => Ends::Keeps,
            Intake::Echo if !silent => Ends::Keeps,
            _ => Ends::Maybe,
        },
    }
}

fn shape(climate: &Climate, prng: &mut Prng) -> Shape {
    if !prng.percent(climate.streams) {
        return Shape::Whole;
    }
    match prng.below(20) {
        0 => Shape::Short,
        1 => Shape::Long,
        2 => Shape::AbortedSized,
        3 => Shape::AbortedChunked,
        4..10 => Shape::Sized,
        _ => Shape::Chunked,
    }
}

/// The plan for a body that the handler is given in pieces.
fn arriving(plan: Plan, asks: bool, prng: &mut Prng) -> Plan {
    let intake = match plan.mode {
        // A handler that forgets its answer may forget the body as well.
        Mode::Never => Intake::Nothing,
        _ => prng.pick(&[
            Intake::All,
            Intake::All,
            Intake::All,
            Intake::Nothing,
            Intake::Some,
            Intake::First,
            Intake::Echo,
            Intake::Echo,
        ]),
    };
    let answers_first = match intake {
        Intake::Nothing => true,
        // Whoever waits for a 100 would not send what is to be echoed.
        Intake::Echo => !asks,
        _ => false,
    };
    let mode = match plan.mode {
        mode if answers_first => mode,
        Mode::Now => Mode::Later,
        Mode::NowAndClose => Mode::LaterAndClose,
        mode => mode,
    };
    let shape = match intake {
        Intake::Echo => Shape::Whole,
        _ => plan.shape,
    };
    Plan {
        mode,
        shape,
        intake,
        ..plan
    }
}

fn mode(closes: bool, climate: &Climate, prng: &mut Prng) -> Mode {
    match (closes, prng.percent(climate.later)) {
        (true, false) => Mode::NowAndClose,
        (true, true) => Mode::LaterAndClose,
        (false, true) if climate.never && prng.percent(10) => Mode::Never,
        (false, true) => Mode::Later,
        (false, false) => Mode::Now,
    }
}

fn body(climate: &Climate, prng: &mut Prng) -> Vec<u8> {
    let len = match prng.below(10) {
        0 => 0,
        1 => prng.below(climate.body_bytes_max),
        _ => prng.below(200),
    };
    (0..len).map(|_| prng.number() as u8).collect()
}

fn chunks(body: &[u8], prng: &mut Prng) -> Vec<u8> {
    let mut coded = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let taken = (1 + prng.below(body.len())).min(body.len() - at);
        let extension = prng.pick(&["", "", ";name=value"]);
        coded.extend_from_slice(format!("{taken:x}{extension}\r\n").as_bytes());
        coded.extend_from_slice(&body[at..at + taken]);
        coded.extend_from_slice(b"\r\n");
        at += taken;
    }
    let trailers = prng.pick(&["", "", "X-Trailer: 1\r\n"]);
    coded.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    coded
}

/// Good requests, and then one whose body is wrong when its handler is reading it.
fn wrong_body(client: &mut Client, prng: &mut Prng) {
    let plan = Plan {
        intake: Intake::All,
        shape: prng.pick(&[Shape::Whole, Shape::Chunked]),
        ..Plan::plain(client.number, client.inbox.expected.len(), Mode::Later, 50)
    };
    let broken = prng.pick(&[
        "no size\r\n",
        "3\r\nabcdef\r\n",
        "2\nab",
        "1\r\na\r\n-1\r\n",
    ]);
    let text = format!(
        "POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{broken}",
        plan.target()
    );
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len() + prng.below(3_000), b'x');
    client.writes.push_back(Write {
        gate: Gate::Open,
        gap_ms: prng.between(0, 5),
        bytes,
    });
    client.inbox.expected.push_back(Expected::Answer {
        plan,
        body: Some(Vec::new()),
        http10: false,
        head_only: false,
        ends: Ends::SaysClose,
        fails: true,
    });
    client.request_ends.clear();
}

/// Good requests, and then one that is refused; perhaps with a flood behind it.
fn mistake(client: &mut Client, climate: &Climate, prng: &mut Prng) {
    if prng.percent(climate.arriving / 2) {
        return wrong_body(client, prng);
    }
    let too_long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(400));
    let too_large = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        climate.body_bytes_max + 1
    );
    let plan = Plan {
        intake: Intake::All,
        ..Plan::plain(client.number, client.inbox.expected.len(), Mode::Later, 5)
    };
    let too_large_to_arrive = format!(
        "POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        plan.target(),
        climate.stream_bytes_max + 1
    );
    let mistakes: [(&str, u16); 10] = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("\0\u{1}\u{2}", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
            400,
        ),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        (&too_long, 414),
        (&too_large, 413),
        (&too_large_to_arrive, 413),
    ];
    let (text, status) = mistakes[prng.below(mistakes.len())];
    let mut bytes = text.as_bytes().to_vec();
    if prng.percent(50) {
        bytes.resize(bytes.len() + prng.below(3_000), b'x');
    }
    let sequential = client.inbox.expected.len();
    let gate = if prng.percent(20) {
        Gate::Answers(sequential)
    } else {
        Gate::Open
    };
    client.writes.push_back(Write {
        gate,
        gap_ms: prng.between(0, 5),
        bytes,
    });
    client.inbox.expected.push_back(Expected::Refusal {
        status,
        head_only: false,
    });
    client.request_ends.clear();
}

/// Leaves off in the middle of a request, with FIN.
fn truncated(client: &mut Client, climate: &Climate, prng: &mut Prng) {
    let index = client.inbox.expected.len();
    let draft = loop {
        // What comes of one that is answered without a look at its end has no single answer.
        let draft = request(client.number, index, false, climate, prng);
        let vague = draft.is_vague || draft.closes;
        match &draft.expected {
            Expected::Answer { plan, .. } if vague || plan.intake == Intake::Echo => {}
            _ => break draft,
        }
    };
    let bytes = [&draft.head[..], &draft.rest].concat();
    let taken = 1 + prng.below(bytes.len() - 1);
    let cut = bytes[..taken].to_vec();
    let head_only = cut.starts_with(b"HEAD ");
    client.inbox.continues_at.push(index);
    client.writes.push_back(Write {
        gate: Gate::Open,
        gap_ms: prng.between(0, 5),
        bytes: cut,
    });
    let mut expected = Expected::Refusal {
        status: 400,
        head_only,
    };
    if let Expected::Answer { plan, .. } = &draft.expected
        && plan.intake != Intake::Gathered
        && taken >= draft.head.len()
    {
        expected = draft.expected;
        if let Expected::Answer { ends, fails, .. } = &mut expected {
            (*ends, *fails) = (Ends::SaysClose, true);
        }
    }
    client.inbox.expected.push_back(expected);
    client.leaving = Leaving::HalfClose;
    client.request_ends.clear();
}

/// A client that may be told that it is too slow.
fn slow_down(client: &mut Client, climate: &Climate, prng: &mut Prng) {
    client.is_strict = false;
    client.inbox.may_time_out = true;
    client.leaving = prng.pick(&[Leaving::Never, Leaving::WhenSatisfied]);
    let at = prng.below(client.writes.len().max(1));
    for write in client.writes.iter_mut().skip(at) {
        write.gap_ms = prng.between(0, climate.head_timeout_ms * 2);
    }
    if prng.percent(50) {
        // And leaves off without a word.
        client.writes.truncate(at);
    }
}

/// Many small requests, each in time, the whole for much longer than a head may take.
fn chatter(client: &mut Client, prng: &mut Prng) {
    let shift = 1 + prng.below(40);
    let all: Vec<u8> = client
        .writes
        .drain(..)
        .flat_map(|write| write.bytes)
        .collect();
    let mut pieces = vec![&all[..shift.min(all.len())]];
    pieces.extend(all[shift.min(all.len())..].chunks(60));
    for piece in pieces {
        let gap_ms = prng.between(30, 60);
        client.writes.push_back(Write {
            gate: Gate::Open,
            gap_ms,
            bytes: piece.to_vec(),
        });
    }
}
