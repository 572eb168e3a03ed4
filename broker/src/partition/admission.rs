//! The leader's decision about each batch, before it is proposed.
//!
//! It is made against the applied state and, on top of it, what is in flight. One `Admission` lives
//! for one leadership (one term):
//!
//! - it is made when the leader has applied the blank entry of its term, so that no entry of an
//!   older leadership can follow;
//! - what it admits is proposed in the order of admission and **only under that term** (the
//!   proposal names its leader, and the log refuses it under another one). Without this, a late
//!   entry could fall exactly where another one was expected, and the batch expected behind it
//!   would be appended twice;
//! - each admitted batch ends in [`Admission::confirm`] or [`Admission::fail`], after its outcome
//!   was applied to the state that [`Admission::admit`] is given;
//! - when the leadership ends it is dropped, and the fate of what was in flight is unknown.
//!
//! After a failure a partition admits nothing until nothing of it is in flight: all that follows a
//! lost batch there is void, and so would be what is admitted on top of it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use weft_proto::{Epoch, Offset, PartitionUid, ProducerId, Sequence, Timestamp};

use super::Partitions;
use crate::entry::ProducerBatch;

/// What shall happen to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Propose it; it is in flight now.
    Append {
        /// The base it expects.
        base: Offset,
    },
    /// It was appended before.
    Duplicate {
        /// Offset of its first event.
        first: Offset,
        /// Number of its events that were appended then.
        count: u32,
        /// When it was appended.
        time: Timestamp,
    },
    /// The same batch is in flight: wait for its outcome, and if it fails, ask again.
    Pending {
        /// The base it expects.
        base: Offset,
        /// Number of its events.
        count: NonZeroU32,
    },
    /// A newer run of the producer is known.
    Fenced {
        /// Its epoch.
        epoch: Epoch,
    },
    /// A batch is missing before it, or it is older than what is remembered.
    OutOfOrder {
        /// The newest batch of the producer: the next one must name it as `previous`.
        last: Sequence,
    },
    /// It continues what nobody remembers.
    UnknownProducer,
    /// The partition is sealed.
    Closed,
    /// This group does not have the partition.
    NotOpen,
    /// The partition has no offsets left.
    Full,
    /// A batch failed: ask again when nothing of the partition is in flight.
    Draining,
}

/// What is in flight, on top of the applied state.
#[derive(Debug, Default)]
pub struct Admission {
    partitions: BTreeMap<PartitionUid, InFlight>,
    batches: usize,
}

/// What is in flight in one partition; never empty.
#[derive(Debug)]
struct InFlight {
    end: Offset,
    draining: bool,
    by_base: BTreeMap<Offset, Flying>,
    producers: BTreeMap<ProducerId, BTreeMap<(Epoch, Sequence), Landing>>,
}

#[derive(Clone, Copy, Debug)]
struct Flying {
    count: NonZeroU32,
    producer: Option<ProducerBatch>,
}

/// Where a batch will be.
#[derive(Clone, Copy, Debug)]
struct Landing {
    base: Offset,
    count: NonZeroU32,
}

impl Admission {
    /// The admission of a leadership that begins: nothing is in flight.
    pub fn new() -> Self {
        Self::default()
    }

    /// Batches in flight.
    pub fn in_flight(&self) -> usize {
        self.batches
    }

    /// Whether a partition waits until nothing of it is in flight.
    pub fn is_draining(&self, partition: PartitionUid) -> bool {
        self.partitions.get(&partition).is_some_and(|flying| flying.draining)
    }

    /// Whether nothing of a partition is in flight.
    pub fn is_idle(&self, partition: PartitionUid) -> bool {
        !self.partitions.contains_key(&partition)
    }

    /// Admits nothing more to a partition until nothing of it is in flight.
    pub fn drain(&mut self, partition: PartitionUid) {
        if let Some(flying) = self.partitions.get_mut(&partition) {
            flying.draining = true;
        }
    }

    /// Decides about a batch of `count` events and takes on what shall be proposed. `state` is the
    /// newest applied state.
    pub fn admit(
        &mut self,
        state: &Partitions,
        uid: PartitionUid,
        count: NonZeroU32,
        producer: Option<ProducerBatch>,
    ) -> Decision {
        let decision = self.decide(state, uid, count, producer);
        if let Decision::Append { base } = decision {
            self.launch(uid, base, count, producer);
        }
        decision
    }

