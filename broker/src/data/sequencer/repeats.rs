//! Batches that wait for a look into the store: some of their events may be there already, or they
//! expect the last event of a subject somewhere.
//!
//! Such a batch is held, and its partition with it, until that is done. Before stored events are
//! compared, what is in flight is waited for, so that only stored events are ever compared.

use std::num::NonZeroU32;

use futures::future::BoxFuture;
use weft_proto::{Error, Offset, PartitionUid, Reason, Result, Timestamp};

use super::compare::Question;
use super::fate::{Fate, Plan};
use super::proposer::Loop;
use super::subjects::{LastOf, Lookup};
use super::{Append, identity_reused, reply};
use crate::dedup::Suspect;
use crate::entry::Command;
use crate::subjects::SubjectHash;

/// A batch whose partition waits for it.
pub(super) struct Held {
    pub(super) append: Append,
    /// Its producer's numbering says that it was stored, only not where all of its events are.
    stored: bool,
    ticket: u64,
}

/// What was found out about a held batch.
pub(super) type Checked = (PartitionUid, u64, Result<Found>);

pub(super) enum Found {
    /// Which of its events are there already.
    Fates(Vec<(u32, Fate)>),
    /// Where the last events of the subjects are that it expects somewhere.
    Subjects(Vec<LastOf>),
}

impl Loop {
    /// Some identities of a batch are known.
    pub(super) fn suspect(&mut self, append: Append, base: Offset, suspects: Vec<Suspect>) {
        let partition = append.batch.partition;
        if self.lead.admission.is_idle(partition) {
            self.hold(append, base, suspects, false);
        } else {
            self.lead.admission.drain(partition);
            self.park_first(append);
        }
    }

    /// A retry of a batch that was stored in part, because the rest was there already.
    pub(super) fn recall(&mut self, append: Append) {
        let ids = self.lead.ids();
        let found: Option<Vec<Suspect>> = (0_u32..)
            .zip(&append.batch.ids)
            .map(|(number, &hash)| ids.find(hash).map(|offset| (number, offset)))
            .collect();
        match found.filter(|found| found.len() == append.batch.events.len()) {
            Some(suspects) => self.hold(append, Offset(u64::MAX), suspects, true),
            None => self.refuse(append, forgotten()),
        }
    }

    fn hold(&mut self, append: Append, base: Offset, suspects: Vec<Suspect>, stored: bool) {
        let partition = append.batch.partition;
        let events = append.batch.events.clone();
        let question = Question { partition, base, events, suspects };
        let ticket = self.keep(append, stored);
        let (group, history) = (self.group.clone(), self.history.clone());
        let check: BoxFuture<'static, Checked> = Box::pin(async move {
            let fates = question.answer(group, history).await;
            (partition, ticket, fates.map(Found::Fates))
        });
        self.checks.push(check);
    }

    /// The store must say where the last events of these subjects are.
    pub(super) fn look_up(&mut self, append: Append, subjects: Vec<SubjectHash>) {
        let partition = append.batch.partition;
        let ticket = self.keep(append, false);
        let lookup = Lookup { partition, subjects };
        let (group, history) = (self.group.clone(), self.history.clone());
        let check: BoxFuture<'static, Checked> = Box::pin(async move {
            let last = lookup.answer(group, history).await;
            (partition, ticket, last.map(Found::Subjects))
        });
        self.checks.push(check);
    }

    fn keep(&mut self, append: Append, stored: bool) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        self.lead.held.insert(append.batch.partition, Held { append, stored, ticket });
        ticket
    }

    /// The store was read.
    pub(super) async fn checked(&mut self, (partition, ticket, found): Checked) {
        // The leadership under which it was asked may be over.
        if self.lead.held.get(&partition).is_none_or(|held| held.ticket != ticket) {
            return;
        }
        let Some(held) = self.lead.held.remove(&partition) else { return };
        match found {
            Ok(Found::Subjects(last)) => {
                let mut append = held.append;
                append.found.extend(last);
                // Decided about like any other, before all that came since.
                self.lead.backlog.entry(partition).or_default().push_front(append);
            }
            Ok(Found::Fates(fates)) => {
                let plan = Plan::new(held.append.batch.events.len(), &fates);
                if !held.stored {
                    self.resolve(held.append, plan).await;
                } else if plan.is_all_known() {
                    reply(held.append, Ok(plan.answer(Offset(0), Timestamp::default())));
                } else {
                    self.refuse(held.append, forgotten());
                }
            }
            Err(error) => reply(held.append, Err(error.with_not_applied())),
        }
        self.readmit();
    }

    async fn resolve(&mut self, mut append: Append, plan: Plan) {
        if append.batch.atomic
            && let Some((index, offset)) = plan.first_conflict()
        {
            let prefix = format!("event {index} refuses the batch: ");
            return self.refuse(append, identity_reused(offset).with_prefix(&prefix));
        }
        let left = u32::try_from(plan.thin(&mut append)).ok().and_then(NonZeroU32::new);
        metrics::counter!(crate::metrics::REPEATED_EVENTS, "node" => self.node.clone())
            .increment(plan.repeats());
        if let Some(count) = left {
            append.count = count;
            append.bytes = append.batch.events.iter().map(bytes::Bytes::len).sum();
            append.plan = Some(plan);
            return self.decide(append);
        }
        let Some(producer) = append.batch.producer else {
            return reply(append, Ok(plan.answer(Offset(0), Timestamp::default())));
        };
        // Its number must be remembered, or the next batch would be out of order.
        append.plan = Some(plan);
        let partition = append.batch.partition;
        let ticket = self.keep(append, false);
        self.propose_pass(Command::Pass(partition, producer), partition, ticket).await;
    }

    /// The number of a batch without new events is remembered, or is not.
    pub(super) fn passed(&mut self, partition: PartitionUid, ticket: u64, result: Result<()>) {
        if self.lead.held.get(&partition).is_none_or(|held| held.ticket != ticket) {
            return;
        }
        let Some(Held { append, .. }) = self.lead.held.remove(&partition) else { return };
        let plan = append.plan.clone().unwrap_or_default();
        reply(append, result.map(|()| plan.answer(Offset(0), Timestamp::default())));
    }
}

fn forgotten() -> Error {
    let message =
        "the batch was stored, but where each of its events is is not remembered any more";
    Error::new(Reason::UnknownProducer, message)
}
