//! What holds for any input: nothing panics, splits do not matter, memory is bounded, responses
//! parse.
//!
//! Owns the generators. Refuses to know single cases: those are in `tests/cases`. Every failure
//! prints the seed it came from.

mod wire;

use anel::protocol::date::DateLine;
use anel::protocol::encode::{Context, encode, push_field, refusal};
use anel::protocol::{
    Answer, ConnectionField, Http1, Limits, Payload, ProtocolError, RequestHead, Span, Step,
    Version,
};
use wire::{Driver, Ending, Random, replay, splits};

/// Requests that are mostly valid, in pieces that can be recombined into ones that are not.
fn generated(random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..1 + random.below(4) {
        if random.below(8) == 0 {
            input.extend_from_slice(random.pick(&[&b"\r\n"[..], b"\n", b"\r", b" ", b"\r\n\r\n"]));
        }
        let targets = [
            "/",
            "/a/b?c=d",
            "*",
            "http://h/p?q",
            "h:1",
            "/%41#",
            "/\u{e9}",
            "",
        ];
        let method = random.pick(&["GET", "POST", "OPTIONS", "CONNECT", "get", "G(", ""]);
        let version = random.pick(&[
            "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "http/1.1", "HTTP/1",
        ]);
        let line_end = if random.below(40) == 0 { "\n" } else { "\r\n" };
        let target = random.pick(&targets);
        input.extend_from_slice(format!("{method} {target} {version}{line_end}").as_bytes());
        if random.below(16) != 0 {
            input.extend_from_slice(b"Host: a\r\n");
        }
        for _ in 0..random.below(4) {
            input.extend_from_slice(random.pick(&FIELDS).as_bytes());
        }
        let body = match random.below(4) {
            0 => "Content-Length: 5\r\n\r\nhello",
            1 => "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n",
            _ => "\r\n",
        };
        input.extend_from_slice(body.as_bytes());
    }
    input
}

const FIELDS: [&str; 18] = [
    "Accept: */*\r\n",
    "User-Agent: x y z\r\n",
    "Connection: keep-alive\r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "Cookie: a=b; c=d\r\n",
    "X-Empty:\r\n",
    "X-Space: \t \r\n",
    "Host: b\r\n",
    "X : y\r\n",
    "X y\r\n",
    " folded\r\n",
    "X: \0\r\n",
    "X: y\n",
    "X: y\rz\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: gzip\r\n",
    ": empty\r\n",
];

/// Changes a few bytes: replaced, removed, doubled, cut.
fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    for _ in 0..1 + random.below(3) {
        if input.is_empty() {
            return;
        }
        let at = random.below(input.len());
        match random.below(5) {
            0 => input[at] = random.next() as u8,
            1 => input[at] = *random.pick(&[&b'\r', &b'\n', &b' ', &b':', &b'\0', &b',', &b'0']),
            2 => drop(input.remove(at)),
            3 => input.insert(at, input[at]),
            _ => input.truncate(at),
        }
    }
}

fn assert_split_invariant(input: &[u8], limits: Limits, seed: u64) {
    let whole = replay(input, &[input.len()], limits);
    for (split, pieces) in splits(input.len(), seed) {
        let outcome = replay(input, &pieces, limits);
        let text = input.escape_ascii();
        assert_eq!(
            outcome, whole,
            "seed {seed}, split {split}, input \"{text}\""
        );
    }
}

#[test]
fn splits_do_not_change_what_generated_input_means() {
    for seed in 0..2_000 {
        let input = generated(&mut Random::new(seed));

        assert_split_invariant(&input, Limits::default(), seed);
    }
}

#[test]
fn splits_do_not_change_what_mutated_input_means() {
    for seed in 0..3_000 {
        let mut random = Random::new(seed);
        let mut input = generated(&mut random);
        mutate(&mut random, &mut input);

        assert_split_invariant(&input, Limits::default(), seed);
    }
}

