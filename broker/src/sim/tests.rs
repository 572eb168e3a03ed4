//! Seeds that must hold, and bugs that seeds must find.

use std::ops::Range;

use super::plant::Plant;
use super::run::{Report, Seen, run};
use super::violation::Class;

/// Which seeds to run instead of the usual ones: `from..to`.
const SEEDS: &str = "WEFT_SIM_SEEDS";

#[expect(clippy::disallowed_methods, reason = "a test has no settings")]
fn asked() -> Option<Range<u64>> {
    let text = std::env::var(SEEDS).ok()?;
    let (from, to) = text.split_once("..").expect("WEFT_SIM_SEEDS is like 0..1000");
    Some(from.parse().unwrap()..to.parse().unwrap())
}

fn must_hold(seed: u64, report: &Report) {
    if let Some(violation) = &report.violation {
        println!("{}", report.lines.join("\n"));
        panic!(
            "seed {seed}: {violation}\nto see it again:\n  {SEEDS}={seed}..{} cargo test -p \
             weft-broker --lib sim::tests::seeds_hold -- --nocapture",
            seed + 1
        );
    }
}

#[test]
fn seeds_hold() {
    let seeds = asked().unwrap_or(0..100);
    let mut all = Seen::default();
    for seed in seeds.clone() {
        let report = run(seed, None, false);
        must_hold(seed, &report);
        all.add(&report.seen);
    }
    println!("seeds {seeds:?}: {all:?}");
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in asked().unwrap_or(0..30) {
        let (one, two) = (run(seed, None, true), run(seed, None, true));
        let differ = one.lines.iter().zip(&two.lines).position(|(a, b)| a != b);
        if let Some(at) = differ {
            for line in &one.lines[at.saturating_sub(20)..at] {
                println!("  {line}");
            }
            println!("1 {}\n2 {}", one.lines[at], two.lines[at]);
        }
        assert_eq!(one.lines.len(), two.lines.len());
        assert_eq!((differ, one.digest, one.seen), (None, two.digest, two.seen), "seed {seed}");
    }
}

#[test]
fn planted() {
    for (plant, classes) in [
        (Plant::AckBeforeSync, &[Class::CommitNotDurable][..]),
        (Plant::VoteNotSynced, &[Class::VoteNotDurable]),
        (Plant::CommitWithHalf, &[Class::CommitNotDurable]),
        (Plant::StampedOffset, &[Class::OffsetGap, Class::FalseAck]),
        (Plant::WallTimeInApply, &[Class::StateDiverged]),
        (Plant::HashOrder, &[Class::CheckpointDiverged]),
        (Plant::SyncErrorIgnored, &[Class::CommitNotDurable]),
        (Plant::ForgottenProducer, &[Class::Duplicate]),
    ] {
        let mut found = Vec::new();
        for seed in asked().unwrap_or(0..200) {
            if let Some(violation) = run(seed, Some(plant), false).violation {
                found.push((seed, violation));
                if found.len() > 4 { break }
            }
        }
        println!("{plant:?} {classes:?}: {found:#?}");
    }
}
