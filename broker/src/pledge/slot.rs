//! The bytes of the pledge: two slots, written in turn, so that one is always whole.
//!
//! | Bytes | Content |
//! |---|---|
//! | 0..4 | `WFP0` |
//! | 4..8 | length of the body |
//! | 8..16 | number of the write; the greater one counts |
//! | 16.. | body: boot, claims, boots of others |
//! | then 4 | CRC32C of all before |
//!
//! All numbers are little endian.

use std::collections::BTreeMap;

use weft_proto::{GroupId, NodeId};

/// Size of each slot: enough for more groups than a cluster can have.
pub(super) const SLOT_BYTES: usize = 32 << 10;

const MAGIC: [u8; 4] = *b"WFP0";
const HEAD_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

/// One run of a node; each has a greater number than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot {
    /// Counts the starts of the data folder.
    pub number: u64,
    /// Random: two runs of the same number come from two copies of one folder.
    pub nonce: u64,
}

/// A vote as it was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimedVote {
    /// Its term.
    pub term: u64,
    /// Who was voted for.
    pub node: u64,
    /// A majority granted it.
    pub committed: bool,
}

/// The last entry that was on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimedEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The hash of the log up to it.
    pub chain: u64,
}

/// What this node has promised in one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The newest vote.
    pub vote: Option<ClaimedVote>,
    /// The last entry on disk.
    pub last: Option<ClaimedEntry>,
}

/// Everything in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The present run.
    pub boot: Boot,
    /// By group.
    pub claims: BTreeMap<GroupId, Claim>,
    /// The newest run of each other node that this one has heard of.
    pub seen: BTreeMap<NodeId, Boot>,
}

impl Content {
    /// The bytes of a slot; none if they do not fit.
    pub(super) fn encode(&self, number: u64) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        let put = |body: &mut Vec<u8>, number: u64| body.extend(number.to_le_bytes());
        put(&mut body, self.boot.number);
        put(&mut body, self.boot.nonce);
        put(&mut body, self.claims.len() as u64);
        for (group, claim) in &self.claims {
            let flags = u8::from(claim.vote.is_some())
                | u8::from(claim.last.is_some()) << 1
                | u8::from(claim.vote.is_some_and(|vote| vote.committed)) << 2;
            body.extend(group.0.to_le_bytes());
            body.push(flags);
            let (vote, last) = (claim.vote.unwrap_or_default(), claim.last.unwrap_or_default());
            for number in [vote.term, vote.node, last.index, last.term, last.chain] {
                put(&mut body, number);
            }
        }
        put(&mut body, self.seen.len() as u64);
        for (node, boot) in &self.seen {
            for number in [node.get(), boot.number, boot.nonce] {
                put(&mut body, number);
            }
        }
        let mut slot = Vec::with_capacity(HEAD_BYTES + body.len() + CHECKSUM_BYTES);
        slot.extend(MAGIC);
        slot.extend(u32::try_from(body.len()).ok()?.to_le_bytes());
        slot.extend(number.to_le_bytes());
        slot.extend(body);
        slot.extend(crc32c::crc32c(&slot).to_le_bytes());
        (slot.len() <= SLOT_BYTES).then_some(slot)
    }

    /// Reads a slot; none if it is not whole.
    pub(super) fn decode(slot: &[u8]) -> Option<(u64, Self)> {
        let mut reader = Reader(slot);
        if reader.take(4)? != MAGIC {
            return None;
        }
        let len = usize::try_from(reader.u32()?).ok()?;
        let end = HEAD_BYTES.checked_add(len)?;
        let checksum = slot.get(end..end.checked_add(CHECKSUM_BYTES)?)?;
        if crc32c::crc32c(slot.get(..end)?).to_le_bytes() != checksum {
            return None;
        }
        let number = reader.u64()?;
        let mut reader = Reader(slot.get(HEAD_BYTES..end)?);
        let boot = reader.boot()?;
        let mut content = Self { boot, ..Self::default() };
        for _ in 0..reader.u64()? {
            let group = GroupId(reader.u32()?);
            let flags = reader.take(1)?[0];
            let vote =
                ClaimedVote { term: reader.u64()?, node: reader.u64()?, committed: flags & 4 != 0 };
            let last =
                ClaimedEntry { index: reader.u64()?, term: reader.u64()?, chain: reader.u64()? };
            let claim = Claim {
                vote: (flags & 1 != 0).then_some(vote),
                last: (flags & 2 != 0).then_some(last),
            };
            content.claims.insert(group, claim);
        }
        for _ in 0..reader.u64()? {
            let node = NodeId(reader.u64()?);
            content.seen.insert(node, reader.boot()?);
        }
        reader.0.is_empty().then_some((number, content))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn boot(&mut self) -> Option<Boot> {
        Some(Boot { number: self.u64()?, nonce: self.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        let vote = ClaimedVote { term: 3, node: 2, committed: true };
        let last = ClaimedEntry { index: 9, term: 3, chain: 77 };
        let claims = [
            (GroupId(0), Claim { vote: Some(vote), last: Some(last) }),
            (GroupId(1), Claim { vote: None, last: Some(last) }),
            (GroupId(2), Claim::default()),
        ];
        let boot = Boot { number: 4, nonce: 5 };
        Content { boot, claims: claims.into(), seen: [(NodeId(2), boot)].into() }
    }

    #[test]
    fn content_survives_its_slot() {
        let mut slot = content().encode(6).unwrap();
        slot.resize(SLOT_BYTES, 0);

        assert_eq!(Content::decode(&slot), Some((6, content())));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let good = content().encode(6).unwrap();
        for bit in 0..good.len() * 8 {
            let mut slot = good.clone();
            slot[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Content::decode(&slot), None, "bit {bit}");
        }
        for len in 0..good.len() {
            assert_eq!(Content::decode(&good[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn more_groups_fit_than_a_cluster_can_have() {
        let claim = content().claims[&GroupId(0)];
        let claims = (0..=256).map(|group| (GroupId(group), claim)).collect();
        let seen = (0..64).map(|node| (NodeId(node), Boot::default())).collect();

        assert!(Content { claims, seen, ..Content::default() }.encode(u64::MAX).is_some());
    }
}