#[test]
fn splits_do_not_change_what_tight_limits_refuse() {
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        let input = generated(&mut random);
        let limits = Limits {
            head_bytes_max: 20 + random.below(80) as u32,
            target_bytes_max: 1 + random.below(12) as u32,
            fields_max: random.below(4) as u32,
            body_bytes_max: random.below(6) as u64,
            chunk_extension_bytes_max: random.below(6) as u32,
            trailer_bytes_max: random.below(10) as u32,
            ..Limits::default()
        };

        assert_split_invariant(&input, limits, seed);
    }
}

/// Requests of which many have the fields of the one before.
fn repeating(random: &mut Random) -> Vec<u8> {
    let sections = [
        "Host: a\r\n\r\n",
        "Host: a\r\n\r\n",
        "Host: a\r\nAccept: */*\r\nX-Empty:\r\n\r\n",
        "Host: a\r\nContent-Length: 3\r\n\r\nabc",
        "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        "Host: a\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n",
    ];
    let lines = [
        "GET / HTTP/1.1",
        "GET /longer/target?query HTTP/1.1",
        "POST http://authority/path HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET / HTTP/1.0",
    ];
    let mut section: &str = random.pick(&sections);
    let mut input = Vec::new();
    for _ in 0..2 + random.below(6) {
        if random.below(4) == 0 {
            section = random.pick(&sections);
        }
        if random.below(8) == 0 {
            input.extend_from_slice(b"\r\n");
        }
        let line = random.pick(&lines);
        input.extend_from_slice(format!("{line}\r\n{section}").as_bytes());
    }
    if random.below(4) == 0 {
        mutate(random, &mut input);
    }
    input
}

// Where the input is cut, nothing of the head in front is at hand.
#[test]
fn splits_do_not_change_what_repeated_fields_mean() {
    for seed in 0..3_000 {
        let input = repeating(&mut Random::new(seed));

        assert_split_invariant(&input, Limits::default(), seed);
    }
}

/// Field lines of all lengths, so that every length of name, space and value meets every word.
fn field_lines(random: &mut Random) -> String {
    let name = "X-Name_of_many.Characters~0123456789";
    let spaces = ["", " ", " ", " ", "\t", " \t  "];
    let lines = (0..random.below(6)).map(|_| {
        let name = &name[..1 + random.below(name.len())];
        let value = visible_text(random).repeat(random.below(4));
        let (before, behind) = (random.pick(&spaces), random.pick(&spaces));
        format!("{name}:{before}{value}{behind}\r\n")
    });
    lines.collect()
}

#[test]
fn a_head_that_is_read_says_what_httparse_reads_in_it() {
    let mut heads = 0;
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let target = "/a-path/of/some-length?with=a&query=0123456789";
        let method = random.pick(&["GET", "HEAD", "PUT", "X-METHOD_0"]);
        let target = &target[..1 + random.below(target.len())];
        let version = random.below(2);
        let fields = field_lines(&mut random);
        let mut input =
            format!("{method} {target} HTTP/1.{version}\r\nHost: a\r\n{fields}\r\n").into_bytes();
        if random.below(2) == 0 {
            mutate(&mut random, &mut input);
        }
        let (mut protocol, mut head) = (Http1::new(Limits::default()), RequestHead::default());

        let (used, step) = protocol.advance(&mut head, &input);

        if step != Step::Head {
            continue;
        }
        heads += 1;
        let bytes = &input[used - head.bytes as usize..used];
        let mut slots = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut slots);
        let parsed = request.parse(bytes);
        let context = format!("seed {seed}: {}", bytes.escape_ascii());
        assert_eq!(
            parsed,
            Ok(httparse::Status::Complete(bytes.len())),
            "{context}"
        );
        let text = |span: &Span| span.of(bytes).to_vec();
        assert_eq!(
            request.method.map(str::as_bytes),
            Some(head.method.of(bytes)),
            "{context}"
        );
        assert_eq!(
            request.path.map(str::as_bytes),
            Some(head.target.of(bytes)),
            "{context}"
        );
        assert_eq!(
            request.version,
            Some(u8::from(head.version == Version::Http11)),
            "{context}"
        );
        let fields = head.fields.iter();
        let ours: Vec<_> = fields
            .map(|field| (text(&field.name), text(&field.value)))
            .collect();
        let headers = request.headers.iter();
        let theirs = headers.map(|header| (header.name.as_bytes().to_vec(), header.value.to_vec()));
        assert_eq!(ours, theirs.collect::<Vec<_>>(), "{context}");
    }
    assert!(heads > 10_000, "{heads} heads");
}

