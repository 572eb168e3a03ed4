//! Subscriptions with one thing wrong.

use super::super::super::Class;
use super::super::super::history::{Act, JobEnd};
use super::super::story::Story;
use super::{LEASE_MS, exclusive, job, keyed, replay, shared};

type Stories = Vec<(Class, &'static str, Story)>;

pub(in super::super) fn stories() -> Stories {
    let jobs = [unseen_jobs(), repeats_jobs(), ranges()].concat();
    [unseen(), repeats(), keys(), order(), owners(), cursors(), stale(), seams(), jobs].concat()
}

/// In the order of the partition, to one member at a time.
fn order() -> Stories {
    let of = |name, story| (Class::KeyOrder, name, story);
    vec![
        of("the later one first", exclusive().lend(2, (1, 1), 1).lend(2, (1, 2), 0)),
        of(
            "something new before what is taken over",
            exclusive().lend(1, (1, 1), 0).lend(1, (1, 2), 1).lend(2, (1, 3), 2).lend(2, (1, 4), 0),
        ),
        of(
            "by the next desk",
            exclusive().lend(2, (1, 1), 0).disturbed().lend(2, (2, 1), 3).lend(2, (2, 2), 1),
        ),
        of(
            "after leases that nobody heard of",
            exclusive().lend(2, (1, 1), 4).lend(2, (1, 4), 3).waits(9_000).left(1),
        ),
        of(
            "given back after it came late",
            exclusive().lend(2, (1, 1), 4).lend(2, (1, 2), 3).nacks((1, 2)),
        ),
    ]
}

fn owners() -> Stories {
    let of = |name, story| (Class::TwoOwners, name, story);
    let over = || exclusive().lend(1, (1, 1), 0).acks((1, 1)).lend(2, (1, 2), 1).acks((1, 2));
    vec![
        of("in turns", over().lend(1, (1, 3), 2)),
        of("never served before", exclusive().lend(2, (1, 1), 0).lend(1, (1, 2), 1)),
        of("long before the newer one left", over().lend(1, (1, 3), 2).waits(9_000).left(2)),
        of(
            "long after a fault",
            exclusive().disturbed().waits(20_000).lend(2, (1, 1), 0).waits(100).lend(1, (1, 2), 1),
        ),
    ]
}

fn unseen_jobs() -> Stories {
    let of = |name, story| (Class::Unseen, name, story);
    let one = || job(2).replays_one((1, 1), 0);
    let done = |story: Story| story.has_job(0, 2, JobEnd::Done).closes(2, &[]);
    vec![
        of("a job that leaves out an event", done(one())),
        of("lent for a job, and not settled", done(one().lend_job(1, (1, 2), 1))),
        of(
            "given up in a job, and no dead letter",
            done(one().lend_job(1, (1, 2), 1).settles_job((1, 2), Act::Reject)),
        ),
        of(
            "a dead letter of the subscription, not of the job",
            keyed()
                .publishes(1)
                .lend(1, (1, 1), 0)
                .rejects((1, 1))
                .asks_job(0)
                .has_job(0, 1, JobEnd::Done)
                .closes(1, &[0]),
        ),
        of(
            "a dead letter of the job, not of the subscription",
            keyed()
                .publishes(1)
                .asks_job(0)
                .replays_one((1, 1), 0)
                .buries(&[0])
                .has_job(0, 1, JobEnd::Done)
                .closes(1, &[]),
        ),
    ]
}

fn repeats_jobs() -> Stories {
    let one = || job(2).replays_one((1, 1), 0);
    vec![
        (Class::DupBeyondBound, "settled in a job", one().left(1).lend_job(2, (1, 2), 0)),
        (Class::DupBeyondBound, "by the next desk", one().disturbed().lend_job(2, (4, 1), 0)),
        (
            Class::DupBeyondBound,
            "of a job, for no reason",
            job(1).lend_job(1, (1, 1), 0).lend_job(2, (1, 2), 0),
        ),
        (
            Class::KeyOrder,
            "both of a job at once",
            job(2).lend_job(1, (1, 1), 0).lend_job(2, (1, 2), 1),
        ),
        (
            Class::KeyOrder,
            "the later one of a job first",
            job(2).replays_one((1, 1), 1).replays_one((1, 2), 0),
        ),
        (
            Class::StaleOwnerAck,
            "of a job, after the end of the lease",
            job(1).lend_job(1, (1, 1), 0).waits(LEASE_MS + 300).settles_job((1, 1), Act::Ack),
        ),
    ]
}

fn ranges() -> Stories {
    let of = |name, story| (Class::ReplayRange, name, story);
    let one = || job(3).replays_one((1, 1), 0);
    let two = || one().replays_one((1, 2), 1);
    vec![
        of("one too many", two().replays_one((1, 3), 2).has_job(0, 2, JobEnd::Open)),
        of("before its beginning", two().has_job(1, 3, JobEnd::Open)),
        of("another event", {
            let story = one().lend_job_as(1, (1, 2), 1, 12).settles_job((1, 2), Act::Ack);
            story.has_job(0, 3, JobEnd::Cancelled).end(&[(0, 10), (1, 11), (2, 12)])
        }),
        of("less than was there", two().has_job(0, 2, JobEnd::Done)),
        of("nothing, although something was there", job(2).has_job(2, 2, JobEnd::Done)),
        of("a job that nobody asked for", keyed().publishes(1).replays_one((1, 1), 0)),
    ]
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
