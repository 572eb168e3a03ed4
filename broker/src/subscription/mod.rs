//! Rules about what a subscription has settled, and who may settle it.
//!
//! A cursor belongs to one subscription and one partition. Below its watermark everything is
//! settled; above it, ranges are, and of what was given back it is known how often it failed. The watermark never passes an unsettled event, nor the
//! partition's end. Each lease raises the epoch, and what an older epoch settles is fenced.
//! The cursor remembers the last epoch under which events were lent: one that lent nothing is no reason
//! to refuse what the one before it had lent.
//!
//! Owns: cursors. Never: sees an event; reads a clock; fails.

pub mod desk;
mod parked;
mod ranges;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use weft_proto::{Epoch, Offset, PartitionUid, ResourceUid};

use crate::entry::codec::{DecodeError, Reader, put_list};
use crate::entry::{Lease, Member, OffsetRange, Seek, Settlement, Settles};
use crate::partition::Partition;

pub(crate) use parked::PARKED_BYTES_MIN;
pub use parked::{FAILURE_LEN_MAX, Failure, Parked};
pub use ranges::OffsetSet;
pub use window::{Credit, UnsettledMax, Window};

/// Settled ranges above a watermark; what would need more is refused.
pub const RANGES_LEN: usize = 16_384;
/// Events of one cursor that were given back and are not settled; what would be more is refused.
pub const PARKED_LEN: usize = 16_384;

const CURSOR_BYTES_MIN: usize = 58;

/// What became of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseReply {
    /// The member holds the cursor.
    Leased {
        /// Under which it settles.
        epoch: Epoch,
        /// The last one under which events were lent, 0 for none.
        previous: Epoch,
        /// Everything below is settled.
        watermark: Offset,
        /// Settled above the watermark.
        settled: OffsetSet,
        /// Given back and not settled.
        parked: BTreeMap<Offset, Parked>,
    },
    /// The group does not have the partition.
    UnknownPartition,
}

/// What became of a settlement: all of it, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleReply {
    /// Everything in it is settled.
    Settled {
        /// Everything below is settled.
        watermark: Offset,
    },
    /// Another member holds the cursor.
    Fenced {
        /// The epoch in force.
        epoch: Epoch,
    },
    /// It names events that do not exist.
    BeyondEnd {
        /// One past the last event.
        end: Offset,
    },
    /// Too many gaps would remain; settle the oldest events first.
    TooFragmented,
    /// Nobody leased this cursor, or its partition is gone.
    UnknownCursor,
}

/// How far a subscription is in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    epoch: Epoch,
    lent: Epoch,
    member: Member,
    watermark: Offset,
    settled: OffsetSet,
    parked: BTreeMap<Offset, Parked>,
    overtaken: u64,
}

impl Cursor {
    /// The epoch in force.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Who holds it.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Everything below is settled.
    pub fn watermark(&self) -> Offset {
        self.watermark
    }

    /// Settled above the watermark.
    pub fn settled(&self) -> &OffsetSet {
        &self.settled
    }

    /// Given back and not settled.
    pub fn parked(&self) -> &BTreeMap<Offset, Parked> {
        &self.parked
    }

    /// Events that retention took away before they were settled.
    pub fn overtaken(&self) -> u64 {
        self.overtaken
    }

    /// Moves up to a floor; gives the number of events that were not settled below it.
    fn raise(&mut self, floor: Offset) -> u64 {
        if floor <= self.watermark {
            return 0;
        }
        let settled = self.settled.count_below(floor);
        let lost = (floor.0 - self.watermark.0).saturating_sub(settled);
        self.overtaken = self.overtaken.saturating_add(lost);
        self.watermark = floor;
        self.settled.remove_below(floor);
        self.advance();
        lost
    }

    fn settle(&mut self, settlement: &Settlement, end: Offset) -> SettleReply {
        if settlement.epoch != self.epoch {
            return SettleReply::Fenced { epoch: self.epoch };
        }
        if settlement.ranges.iter().any(|range| range.last() >= end) {
            return SettleReply::BeyondEnd { end };
        }
        if settlement.parked.iter().any(|(offset, _)| *offset >= end) {
            return SettleReply::BeyondEnd { end };
        }
        if settlement.lends {
            self.lent = self.epoch;
        }
        // A copy only when a limit is near.
        let ranges = self.settled.len().saturating_add(settlement.ranges.len());
        let parked = self.parked.len().saturating_add(settlement.parked.len());
        let is_safe = ranges <= RANGES_LEN && parked <= PARKED_LEN;
        let before = (!is_safe).then(|| self.clone());
        for &range in &settlement.ranges {
            self.settled.insert(range);
            self.unpark(range);
        }
        for (offset, parked) in &settlement.parked {
            if *offset >= self.watermark && !self.settled.contains(*offset) {
                self.parked.insert(*offset, parked.clone());
            }
        }
        self.advance();
        if (self.settled.len() > RANGES_LEN || self.parked.len() > PARKED_LEN)
            && let Some(before) = before
        {
            *self = before;
            return SettleReply::TooFragmented;
        }
        SettleReply::Settled { watermark: self.watermark }
    }

