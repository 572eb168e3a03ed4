//! What a group agreed on, as its first replica that applied it showed; all others are held to it.
//!
//! It folds the entries itself, by the rules of the design and not by the code of the broker.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use weft_proto::{Offset, PartitionUid, ResourceUid};
use xxhash_rust::xxh3::xxh3_64;

use super::violation::Class;
use crate::entry::{Batch, Command, Content, Entry};
use crate::partition::BatchReply;
use crate::state::Reply;
use crate::subscription::{LeaseReply, SettleReply};

type Found = Result<(), (Class, String)>;

/// One entry that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) term: u64,
    pub(crate) payload: u64,
    reply: u64,
}

/// Producer, epoch, sequence.
pub(crate) type BatchId = (u128, u64, u64);

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: BTreeMap<u64, Fact>,
    states: BTreeMap<u64, u64>,
    pub(crate) checkpoints: BTreeMap<u64, u64>,
    /// The events of each partition; the index is the offset.
    pub(crate) partitions: BTreeMap<PartitionUid, Vec<Bytes>>,
    batches: BTreeMap<(PartitionUid, BatchId), u64>,
    newest: BTreeMap<(PartitionUid, u128), (u64, u64)>,
    seen: BTreeSet<Bytes>,
    refused: BTreeSet<Bytes>,
    cursors: BTreeMap<(ResourceUid, PartitionUid), (u64, u64)>,
    pub(crate) voids: u64,
}

impl Ledger {
    /// Notes what a replica applied; true if it was the first.
    pub(crate) fn applied(
        &mut self,
        index: u64,
        term: u64,
        payload: &Bytes,
        reply: &Bytes,
    ) -> Result<bool, (Class, String)> {
        let fact = Fact { term, payload: xxh3_64(payload), reply: xxh3_64(reply) };
        match self.entries.get(&index) {
            Some(known) if (known.term, known.payload) != (term, fact.payload) => {
                let detail = format!("entry {index} is of term {} and of term {term}", known.term);
                Err((Class::CommittedChanged, detail))
            }
            Some(known) if known.reply != fact.reply => {
                Err((Class::StateDiverged, format!("entry {index} was answered in two ways")))
            }
            Some(_known) => Ok(false),
            None => {
                if let Some((&last, _)) = self.entries.last_key_value()
                    && last > index
                {
                    let detail =
                        format!("entry {index} was applied after {last}, by nobody before");
                    return Err((Class::CommittedChanged, detail));
                }
                self.entries.insert(index, fact);
                self.fold(index, payload, reply)?;
                Ok(true)
            }
        }
    }

    /// Notes the hash of a state after an entry.
    pub(crate) fn state(&mut self, index: u64, hash: u64) -> Found {
        same(&mut self.states, index, hash, Class::StateDiverged)
    }

    /// Notes the hash of a checkpoint after an entry.
    pub(crate) fn checkpoint(&mut self, index: u64, hash: u64) -> Found {
        same(&mut self.checkpoints, index, hash, Class::CheckpointDiverged)
    }

    /// Notes that a publisher was told where its events are.
    pub(crate) fn acknowledged(
        &self,
        partition: PartitionUid,
        first: Offset,
        events: &[Bytes],
    ) -> Found {
        let at = usize::try_from(first.get()).unwrap();
        let stored = self.partitions.get(&partition).and_then(|all| all.get(at..));
        if stored.is_some_and(|stored| stored.starts_with(events)) {
            return Ok(());
        }
        let detail = format!("{} events at offset {first} of partition {partition}", events.len());
        Err((Class::FalseAck, detail))
    }

    /// Notes that a publisher was told that its events are not stored, and gave up.
    pub(crate) fn refused(&mut self, events: &[Bytes]) -> Found {
        for event in events {
            if self.seen.contains(event) {
                return Err((Class::RefusedButStored, format!("{event:?}")));
            }
            self.refused.insert(event.clone());
        }
        Ok(())
    }

    /// The last entry that somebody applied.
    pub(crate) fn last(&self) -> Option<(u64, Fact)> {
        self.entries.last_key_value().map(|(index, fact)| (*index, *fact))
    }

