//! Raft messages to and from the wire; payloads are shared, never copied.

use std::collections::BTreeMap;

use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};
use openraft::raft::{TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse};
use weft_proto::internal as wire;

use super::receipts::Receipt;
use super::types::{
    Entry, LogId, Membership, Payload, PeerNode, Reply, StoredMembership, TypeConfig, Vote, log_id,
};

/// What makes a message unreadable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Malformed {
    #[error("the message has no {0}")]
    Missing(&'static str),
    #[error("the message names a membership that cannot be: {0}")]
    Membership(String),
    #[error("the message is for group {got}, the stream is for group {expected}")]
    Group { expected: u32, got: u32 },
}

pub(super) fn vote_out(vote: &Vote) -> wire::Vote {
    wire::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(super) fn vote_in(vote: Option<wire::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed::Missing("vote"))?;
    let mut read = Vote::new(vote.term, vote.node_id);
    read.committed = vote.committed;
    Ok(read)
}

pub(super) fn log_id_out(id: LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, index: id.index }
}

pub(super) fn log_id_in(id: wire::LogId) -> LogId {
    log_id(id.term, id.index)
}

fn matched_out(id: Option<LogId>) -> wire::Matched {
    wire::Matched { log_id: id.map(log_id_out) }
}

pub(super) fn membership_out(membership: &Membership) -> wire::Membership {
    wire::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| wire::Voters { node_ids: voters.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(id, node)| wire::Member { node_id: *id, address: node.address.clone() })
            .collect(),
    }
}

pub(super) fn membership_in(membership: wire::Membership) -> Result<Membership, Malformed> {
    let configs =
        membership.configs.into_iter().map(|voters| voters.node_ids.into_iter().collect());
    let members: BTreeMap<u64, PeerNode> = membership
        .members
        .into_iter()
        .map(|member| (member.node_id, PeerNode { address: member.address }))
        .collect();
    Membership::new(configs.collect(), members)
        .map_err(|error| Malformed::Membership(error.to_string()))
}

pub(super) fn stored_membership_out(
    stored: &StoredMembership,
) -> (Option<wire::LogId>, wire::Membership) {
    (stored.log_id().map(log_id_out), membership_out(stored.membership()))
}

pub(super) fn stored_membership_in(
    log_id: Option<wire::LogId>,
    membership: Option<wire::Membership>,
) -> Result<StoredMembership, Malformed> {
    let membership = membership.ok_or(Malformed::Missing("membership"))?;
    let membership = if membership == wire::Membership::default() {
        Membership::default()
    } else {
        membership_in(membership)?
    };
    Ok(StoredMembership::new(log_id.map(log_id_in), membership))
}

fn entry_out(entry: Entry) -> wire::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(Payload(bytes)) => Some(wire::entry::Payload::Normal(bytes)),
        EntryPayload::Membership(membership) => {
            Some(wire::entry::Payload::Membership(membership_out(&membership)))
        }
    };
    wire::Entry { log_id: Some(log_id_out(entry.log_id)), payload }
}

fn entry_in(entry: wire::Entry) -> Result<Entry, Malformed> {
    let log_id = entry.log_id.map(log_id_in).ok_or(Malformed::Missing("log id of an entry"))?;
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(wire::entry::Payload::Normal(bytes)) => EntryPayload::Normal(Payload(bytes)),
        Some(wire::entry::Payload::Membership(membership)) => {
            EntryPayload::Membership(membership_in(membership)?)
        }
    };
    Ok(Entry { log_id, payload })
}

/// Bytes that a request keeps in flight; what lies around the payloads is small change.
pub(super) fn append_bytes(request: &AppendEntriesRequest<TypeConfig>) -> usize {
    const ENTRY_OVERHEAD: usize = 32;
    let payload = |entry: &Entry| match &entry.payload {
        EntryPayload::Normal(Payload(bytes)) => bytes.len(),
        _ => 0,
    };
    request.entries.iter().map(|entry| payload(entry) + ENTRY_OVERHEAD).sum()
}