    /// Forgets how often settled events failed.
    fn unpark(&mut self, range: OffsetRange) {
        let settled = self.parked.range(range.first()..=range.last()).map(|(&offset, _)| offset);
        for offset in settled.collect::<Vec<_>>() {
            self.parked.remove(&offset);
        }
    }

    /// Everything below counts as settled, nothing from there on; what was lent before is fenced.
    fn seek(&mut self, to: Offset) {
        // Nobody was lent anything under this one: the next holder takes on no older lease.
        self.epoch = Epoch(self.epoch.get().saturating_add(1));
        self.lent = self.epoch;
        self.watermark = to;
        self.settled = OffsetSet::default();
        self.parked.clear();
    }

    /// Moves the watermark over what is settled.
    fn advance(&mut self) {
        if let Some(range) = self.settled.range_at(self.watermark)
            && let Some(next) = range.last().checked_add(1)
        {
            self.watermark = next;
        }
        self.settled.remove_below(self.watermark);
        while let Some(first) = self.parked.first_entry()
            && *first.key() < self.watermark
        {
            first.remove();
        }
    }
}

/// The cursors of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursors {
    by_key: BTreeMap<(ResourceUid, PartitionUid), Cursor>,
}

impl Cursors {
    /// The cursor of a subscription in a partition.
    pub fn get(&self, subscription: ResourceUid, partition: PartitionUid) -> Option<&Cursor> {
        self.by_key.get(&(subscription, partition))
    }

    /// The cursors of a subscription, by partition.
    pub fn of(
        &self,
        subscription: ResourceUid,
    ) -> impl DoubleEndedIterator<Item = (PartitionUid, &Cursor)> {
        let all = (subscription, PartitionUid(0))..=(subscription, PartitionUid(u64::MAX));
        self.by_key.range(all).map(|(&(_, partition), cursor)| (partition, cursor))
    }

    /// Subscriptions that have a cursor here, in order; one comes once for each of its partitions.
    pub fn subscriptions(&self) -> impl Iterator<Item = ResourceUid> {
        self.by_key.keys().map(|&(subscription, _)| subscription)
    }

    /// Hands a cursor to a member.
    pub(crate) fn lease(&mut self, lease: &Lease, partition: Option<&Partition>) -> LeaseReply {
        let Some(partition) = partition else {
            return LeaseReply::UnknownPartition;
        };
        let key = (lease.subscription, lease.partition);
        let cursor = self.by_key.entry(key).or_insert_with(|| Cursor {
            watermark: lease.start.max(partition.floor()).min(partition.end()),
            ..Cursor::default()
        });
        let previous = cursor.lent;
        cursor.epoch = Epoch(cursor.epoch.get().saturating_add(1));
        if lease.lends {
            cursor.lent = cursor.epoch;
        }
        cursor.member = lease.member.clone();
        LeaseReply::Leased {
            epoch: cursor.epoch,
            previous,
            watermark: cursor.watermark,
            settled: cursor.settled.clone(),
            parked: cursor.parked.clone(),
        }
    }

    /// Moves a cursor; who held it holds it no more. A subscription that nobody joined yet begins
    /// there.
    pub(crate) fn seek(&mut self, seek: &Seek, partition: Option<&Partition>) -> LeaseReply {
        let Some(partition) = partition else {
            return LeaseReply::UnknownPartition;
        };
        let cursor = self.by_key.entry((seek.subscription, seek.partition)).or_default();
        let previous = cursor.lent;
        cursor.seek(seek.to.max(partition.floor()).min(partition.end()));
        cursor.member = Member::default();
        LeaseReply::Leased {
            epoch: cursor.epoch,
            previous,
            watermark: cursor.watermark,
            settled: OffsetSet::default(),
            parked: BTreeMap::new(),
        }
    }

