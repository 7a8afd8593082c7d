//! A short run of every fuzz target, without libFuzzer and on any compiler.
//!
//! Owns the seeds, which are made of the wire cases, and a plain mutator. Refuses to know what must
//! hold: the targets in `fuzz/targets` say it. What a fuzzer once found lies in `fuzz/regressions`
//! and is run first. `make fuzz` goes on from the same seeds for as long as it is told, and guided
//! by coverage.

mod inputs;
#[path = "../../fuzz/targets/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use inputs::{Bytes, files};
use serde::Deserialize;
use targets::wire::Random;
use targets::{CONTROL_BYTES, TARGETS, Target};

/// About a second for a target in the development profile, on a small machine; Miri is some
/// thousand times slower.
const MUTANTS: usize = if cfg!(miri) { 50 } else { 20_000 };

#[derive(Deserialize)]
struct File {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input: Bytes,
}

/// What the wire cases send, and what the encoder is given.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let wires = || wires().into_iter();
    match target {
        "encoder" => answers(),
        "chunked" => wires()
            .filter_map(|wire| behind_chunked_head(&wire))
            .collect(),
        _ => wires().map(|wire| controlled(&wire)).collect(),
    }
}

fn wires() -> Vec<Vec<u8>> {
    if cfg!(miri) {
        // It would read the files for minutes; most of these are whole requests.
        return TOKENS.iter().map(|token| token.to_vec()).collect();
    }
    let cases = files()
        .into_iter()
        .flat_map(|(_, file): (_, File)| file.case);
    cases.map(|case| case.input.bytes()).collect()
}

/// Without liberties: default limits, and splits as they come.
fn controlled(wire: &[u8]) -> Vec<u8> {
    [&[0; CONTROL_BYTES][..], wire].concat()
}

fn behind_chunked_head(wire: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(wire).to_ascii_lowercase();
    let end = wire.windows(4).position(|window| window == b"\r\n\r\n")?;
    let is_chunked = text.contains("transfer-encoding: chunked\r\n");
    is_chunked.then(|| controlled(&wire[end + 4..]))
}

/// Every kind of body for some statuses, with fields good and bad.
fn answers() -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    for status in [0_u16, 4, 5, 104, 204] {
        for shape in 0..4 {
            for choices in [1, 9, 33, 2, 4] {
                let mut answer = status.to_be_bytes().to_vec();
                answer.extend([choices, 3, 2, shape, 0]);
                answer.extend(b"text/html\xffX-A\xffone\xffX-B\xfftwo\r\nX-C: 3\xffhello\xffworld");
                answers.push(answer);
            }
        }
    }
    answers
}

/// What the grammar is made of.
const TOKENS: [&[u8]; 24] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\0",
    b"\xff",
    b"0\r\n\r\n",
    b"Host: a\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"GET /l HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /bs HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /bl HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET /z HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"/b",
];

/// One seed, or the beginning of one and the end of another, with a few changes.
fn mutant(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    // The longest cases are about limits, and cost a thousand of the others.
    input.truncate(2_000);
    if random.below(4) == 0 {
        let other = &seeds[random.below(seeds.len())];
        input.truncate(random.below(input.len() + 1));
        input.extend(&other[random.below(other.len().min(2_000))..]);
        input.truncate(2_000);
    }
    for byte in input.iter_mut().take(CONTROL_BYTES) {
        *byte = random.next() as u8;
    }
    for _ in 0..random.below(6) {
        let at = random.below(input.len() + 1);
        let next = at.min(input.len().saturating_sub(1));
        match random.below(5) {
            0 if !input.is_empty() => input[next] = random.next() as u8,
            1 if !input.is_empty() => drop(input.remove(next)),
            2 => input.truncate(at.max(CONTROL_BYTES)),
            _ => drop(input.splice(at..at, random.pick(&TOKENS).iter().copied())),
        }
    }
    input
}

fn run(name: &str, target: Target, input: &[u8]) {
    let held = catch_unwind(AssertUnwindSafe(|| target(input)));
    // What the target said about it is on stderr already.
    assert!(
        held.is_ok(),
        "{name} does not hold for \"{}\"",
        input.escape_ascii()
    );
}

fn run_mutants(name: &str) {
    let known = TARGETS.iter().find(|(known, _)| *known == name);
    let target = known.expect("a target").1;
    let seeds = seeds(name);
    assert!(!seeds.is_empty());

    for seed in &seeds {
        run(name, target, seed);
    }
    for number in 0..MUTANTS {
        let mut random = Random::new(number as u64);
        run(name, target, &mutant(&seeds, &mut random));
    }
}

#[test]
fn heads_made_of_cases_hold() {
    run_mutants("head");
}

#[test]
fn chunks_made_of_cases_hold() {
    run_mutants("chunked");
}

#[test]
fn connections_made_of_cases_hold() {
    run_mutants("connection");
}

#[test]
fn answers_made_of_parts_hold() {
    run_mutants("encoder");
}

#[test]
fn what_a_fuzzer_found_once_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    let names: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    for entry in fs::read_dir(folder).expect("fuzz/regressions") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().expect("a name").to_string_lossy();
        let name = file.split('-').next().expect("a first part");
        assert!(
            names.contains(name),
            "{file}: say the target first, as in head-..."
        );
        let target = TARGETS.iter().find(|(known, _)| *known == name);
        let target = target.expect("it is known").1;
        run(name, target, &fs::read(&path).expect("a readable file"));
    }
}

/// `make fuzz` asks for the seeds; libFuzzer reads a folder.
#[test]
fn seeds_are_written_where_they_are_wanted() {
    let Some(folder) = std::env::var_os("ANEL_FUZZ_SEEDS") else {
        return;
    };
    for (name, _) in TARGETS {
        let folder = Path::new(&folder).join(name);
        fs::create_dir_all(&folder).expect("a folder");
        for (number, seed) in seeds(name).iter().enumerate() {
            fs::write(folder.join(format!("case-{number}")), seed).expect("a seed");
        }
    }
}
