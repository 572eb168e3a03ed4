//! Which batches may be proposed, and what becomes of the others.

use weft_proto::{Error, PartitionUid, Reason};

use super::proposer::Loop;
use super::{Append, Appended, reply, unknown};
use crate::data::lock;
use crate::partition::Decision;

impl Loop {
    pub(super) fn admit(&mut self, append: Append) {
        let (partition, producer) = (append.batch.partition, append.batch.producer);
        if let Some(parked) = self.lead.backlog.get_mut(&partition) {
            parked.push_back(append);
            return;
        }
        let decision = {
            let machine = lock(&self.machine);
            let partitions = machine.state().partitions();
            self.lead.admission.admit(partitions, partition, append.count, producer)
        };
        match decision {
            Decision::Append { base } => {
                self.lead.building_bytes = self.lead.building_bytes.saturating_add(append.bytes);
                self.lead.building.push((append, base));
            }
            Decision::Duplicate { first, count, time } => {
                reply(append, Ok(Appended { first, count: count.get(), time, duplicate: true }));
            }
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

    pub(super) fn park(&mut self, append: Append) {
        self.lead.backlog.entry(append.batch.partition).or_default().push_back(append);
    }

    /// Refuses for good, once a majority confirmed that this node still leads.
    pub(super) fn refuse(&self, append: Append, error: Error) {
        let raft = self.raft.clone();
        self.tasks.spawn_short(async move {
            let confirmed = raft.ensure_linearizable().await.is_ok();
            reply(append, Err(if confirmed { error } else { unknown() }));
        });
    }

    /// Admits again what was parked in partitions that no longer drain.
    pub(super) fn readmit(&mut self) {
        let parked: Vec<PartitionUid> = self.lead.backlog.keys().copied().collect();
        for partition in parked {
            if self.lead.admission.is_draining(partition) {
                continue;
            }
            let open = lock(&self.machine).state().partitions().get(partition).is_some();
            if open && let Some(appends) = self.lead.backlog.remove(&partition) {
                for append in appends {
                    self.admit(append);
                }
            }
        }
    }
}
