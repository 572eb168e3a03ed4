//! Subscriptions with one thing wrong.

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
    vec![
        of("never lent", one().closes(2, &[])),
        of("never lent, although told to be settled", one().told(1, 2, 2).closes(2, &[])),
        of(
            "given back, and never seen again",
            one().lend(1, (1, 2), 1).nacks((1, 2)).closes(2, &[]),
        ),
        of("given up, and no dead letter", one().lend(1, (1, 2), 1).rejects((1, 2)).closes(2, &[])),
        of("lent to one who left", one().lend(1, (1, 2), 1).left(1).closes(2, &[])),
        of(
            "not settled again after the cursor was moved back",
            one()
                .lend(1, (1, 2), 1)
                .acks((1, 2))
                .seeks_from(2, 0, 2)
                .lend(1, (3, 1), 0)
                .acks((3, 1))
                .closes(2, &[]),
        ),
        of(
            "before the place to which the cursor was moved, which was no step forward",
            shared()
                .publishes(2)
                .seeks_from(2, 1, 2)
                .lend(1, (3, 1), 1)
                .acks((3, 1))
                .closes(2, &[]),
        ),
    ]
}

fn repeats() -> Stories {
    let of = |name, story| (Class::DupBeyondBound, name, story);
    let settled = || shared().lend(1, (1, 1), 0).acks((1, 1));
    vec![
        of("after it was settled", settled().left(1).lend(2, (1, 2), 0)),
        of("after it was given up", shared().lend(1, (1, 1), 0).rejects((1, 1)).lend(2, (1, 2), 0)),
        of("by the next desk", settled().disturbed().lend(2, (2, 1), 0)),
        of("moved, but to behind it", settled().seeks(1, 2).lend(2, (3, 1), 0)),
        of(
            "settled again after the cursor was moved",
            settled().seeks(0, 2).lend(1, (3, 1), 0).acks((3, 1)).waits(6_000).left(1).lend(
                1,
                (3, 2),
                0,
            ),
        ),
        of(
            "an acknowledgement on its way, after somebody else had it",
            shared().begins_and_stalls().lend(2, (2, 1), 0).nacks((2, 1)).stalled_succeeds(),
        ),
        of("for no reason", shared().lend(1, (1, 1), 0).lend(2, (1, 2), 0)),
        of("a lease given twice", shared().lend(1, (1, 1), 0).lend(2, (1, 1), 0)),
        of(
            "for no reason, long after a fault",
            shared().disturbed().waits(20_000).lend(1, (1, 1), 0).waits(100).lend(2, (1, 2), 0),
        ),
    ]
}

fn keys() -> Stories {
    let of = |name, story| (Class::KeyOrder, name, story);
    vec![
        of("both at once", keyed().lend(1, (1, 1), 0).lend(2, (1, 2), 1)),
        of(
            "the later one first",
            keyed().lend(1, (1, 1), 1).acks((1, 1)).lend(2, (1, 2), 0).acks((1, 2)),
        ),
        of(
            "while the earlier one waits to be tried again",
            keyed()
                .lend(1, (1, 1), 0)
                .nacks((1, 1))
                .lend(2, (1, 2), 1)
                .acks((1, 2))
                .lend(1, (1, 3), 0)
                .acks((1, 3)),
        ),
        of(
            "given back, and the later one goes on",
            keyed().lend(1, (1, 1), 0).nacks((1, 1)).lend(2, (1, 2), 1).acks((1, 2)),
        ),
        of(
            "after another desk took over",
            keyed().lend(1, (1, 1), 0).disturbed().lend(2, (2, 1), 1).acks((2, 1)),
        ),
    ]
}

fn cursors() -> Stories {
    let of = |name, story| (Class::CursorRegress, name, story);
    vec![
        of("under the next epoch", shared().told(1, 1, 9).told(2, 2, 8)),
        of("under the same, as one member was told", shared().told(1, 1, 9).told(1, 1, 8)),
        of("after a fault", shared().told(1, 3, 9).disturbed().told(1, 4, 0)),
        of("the desk before is heard late", shared().told(1, 2, 4).told(2, 1, 5)),
        of(
            "long after it was moved",
            shared().seeks(3, 2).waits(9_000).told(1, 3, 7).told(1, 4, 6),
        ),
    ]
}

fn stale() -> Stories {
    let of = |name, story| (Class::StaleOwnerAck, name, story);
    let lent = || shared().lend(1, (1, 1), 0);
    vec![
        of("after the end", lent().waits(LEASE_MS + 300).acks((1, 1))),
        of(
            "after the end of a longer lease",
            lent().extends((1, 1), 2_000).waits(2_500).acks((1, 1)),
        ),
        of(
            "of a dead letter, and another member joined the same desk",
            shared()
                .told(1, 4, 0)
                .redrives(1, (1, 1), 0)
                .waits(900)
                .told(2, 4, 0)
                .waits(900)
                .acks_redriven((1, 1)),
        ),
        of("lent to another", lent().waits(700).lend(2, (1, 2), 0).acks((1, 1))),
        of("lent by the next desk", lent().disturbed().lend(2, (2, 1), 0).acks((1, 1))),
        of("given back before", lent().nacks((1, 1)).acks((1, 1))),
        of("given up before", lent().rejects((1, 1)).acks((1, 1))),
        of("moved before", lent().seeks(0, 2).acks((1, 1))),
        of("given up after the end", lent().waits(LEASE_MS + 300).rejects((1, 1))),
        of(
            "given back after the end",
            lent().waits(LEASE_MS + 300).begins((1, 1), Act::Nack).succeeds(),
        ),
    ]
}

fn seams() -> Stories {
    let of = |name, story| (Class::ReplayLiveSeam, name, story);
    vec![
        of("the first new event is missing", replay(&[0, 1], &[3, 4], 5)),
        of("the last stored event is missing", replay(&[0], &[1, 2], 3)),
        of("the last stored event comes twice", replay(&[0, 1], &[1, 2], 3)),
        of("a stored event is missing", replay(&[1], &[2], 3)),
        of("a new event is missing", replay(&[0, 1], &[2, 4], 5)),
        of("new events in the wrong order", replay(&[0, 1], &[3, 2, 3], 4)),
    ]
}
