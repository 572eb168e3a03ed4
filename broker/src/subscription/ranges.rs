//! A set of offsets, kept as ranges: sorted, disjoint, never touching.

use std::collections::BTreeMap;

use bytes::BytesMut;
use weft_proto::Offset;

use crate::entry::OffsetRange;
use crate::entry::codec::{DecodeError, Reader, put_list};

const RANGE_BYTES: usize = 16;

/// A set of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetSet {
    /// Each range by its first offset.
    ranges: BTreeMap<Offset, OffsetRange>,
}

impl OffsetSet {
    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is no offset.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the offset is in the set.
    pub fn contains(&self, offset: Offset) -> bool {
        self.range_at(offset).is_some()
    }

    /// The range around an offset.
    pub fn range_at(&self, offset: Offset) -> Option<OffsetRange> {
        let (_, &range) = self.ranges.range(..=offset).next_back()?;
        (range.last() >= offset).then_some(range)
    }

    /// The first offset of the set at or after this one.
    pub fn next_at(&self, offset: Offset) -> Option<Offset> {
        if self.contains(offset) {
            return Some(offset);
        }
        self.ranges.range(offset..).next().map(|(&first, _)| first)
    }

    /// How many offsets of the set are below this one.
    pub fn count_below(&self, offset: Offset) -> u64 {
        let below = self.ranges.range(..offset).map(|(_, range)| match offset.0.checked_sub(1) {
            Some(last) => range.last().0.min(last) - range.first().0 + 1,
            None => 0,
        });
        below.fold(0, u64::saturating_add)
    }

    /// The ranges, rising.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = OffsetRange> {
        self.ranges.values().copied()
    }

    /// Adds a range, joining what it touches.
    pub fn insert(&mut self, mut range: OffsetRange) {
        // From the right: the last range that begins at or before the end may touch.
        while let Some(near) = self.last_starting_by(range.last().0.saturating_add(1))
            && near.last().0.saturating_add(1) >= range.first().0
        {
            self.ranges.remove(&near.first());
            range = range.join(near);
        }
        self.ranges.insert(range.first(), range);
    }

    fn last_starting_by(&self, offset: u64) -> Option<OffsetRange> {
        self.ranges.range(..=Offset(offset)).next_back().map(|(_, &range)| range)
    }

    /// Removes all offsets below this one.
    pub fn remove_below(&mut self, offset: Offset) {
        while let Some(entry) = self.ranges.first_entry()
            && *entry.key() < offset
        {
            let range = entry.remove();
            if let Some(rest) = OffsetRange::new(offset, range.last()) {
                self.ranges.insert(offset, rest);
            }
        }
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        put_list(out, self.iter(), |out, range| range.put(out));
    }

    /// Reads a set; the ranges must be as they were written.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut set = Self::default();
        let mut free_from = Some(0);
        for _ in 0..reader.count(RANGE_BYTES)? {
            let range = OffsetRange::decode(reader)?;
            if free_from.is_none_or(|free| range.first().0 < free) {
                return Err(DecodeError::Malformed("ranges touch or are not sorted"));
            }
            set.ranges.insert(range.first(), range);
            free_from = range.last().0.checked_add(2);
        }
        Ok(set)
    }
}

impl FromIterator<OffsetRange> for OffsetSet {
    fn from_iter<I: IntoIterator<Item = OffsetRange>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}