    /// Decides about a batch of `count` events. Whoever proposes it says so by
    /// [`Admission::launch`] before the next decision.
    pub fn decide(
        &self,
        state: &Partitions,
        uid: PartitionUid,
        count: NonZeroU32,
        producer: Option<ProducerBatch>,
    ) -> Decision {
        let Some(partition) = state.get(uid) else {
            return Decision::NotOpen;
        };
        let refusal =
            producer.as_ref().and_then(|batch| self.judge(partition.producers(), uid, batch));
        if let Some(Decision::Duplicate { .. }) = refusal {
            // What was appended stays so, even in a sealed partition.
        } else if !partition.is_open() {
            return Decision::Closed;
        } else if self.is_draining(uid) {
            // Any other refusal may be due to a batch that will turn out to be void.
            return Decision::Draining;
        }
        if let Some(refusal) = refusal {
            return refusal;
        }
        let base = self.partitions.get(&uid).map_or_else(|| partition.end(), |flying| flying.end);
        if base.checked_add(count.get().into()).is_none() {
            return Decision::Full;
        }
        Decision::Append { base }
    }

    /// Whether a producer may go on with this batch; nothing if it may.
    fn judge(
        &self,
        applied: &super::Producers,
        uid: PartitionUid,
        batch: &ProducerBatch,
    ) -> Option<Decision> {
        let applied = applied.get(batch.id);
        let flying = self.partitions.get(&uid).and_then(|flying| flying.producers.get(&batch.id));
        // What is in flight is newer than what was applied.
        let known = flying
            .and_then(|flying| flying.last_key_value())
            .map(|(&newest, _)| newest)
            .or_else(|| applied.map(|producer| (producer.epoch, producer.last)));
        let Some((epoch, last)) = known else {
            return first_batch(batch, Decision::UnknownProducer);
        };
        if batch.epoch < epoch {
            return Some(Decision::Fenced { epoch });
        }
        if batch.epoch > epoch {
            return first_batch(batch, Decision::OutOfOrder { last: Sequence(0) });
        }
        let recent = applied
            .filter(|producer| producer.epoch == epoch)
            .and_then(|producer| producer.find(batch.sequence));
        if let Some(recent) = recent {
            let (first, count, time) = (recent.first, recent.count, recent.time);
            return Some(Decision::Duplicate { first, count, time });
        }
        let landing = flying.and_then(|flying| flying.get(&(batch.epoch, batch.sequence)));
        if let Some(&Landing { base, count }) = landing {
            return Some(Decision::Pending { base, count });
        }
        let follows = batch.previous == last && batch.sequence > last;
        (!follows).then_some(Decision::OutOfOrder { last })
    }

    /// A batch that was decided to be appended at `base` is in flight.
    pub fn launch(
        &mut self,
        uid: PartitionUid,
        base: Offset,
        count: NonZeroU32,
        producer: Option<ProducerBatch>,
    ) {
        let end = Offset(base.0.saturating_add(count.get().into()));
        let batch = Flying { count, producer };
        let flying = self.partitions.entry(uid).or_insert_with(|| InFlight {
            end,
            draining: false,
            by_base: BTreeMap::new(),
            producers: BTreeMap::new(),
        });
        flying.end = end;
        flying.by_base.insert(base, batch);
        self.batches += 1;
        if let Some(producer) = batch.producer {
            let landing = Landing { base, count: batch.count };
            let flying = flying.producers.entry(producer.id).or_default();
            flying.insert((producer.epoch, producer.sequence), landing);
        }
    }

    /// A batch was appended at the base it expected, and the state knows.
    pub fn confirm(&mut self, uid: PartitionUid, base: Offset) {
        self.land(uid, base);
    }

    /// A batch is void, or its entry was refused and is certainly not in the log.
    pub fn fail(&mut self, uid: PartitionUid, base: Offset) {
        if let Some(flying) = self.partitions.get_mut(&uid) {
            flying.draining = true;
        }
        self.land(uid, base);
    }

    fn land(&mut self, uid: PartitionUid, base: Offset) {
        if let Some(flying) = self.partitions.get_mut(&uid)
            && let Some(batch) = flying.by_base.remove(&base)
        {
            self.batches = self.batches.saturating_sub(1);
            if let Some(producer) = batch.producer {
                flying.release(&producer);
            }
            if flying.by_base.is_empty() {
                self.partitions.remove(&uid);
            }
        }
    }
}

impl InFlight {
    fn release(&mut self, batch: &ProducerBatch) {
        if let Some(producer) = self.producers.get_mut(&batch.id) {
            producer.remove(&(batch.epoch, batch.sequence));
            if producer.is_empty() {
                self.producers.remove(&batch.id);
            }
        }
    }
}

/// A run of a producer begins with a batch that has none before it.
fn first_batch(batch: &ProducerBatch, otherwise: Decision) -> Option<Decision> {
    let begins = batch.previous == Sequence(0) && batch.sequence > Sequence(0);
    (!begins).then_some(otherwise)
}
