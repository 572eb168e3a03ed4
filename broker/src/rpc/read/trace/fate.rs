//! What is known of an event and a subscription, put into one word and what belongs to it. Pure.

use weft_proto::{Offset, Timestamp, v1};

use super::Letter;
use crate::subscription::Parked;
use crate::subscription::desk::Whereabouts;

/// What the cluster knows.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Facts {
    /// The subscription begins behind the event.
    pub(super) is_before: bool,
    /// Nothing before anybody joined.
    pub(super) watermark: Option<Offset>,
    pub(super) is_settled: bool,
    pub(super) parked: Option<Parked>,
    /// Mode `exclusive` without leases: who was given the partition last.
    pub(super) holder: Option<String>,
    pub(super) letter: Option<Letter>,
    /// What the desk says; nothing if it was not asked, or did not answer.
    pub(super) desk: Option<Whereabouts>,
}

impl Facts {
    /// The subscription itself gave it up, not a replay job.
    fn is_given_up(&self) -> bool {
        self.letter.as_ref().is_some_and(|letter| letter.story.replay_job.is_empty())
    }

    pub(super) fn tell(self, told: &mut v1::SubscriptionTrace) {
        use v1::EventState as State;
        told.watermark = self.watermark.map(Offset::get);
        if let Some(parked) = &self.parked {
            told.failed_attempts = parked.attempts;
            told.first_failure_us = parked.first_failure.as_micros();
            parked.failure.as_str().clone_into(&mut told.last_failure);
        }
        if let Some(Letter { story, trace }) = self.letter.clone() {
            if self.is_given_up() {
                told.failed_attempts = story.attempts;
                told.first_failure_us = story.first_failure.map_or(0, Timestamp::as_micros);
                told.last_failure = story.last_error;
            }
            told.dead_letter = Some(trace);
        }
        let state = match (&self.desk, &self.parked) {
            _ if self.is_given_up() => State::DeadLetter,
            (Some(Whereabouts::Lent { .. }), _) => State::Lent,
            (_, Some(_)) => State::GivenBack,
            // The cursor begins behind it: that does not make it done.
            _ if self.is_before => State::BeforeStart,
            _ if self.is_settled => State::Settled,
            (Some(Whereabouts::Queued), None) => State::Waiting,
            // Without leases no desk knows it.
            (_, None) if self.holder.is_some() => State::Lent,
            (Some(Whereabouts::Unreached) | None, None) => State::NotReached,
        };
        told.set_state(state);
        match (state, self.desk, self.parked) {
            (State::Lent, Some(Whereabouts::Lent { member, attempt, ends }), _) => {
                told.member = member;
                told.attempt = Some(attempt);
                told.lease_ends_us = ends.map_or(0, Timestamp::as_micros);
            }
            (State::Lent, _, _) => told.member = self.holder.unwrap_or_default(),
            (State::GivenBack, _, Some(parked)) => told.due_us = parked.due.as_micros(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use v1::EventState as State;

    use super::*;
    use crate::lend::Story;
    use crate::subscription::Failure;
    use weft_proto::PartitionId;

    fn told(facts: Facts) -> v1::SubscriptionTrace {
        let mut told = v1::SubscriptionTrace::default();
        facts.tell(&mut told);
        told
    }

    fn joined() -> Facts {
        Facts { watermark: Some(Offset(3)), ..Facts::default() }
    }

    fn lent() -> Whereabouts {
        let ends = Some(Timestamp::from_micros(90));
        Whereabouts::Lent { member: "m-1".to_owned(), attempt: 2, ends }
    }

    fn parked() -> Parked {
        Parked {
            attempts: 1,
            first_failure: Timestamp::from_micros(10),
            due: Timestamp::from_micros(80),
            failure: Failure::new("no"),
            ..Parked::default()
        }
    }

    fn letter() -> Letter {
        let story = Story {
            subscription: "default/audit".to_owned(),
            partition: PartitionId(0),
            offset: Offset(5),
            reason: "attempts".to_owned(),
            attempts: 5,
            last_error: "worse".to_owned(),
            first_failure: Some(Timestamp::from_micros(11)),
            replay_job: String::new(),
        };
        let trace = v1::DeadLetterTrace { offset: 1, ..v1::DeadLetterTrace::default() };
        Letter { story, trace }
    }

    #[test]
    fn each_state_follows_from_what_is_known() {
        let queued = Some(Whereabouts::Queued);
        let unreached = Some(Whereabouts::Unreached);
        let cases = [
            (State::NotReached, Facts::default()),
            (State::NotReached, joined()),
            (State::NotReached, Facts { desk: unreached.clone(), ..joined() }),
            (State::Waiting, Facts { desk: queued.clone(), ..joined() }),
            (State::Lent, Facts { desk: Some(lent()), ..joined() }),
            (State::Lent, Facts { desk: Some(lent()), parked: Some(parked()), ..joined() }),
            (State::Lent, Facts { holder: Some("d".to_owned()), ..joined() }),
            (
                State::Lent,
                Facts { holder: Some("d".to_owned()), desk: unreached.clone(), ..joined() },
            ),
            (State::GivenBack, Facts { parked: Some(parked()), ..joined() }),
            (State::GivenBack, Facts { parked: Some(parked()), desk: queued, ..joined() }),
            (State::GivenBack, Facts { parked: Some(parked()), desk: unreached, ..joined() }),
            (State::Settled, Facts { is_settled: true, ..joined() }),
            (State::BeforeStart, Facts { is_before: true, is_settled: true, ..joined() }),
            (State::BeforeStart, Facts { is_before: true, ..Facts::default() }),
            (State::DeadLetter, Facts { letter: Some(letter()), is_settled: true, ..joined() }),
        ];
        for (state, facts) in cases {
            let shown = format!("{facts:?}");
            assert_eq!(told(facts).state(), state, "{shown}");
        }
    }

    #[test]
    fn what_is_told_belongs_to_the_state() {
        let told_lent = told(Facts { desk: Some(lent()), parked: Some(parked()), ..joined() });
        assert_eq!((told_lent.member.as_str(), told_lent.attempt), ("m-1", Some(2)));
        assert_eq!((told_lent.lease_ends_us, told_lent.due_us), (90, 0));
        assert_eq!((told_lent.failed_attempts, told_lent.last_failure.as_str()), (1, "no"));

        let back = told(Facts { parked: Some(parked()), ..joined() });
        assert_eq!((back.due_us, back.first_failure_us, back.member.as_str()), (80, 10, ""));

        let dead = told(Facts { letter: Some(letter()), is_settled: true, ..joined() });
        assert_eq!((dead.failed_attempts, dead.last_failure.as_str()), (5, "worse"));
        assert_eq!(dead.dead_letter.map(|letter| letter.offset), Some(1));

        let mut replayed = letter();
        replayed.story.replay_job = "default/again".to_owned();
        let settled = told(Facts { letter: Some(replayed), is_settled: true, ..joined() });
        assert_eq!((settled.state(), settled.failed_attempts), (State::Settled, 0));
        assert!(settled.dead_letter.is_some());

        let exclusive = told(Facts { holder: Some("d".to_owned()), ..joined() });
        assert_eq!((exclusive.member.as_str(), exclusive.attempt), ("d", None));
        assert_eq!(exclusive.watermark, Some(3));
    }
}
