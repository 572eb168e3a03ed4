//! What every replica keeps: a flat queue, cheap to append to.

use std::collections::VecDeque;

use weft_proto::{Offset, PartitionUid, Timestamp};

use super::{IDS_MAX, WINDOW_TIME};

/// The identities of the newest appended events of a group, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    batches: VecDeque<Kept>,
    hashes: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    partition: PartitionUid,
    base: Offset,
    count: u32,
    time: Timestamp,
}

/// One identity and where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Of partition, source and id.
    pub hash: u64,
    /// Where the event is.
    pub offset: Offset,
    /// When it was appended.
    pub time: Timestamp,
}

impl Window {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many identities are kept.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Log time of the oldest batch kept.
    pub fn since(&self) -> Option<Timestamp> {
        self.batches.front().map(|batch| batch.time)
    }

    /// Adds a batch. Log time never goes back, so the oldest batches are in front.
    pub fn record(
        &mut self,
        partition: PartitionUid,
        base: Offset,
        hashes: impl ExactSizeIterator<Item = u64>,
        time: Timestamp,
    ) {
        if hashes.len() == 0 {
            return;
        }
        // A batch has at most 4,096 events.
        let count = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        self.hashes.extend(hashes);
        self.batches.push_back(Kept { partition, base, count, time });
        self.forget(time);
    }

    /// Puts what was before in front.
    pub fn prepend(&mut self, mut older: Self) {
        older.batches.append(&mut self.batches);
        older.hashes.append(&mut self.hashes);
        *self = older;
        if let Some(newest) = self.batches.back().map(|batch| batch.time) {
            self.forget(newest);
        }
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some(oldest) = self.batches.front()
            && (self.hashes.len() > IDS_MAX || now.since(oldest.time) > WINDOW_TIME)
        {
            let count = usize::try_from(oldest.count).unwrap_or(usize::MAX);
            self.hashes.drain(..count.min(self.hashes.len()));
            self.batches.pop_front();
        }
    }

    /// Where an identity was seen last.
    pub fn find(&self, hash: u64) -> Option<Offset> {
        let place = self.hashes.iter().rposition(|&known| known == hash)?;
        let mut first = self.hashes.len();
        for batch in self.batches.iter().rev() {
            first = first.saturating_sub(usize::try_from(batch.count).unwrap_or(usize::MAX));
            if place >= first {
                return Some(Offset(batch.base.0.saturating_add((place - first) as u64)));
            }
        }
        None
    }

    /// All identities, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Seen> {
        let mut hashes = self.hashes.iter();
        self.batches.iter().flat_map(move |batch| {
            let own = hashes.by_ref().take(usize::try_from(batch.count).unwrap_or(0));
            let own: Vec<u64> = own.copied().collect();
            (0_u64..).zip(own).map(|(number, hash)| Seen {
                hash,
                offset: Offset(batch.base.0.saturating_add(number)),
                time: batch.time,
            })
        })
    }
}