pub(super) fn append_out(
    group: u32,
    request: AppendEntriesRequest<TypeConfig>,
) -> wire::AppendRequest {
    wire::AppendRequest {
        group,
        vote: Some(vote_out(&request.vote)),
        previous: request.prev_log_id.map(log_id_out),
        commit: request.leader_commit.map(log_id_out),
        entries: request.entries.into_iter().map(entry_out).collect(),
        receipts: false,
    }
}

pub(super) fn append_in(
    request: wire::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    Ok(AppendEntriesRequest {
        vote: vote_in(request.vote)?,
        prev_log_id: request.previous.map(log_id_in),
        leader_commit: request.commit.map(log_id_in),
        entries: request.entries.into_iter().map(entry_in).collect::<Result<_, _>>()?,
    })
}

pub(super) fn append_result_out(result: &StreamAppendResult<TypeConfig>) -> wire::AppendResponse {
    use wire::append_response::Outcome;
    let outcome = match result {
        Ok(matched) => Outcome::Matched(matched_out(*matched)),
        Err(StreamAppendError::Conflict(id)) => Outcome::Conflict(log_id_out(*id)),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(vote_out(vote)),
    };
    wire::AppendResponse { outcome: Some(outcome) }
}

/// Tells what this replica has in memory, ahead of its answers.
pub(super) fn receipt_out(receipt: Receipt) -> wire::AppendResponse {
    let Receipt { term, time } = receipt;
    let received = wire::Received { term, time_micros: time };
    wire::AppendResponse { outcome: Some(wire::append_response::Outcome::Received(received)) }
}

/// What a message tells ahead of the answers; none if it is an answer.
pub(super) fn receipt_in(response: &wire::AppendResponse) -> Option<Receipt> {
    match response.outcome {
        Some(wire::append_response::Outcome::Received(wire::Received { term, time_micros })) => {
            Some(Receipt { term, time: time_micros })
        }
        _ => None,
    }
}

/// Says that this replica cannot answer now.
pub(super) fn append_unavailable(reason: impl Into<String>) -> wire::AppendResponse {
    use wire::append_response::Outcome;
    wire::AppendResponse { outcome: Some(Outcome::Unavailable(reason.into())) }
}

/// The answer, or why the replica gave none.
pub(super) fn append_result_in(
    response: wire::AppendResponse,
) -> Result<Result<StreamAppendResult<TypeConfig>, String>, Malformed> {
    use wire::append_response::Outcome;
    Ok(match response.outcome.ok_or(Malformed::Missing("outcome"))? {
        Outcome::Matched(matched) => Ok(Ok(matched.log_id.map(log_id_in))),
        Outcome::Conflict(id) => Ok(Err(StreamAppendError::Conflict(log_id_in(id)))),
        Outcome::HigherVote(vote) => Ok(Err(StreamAppendError::HigherVote(vote_in(Some(vote))?))),
        Outcome::Unavailable(reason) => Err(reason),
        Outcome::Received(_) => return Err(Malformed::Missing("answer")),
    })
}

pub(super) fn vote_request_out(
    group: u32,
    request: &VoteRequest<TypeConfig>,
    pre_vote: bool,
) -> wire::VoteRequest {
    wire::VoteRequest {
        group,
        vote: Some(vote_out(&request.vote)),
        last: request.last_log_id.map(log_id_out),
        leadership_transfer: request.leadership_transfer,
        pre_vote,
    }
}

pub(super) fn vote_request_in(
    request: wire::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let mut read = VoteRequest::new(vote_in(request.vote)?, request.last.map(log_id_in));
    read.leadership_transfer = request.leadership_transfer;
    Ok(read)
}

pub(super) fn vote_response_out(response: &VoteResponse<TypeConfig>) -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(vote_out(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.map(log_id_out),
    }
}

