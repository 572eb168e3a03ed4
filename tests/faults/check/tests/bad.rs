//! Histories with one thing wrong.

use super::super::{Class, check};
use super::story::{KEY, OTHER, Story, story};

/// Two events, acknowledged one after the other.
fn two() -> Story {
    story().sent(1, 10, 0).sent(2, 11, 1)
}

/// The same with a third.
fn three() -> Story {
    two().sent(3, 12, 2)
}

const TWO: &[(u64, u64)] = &[(0, 10), (1, 11)];
const THREE: &[(u64, u64)] = &[(0, 10), (1, 11), (2, 12)];

pub(super) fn each_class_is_found_and_no_other() {
    for (class, name, story) in stories() {
        let found = check(&story.history);
        let classes: Vec<_> = found.classes().into_keys().collect();
        assert_eq!(classes, [class], "{class}, {name}: {:#?}", found.anomalies);
    }
}

pub(super) fn stories() -> Vec<(Class, &'static str, Story)> {
    let mut all = losses();
    all.extend(places());
    all.extend(values());
    all.extend(polls());
    all.extend(sends());
    all.extend(stale());
    all.extend(super::lent::bad::stories());
    all
}

fn stale() -> Vec<(Class, &'static str, Story)> {
    vec![
        (Class::StaleRead, "nothing", two().asks(0).end(TWO)),
        (Class::StaleRead, "the last is missing", two().asks(2).asks(1).end(TWO)),
        (Class::StaleRead, "after a fault", three().fault().asks(2).end(THREE)),
    ]
}

fn losses() -> Vec<(Class, &'static str, Story)> {
    use Class::{LostWrite, ReplicaDivergence, Unseen};
    let late = |story: Story| story.then(|story| _ = story.invoke(9, &[99]));
    vec![
        (LostWrite, "in the middle", three().end(&[(0, 10), (2, 12)])),
        (LostWrite, "at the beginning", two().end(&[(1, 11)])),
        (
            LostWrite,
            "read, then gone",
            story().open(1, 9).poll(8, &[(0, 9)]).sent(1, 10, 1).end(&[(1, 10)]),
        ),
        (LostWrite, "read at the end, then gone", two().poll(8, &[(1, 11)]).end(&[(0, 10)])),
        (Unseen, "the last", two().end(&[(0, 10)])),
        (Unseen, "all", two().end(&[])),
        (Unseen, "the last two, with a send under way", late(three()).end(&[(0, 10)])),
        (ReplicaDivergence, "one lags", two().ends([TWO, TWO, &TWO[..1]])),
        (
            ReplicaDivergence,
            "one lacks the middle",
            three().ends([THREE, &[(0, 10), (2, 12)], THREE]),
        ),
        (
            ReplicaDivergence,
            "one has it alone",
            story().sent(1, 10, 0).open(2, 11).ends([&TWO[..1], TWO, &TWO[..1]]),
        ),
        (ReplicaDivergence, "one is empty", two().ends([&[], TWO, TWO])),
    ]
}

fn places() -> Vec<(Class, &'static str, Story)> {
    use Class::{Duplicate, InconsistentOffsets, OffsetGap};
    let again = &[(0, 10), (1, 11), (2, 10)][..];
    vec![
        (Duplicate, "in the end", two().end(again)),
        (Duplicate, "of unknown fate", story().open(1, 10).sent(2, 11, 1).end(again)),
        (Duplicate, "in two partitions", two().end(TWO).has(0, OTHER, 0, &[(0, 10)])),
        (Duplicate, "told another place", story().sent(1, 10, 1).end(&[(0, 10)])),
        (
            InconsistentOffsets,
            "a reader saw another",
            story().open(1, 9).poll(8, &[(0, 9)]).sent(2, 10, 0).end(&[(0, 10)]),
        ),
        (
            InconsistentOffsets,
            "two were told the same",
            story().sent(1, 10, 0).sent(1, 11, 0).end(&[(0, 10)]),
        ),
        (
            InconsistentOffsets,
            "two replicas",
            story().open(1, 10).open(2, 11).ends([&[(0, 10)], &[(0, 11)], &[(0, 10)]]),
        ),
        (
            OffsetGap,
            "in the middle",
            story().sent(1, 10, 0).sent(2, 11, 2).end(&[(0, 10), (2, 11)]),
        ),
        (OffsetGap, "at the beginning", story().sent(1, 10, 1).end(&[(1, 10)])),
        (OffsetGap, "behind the floor", story().sent(1, 10, 7).has(0, KEY, 5, &[(7, 10)])),
    ]
}

fn values() -> Vec<(Class, &'static str, Story)> {
    use Class::{Altered, G1a, Unexpected};
    vec![
        (Altered, "everywhere", two().end(TWO).altered(1)),
        (Altered, "for a reader", two().poll(8, TWO).altered(0).end(TWO)),
        (Altered, "of unknown fate", story().open(1, 10).end(&[(0, 10)]).altered(0)),
        (Unexpected, "in the end", story().sent(1, 10, 0).end(TWO)),
        (Unexpected, "alone", story().end(&[(0, 10)])),
        (Unexpected, "for a reader and in the end", story().sent(1, 10, 0).poll(8, TWO).end(TWO)),
        (G1a, "in the end", story().sent(1, 10, 0).refused(2, 11).end(TWO)),
        (G1a, "for a reader", story().refused(1, 10).poll(8, &[(0, 10)]).end(&[])),
        (G1a, "refused twice", story().refused(1, 10).then(|story| story.fail(0)).end(&[(0, 10)])),
    ]
}

