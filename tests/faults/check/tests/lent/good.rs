//! Subscriptions that nearly have something wrong.

use super::super::super::Class;
use super::super::super::history::Act;
use super::super::story::Story;
use super::{LEASE_MS, keyed, replay, shared};

type Stories = Vec<(Class, &'static str, Story)>;

pub(in super::super) fn stories() -> Stories {
    [unseen(), repeats(), keys(), cursors(), stale(), seams()].concat()
}

fn unseen() -> Stories {
    let of = |name, story| (Class::Unseen, name, story);
    let one = || shared().publishes(2).lend(1, (1, 1), 0).acks((1, 1));
    let two = || one().lend(1, (1, 2), 1);
    vec![
        of("settled", two().acks((1, 2)).closes(2, &[])),
        of("settled in another way", two().rejects((1, 2)).closes(2, &[1])),
        of("a dead letter that nobody gave up", one().closes(2, &[1])),
        of("nobody heard whether it was settled", two().begins((1, 2), Act::Ack).closes(2, &[])),
        of("settled unheard, then refused", two().begins((1, 2), Act::Ack).fails().closes(2, &[])),
        of("the cursor was moved over it", one().seeks_from(1, 2, 2).closes(2, &[])),
        of(
            "settled again after the cursor was moved back",
            two().acks((1, 2)).seeks_from(2, 1, 2).lend(2, (3, 1), 1).acks((3, 1)).closes(2, &[]),
        ),
        of("the dead letters were not asked for", one().end(&[(0, 10), (1, 11)])),
        of("of another stream", super::super::story::story().publishes(2).end(&[(0, 10), (1, 11)])),
    ]
}

fn repeats() -> Stories {
    let of = |name, story| (Class::DupBeyondBound, name, story);
    let lent = || shared().lend(1, (1, 1), 0);
    vec![
        of("given back", lent().nacks((1, 1)).lend(2, (1, 2), 0).acks((1, 2))),
        of("its time was over", lent().waits(LEASE_MS).lend(2, (1, 2), 0)),
        of("its member was gone", lent().left(1).lend(2, (1, 2), 0)),
        of("by the next desk", lent().lend(2, (2, 1), 0).acks((2, 1))),
        of("while something was done to the cluster", lent().disturbed().lend(2, (1, 2), 0)),
        of(
            "refused, and lent again",
            lent().waits(LEASE_MS).begins((1, 1), Act::Ack).fails().lend(2, (1, 2), 0),
        ),
        of("moved back", lent().acks((1, 1)).seeks(0, 2).lend(1, (3, 1), 0).acks((3, 1))),
        of("perhaps moved back", lent().acks((1, 1)).begins_seek(0, 1).lend(1, (3, 1), 0)),
        of(
            "an older lease is heard of later",
            shared().lend(2, (1, 2), 0).acks((1, 2)).lend(1, (1, 1), 0),
        ),
    ]
}

fn keys() -> Stories {
    let of = |name, story| (Class::KeyOrder, name, story);
    let first = || keyed().lend(1, (1, 1), 0).acks((1, 1));
    vec![
        of("one after the other", first().lend(2, (1, 2), 1).acks((1, 2))),
        of("two keys", keyed().lend_of(1, (1, 1), 0, 0).lend_of(2, (1, 2), 1, 1)),
        of("not key by key", shared().lend(1, (1, 1), 0).lend(2, (1, 2), 1)),
        of(
            "on its way to be settled",
            keyed().lend(1, (1, 1), 0).begins((1, 1), Act::Ack).lend(2, (1, 2), 1),
        ),
        of(
            "tried again before the next one",
            keyed()
                .lend(1, (1, 1), 0)
                .nacks((1, 1))
                .lend(1, (1, 2), 0)
                .acks((1, 2))
                .lend(1, (1, 3), 1)
                .acks((1, 3)),
        ),
        of("moved back", first().lend(1, (1, 2), 1).acks((1, 2)).seeks(0, 2).lend(1, (3, 1), 0)),
        of("moved forward", keyed().lend(1, (1, 1), 0).seeks(1, 2).lend(1, (3, 1), 1)),
        of(
            "the earlier one was a dead letter, which came again",
            keyed().lend(1, (1, 1), 0).waits(LEASE_MS).redrives(1, (1, 1), 0).lend(1, (1, 2), 1),
        ),
        of(
            "the earlier one was given up",
            keyed()
                .publishes(2)
                .lend(1, (1, 1), 0)
                .waits(LEASE_MS)
                .lend(1, (1, 2), 1)
                .acks((1, 2))
                .closes(2, &[0]),
        ),
    ]
}

fn cursors() -> Stories {
    let of = |name, story| (Class::CursorRegress, name, story);
    vec![
        of("stays and goes on", shared().told(1, 1, 5).told(1, 1, 5).told(1, 2, 5).told(1, 2, 6)),
        of("the desk before is heard late", shared().told(1, 2, 5).told(2, 1, 5)),
        of("two members of one desk", shared().told(1, 1, 5).told(2, 1, 4)),
        of("moved", shared().told(1, 1, 5).seeks(2, 2).told(1, 3, 2).told(2, 3, 3)),
        of("perhaps moved", shared().told(1, 1, 5).begins_seek(2, 5).waits(9_000).told(1, 3, 2)),
        of(
            "an attempt to move it takes hold late",
            shared().told(1, 1, 5).seeks(2, 2).told(1, 3, 4).told(1, 5, 2),
        ),
    ]
}

fn stale() -> Stories {
    let of = |name, story| (Class::StaleOwnerAck, name, story);
    let lent = || shared().lend(1, (1, 1), 0);
    vec![
        of("just in time", lent().waits(LEASE_MS - 100).acks((1, 1))),
        of("too late, and refused", lent().waits(2_000).begins((1, 1), Act::Ack).fails()),
        of("kept for longer", lent().extends((1, 1), 2_000).waits(1_900).acks((1, 1))),
        of("perhaps kept", lent().begins((1, 1), Act::Extend { by: 9 }).waits(1_900).acks((1, 1))),
        of("twice", lent().acks((1, 1)).waits(2_000).acks((1, 1))),
        of("taken on by the next desk", lent().waits(900).told(1, 2, 0).waits(900).acks((1, 1))),
        of(
            "of a dead letter, taken on by the next desk of its partition",
            shared()
                .told(1, 4, 0)
                .redrives(1, (1, 1), 0)
                .waits(900)
                .told(1, 5, 0)
                .waits(900)
                .acks_redriven((1, 1)),
        ),
        of("lent to another meanwhile", lent().begins((1, 1), Act::Ack).lend(2, (2, 1), 0).fails()),
        of("an extension for what has ended", lent().nacks((1, 1)).extends((1, 1), 100)),
        of("moved meanwhile", lent().begins((1, 1), Act::Ack).succeeds().seeks(1, 2)),
        of("lent after the cursor was moved", shared().seeks(0, 2).lend(1, (3, 1), 0).acks((3, 1))),
    ]
}

fn seams() -> Stories {
    let of = |name, story| (Class::ReplayLiveSeam, name, story);
    let early = replay(&[0, 1], &[2], 3);
    vec![
        of("one after the other", replay(&[0, 1], &[2, 3], 4)),
        of("not read to the end", replay(&[0, 1], &[2], 5)),
        of("new events before the seam", {
            let story = super::super::story::story().publishes(2).replays(5).sent(9, 12, 2);
            story.replayed(5, &[0, 1, 2]).catches_up(5).end(&[(0, 10), (1, 11), (2, 12)])
        }),
        of(
            "cut off before the seam",
            super::super::story::story()
                .publishes(2)
                .replays(5)
                .replayed(5, &[0])
                .end(&[(0, 10), (1, 11)]),
        ),
        of("two readers", early.replays(6).replayed(6, &[0, 1, 2]).catches_up(6)),
    ]
}
