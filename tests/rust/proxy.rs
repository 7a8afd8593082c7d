//! Replays the cases of `tests/cases/proxy` under every split of their bytes: a header of the PROXY
//! protocol, and the requests behind it.
//!
//! Owns the reading of the file and the comparison. Refuses to know what is right: the file says
//! it. Its form is described in `tests/cases/README.md`.

mod wire;

use std::collections::HashSet;
use std::net::SocketAddr;

use anel::protocol::{Limits, ProxyHeader};
use serde::Deserialize;
use wire::{Driver, Ending, Random, splits};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    rfc: String,
    input: Bytes,
    peer: Option<SocketAddr>,
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    closes: bool,
    #[serde(default)]
    wants_more: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Repeated { repeat: String, times: usize },
}

impl Bytes {
    fn bytes(&self) -> Vec<u8> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => parts.iter().map(Part::text).collect(),
        };
        let bytes = text.chars().map(u8::try_from);
        bytes.collect::<Result<_, _>>().expect("Latin-1")
    }
}

impl Part {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Repeated { repeat, times } => repeat.repeat(*times),
        }
    }
}

/// What became of an input.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Closed,
    WantsMore,
    /// The client, and the targets of the requests behind the header.
    Served(Option<SocketAddr>, Vec<String>),
}

fn cases() -> Vec<Case> {
    let file: File = toml::from_str(include_str!("../cases/proxy/header.toml")).expect("TOML");
    file.case
}

impl Case {
    fn expected(&self) -> Outcome {
        match (self.closes, self.wants_more) {
            (true, false) => Outcome::Closed,
            (false, true) => Outcome::WantsMore,
            (false, false) => Outcome::Served(self.peer, self.targets.clone()),
            (true, true) => panic!("{:?} has two outcomes", self.name),
        }
    }
}

/// Shows the header as the worker does: all that has arrived, from the first byte on.
fn replay(input: &[u8], pieces: &[usize]) -> Outcome {
    let mut lengths = pieces.iter().copied();
    let mut length = input.len().max(1);
    let (mut shown, mut at) = (Vec::new(), 0);
    let mut served: Option<(Option<SocketAddr>, Driver)> = None;
    while at < input.len() {
        length = lengths.next().unwrap_or(length).clamp(1, input.len() - at);
        let piece = &input[at..at + length];
        at += length;
        if let Some((_, driver)) = &mut served {
            driver.feed(piece);
            continue;
        }
        shown.extend_from_slice(piece);
        match ProxyHeader::read(&shown) {
            ProxyHeader::NeedMore => {}
            ProxyHeader::Invalid => return Outcome::Closed,
            ProxyHeader::Complete { bytes, client } => {
                let mut driver = Driver::new(Limits::default());
                driver.feed(&shown[bytes..]);
                served = Some((client, driver));
            }
        }
    }
    let Some((client, driver)) = served else {
        return Outcome::WantsMore;
    };
    let outcome = driver.finish();
    assert_eq!(outcome.ending, Ending::Idle);
    let targets = outcome.requests.into_iter();
    let targets = targets.map(|seen| String::from_utf8(seen.target).expect("ASCII"));
    Outcome::Served(client, targets.collect())
}

#[test]
fn every_header_ends_the_same_under_every_split() {
    let mut failures = Vec::new();
    for (number, case) in cases().iter().enumerate() {
        let input = case.input.bytes();
        for (split, pieces) in splits(input.len(), number as u64) {
            let outcome = replay(&input, &pieces);
            if outcome != case.expected() {
                failures.push(format!("{:?} ({split}): {outcome:?}", case.name));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn every_name_is_unique_and_every_case_cites_its_source() {
    let cases = cases();
    let names: HashSet<&str> = cases.iter().map(|case| &case.name[..]).collect();

    assert_eq!(names.len(), cases.len());
    assert!(cases.iter().all(|case| !case.rfc.is_empty()));
    assert!(cases.len() >= 50, "only {} cases", cases.len());
}

#[test]
fn a_verdict_on_mutated_headers_does_not_change_with_what_follows() {
    let cases = cases();
    let mut random = Random::new(7);
    for _ in 0..20_000 {
        let case = &cases[random.below(cases.len())];
        let mut input = case.input.bytes();
        input.truncate(300);
        for _ in 0..random.below(4) {
            let at = random.below(input.len());
            input[at] = random.below(256) as u8;
        }
        let mut verdict = ProxyHeader::NeedMore;
        for shown in 0..=input.len() {
            let next = ProxyHeader::read(&input[..shown]);
            if verdict == ProxyHeader::NeedMore {
                verdict = next;
            }
            assert_eq!(next, verdict, "{shown} of {input:?}");
        }
        if let ProxyHeader::Complete { bytes, .. } = verdict {
            assert!(bytes <= input.len());
        }
    }
}
