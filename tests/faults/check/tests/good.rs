//! Histories that nearly have something wrong.

use super::super::history::Key;
use super::super::{Class, check};
use super::story::{KEY, OTHER, Story, story};

const TWO: &[(u64, u64)] = &[(0, 10), (1, 11)];
const THREE: &[(u64, u64)] = &[(0, 10), (1, 11), (2, 12)];

fn two() -> Story {
    story().sent(1, 10, 0).sent(2, 11, 1)
}

fn three() -> Story {
    two().sent(3, 12, 2)
}

pub(super) fn near_misses_are_not_found() {
    for (class, name, story) in stories() {
        let found = check(&story.history);
        assert!(found.anomalies.is_empty(), "{class}, {name}: {:#?}", found.anomalies);
    }
}

pub(super) fn stories() -> Vec<(Class, &'static str, Story)> {
    let mut all = losses();
    all.extend(places());
    all.extend(values());
    all.extend(polls());
    all.extend(sends());
    all.extend(stale());
    all.extend(super::lent::good::stories());
    all
}

fn stale() -> Vec<(Class, &'static str, Story)> {
    vec![
        (Class::StaleRead, "all", two().asks(2).end(TWO)),
        (Class::StaleRead, "acknowledged while it was asked", two().asks_since(2_000, 1).end(TWO)),
        (Class::StaleRead, "more than was acknowledged", two().open(3, 12).asks(3).end(THREE)),
    ]
}

fn losses() -> Vec<(Class, &'static str, Story)> {
    use Class::{LostWrite, ReplicaDivergence, Unseen};
    let below = |story: Story| (0..3).fold(story, |story, node| story.has(node, KEY, 1, &TWO[1..]));
    let floors = |story: Story| {
        story.has(0, KEY, 0, TWO).has(1, KEY, 1, &TWO[1..]).has(2, KEY, 1, &TWO[1..])
    };
    vec![
        (LostWrite, "of unknown fate", two().open(3, 12).end(TWO)),
        (LostWrite, "refused", two().refused(3, 12).end(TWO)),
        (LostWrite, "below the floor", below(two())),
        (Unseen, "under way", two().then(|story| _ = story.invoke(3, &[12])).end(TWO)),
        (Unseen, "of unknown fate and stored", two().open(3, 12).end(THREE)),
        (Unseen, "nobody polled it before the end", three().poll(8, TWO).end(THREE)),
        (ReplicaDivergence, "floors differ", floors(two())),
        (ReplicaDivergence, "a reader lagged", two().poll(8, &TWO[..1]).end(TWO)),
        (ReplicaDivergence, "nothing stored at all", story().open(1, 10).end(&[])),
    ]
}

fn places() -> Vec<(Class, &'static str, Story)> {
    use Class::{Duplicate, InconsistentOffsets, OffsetGap};
    let other = |story: Story, events: &[(u64, u64)]| {
        (0..3).fold(story, |story, node| story.has(node, OTHER, 0, events))
    };
    let sent_to = |story: Story, key: Key, value, offset| {
        story.then(|story| {
            let op = story.invoke(5, &[value]);
            story.ok(op, key, &[offset]);
        })
    };
    let above =
        |story: Story| (0..3).fold(story, |story, node| story.has(node, KEY, 5, &[(5, 10)]));
    vec![
        (Duplicate, "read by two", two().poll(7, TWO).poll(8, TWO).end(TWO)),
        (Duplicate, "a retry", two().then(|story| story.ok(0, KEY, &[0])).end(TWO)),
        (
            Duplicate,
            "unknown, then acknowledged",
            story().open(1, 10).then(|story| story.ok(0, KEY, &[0])).end(&TWO[..1]),
        ),
        (
            InconsistentOffsets,
            "the same offset of two partitions",
            other(sent_to(two(), OTHER, 12, 0).end(TWO), &[(0, 12)]),
        ),
        (InconsistentOffsets, "told and read", two().poll(8, TWO).end(TWO)),
        (
            InconsistentOffsets,
            "refused and not stored",
            story().refused(1, 9).sent(2, 10, 0).end(&TWO[..1]),
        ),
        (
            OffsetGap,
            "filled by what is of unknown fate",
            story().sent(1, 10, 0).open(2, 11).sent(3, 12, 2).end(THREE),
        ),
        (OffsetGap, "at the floor", above(story().sent(1, 10, 5))),
        (OffsetGap, "nothing", story().refused(1, 10).end(&[])),
    ]
}

fn values() -> Vec<(Class, &'static str, Story)> {
    use Class::{Altered, G1a, Unexpected};
    let two_answers = |first_is_info: bool| {
        story()
            .then(|story| {
                let op = story.invoke(1, &[10]);
                if first_is_info {
                    story.info(op);
                    story.fail(op);
                } else {
                    story.fail(op);
                    story.info(op);
                }
            })
            .end(&TWO[..1])
    };
    vec![
        (Altered, "two events of like bytes", two().poll(8, TWO).end(TWO)),
        (Altered, "of unknown fate", story().open(1, 10).poll(8, &TWO[..1]).end(&TWO[..1])),
        (Altered, "not stored", two().refused(3, 12).altered(0).end(TWO)),
        (Unexpected, "of unknown fate", story().sent(1, 10, 0).open(2, 11).end(TWO)),
        (Unexpected, "read before it was acknowledged", early()),
        (
            Unexpected,
            "never answered",
            story().then(|story| _ = story.invoke(1, &[10])).end(&TWO[..1]),
        ),
        (G1a, "refused after an attempt of unknown fate", two_answers(true)),
        (G1a, "refused before an attempt of unknown fate", two_answers(false)),
        (G1a, "refused, and only that", two().refused(3, 12).poll(8, TWO).end(TWO)),
    ]
}