fn polls() -> Vec<(Class, &'static str, Story)> {
    use Class::{IntNonmonotonicPoll, IntPollSkip, NonmonotonicPoll, PollSkip};
    let middle = |story: Story| story.end(THREE);
    vec![
        (
            PollSkip,
            "between two reads",
            middle(three().assign(8, 0).poll(8, &THREE[..1]).poll(8, &THREE[2..])),
        ),
        (PollSkip, "at the start", middle(three().assign(8, 0).poll(8, &THREE[1..]))),
        (PollSkip, "across a fault", middle(three().assign(8, 1).fault().poll(8, &THREE[2..]))),
        (
            NonmonotonicPoll,
            "again",
            middle(three().assign(8, 0).poll(8, &THREE[..2]).poll(8, &THREE[1..])),
        ),
        (NonmonotonicPoll, "back to the start", middle(three().assign(8, 2).poll(8, THREE))),
        (
            NonmonotonicPoll,
            "across a fault",
            middle(three().poll(8, THREE).fault().poll(8, &THREE[2..])),
        ),
        (IntPollSkip, "in the middle", middle(three().poll(8, &[(0, 10), (2, 12)]))),
        (IntPollSkip, "assigned", middle(three().assign(8, 0).poll(8, &[(0, 10), (2, 12)]))),
        (
            IntPollSkip,
            "the second reader",
            middle(three().poll(7, THREE).poll(8, &[(0, 10), (2, 12)])),
        ),
        (IntNonmonotonicPoll, "the same twice", middle(three().poll(8, &[(0, 10), (0, 10)]))),
        (IntNonmonotonicPoll, "backwards", middle(three().poll(8, &[(1, 11), (0, 10)]))),
        (
            IntNonmonotonicPoll,
            "at the end",
            middle(three().assign(8, 0).poll(8, &[(0, 10), (1, 11), (1, 11)])),
        ),
    ]
}

fn sends() -> Vec<(Class, &'static str, Story)> {
    let mut all = orders();
    all.extend(batches());
    all.extend(key_orders());
    all.extend(retries());
    all
}

const SWAPPED: &[(u64, u64)] = &[(0, 11), (1, 10)];

fn orders() -> Vec<(Class, &'static str, Story)> {
    let pipelined = |story: &mut Story| {
        let (first, second) = (story.invoke(1, &[10]), story.invoke(1, &[11]));
        story.ok(second, KEY, &[0]);
        story.ok(first, KEY, &[1]);
    };
    let between = |story: &mut Story| {
        // Begun before it was acknowledged, so that only the own order is wrong.
        let Some(done) = story.history.pop() else { return };
        let other = story.invoke(2, &[12]);
        story.history.push(done);
        story.ok(other, KEY, &[1]);
    };
    let third = story().sent(1, 10, 2).then(between).sent(1, 11, 0).then(swap_invoke);
    let all = [
        ("one after the other", story().sent(1, 10, 1).sent(1, 11, 0).end(SWAPPED)),
        ("both under way", story().then(pipelined).end(SWAPPED)),
        ("with another between", third.end(&[(0, 11), (1, 12), (2, 10)])),
    ];
    all.map(|(name, story)| (Class::NonmonotonicSend, name, story)).into()
}

/// A batch that is stored at these offsets.
fn batch(values: &[u64], offsets: &[u64]) -> Story {
    story().then(|story| {
        let op = story.invoke(1, values);
        story.ok(op, KEY, offsets);
    })
}

fn batches() -> Vec<(Class, &'static str, Story)> {
    let three = batch(&[10, 11, 12], &[0, 2, 1]).end(&[(0, 10), (1, 12), (2, 11)]);
    let all = [
        ("a batch", batch(&[10, 11], &[1, 0]).end(SWAPPED)),
        ("one event at two places", batch(&[10], &[0, 0]).end(&[(0, 10)])),
        ("a batch of three", three),
    ];
    all.map(|(name, story)| (Class::IntNonmonotonicSend, name, story)).into()
}

fn key_orders() -> Vec<(Class, &'static str, Story)> {
    let four = story().sent(1, 10, 2).sent(2, 11, 3).sent(3, 12, 1).sent(4, 13, 4).open(5, 14);
    let batch = |story: &mut Story| {
        let op = story.invoke(2, &[11, 12]);
        story.ok(op, KEY, &[0, 2]);
    };
    let all = [
        ("two processes", story().sent(1, 10, 1).sent(2, 11, 0).end(SWAPPED)),
        ("a third between", four.end(&[(0, 14), (1, 12), (2, 10), (3, 11), (4, 13)])),
        ("a batch", story().sent(1, 10, 1).then(batch).end(&[(0, 11), (1, 10), (2, 12)])),
    ];
    all.map(|(name, story)| (Class::KeyOrder, name, story)).into()
}

fn retries() -> Vec<(Class, &'static str, Story)> {
    let all = [
        ("another offset", two().then(|story| story.ok(0, KEY, &[1])).end(TWO)),
        ("another partition", two().then(|story| story.ok(0, OTHER, &[0])).end(TWO)),
        ("refused at last", two().then(|story| story.fail(0)).end(TWO)),
    ];
    all.map(|(name, story)| (Class::IdempotenceViolation, name, story)).into()
}

/// Lets the last send of the story begin before everything was acknowledged.
fn swap_invoke(story: &mut Story) {
    let at = story.history.len() - 2;
    let moved = story.history.remove(at);
    story.history.insert(1, retimed(moved));
}

fn retimed(record: super::super::history::Record) -> super::super::history::Record {
    use super::super::history::Record;
    match record {
        Record::Invoke { process, op, events, .. } => {
            Record::Invoke { t: 500, process, op, events }
        }
        other => other,
    }
}