#[test]
fn random_bytes_are_refused_or_wait_but_never_panic() {
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let count = 1 + random.below(64);
        let input = random.bytes(count);

        let outcome = replay(&input, &[1 + random.below(8)], Limits::default());

        assert!(outcome.requests.is_empty(), "seed {seed}: {outcome:?}");
    }
}

#[test]
fn random_bytes_behind_a_chunked_head_never_panic() {
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let mut input =
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..random.below(40) {
            input.push(*random.pick(&[&b'0', &b'1', &b'a', &b'\r', &b'\n', &b';', &b' ', &b':']));
        }

        let whole = replay(&input, &[input.len()], Limits::default());
        let trickled = replay(&input, &[1], Limits::default());

        assert_eq!(whole, trickled, "seed {seed}");
    }
}

#[test]
fn a_peer_cannot_make_us_carry_more_than_a_head() {
    let limits = Limits::default();
    for filler in [&b"a"[..], b"a: b\r\n", b"\r\n", b"GET /", b"0"] {
        let mut driver = Driver::new(limits);
        driver.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX: ");

        for _ in 0..200_000 {
            if !driver.feed(filler) {
                break;
            }
        }

        assert!(driver.carry_bytes_max <= limits.head_bytes_max as usize);
    }
}

#[test]
fn a_long_body_is_handed_on_and_not_carried() {
    let mut driver = Driver::new(Limits::default());
    driver.feed(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");

    for _ in 0..1_000 {
        driver.feed(b"400\r\n");
        driver.feed(&[b'x'; 1024]);
        driver.feed(b"\r\n");
    }
    driver.feed(b"0\r\n\r\n");

    assert_eq!(driver.carry_bytes_max, 0);
    let outcome = driver.finish();
    assert_eq!(
        outcome.requests[0].body.as_ref().map(Vec::len),
        Some(1024 * 1000)
    );
    assert_eq!(outcome.ending, Ending::Idle);
}

#[test]
fn more_fields_than_the_default_are_read_where_they_are_allowed() {
    let limits = Limits {
        fields_max: 1_000,
        ..Limits::default()
    };
    let mut input = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for number in 0..999 {
        input.extend_from_slice(format!("X-{number}: y\r\n").as_bytes());
    }
    let mut too_many = input.clone();
    input.extend_from_slice(b"\r\n");
    too_many.extend_from_slice(b"Z: y\r\n\r\n");

    let outcome = replay(&input, &[input.len()], limits);
    let refused = replay(&too_many, &[too_many.len()], limits);

    assert_eq!(outcome.requests[0].fields.len(), 1_000);
    assert_eq!(
        refused.ending,
        Ending::Refused(ProtocolError::TooManyFields)
    );
}

#[test]
fn a_chunked_body_without_trailers_needs_no_room_for_them() {
    let limits = Limits {
        trailer_bytes_max: 0,
        ..Limits::default()
    };
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    let without = format!("{head}0\r\n\r\n");
    let with = format!("{head}0\r\nT: u\r\n\r\n");

    let accepted = replay(without.as_bytes(), &[without.len()], limits);
    let refused = replay(with.as_bytes(), &[with.len()], limits);

    assert_eq!(accepted.ending, Ending::Idle);
    assert_eq!(
        refused.ending,
        Ending::Refused(ProtocolError::TrailerTooLarge)
    );
}

#[test]
fn a_head_limit_beyond_16_bits_is_lowered_to_16_bits() {
    let limits = Limits {
        head_bytes_max: u32::MAX,
        ..Limits::default()
    };
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    for (bytes, fits) in [(65_535, true), (65_536, false)] {
        let value = "v".repeat(bytes - frame);
        let input = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n");

        let outcome = replay(input.as_bytes(), &[input.len()], limits);

        let expected = if fits {
            Ending::Idle
        } else {
            Ending::Refused(ProtocolError::HeadTooLarge)
        };
        assert_eq!(outcome.ending, expected);
    }
}

/// Visible text that may hold spaces, but neither begins nor ends with one.
fn visible_text(random: &mut Random) -> String {
    let count = random.below(20);
    let middle: String = (0..count)
        .map(|_| char::from(32 + random.below(95) as u8))
        .collect();
    format!("v{middle}v")
}

#[test]
fn what_is_encoded_parses_back_to_what_was_meant() {
    for seed in 0..5_000 {
        let mut random = Random::new(seed);
        let status = 200 + random.below(400) as u16;
        let count = random.below(300);
        let body = random.bytes(count);
        let value = visible_text(&mut random);
        let mut fields = Vec::new();
        push_field(&mut fields, "X-Value", &value).expect("a valid field");
        let head_only = random.below(4) == 0;
        let version = if random.below(2) == 0 {
            Version::Http10
        } else {
            Version::Http11
        };
        let answer = Answer {
            status,
            content_type: Some(b"text/plain"),
            fields: &fields,
            payload: Payload::Whole(&body),
            close: false,
        };
        let context = Context {
            version,
            head_only,
            connection: ConnectionField::Close,
        };
        let mut out = b"before".to_vec();

        encode(&mut out, &answer, context, &DateLine::new());

        let out = &out["before".len()..];
        let mut slots = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut slots);
        let head_bytes = match response.parse(out) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            other => panic!("seed {seed}: {other:?} in {}", out.escape_ascii()),
        };
        let field = |name: &str| {
            response
                .headers
                .iter()
                .find(|header| header.name == name)
                .map(|header| header.value)
        };
        let may_have_body = !matches!(status, 204 | 304);
        let sends_body = may_have_body && status != 205;
        let length = if sends_body { body.len() } else { 0 };
        let length = may_have_body.then(|| length.to_string());
        let expected_body = if sends_body && !head_only {
            &body[..]
        } else {
            b""
        };
        assert_eq!(response.code, Some(status), "seed {seed}");
        assert_eq!(
            response.version,
            Some(u8::from(version == Version::Http11)),
            "seed {seed}"
        );
        assert_eq!(field("X-Value"), Some(value.as_bytes()), "seed {seed}");
        assert_eq!(field("Connection"), Some(&b"close"[..]), "seed {seed}");
        assert_eq!(
            field("Content-Length"),
            length.as_deref().map(str::as_bytes),
            "seed {seed}"
        );
        assert_eq!(&out[head_bytes..], expected_body, "seed {seed}");
    }
}

#[test]
fn every_mistake_has_an_answer_that_parses_and_closes() {
    for error in ProtocolError::ALL {
        let mut out = Vec::new();

        refusal(&mut out, error, &DateLine::new());

        let mut slots = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut slots);
        assert!(
            matches!(response.parse(&out), Ok(httparse::Status::Complete(_))),
            "{error:?}"
        );
        assert_eq!(response.code, Some(error.status()));
        assert!((400..600).contains(&error.status()));
        assert!(error.rfc().starts_with("RFC "));
        assert!(!error.explain().is_empty());
        assert!(out.ends_with(error.token().as_bytes()));
    }
}
