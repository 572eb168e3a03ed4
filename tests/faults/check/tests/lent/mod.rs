//! Short histories of subscriptions and of readers that replay.

pub(super) mod bad;
pub(super) mod good;

use super::super::history::{
    Act, Answer, Desk, Gone, Injected, JobEnd, Lent, Process, Record, Value,
};
use super::story::{KEY, Story, seen, story};

/// Of the subscription of all stories.
const LEASE_MS: u64 = 1_000;
const DESK: Desk = Desk { subscription: 7, key: KEY, redriven: false, job: 0 };
/// The replay job of all stories.
const JOB: Desk = Desk { job: 5, ..DESK };
/// Epoch and number.
type Token = (u64, u64);

/// A subscription whose members share the events.
fn shared() -> Story {
    subscription(false, false)
}

/// The same, key by key.
fn keyed() -> Story {
    subscription(true, false)
}

/// One that serves the newest of its members, which are 1 and then 2.
fn exclusive() -> Story {
    subscription(false, true).joins(1).joins(2)
}

#[expect(clippy::fn_params_excessive_bools, reason = "as it is recorded")]
fn subscription(keyed: bool, exclusive: bool) -> Story {
    story().then(|story| {
        let t = story.now();
        let (subscription, stream) = (DESK.subscription, KEY.stream);
        let lease = 1_000 * LEASE_MS;
        let record = Record::Subscription { t, subscription, stream, keyed, exclusive, lease };
        story.history.push(record);
    })
}

/// The event at an offset of all stories.
fn value(offset: u64) -> Value {
    10 + offset
}

impl Story {
    fn add(mut self, line: impl FnOnce(u64) -> Record) -> Self {
        let record = line(self.now());
        self.history.push(record);
        self
    }

    /// A member is lent an event; all events have one key.
    fn lend(self, process: Process, token: Token, offset: u64) -> Self {
        self.lend_of(process, token, offset, 0)
    }

    /// The same for an event of this key.
    fn lend_of(self, process: Process, (epoch, lease): Token, offset: u64, name: u64) -> Self {
        let event = Lent { lease, offset, value: value(offset), name, attempt: 1 };
        self.add(|t| Record::Lend { t, process, desk: DESK, epoch, events: vec![event] })
    }

    /// A member is lent an event that failed once.
    fn lend_again(self, process: Process, (epoch, lease): Token, offset: u64) -> Self {
        let event = Lent { lease, offset, value: value(offset), name: 0, attempt: 2 };
        self.add(|t| Record::Lend { t, process, desk: DESK, epoch, events: vec![event] })
    }

    fn joins(self, process: Process) -> Self {
        let (subscription, name) = (DESK.subscription, process.to_string());
        self.add(|t| Record::Join { t, process, subscription, name })
    }

    /// A member is lent an event for the replay job; all events have one key.
    fn lend_job(self, process: Process, token: Token, offset: u64) -> Self {
        self.lend_job_as(process, token, offset, value(offset))
    }

    fn lend_job_as(
        self,
        process: Process,
        (epoch, lease): Token,
        offset: u64,
        value: Value,
    ) -> Self {
        let event = Lent { lease, offset, value, name: 0, attempt: 1 };
        self.add(|t| Record::Lend { t, process, desk: JOB, epoch, events: vec![event] })
    }

    /// Somebody does something with an event of the replay job, and is answered with ok.
    fn settles_job(mut self, (epoch, lease): Token, act: Act) -> Self {
        let op = self.ops;
        self.ops += 1;
        self.add(|t| Record::Settle { t, process: 1, op, desk: JOB, epoch, lease, act }).succeeds()
    }

    /// A member is lent an event for the replay job, and acknowledges it.
    fn replays_one(self, token: Token, offset: u64) -> Self {
        self.lend_job(1, token, offset).settles_job(token, Act::Ack)
    }

    fn asks_job(self, from: u64) -> Self {
        self.add(|t| Record::AskJob { t, job: JOB.job, from })
    }

    /// The replay job is this in the end.
    fn has_job(self, from: u64, to: u64, end: JobEnd) -> Self {
        let (job, subscription, ranges) = (JOB.job, DESK.subscription, vec![(KEY, from, to)]);
        self.add(|t| Record::Job { t, job, subscription, ranges, end })
    }

    /// Dead letters of the replay job.
    fn buries(self, offsets: &[u64]) -> Self {
        let letters = offsets.iter().map(|offset| value(*offset)).collect();
        let (subscription, job) = (DESK.subscription, JOB.job);
        self.add(|t| Record::Letters { t, subscription, job, letters })
    }

    /// A member is lent an event that was a dead letter.
    fn redrives(self, process: Process, (epoch, lease): Token, offset: u64) -> Self {
        let event = Lent { lease, offset: 0, value: value(offset), name: 0, attempt: 1 };
        let desk = Desk { redriven: true, ..DESK };
        self.add(|t| Record::Lend { t, process, desk, epoch, events: vec![event] })
    }