pub(super) fn vote_response_in(
    response: wire::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, Malformed> {
    let vote = vote_in(response.vote)?;
    Ok(VoteResponse::new(vote, response.last.map(log_id_in), response.granted))
}

pub(super) fn transfer_out(
    group: u32,
    request: &TransferLeaderRequest<TypeConfig>,
) -> wire::TransferLeaderRequest {
    wire::TransferLeaderRequest {
        group,
        from: Some(vote_out(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().copied().map(log_id_out),
    }
}

pub(super) fn transfer_in(
    request: wire::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Malformed> {
    let from = vote_in(request.from)?;
    Ok(TransferLeaderRequest::new(from, request.to, request.last.map(log_id_in)))
}

pub(super) fn transfer_result_out(
    result: &TransferLeaderResponse<TypeConfig>,
) -> wire::TransferLeaderResponse {
    use wire::transfer_leader_response::Outcome;
    let outcome = match result {
        Ok(()) => Outcome::Accepted(wire::Accepted {}),
        Err(TransferLeaderError::VoteChanged { actual, .. }) => {
            Outcome::VoteChanged(vote_out(actual))
        }
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            Outcome::NotFlushed(matched_out(*actual))
        }
    };
    wire::TransferLeaderResponse { outcome: Some(outcome) }
}

pub(super) fn transfer_result_in(
    response: wire::TransferLeaderResponse,
    request: &TransferLeaderRequest<TypeConfig>,
) -> Result<TransferLeaderResponse<TypeConfig>, Malformed> {
    use wire::transfer_leader_response::Outcome;
    Ok(match response.outcome.ok_or(Malformed::Missing("outcome"))? {
        Outcome::Accepted(_) => Ok(()),
        Outcome::VoteChanged(vote) => Err(TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: vote_in(Some(vote))?,
        }),
        Outcome::NotFlushed(matched) => Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: matched.log_id.map(log_id_in),
        }),
    })
}

/// An answer without content, for entries that no machine sees.
pub(super) fn empty_reply() -> Reply {
    Reply::default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;

    fn membership() -> Membership {
        let nodes = (1..=3).map(|id| (id, PeerNode { address: format!("host:{id}") }));
        Membership::new(
            vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])],
            nodes.collect::<BTreeMap<_, _>>(),
        )
        .unwrap()
    }

    #[test]
    fn append_request_survives_the_wire_without_copies() {
        let payload = Bytes::from(vec![7; 100]);
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(log_id(2, 9)),
            leader_commit: None,
            entries: vec![
                Entry { log_id: log_id(3, 10), payload: EntryPayload::Blank },
                Entry {
                    log_id: log_id(3, 11),
                    payload: EntryPayload::Normal(Payload(payload.clone())),
                },
                Entry { log_id: log_id(3, 12), payload: EntryPayload::Membership(membership()) },
            ],
        };

        let read = append_in(append_out(5, request.clone())).unwrap();

        assert_eq!(read.vote, request.vote);
        assert_eq!(read.prev_log_id, request.prev_log_id);
        assert_eq!(read.leader_commit, request.leader_commit);
        assert_eq!(read.entries, request.entries);
        let EntryPayload::Normal(Payload(bytes)) = &read.entries[1].payload else { panic!() };
        assert_eq!(bytes.as_ptr(), payload.as_ptr());
    }

    #[test]
    fn message_without_vote_is_malformed() {
        let error = append_in(wire::AppendRequest::default()).unwrap_err();

        assert_eq!(error, Malformed::Missing("vote"));
    }

    #[test]
    fn membership_without_its_nodes_is_malformed() {
        let mut message = membership_out(&membership());
        message.members.clear();

        assert!(matches!(membership_in(message), Err(Malformed::Membership(_))));
    }

    #[test]
    fn stored_membership_of_a_fresh_node_survives() {
        let stored = StoredMembership::default();

        let (id, membership) = stored_membership_out(&stored);

        assert_eq!(stored_membership_in(id, Some(membership)).unwrap(), stored);
    }
}
