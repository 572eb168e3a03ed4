//! How votes, log ids and memberships lie on disk and travel: our own bytes, not openraft's.
//!
//! All numbers are little endian. Each form begins with a format byte, 0.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::StoreError;

use super::types::{LeaderId, LogId, Membership, PeerNode, StoredMembership, Vote, log_id};

const FORMAT: u8 = 0;
/// More voters, learners or joint configurations than this are not ours.
const MEMBERS_MAX: u32 = 10_000;

/// Encodes a vote.
pub fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend(vote.leader_id.term.to_le_bytes());
    out.extend(vote.leader_id.voted_for.to_le_bytes());
    out.push(u8::from(vote.committed));
    out
}

/// Decodes a vote.
pub fn decode_vote(bytes: &[u8]) -> Result<Vote, StoreError> {
    let mut input = Input::new("vote", bytes)?;
    let leader_id = LeaderId { term: input.u64()?, voted_for: input.u64()? };
    let committed = match input.u8()? {
        0 => false,
        1 => true,
        other => return Err(input.malformed(&format!("committed is {other}"))),
    };
    input.end()?;
    Ok(Vote { leader_id, committed })
}

/// Encodes a log id, or none.
pub fn encode_log_id(id: Option<&LogId>) -> Vec<u8> {
    let mut out = vec![FORMAT];
    push_log_id(&mut out, id);
    out
}

/// Decodes a log id, or none.
pub fn decode_log_id(bytes: &[u8]) -> Result<Option<LogId>, StoreError> {
    let mut input = Input::new("log id", bytes)?;
    let id = input.log_id()?;
    input.end()?;
    Ok(id)
}

/// Encodes a membership.
pub fn encode_membership(membership: &Membership) -> Vec<u8> {
    let mut out = vec![FORMAT];
    push_membership(&mut out, membership);
    out
}

/// Decodes a membership.
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, StoreError> {
    let mut input = Input::new("membership", bytes)?;
    let membership = input.membership()?;
    input.end()?;
    Ok(membership)
}

/// Encodes a membership with the entry that set it.
pub fn encode_stored_membership(stored: &StoredMembership) -> Vec<u8> {
    let mut out = vec![FORMAT];
    push_log_id(&mut out, stored.log_id().as_ref());
    push_membership(&mut out, stored.membership());
    out
}

/// Decodes a membership with the entry that set it.
pub fn decode_stored_membership(bytes: &[u8]) -> Result<StoredMembership, StoreError> {
    let mut input = Input::new("stored membership", bytes)?;
    let id = input.log_id()?;
    let membership = input.membership()?;
    input.end()?;
    Ok(StoredMembership::new(id, membership))
}

fn push_log_id(out: &mut Vec<u8>, id: Option<&LogId>) {
    match id {
        None => out.push(0),
        Some(id) => {
            out.push(1);
            out.extend(id.leader_id.term.to_le_bytes());
            out.extend(id.index.to_le_bytes());
        }
    }
}

fn push_membership(out: &mut Vec<u8>, membership: &Membership) {
    let configs = membership.get_joint_config();
    push_len(out, configs.len());
    for voters in configs {
        push_len(out, voters.len());
        for id in voters {
            out.extend(id.to_le_bytes());
        }
    }
    push_len(out, membership.nodes().count());
    for (id, node) in membership.nodes() {
        out.extend(id.to_le_bytes());
        push_len(out, node.address.len());
        out.extend(node.address.as_bytes());
    }
}

