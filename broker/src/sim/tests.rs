//! Seeds that must hold, and bugs that seeds must find.

use std::ops::Range;

use super::plant::Plant;
use super::run::{Report, Seen, run};
use super::violation::Class;

/// Which seeds to run instead of the usual ones: `from..to`.
const SEEDS: &str = "WEFT_SIM_SEEDS";
/// A quarter of the seeds of every build; in four tests, so that they share the cores.
const QUARTER: u64 = 500;
/// The seeds among which each planted bug must be found.
const PLANTED: Range<u64> = 0..50;

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
             weft-broker --lib sim::tests::seeds_asked_for_hold -- --nocapture",
            seed + 1
        );
    }
}

fn hold(seeds: Range<u64>) -> Seen {
    let mut all = Seen::default();
    for seed in seeds.clone() {
        let report = run(seed, None, false);
        must_hold(seed, &report);
        all.add(&report.seen);
    }
    println!("seeds {seeds:?} hold: {all:?}");
    all
}

/// Seeds in which nothing happens prove nothing.
fn hold_and_show_much(quarter: u64) {
    let seen = hold(quarter * QUARTER..(quarter + 1) * QUARTER);

    assert!(seen.faults > 4 * QUARTER, "{seen:?}");
    assert!(seen.terms > QUARTER, "{seen:?}");
    assert!(seen.events > 50 * QUARTER, "{seen:?}");
    assert!(seen.checkpoints > 50 && seen.snapshots > 20 && seen.sync_failures > 50, "{seen:?}");
}

#[test]
fn first_quarter_holds() {
    hold_and_show_much(0);
}

#[test]
fn second_quarter_holds() {
    hold_and_show_much(1);
}

#[test]
fn third_quarter_holds() {
    hold_and_show_much(2);
}

#[test]
fn fourth_quarter_holds() {
    hold_and_show_much(3);
}

#[test]
fn seeds_asked_for_hold() {
    // By default those that once found a defect.
    hold(asked().unwrap_or(0..1));
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in asked().unwrap_or(0..40) {
        let (one, two) = (run(seed, None, true), run(seed, None, true));
        if let Some(at) = one.lines.iter().zip(&two.lines).position(|(a, b)| a != b) {
            let before = one.lines[at.saturating_sub(20)..at].join("\n");
            panic!("seed {seed}:\n{before}\n1 {}\n2 {}", one.lines[at], two.lines[at]);
        }
        assert_eq!(one.lines.len(), two.lines.len(), "seed {seed}");
        assert_eq!((one.digest, one.seen), (two.digest, two.seen), "seed {seed}");
    }
}

#[test]
fn different_seeds_give_different_traces() {
    assert_ne!(run(1, None, false).digest, run(2, None, false).digest);
}

/// Some seed must find the bug, and none may call it something else before that.
fn finds(plant: Plant, classes: &[Class]) {
    for seed in asked().unwrap_or(PLANTED) {
        if let Some(violation) = run(seed, Some(plant), false).violation {
            assert!(classes.contains(&violation.class), "seed {seed}: {violation}");
            println!("{plant:?}: seed {seed}: {violation}");
            return;
        }
    }
    panic!("no seed found {plant:?}");
}

#[test]
fn acknowledgement_before_the_sync_is_found() {
    finds(Plant::AckBeforeSync, &[Class::CommitNotDurable, Class::VoteNotDurable]);
}

#[test]
fn vote_that_is_not_synced_is_found() {
    finds(Plant::VoteNotSynced, &[Class::VoteNotDurable]);
}

#[test]
fn commit_with_half_of_the_nodes_is_found() {
    finds(Plant::CommitWithHalf, &[Class::CommitNotDurable]);
}

#[test]
fn wall_time_inside_apply_is_found() {
    finds(Plant::WallTimeInApply, &[Class::StateDiverged]);
}

#[test]
fn hash_map_order_in_a_checkpoint_is_found() {
    finds(Plant::HashOrder, &[Class::CheckpointDiverged]);
}

#[test]
fn ignored_sync_error_is_found() {
    let classes = [Class::CommitNotDurable, Class::VoteNotDurable, Class::LogDamaged];
    finds(Plant::SyncErrorIgnored, &classes);
}

#[test]
fn producer_that_is_not_looked_at_is_found() {
    finds(Plant::ForgottenProducer, &[Class::Duplicate]);
}
