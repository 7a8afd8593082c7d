//! The worker in a simulated world: thousands of seeds, each one a different bad day.
//!
//! Owns the choice of seeds and the report of a failure. Refuses to touch a socket, a clock or a
//! thread's order: a seed is the same run on every machine. `make sim SEED=n` replays one with a
//! trace; `ANEL_SIM_SEEDS=100000` runs more of them.

mod application;
mod bounds;
mod client;
mod inbox;
mod kernel;
mod plan;
mod prng;
mod proxies;
mod records;
mod scenarios;
mod script;
mod socket;
mod streams;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use trace::Trace;
use world::Report;

/// A few seconds on a small machine.
const SEEDS: u64 = 5_000;

#[test]
fn every_seed_keeps_the_invariants() {
    let seeds = number_from("ANEL_SIM_SEEDS").unwrap_or(SEEDS);
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            scope.spawn(move || {
                (1..=seeds)
                    .filter(|n| n % 2 == half)
                    .map(run)
                    .collect::<Vec<_>>()
            })
        });
        halves
            .into_iter()
            .flat_map(|half| half.join().unwrap_or_else(|p| resume_unwind(p)))
            .collect()
    });
    if seeds >= SEEDS {
        assert_everything_was_reached(&reports);
    }
}

#[test]
fn replays_one_seed() {
    let Some(seed) = number_from("ANEL_SIM_SEED") else {
        return;
    };
    world::run(seed, Trace::On);
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 1..20 {
        let [first, second] = [(); 2].map(|()| format!("{:?}", run(seed)));
        assert_eq!(first, second, "seed {seed}");
    }
}

fn run(seed: u64) -> Report {
    catch_unwind(AssertUnwindSafe(|| world::run(seed, Trace::Off))).unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or(cause.downcast_ref::<&str>().copied())
            .unwrap_or("a panic");
        panic!("{text}\nreplay with: make sim SEED={seed}");
    })
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// A name, and how often a run saw it.
type Reached = (&'static str, fn(&Report) -> u64);

/// A fault that no seed produces tests nothing.
fn assert_everything_was_reached(reports: &[Report]) {
    let reached: [Reached; 46] = [
        ("accepted", |r| r.counters.connections_accepted_total),
        ("requests", |r| r.counters.requests_total),
        ("refusals", |r| r.counters.refusals_total),
        ("pauses", |r| r.counters.pauses_total),
        ("shares", |r| r.counters.shares_total),
        ("starved receives", |r| r.counters.starved_total),
        ("accept pauses", |r| r.counters.accept_pauses_total),
        ("deadlines", |r| r.counters.deadlines_total),
        ("dropped answers", |r| r.counters.answers_dropped_total),
        ("short sends", |r| r.seen.short_sends),
        ("multishots that end early", |r| r.seen.early_ends),
        ("starvation", |r| r.seen.starved),
        ("receives cancelled in time", |r| r.seen.recv_cancels),
        ("receives cancelled too late", |r| r.seen.cancels_too_late),
        ("EMFILE", |r| r.seen.descriptor_limits),
        ("accept errors", |r| r.seen.accept_errors),
        ("resets", |r| r.seen.resets),
        ("stale completions", |r| r.seen.stale),
        ("lingering", |r| r.seen.lingers),
        ("reused descriptors", |r| r.seen.descriptors_reused),
        ("abandoned exchanges", |r| r.abandoned),
        ("408", |r| r.timeouts),
        ("handlers that are told", |r| {
            r.counters.handlers_overdue_total
        }),
        ("503", |r| r.given_up),
        ("sends without memory", |r| r.seen.send_shortages),
        ("receives without memory", |r| r.seen.recv_shortages),
        ("answers", |r| r.answers),
        ("100 Continue", |r| r.continues),
        ("aborted drains", |r| r.aborted),
        ("drains amid traffic", |r| r.drained_early),
        ("streamed answers", |r| r.counters.streams_total),
        ("streamed bodies", |r| r.counters.bodies_streamed_total),
        ("chunked answers", |r| r.chunked),
        ("answers that break off", |r| r.cut),
        ("producers that wait", |r| r.told.waits),
        ("producers that go on", |r| r.told.writables),
        ("readers that rest", |r| r.told.rests),
        ("pieces of bodies", |r| r.told.pieces),
        ("bodies that fail", |r| r.told.failures),
        ("streams that are not as announced", |r| {
            r.told.broken_streams
        }),
        ("pieces for nobody", |r| r.told.lost_pieces),
        ("early answers", |r| r.told.early_answers),
        ("echoes", |r| r.told.echoes),
        ("records of whole answers", |r| r.records_whole),
        ("records of answers that break off", |r| {
            r.records_broken_off
        }),
        ("records of nothing answered", |r| r.records_unanswered),
    ];
    for (what, count) in reached {
        assert!(
            reports.iter().map(count).sum::<u64>() > 10,
            "the seeds saw (almost) no {what}"
        );
    }
}
