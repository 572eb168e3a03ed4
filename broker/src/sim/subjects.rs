//! Expectations about the last event of a subject, on top of what is in flight: it may be applied, and
//! it may turn out to be void.

use bytes::Bytes;
use weft_proto::{Error, Offset, PartitionId, Reason};

use super::checks;
use super::clients::plain;
use super::lease_gap::let_the_lease_end;
use super::node::Running;
use super::scripted::{PARTITION, calm_cluster, check, data, in_simulation, until, within};
use crate::data::{Appended, DataGroup, NewAppend};
use crate::subjects::{Expectations, ExpectedSubject, SubjectHash};

/// One event of a subject, behind the one that is expected.
fn append(event: &str, subject: &str, after: Option<u64>) -> NewAppend {
    let hash = SubjectHash::of(0, subject);
    let expected = ExpectedSubject { subject: subject.to_owned(), hash, offset: after.map(Offset) };
    NewAppend {
        subjects: vec![hash],
        expected: Expectations { partition: PartitionId(0), end: None, subjects: vec![expected] },
        ..plain(PARTITION, vec![Bytes::from(event.to_owned())], None)
    }
}

fn place(appended: Result<Appended, Error>) -> u64 {
    appended.unwrap().runs[0].first.get()
}

/// The refusal, and where the last event of the subject is.
fn refusal(appended: Result<Appended, Error>) -> (Reason, Option<u64>) {
    let error = appended.unwrap_err();
    assert_eq!(error.unmet().len(), 1, "{error}");
    (error.reason(), error.unmet()[0].actual)
}

#[test]
fn a_chain_of_expectations_is_in_flight_at_once() {
    in_simulation(async {
        let (cluster, leader) = calm_cluster(None).await;
        let DataGroup { sequencer, .. } = data(&cluster, leader);
        let Running { process, .. } = cluster.running(leader).unwrap().clone();

        // None of them waits for the one before: what is in flight is what the next one expects.
        let (chain, tail) = process
            .run(async move {
                let mut chain = Vec::new();
                for number in 0..100_u64 {
                    let subject = if number % 2 == 0 { "even" } else { "odd" };
                    let batch = append(&format!("k{number}"), subject, number.checked_sub(2));
                    chain.push(sequencer.append(batch).await.unwrap());
                }
                let wrong = sequencer.append(append("late", "even", Some(96))).await.unwrap();
                let fresh = sequencer.append(append("fresh", "new", None)).await.unwrap();
                (chain, (wrong, fresh))
            })
            .await;

        for (number, appended) in (0..).zip(chain) {
            assert_eq!(place(within(appended).await), number);
        }
        assert_eq!(refusal(within(tail.0).await), (Reason::WrongOffset, Some(98)));
        assert_eq!(place(within(tail.1).await), 100);
        until(|| checks::has_converged(&cluster)).await;
        // By now each replica has it, however far its writer got.
        for node in 1..=3 {
            let group = data(&cluster, node);
            let last = |subject: &str| {
                group.last_of_subject(PARTITION, SubjectHash::of(0, subject)).unwrap()
            };
            let all = [last("even"), last("odd"), last("new"), last("late")];
            assert_eq!(all, [Some(Offset(98)), Some(Offset(99)), Some(Offset(100)), None]);
        }
        check(&cluster);
    });
}

#[test]
fn what_was_expected_of_a_batch_that_is_void_is_refused_with_what_is() {
    in_simulation(async {
        let (cluster, leader) = calm_cluster(None).await;
        let DataGroup { raft, sequencer, .. } = data(&cluster, leader);
        let term = raft.status().term;
        let Running { process, .. } = cluster.running(leader).unwrap().clone();
        let queue = |event: &'static str, after| {
            let (sequencer, append) = (sequencer.clone(), append(event, "a", after));
            #[expect(clippy::async_yields_async, reason = "it is queued now and answered later")]
            process.run(async move { sequencer.append(append).await.unwrap() })
        };

        for follower in (1..=3).filter(|node| *node != leader) {
            cluster.site.network.block((follower, leader));
        }
        let first = queue("k0", None).await;
        let_the_lease_end(&cluster, leader).await;
        // Refused by the leader whose lease is over; the sequencer may not know yet.
        let second = queue("k1", Some(0)).await;
        cluster.site.network.heal();
        let third = queue("k2", Some(1)).await;
        let (first, second, third) =
            (within(first).await, within(second).await, within(third).await);
        let again = within(queue("k1", Some(0)).await).await;
        let last = within(queue("k2", Some(1)).await).await;

        assert_eq!(place(first), 0);
        assert!(second.is_err_and(|error| error.not_applied()));
        assert_eq!(refusal(third), (Reason::WrongOffset, Some(0)));
        assert_eq!((place(again), place(last)), (1, 2));
        assert_eq!(raft.status().term, term, "another term began, so nothing was void");
        until(|| checks::has_converged(&cluster)).await;
        check(&cluster);
    });
}
