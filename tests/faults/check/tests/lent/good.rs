//! Subscriptions that nearly have something wrong.

use super::super::super::Class;
use super::super::super::history::{Act, JobEnd, Key};
use super::super::story::{KEY, Story};
use super::{LEASE_MS, exclusive, job, keyed, replay, shared};

type Stories = Vec<(Class, &'static str, Story)>;

pub(in super::super) fn stories() -> Stories {
    let jobs = [unseen_jobs(), ranges()].concat();
    [unseen(), repeats(), keys(), order(), owners(), cursors(), stale(), seams(), jobs].concat()
}

fn order() -> Stories {
    let of = |name, story| (Class::KeyOrder, name, story);
    let two = || exclusive().lend(2, (1, 1), 0).lend(2, (1, 2), 1);
    vec![
        of("one after the other", two().acks((1, 2)).acks((1, 1)).lend(2, (1, 3), 2)),
        of(
            "what is taken over comes first",
            exclusive()
                .lend(1, (1, 1), 0)
                .lend(1, (1, 2), 1)
                .lend(2, (1, 3), 0)
                .lend(2, (1, 4), 1)
                .lend(2, (1, 5), 2),
        ),
        of(
            "what failed comes beside later ones",
            two().nacks((1, 1)).lend(2, (1, 3), 2).lend_again(2, (1, 4), 0),
        ),
        of(
            "another one was served in between, and left",
            exclusive().lend(1, (1, 1), 0).lend(1, (1, 2), 3).lend(2, (1, 3), 0).left(2).lend(
                1,
                (1, 4),
                0,
            ),
        ),
        of(
            "another one left, and was perhaps served in between",
            exclusive().lend(1, (1, 1), 0).lend(1, (1, 2), 3).left(2).lend(1, (1, 4), 2),
        ),
        of("put off, which does not count", two().nacks((1, 1)).lend(2, (1, 3), 0)),
        of("the next desk begins anew", two().disturbed().lend(2, (2, 1), 0).lend(2, (2, 2), 1)),
        of("moved back", two().acks((1, 1)).acks((1, 2)).seeks(0, 2).lend(2, (3, 1), 0)),
        of("an older lease is heard of later", exclusive().lend(2, (1, 2), 1).lend(2, (1, 1), 0)),
    ]
}

fn owners() -> Stories {
    let of = |name, story| (Class::TwoOwners, name, story);
    let over = || exclusive().lend(1, (1, 1), 0).acks((1, 1)).lend(2, (1, 2), 1).acks((1, 2));
    vec![
        of("one took over", over().lend(2, (1, 3), 2)),
        of("the newer one left", over().left(2).lend(1, (1, 3), 2)),
        of("the newer one is about to leave", over().lend(1, (1, 3), 2).left(2)),
        of("the older one came again", over().joins(3).lend(3, (1, 3), 2)),
        of("after a fault", over().disturbed().lend(1, (1, 3), 2)),
        of("by the next desk", over().lend(1, (2, 1), 2)),
        of("not exclusive", shared().joins(1).joins(2).lend(2, (1, 1), 0).lend(1, (1, 2), 1)),
    ]
}

fn unseen_jobs() -> Stories {
    let of = |name, story| (Class::Unseen, name, story);
    let one = || job(2).replays_one((1, 1), 0);
    let done = |story: Story| story.has_job(0, 2, JobEnd::Done).closes(2, &[]);
    vec![
        of("all of a job", done(one().replays_one((1, 2), 1))),
        of(
            "tried again in a job",
            done(
                one().lend_job(1, (1, 2), 1).settles_job((1, 2), Act::Nack).replays_one((1, 3), 1),
            ),
        ),
        of(
            "a dead letter of the job",
            done(one().lend_job(1, (1, 2), 1).settles_job((1, 2), Act::Reject).buries(&[1])),
        ),
        of(
            "a dead letter of the job that came again",
            done(
                one()
                    .lend_job(1, (1, 2), 1)
                    .settles_job((1, 2), Act::Reject)
                    .redrives(1, (1, 1), 1)
                    .acks_redriven((1, 1)),
            ),
        ),
        of("a job that was cancelled", one().has_job(0, 2, JobEnd::Cancelled).closes(2, &[])),
        of("a job that did not end", one().has_job(0, 2, JobEnd::Open).closes(2, &[])),
        of("the dead letters were not asked for", one().has_job(0, 2, JobEnd::Done)),
    ]
}

fn ranges() -> Stories {
    let of = |name, story| (Class::ReplayRange, name, story);
    let all = || job(2).replays_one((1, 1), 0).replays_one((1, 2), 1);
    let acked_meanwhile = || shared().asks_job(0).publishes(1);
    vec![
        of("all of it", all().has_job(0, 2, JobEnd::Done)),
        of("a part of it", job(2).has_job(0, 2, JobEnd::Open)),
        of("acknowledged meanwhile", acked_meanwhile().has_job(0, 0, JobEnd::Done)),
        of("nobody can say what it was", all()),
        of("what was published meanwhile may be in it", {
            acked_meanwhile().replays_one((1, 1), 0).has_job(0, 1, JobEnd::Done)
        }),
        of("before the place where it begins", {
            shared().publishes(3).asks_job(2).replays_one((1, 1), 2).has_job(2, 3, JobEnd::Done)
        }),
        of("of another stream", {
            let other = |story: &mut Story| {
                let op = story.invoke(9, &[77]);
                story.ok(op, Key { stream: KEY.stream + 1, partition: 0 }, &[0]);
            };
            let story = keyed().publishes(1).then(other).asks_job(0).replays_one((1, 1), 0);
            story.has_job(0, 1, JobEnd::Done)
        }),
    ]
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