/// A follower may be faster than the answer.
fn early() -> Story {
    let mut story = story();
    let op = story.invoke(1, &[10]);
    let mut story = story.poll(8, &TWO[..1]);
    story.ok(op, KEY, &[0]);
    story.end(&TWO[..1])
}

fn polls() -> Vec<(Class, &'static str, Story)> {
    use Class::{IntNonmonotonicPoll, IntPollSkip, NonmonotonicPoll, PollSkip};
    let whole = |story: Story| story.end(THREE);
    vec![
        (
            PollSkip,
            "assigned anew",
            whole(three().assign(8, 0).poll(8, &THREE[..1]).assign(8, 2).poll(8, &THREE[2..])),
        ),
        (PollSkip, "two processes", whole(three().poll(7, &THREE[..1]).poll(8, &THREE[2..]))),
        (PollSkip, "never read on", whole(three().assign(8, 0).poll(8, &THREE[..1]))),
        (
            NonmonotonicPoll,
            "assigned back",
            whole(three().poll(8, THREE).assign(8, 1).poll(8, &THREE[1..])),
        ),
        (NonmonotonicPoll, "two processes", whole(three().poll(7, THREE).poll(8, THREE))),
        (
            NonmonotonicPoll,
            "an empty read",
            whole(three().poll(8, &THREE[..1]).poll(8, &[]).poll(8, &THREE[1..])),
        ),
        (IntPollSkip, "several reads", whole(three().poll(8, &THREE[..1]).poll(8, &THREE[1..]))),
        (IntPollSkip, "from the middle", whole(three().assign(8, 1).poll(8, &THREE[1..]))),
        (IntPollSkip, "all at once", whole(three().assign(8, 0).poll(8, THREE))),
        (IntNonmonotonicPoll, "one event", whole(three().poll(8, &THREE[..1]))),
        (
            IntNonmonotonicPoll,
            "two readers in turn",
            whole(three().poll(7, TWO).poll(8, TWO).poll(7, &THREE[2..])),
        ),
        (
            IntNonmonotonicPoll,
            "the last twice by two",
            whole(three().poll(7, &THREE[2..]).poll(8, &THREE[2..])),
        ),
    ]
}

fn sends() -> Vec<(Class, &'static str, Story)> {
    use Class::{IdempotenceViolation, IntNonmonotonicSend, KeyOrder, NonmonotonicSend};
    let swapped = &[(0, 11), (1, 10)][..];
    let batch = |values: &'static [u64], offsets: &'static [u64]| {
        story().then(|story| {
            let op = story.invoke(1, values);
            story.ok(op, KEY, offsets);
        })
    };
    vec![
        (
            NonmonotonicSend,
            "the first of unknown fate",
            story().open(1, 10).sent(1, 11, 0).end(swapped),
        ),
        (NonmonotonicSend, "two processes under way", overlapping()),
        (NonmonotonicSend, "answers in another order", answers_swapped()),
        (IntNonmonotonicSend, "a batch", batch(&[10, 11], &[0, 1]).end(TWO)),
        (IntNonmonotonicSend, "with another between", between()),
        (
            IntNonmonotonicSend,
            "of unknown fate",
            story()
                .then(|story| {
                    let op = story.invoke(1, &[10, 11]);
                    story.info(op);
                })
                .end(TWO),
        ),
        (KeyOrder, "begun before the other was acknowledged", overlapping()),
        (KeyOrder, "the later of unknown fate", story().sent(1, 10, 1).open(2, 11).end(swapped)),
        (KeyOrder, "the earlier of unknown fate", story().open(1, 10).sent(2, 11, 0).end(swapped)),
        (
            IdempotenceViolation,
            "the same again",
            two().then(|story| story.ok(0, KEY, &[0])).end(TWO),
        ),
        (
            IdempotenceViolation,
            "unknown, unknown, stored",
            story()
                .open(1, 10)
                .then(|story| {
                    story.info(0);
                    story.ok(0, KEY, &[0]);
                })
                .end(&TWO[..1]),
        ),
        (
            IdempotenceViolation,
            "no answer to the repetition",
            two().then(|story| story.info(0)).end(TWO),
        ),
    ]
}

/// Two sends at the same time may be stored in any order.
fn overlapping() -> Story {
    let swapped = &[(0, 11), (1, 10)][..];
    let story = story().then(|story| {
        let (first, second) = (story.invoke(1, &[10]), story.invoke(2, &[11]));
        story.ok(first, KEY, &[1]);
        story.ok(second, KEY, &[0]);
    });
    story.end(swapped)
}

fn answers_swapped() -> Story {
    let story = story().then(|story| {
        let (first, second) = (story.invoke(1, &[10]), story.invoke(1, &[11]));
        story.ok(second, KEY, &[1]);
        story.ok(first, KEY, &[0]);
    });
    story.end(TWO)
}

/// A batch need not be in one piece.
fn between() -> Story {
    let story = story().then(|story| {
        let (batch, other) = (story.invoke(1, &[10, 12]), story.invoke(2, &[11]));
        story.ok(batch, KEY, &[0, 2]);
        story.ok(other, KEY, &[1]);
    });
    story.end(THREE)
}