    /// Settles what an appended batch took the place of.
    pub(crate) fn moved(&mut self, settles: &Settles, partition: Option<&Partition>) {
        let range = |&offset| OffsetRange::new(offset, offset);
        let settlement = Settlement {
            subscription: settles.subscription,
            partition: settles.partition,
            epoch: settles.epoch,
            ranges: settles.offsets.iter().filter_map(range).collect(),
            parked: Vec::new(),
            lends: false,
        };
        // The leader that proposes it is the only one who settles under this epoch; were it fenced,
        // the event would be in both places, and lost in none.
        _ = self.settle(&settlement, partition);
    }

    /// Settles events.
    pub(crate) fn settle(
        &mut self,
        settlement: &Settlement,
        partition: Option<&Partition>,
    ) -> SettleReply {
        let cursor = self.by_key.get_mut(&(settlement.subscription, settlement.partition));
        match (cursor, partition) {
            (Some(cursor), Some(partition)) => cursor.settle(settlement, partition.end()),
            _ => SettleReply::UnknownCursor,
        }
    }

    /// Moves the cursors on a partition up to its floor; gives those that lost unsettled events by
    /// it, and how many.
    pub(crate) fn raise(
        &mut self,
        partition: PartitionUid,
        floor: Offset,
    ) -> impl Iterator<Item = (ResourceUid, u64)> {
        let own = self.by_key.iter_mut().filter(move |((_, own), _)| *own == partition);
        own.map(move |(&(subscription, _), cursor)| (subscription, cursor.raise(floor)))
            .filter(|(_, lost)| *lost > 0)
    }

    /// What was given back and lies below an offset of a partition, and whose it is, under which
    /// epoch; by whose it is, then by offset.
    pub fn parked_below(
        &self,
        partition: PartitionUid,
        floor: Offset,
    ) -> Vec<((ResourceUid, Epoch), Offset, Parked)> {
        let own = self.by_key.iter().filter(|((_, own), _)| *own == partition);
        own.flat_map(|(&(subscription, _), cursor)| {
            let below = cursor.parked.range(..floor);
            below.map(move |(&offset, parked)| {
                ((subscription, cursor.epoch), offset, parked.clone())
            })
        })
        .collect()
    }

    /// Forgets the cursors of a subscription.
    pub(crate) fn forget(&mut self, subscription: ResourceUid) {
        self.by_key.retain(|&(own, _), _| own != subscription);
    }

    /// Forgets the cursors on a partition.
    pub(crate) fn forget_partition(&mut self, partition: PartitionUid) {
        self.by_key.retain(|&(_, own), _| own != partition);
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        put_list(out, self.by_key.iter(), |out, (&(subscription, partition), cursor)| {
            out.put_u64_le(subscription.get());
            out.put_u64_le(partition.get());
            out.put_u64_le(cursor.epoch.get());
            out.put_u64_le(cursor.lent.get());
            out.put_u64_le(cursor.watermark.get());
            out.put_u64_le(cursor.overtaken);
            cursor.member.put(out);
            cursor.settled.put(out);
            put_list(out, cursor.parked.iter(), |out, (offset, parked)| {
                out.put_u64_le(offset.get());
                parked.put(out);
            });
        });
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut cursors = Self::default();
        for _ in 0..reader.count(CURSOR_BYTES_MIN)? {
            let key = (ResourceUid(reader.u64()?), PartitionUid(reader.u64()?));
            let cursor = Cursor {
                epoch: Epoch(reader.u64()?),
                lent: Epoch(reader.u64()?),
                watermark: Offset(reader.u64()?),
                overtaken: reader.u64()?,
                member: Member::decode(reader)?,
                settled: OffsetSet::decode(reader)?,
                parked: decode_parked(reader)?,
            };
            if cursors.by_key.insert(key, cursor).is_some() {
                return Err(DecodeError::Malformed("a cursor is listed twice"));
            }
        }
        Ok(cursors)
    }
}

pub(crate) fn decode_parked(
    reader: &mut Reader<'_>,
) -> Result<BTreeMap<Offset, Parked>, DecodeError> {
    let mut all = BTreeMap::new();
    for _ in 0..reader.count(8 + PARKED_BYTES_MIN)? {
        let (offset, parked) = (Offset(reader.u64()?), Parked::decode(reader)?);
        if all.last_key_value().is_some_and(|(last, _)| *last >= offset) {
            return Err(DecodeError::Malformed("parked events are not sorted"));
        }
        all.insert(offset, parked);
    }
    Ok(all)
}