    fn fold(&mut self, index: u64, payload: &Bytes, reply: &Bytes) -> Found {
        let entry = Entry::decode(payload).unwrap();
        let reply = Reply::decode(reply).unwrap();
        match (entry.content, reply) {
            (Content::Batches(batches), Reply::Batches { batches: replies, .. }) => {
                assert_eq!(batches.len(), replies.len());
                batches
                    .iter()
                    .zip(replies)
                    .try_for_each(|(batch, reply)| self.batch(index, batch, reply))
            }
            (Content::Command(Command::Open(openings)), _) => {
                for opening in openings {
                    self.partitions.entry(opening.partition).or_default();
                }
                Ok(())
            }
            (Content::Command(Command::Lease(leases)), Reply::Leases(replies)) => {
                leases.iter().zip(replies).try_for_each(|(lease, reply)| {
                    let LeaseReply::Leased { epoch, watermark, .. } = reply else { return Ok(()) };
                    self.cursor((lease.subscription, lease.partition), epoch.get(), watermark, 1)
                })
            }
            (Content::Command(Command::Settle(all)), Reply::Settlements(replies)) => {
                all.iter().zip(replies).try_for_each(|(settled, reply)| {
                    let SettleReply::Settled { watermark } = reply else { return Ok(()) };
                    let key = (settled.subscription, settled.partition);
                    self.cursor(key, settled.epoch.get(), watermark, 0)
                })
            }
            (Content::Command(_), _) => Ok(()),
            (Content::Batches(_), reply) => panic!("batches were answered with {reply:?}"),
        }
    }

    fn batch(&mut self, index: u64, batch: &Batch, reply: BatchReply) -> Found {
        let header = &batch.header;
        let Some(stored) = self.partitions.get_mut(&header.partition) else {
            return Ok(());
        };
        let end = stored.len() as u64;
        let expected = header.expected.get();
        let base = match reply {
            BatchReply::Appended { base } => base.get(),
            BatchReply::Void { .. } | BatchReply::Closed if expected != end => {
                self.voids += 1;
                return Ok(());
            }
            other => {
                let detail = format!("entry {index} expects the end {end}, but is {other:?}");
                return Err((Class::OffsetGap, detail));
            }
        };
        if base != end || expected != end {
            let detail =
                format!("entry {index} went to offset {base}, expected {expected}, end {end}");
            return Err((Class::OffsetGap, detail));
        }
        for event in batch.events().unwrap() {
            let event = event.unwrap();
            if self.refused.contains(&event) {
                return Err((Class::RefusedButStored, format!("{event:?} in entry {index}")));
            }
            if !self.seen.insert(event.clone()) {
                return Err((Class::Duplicate, format!("{event:?} in entry {index}")));
            }
            stored.push(event);
        }
        let Some(producer) = header.producer else { return Ok(()) };
        let id = (producer.id.0, producer.epoch.get(), producer.sequence.get());
        if let Some(first) = self.batches.insert((header.partition, id), base) {
            return Err((Class::Duplicate, format!("batch {id:?} at {first} and {base}")));
        }
        let run = (producer.epoch.get(), producer.sequence.get());
        let key = (header.partition, producer.id.0);
        let before = self.newest.insert(key, run).unwrap_or_default();
        let previous = if before.0 == run.0 { before.1 } else { 0 };
        if run <= before || producer.previous.get() != previous {
            let detail = format!("{run:?}, after {}, follows {before:?}", producer.previous);
            return Err((Class::ProducerOrder, detail));
        }
        Ok(())
    }

    /// A cursor: its epoch rises by `step` and its watermark never falls.
    fn cursor(
        &mut self,
        key: (ResourceUid, PartitionUid),
        epoch: u64,
        watermark: Offset,
        step: u64,
    ) -> Found {
        let end = self.partitions.get(&key.1).map_or(0, |events| events.len() as u64);
        let (known_epoch, known) =
            self.cursors.insert(key, (epoch, watermark.get())).unwrap_or_default();
        if epoch != known_epoch + step || watermark.get() < known || watermark.get() > end {
            let detail = format!(
                "{key:?} was at epoch {known_epoch}, {known}; is at {epoch}, {watermark}; end {end}"
            );
            return Err((Class::Cursor, detail));
        }
        Ok(())
    }
}

fn same(known: &mut BTreeMap<u64, u64>, index: u64, hash: u64, class: Class) -> Found {
    let first = *known.entry(index).or_insert(hash);
    if first == hash {
        return Ok(());
    }
    Err((class, format!("after entry {index}: {first:016x} and {hash:016x}")))
}