fn push_len(out: &mut Vec<u8>, len: usize) {
    // Memberships are counted in tens, addresses in hundreds.
    out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

/// Reads a form front to back.
struct Input<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn new(what: &'static str, bytes: &'a [u8]) -> Result<Self, StoreError> {
        let mut input = Self { what, rest: bytes };
        match input.u8()? {
            FORMAT => Ok(input),
            other => Err(input.malformed(&format!("format {other} is not known"))),
        }
    }

    fn malformed(&self, detail: &str) -> StoreError {
        StoreError::Record { what: self.what, detail: detail.to_owned() }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or_else(|| self.malformed("it ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.take(N)?.try_into().map_err(|_short| self.malformed("it ends early"))
    }

    fn u8(&mut self) -> Result<u8, StoreError> {
        self.array().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_le_bytes)
    }

    fn len(&mut self) -> Result<u32, StoreError> {
        let len = self.array().map(u32::from_le_bytes)?;
        if len > MEMBERS_MAX {
            return Err(self.malformed(&format!("a length of {len}")));
        }
        Ok(len)
    }

    fn log_id(&mut self) -> Result<Option<LogId>, StoreError> {
        match self.u8()? {
            0 => Ok(None),
            1 => Ok(Some(log_id(self.u64()?, self.u64()?))),
            other => Err(self.malformed(&format!("presence is {other}"))),
        }
    }

    fn membership(&mut self) -> Result<Membership, StoreError> {
        let mut configs = Vec::new();
        for _ in 0..self.len()? {
            let mut voters = BTreeSet::new();
            for _ in 0..self.len()? {
                voters.insert(self.u64()?);
            }
            configs.push(voters);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.len()? {
            let id = self.u64()?;
            let len = self.len()? as usize;
            let address = std::str::from_utf8(self.take(len)?)
                .map_err(|error| self.malformed(&error.to_string()))?;
            nodes.insert(id, PeerNode { address: address.to_owned() });
        }
        Membership::new(configs, nodes).map_err(|error| self.malformed(&error.to_string()))
    }

    fn end(&self) -> Result<(), StoreError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("it has bytes left over")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(address: &str) -> PeerNode {
        PeerNode { address: address.to_owned() }
    }

    #[test]
    fn a_vote_keeps_its_bytes() {
        let vote = Vote { leader_id: LeaderId { term: 258, voted_for: 3 }, committed: true };

        let bytes = encode_vote(&vote);

        assert_eq!(bytes, b"\0\x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01");
        assert_eq!(decode_vote(&bytes).unwrap(), vote);
    }

    #[test]
    fn a_log_id_keeps_its_bytes() {
        let bytes = encode_log_id(Some(&log_id(2, 7)));

        assert_eq!(bytes, b"\0\x01\x02\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0");
        assert_eq!(decode_log_id(&bytes).unwrap(), Some(log_id(2, 7)));
        assert_eq!(decode_log_id(&encode_log_id(None)).unwrap(), None);
    }

    #[test]
    fn a_membership_keeps_its_bytes() {
        let nodes = BTreeMap::from([(1, peer("a:1")), (2, peer("b"))]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();

        let bytes = encode_membership(&membership);

        let golden: &[u8] = b"\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\
            \x01\0\0\0\0\0\0\0\x03\0\0\0a:1\x02\0\0\0\0\0\0\0\x01\0\0\0b";
        assert_eq!(bytes, golden);
        assert_eq!(decode_membership(&bytes).unwrap(), membership);
    }

    #[test]
    fn memberships_round_trip() {
        let nodes = BTreeMap::from([(1, peer("a")), (2, peer("b")), (3, peer(""))]);
        let joint = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
        for membership in [Membership::default(), Membership::new(joint, nodes).unwrap()] {
            for id in [None, Some(log_id(1, 2))] {
                let stored = StoredMembership::new(id, membership.clone());
                let bytes = encode_stored_membership(&stored);
                assert_eq!(decode_stored_membership(&bytes).unwrap(), stored);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn foreign_bytes_are_refused_without_panic(mut bytes: Vec<u8>) {
            bytes.insert(0, FORMAT);
            _ = decode_vote(&bytes);
            _ = decode_log_id(&bytes);
            _ = decode_membership(&bytes);
            _ = decode_stored_membership(&bytes);
        }
    }
}
