//! Private decoders of consensus, for `tests/fuzz`. Each gives the canonical bytes of what it read,
//! none if it refused; no type of openraft gets out.

use bytes::Bytes;
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use prost::Message;
use weft_proto::GroupId;
use weft_proto::internal as wire;

use super::record::Record;
use super::snapshot::Checkpoint;
use super::types::{TypeConfig, Vote};
use super::wire as convert;
use super::{codec, receipts};
use crate::store::keys::entry;

/// Reads a message of another node by number: 0 append, 1 its answer, 2 vote, 3 its answer,
/// 4 transfer, 5 its answer, 6 snapshot head.
pub fn peer_message(kind: u8, bytes: &[u8]) -> Option<Vec<u8>> {
    fn read<T: Message + Default>(bytes: &[u8]) -> Option<T> {
        T::decode(bytes).ok()
    }
    Some(match kind {
        0 => {
            let message: wire::AppendRequest = read(bytes)?;
            let (group, receipts) = (message.group, message.receipts);
            let request = convert::append_in(message).ok()?;
            let _bytes = convert::append_bytes(&request);
            wire::AppendRequest { receipts, ..convert::append_out(group, request) }.encode_to_vec()
        }
        1 => {
            let message: wire::AppendResponse = read(bytes)?;
            if let Some(receipts::Receipt { term, time }) = convert::receipt_in(&message) {
                return Some(
                    convert::receipt_out(receipts::Receipt { term, time }).encode_to_vec(),
                );
            }
            match convert::append_result_in(message).ok()? {
                Ok(result) => convert::append_result_out(&result).encode_to_vec(),
                Err(reason) => convert::append_unavailable(reason).encode_to_vec(),
            }
        }
        2 => {
            let message: wire::VoteRequest = read(bytes)?;
            let (group, pre_vote) = (message.group, message.pre_vote);
            let request = convert::vote_request_in(message).ok()?;
            convert::vote_request_out(group, &request, pre_vote).encode_to_vec()
        }
        3 => {
            let response = convert::vote_response_in(read(bytes)?).ok()?;
            convert::vote_response_out(&response).encode_to_vec()
        }
        4 => {
            let message: wire::TransferLeaderRequest = read(bytes)?;
            let group = message.group;
            convert::transfer_out(group, &convert::transfer_in(message).ok()?).encode_to_vec()
        }
        5 => {
            let request = TransferLeaderRequest::<TypeConfig>::new(Vote::new(1, 2), 3, None);
            let result: TransferLeaderResponse<TypeConfig> =
                convert::transfer_result_in(read(bytes)?, &request).ok()?;
            convert::transfer_result_out(&result).encode_to_vec()
        }
        _ => {
            let head: wire::SnapshotHead = read(bytes)?;
            let vote = convert::vote_in(head.vote).ok()?;
            let stored =
                convert::stored_membership_in(head.membership_log_id, head.membership).ok()?;
            let (membership_log_id, membership) = convert::stored_membership_out(&stored);
            wire::SnapshotHead {
                vote: Some(convert::vote_out(&vote)),
                membership_log_id,
                membership: Some(membership),
                ..head
            }
            .encode_to_vec()
        }
    })
}

/// Reads a value of the store by number: 0 vote, 1 log id, 2 membership, 3 stored membership.
pub fn stored_value(kind: u8, bytes: &[u8]) -> Option<Vec<u8>> {
    Some(match kind {
        0 => codec::encode_vote(&codec::decode_vote(bytes).ok()?),
        1 => codec::encode_log_id(codec::decode_log_id(bytes).ok()?.as_ref()),
        2 => codec::encode_membership(&codec::decode_membership(bytes).ok()?),
        _ => codec::encode_stored_membership(&codec::decode_stored_membership(bytes).ok()?),
    })
}

/// Reads an entry as it is stored under an index.
pub fn record(index: u64, value: &[u8]) -> Option<Vec<u8>> {
    let record = Record::decode(GroupId(1), &entry::key(index), value).ok()?;
    let _follows = record.follows(None);
    // A membership in it may still be unreadable.
    let _entry = record.to_entry().ok()?;
    Some([&record.head()[..], &record.body].concat())
}

/// Reads a checkpoint, which is also a snapshot that another node sent.
pub fn checkpoint(bytes: &Bytes) -> Option<Bytes> {
    Some(Checkpoint::decode(bytes).ok()?.encode())
}