    /// Somebody begins to do something with a lease.
    fn begins(mut self, token: Token, act: Act) -> Self {
        let op = self.ops;
        self.ops += 1;
        let (epoch, lease) = token;
        self.add(|t| Record::Settle { t, process: 1, op, desk: DESK, epoch, lease, act })
    }

    /// What was begun last ends.
    fn succeeds(self) -> Self {
        self.answered(Answer::Ok)
    }

    fn fails(self) -> Self {
        self.answered(Answer::Refused { error: "it has ended".to_owned() })
    }

    fn answered(self, answer: Answer) -> Self {
        let op = self.ops - 1;
        self.add(|t| Record::Settled { t, op, answer })
    }

    /// An event is lent, and the first thing that is begun is its acknowledgement.
    fn begins_and_stalls(self) -> Self {
        self.lend(1, (1, 1), 0).begins((1, 1), Act::Ack)
    }

    fn stalled_succeeds(self) -> Self {
        self.add(|t| Record::Settled { t, op: 0, answer: Answer::Ok })
    }

    fn acks(self, token: Token) -> Self {
        self.begins(token, Act::Ack).succeeds()
    }

    /// The same for an event that was a dead letter.
    fn acks_redriven(mut self, (epoch, lease): Token) -> Self {
        let op = self.ops;
        self.ops += 1;
        let (desk, act) = (Desk { redriven: true, ..DESK }, Act::Ack);
        self.add(|t| Record::Settle { t, process: 1, op, desk, epoch, lease, act }).succeeds()
    }

    fn nacks(self, token: Token) -> Self {
        self.begins(token, Act::Nack).succeeds()
    }

    fn rejects(self, token: Token) -> Self {
        self.begins(token, Act::Reject).succeeds()
    }

    fn extends(self, token: Token, ms: u64) -> Self {
        self.begins(token, Act::Extend { by: 1_000 * ms }).succeeds()
    }

    fn told(self, process: Process, epoch: u64, watermark: u64) -> Self {
        self.add(|t| Record::Cursor { t, process, desk: DESK, epoch, watermark })
    }

    fn begins_seek(mut self, to: u64, was: u64) -> Self {
        let op = self.ops;
        self.ops += 1;
        self.add(|t| Record::Seek { t, op, desk: DESK, to, was })
    }

    /// The cursor is moved, and that is answered; what is older than the epoch is void.
    fn seeks(self, to: u64, epoch: u64) -> Self {
        self.seeks_from(0, to, epoch)
    }

    /// The same, and it is known how far the cursor was at least.
    fn seeks_from(self, was: u64, to: u64, epoch: u64) -> Self {
        let op = self.ops;
        self.begins_seek(to, was).add(|t| Record::Sought { t, op, to, epoch })
    }

    fn left(self, process: Process) -> Self {
        self.add(|t| Record::Leave { t, process, how: Gone::Left })
    }

    /// A fault begins and ends.
    fn disturbed(self) -> Self {
        let record = |t, state| {
            let (name, detail) = ("kill-leader".to_owned(), String::new());
            Record::Fault { t, name, state, detail }
        };
        self.add(|t| record(t, Injected::Begun)).add(|t| record(t, Injected::Healed))
    }

    /// The end: what is stored, and what of it is a dead letter.
    fn closes(self, events: u64, letters: &[u64]) -> Self {
        let stored: Vec<_> = (0..events).map(|offset| (offset, value(offset))).collect();
        let letters = letters.iter().map(|offset| value(*offset)).collect();
        let subscription = DESK.subscription;
        self.add(|t| Record::Letters { t, subscription, job: 0, letters }).end(&stored)
    }

    /// So many events are published, one after the other, and acknowledged.
    fn publishes(self, events: u64) -> Self {
        (0..events).fold(self, |story, offset| story.sent(9, value(offset), offset))
    }

    fn replays(self, process: Process) -> Self {
        self.add(|t| Record::Replay { t, process, stream: KEY.stream })
    }

    fn replayed(self, process: Process, offsets: &[u64]) -> Self {
        let seen = offsets.iter().map(|offset| seen(*offset, value(*offset))).collect();
        self.add(|t| Record::Replayed { t, process, key: KEY, seen })
    }

    fn catches_up(self, process: Process) -> Self {
        self.add(|t| Record::CaughtUp { t, process })
    }
}

/// So many events that are all settled, and then a replay job of all of them.
fn job(events: u64) -> Story {
    let story = keyed().publishes(events);
    let settle = |story: Story, offset: u64| {
        let token = (1, offset + 1);
        story.lend(1, token, offset).acks(token)
    };
    (0..events).fold(story, settle).asks_job(0)
}

/// A reader of what is stored after so many events, then of the rest.
fn replay(stored: &[u64], new: &[u64], events: u64) -> Story {
    let story = story().publishes(2).replays(5).replayed(5, stored).catches_up(5);
    let story = (2..events).fold(story, |story, offset| story.sent(9, value(offset), offset));
    let all: Vec<_> = (0..events).map(|offset| (offset, value(offset))).collect();
    story.replayed(5, new).end(&all)
}
