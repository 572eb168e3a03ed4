//! Which batches may be proposed, and what becomes of the others.

use weft_proto::{Epoch, Error, Offset, PartitionUid, Reason, Timestamp};

use super::proposer::Loop;
use super::subjects::Verdict;
use super::{Append, Appended, Placed, reply, unknown};
use crate::data::lock;
use crate::partition::Decision;
use crate::planted::{self, Bug};

impl Loop {
    pub(super) fn admit(&mut self, mut append: Append) {
        if planted::is(Bug::EpochIgnored)
            && let Some(producer) = &mut append.batch.producer
        {
            producer.epoch = Epoch(1);
        }
        let partition = append.batch.partition;
        if self.lead.held.contains_key(&partition) || self.lead.backlog.contains_key(&partition) {
            self.park(append);
            return;
        }
        self.decide(append);
    }

    /// Decides about a batch that is the next one of its partition.
    pub(super) fn decide(&mut self, append: Append) {
        let (partition, producer) = (append.batch.partition, append.batch.producer);
        let (decision, now) = {
            let machine = lock(&self.group.machine);
            let state = machine.state();
            if let Some(settles) = &append.batch.settles {
                let cursor = state.cursors().get(settles.subscription, settles.partition);
                if cursor.is_none_or(|cursor| cursor.epoch() != settles.epoch) {
                    // Appended, it would be in two places.
                    let error =
                        Error::new(Reason::Fenced, "the events were lent under an older epoch");
                    return reply(append, Err(error.with_not_applied()));
                }
            }
            let admission = &self.lead.admission;
            let partitions = state.partitions();
            (admission.decide(partitions, partition, append.count, producer), state.time())
        };
        match decision {
            Decision::Append { base } => self.append(append, base, now),
            Decision::Duplicate { first, count, time } if count == append.count.get() => {
                let placed = Placed { first, count, time, duplicate: true, delayed: false };
                reply(append, Ok(Appended::whole(placed)));
            }
            // Some of its events were there before; their identities tell where.
            Decision::Duplicate { .. } => self.recall(append),
            Decision::Pending { base, .. } => {
                self.lead.waiting.entry((partition, base)).or_default().push(append);
            }
            Decision::Draining => self.park(append),
            Decision::NotOpen => {
                self.lead.opening = true;
                self.park(append);
            }
            Decision::Full => {
                reply(append, Err(Error::internal("the partition has no offsets left")));
            }
            // A deposed leader that does not know it yet may be wrong about the rest.
            Decision::Closed => {
                self.refuse(append, Error::new(Reason::UnknownStream, "the partition is closed"));
            }
            Decision::Fenced { epoch } => {
                let message = format!("a newer run of this producer (epoch {epoch}) took over");
                self.refuse(append, Error::new(Reason::Fenced, message));
            }
            Decision::OutOfOrder { last } => {
                let message =
                    format!("the last batch of this producer here is {last}; send what follows it");
                self.refuse(append, Error::new(Reason::OutOfOrder, message));
            }
            Decision::UnknownProducer => {
                let message =
                    "this producer is not remembered any more: look up whether the batch is stored";
                self.refuse(append, Error::new(Reason::UnknownProducer, message));
            }
        }
    }

    /// Takes a batch on, unless one of its events may be there already or it expects another place.
    fn append(&mut self, mut append: Append, base: Offset, now: Timestamp) {
        let batch = &append.batch;
        let partition = batch.partition;
        if append.plan.is_some() {
            self.lead.ids().insert(&batch.ids, base, now);
        } else if let Err(suspects) = self.lead.ids().claim(&batch.ids, base, now) {
            return self.suspect(append, base, suspects);
        }
        let verdict = self.check_expected(&append, base);
        if !matches!(verdict, Verdict::Hold) {
            self.lead.ids().release(&append.batch.ids, base);
        }
        match verdict {
            Verdict::Hold => {}
            Verdict::Unknown(subjects) => return self.look_up(append, subjects),
            Verdict::Fail(_) if !self.lead.admission.is_idle(partition) => {
                // What is in flight may turn out to be void.
                self.lead.admission.drain(partition);
                return self.park_first(append);
            }
            Verdict::Fail(error) => return self.refuse(append, error),
        }
        append.found.clear();
        let batch = &append.batch;
        self.lead.admission.launch(partition, base, append.count, batch.producer);
        self.lead.subjects.insert(partition, &batch.subjects, base);
        self.lead.building_bytes = self.lead.building_bytes.saturating_add(append.bytes);
        self.lead.building.push((append, base));
    }

    pub(super) fn park_first(&mut self, mut append: Append) {
        append.found.clear();
        self.lead.backlog.entry(append.batch.partition).or_default().push_front(append);
    }

    pub(super) fn park(&mut self, mut append: Append) {
        append.found.clear();
        self.lead.backlog.entry(append.batch.partition).or_default().push_back(append);
    }

    /// Refuses for good, once a majority confirmed that this node still leads.
    pub(super) fn refuse(&self, append: Append, error: Error) {
        let raft = self.group.raft.clone();
        self.tasks.spawn_short(async move {
            let confirmed = raft.ensure_linearizable().await.is_ok();
            reply(append, Err(if confirmed { error } else { unknown() }));
        });
    }

    /// Admits again what was parked in partitions that no longer drain.
    pub(super) fn readmit(&mut self) {
        let parked: Vec<PartitionUid> = self.lead.backlog.keys().copied().collect();
        for partition in parked {
            if self.lead.admission.is_draining(partition) || self.lead.held.contains_key(&partition)
            {
                continue;
            }
            let open = lock(&self.group.machine).state().partitions().get(partition).is_some();
            if open && let Some(appends) = self.lead.backlog.remove(&partition) {
                for append in appends {
                    self.admit(append);
                }
            }
        }
    }
}
