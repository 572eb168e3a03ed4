//! Messages of other nodes: entries, votes, transfers, the head of a snapshot, and the answers, from
//! protobuf to what consensus takes and back. Nothing may be lost on the way.

#![cfg_attr(fuzzing, no_main)]

use prost::Message;
use weft_broker::fuzzing::peer_message;
use weft_fuzz::chosen;
use weft_proto::internal as wire;

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

pub fn run(data: &[u8]) -> bool {
    let Some((&kind, bytes)) = data.split_first() else { return false };
    let kind = kind % 7;
    let Some(once) = peer_message(kind, bytes) else { return false };
    let twice = peer_message(kind, &once).expect("we read what we write");
    // A list of members may repeat one, and is a map from then on.
    assert_eq!(once, twice, "kind {kind}");
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let vote = || Some(wire::Vote { term: 3, node_id: 2, committed: true });
    let id = |index| wire::LogId { term: 2, index };
    let member = |node_id| wire::Member { node_id, address: format!("h:{node_id}") };
    let membership = || wire::Membership {
        configs: vec![
            wire::Voters { node_ids: vec![1, 2, 3] },
            wire::Voters { node_ids: vec![2, 3, 4] },
        ],
        members: (1..6).map(member).collect(),
    };
    let entries = vec![
        wire::Entry { log_id: Some(id(4)), payload: None },
        wire::Entry {
            log_id: Some(id(5)),
            payload: Some(wire::entry::Payload::Normal(vec![0, 1, 0, 0].into())),
        },
        wire::Entry {
            log_id: Some(id(6)),
            payload: Some(wire::entry::Payload::Membership(membership())),
        },
    ];
    let append = wire::AppendRequest {
        group: 1,
        vote: vote(),
        previous: Some(id(3)),
        commit: Some(id(2)),
        entries,
        receipts: true,
    };
    let answers = {
        use wire::append_response::Outcome;
        [
            Outcome::Matched(wire::Matched { log_id: Some(id(6)) }),
            Outcome::Conflict(id(3)),
            Outcome::HigherVote(wire::Vote { term: 9, node_id: 1, committed: false }),
            Outcome::Unavailable("stopping".to_owned()),
            Outcome::Received(wire::Received { term: 2, time_micros: 7 }),
        ]
    };
    let moved = {
        use wire::transfer_leader_response::Outcome;
        [
            Outcome::Accepted(wire::Accepted {}),
            Outcome::VoteChanged(wire::Vote { term: 9, node_id: 1, committed: false }),
            Outcome::NotFlushed(wire::Matched { log_id: None }),
        ]
    };
    let request = wire::VoteRequest {
        group: 1,
        vote: vote(),
        last: Some(id(6)),
        leadership_transfer: true,
        pre_vote: true,
    };
    let response = wire::VoteResponse { vote: vote(), granted: true, last: Some(id(6)) };
    let transfer = wire::TransferLeaderRequest { group: 1, from: vote(), to: 2, last: Some(id(6)) };
    let head = wire::SnapshotHead {
        group: 1,
        vote: vote(),
        last: Some(id(6)),
        membership_log_id: Some(id(1)),
        membership: Some(membership()),
        length: 100,
    };
    let mut seeds = vec![
        chosen(0, append.encode_to_vec()),
        chosen(0, wire::AppendRequest::default().encode_to_vec()),
        chosen(2, request.encode_to_vec()),
        chosen(3, response.encode_to_vec()),
        chosen(4, transfer.encode_to_vec()),
        chosen(6, head.encode_to_vec()),
        chosen(
            6,
            wire::SnapshotHead { membership: Some(wire::Membership::default()), ..head }
                .encode_to_vec(),
        ),
    ];
    let answer = |outcome| wire::AppendResponse { outcome: Some(outcome) }.encode_to_vec();
    seeds.extend(answers.map(|outcome| chosen(1, answer(outcome))));
    let answer = |outcome| wire::TransferLeaderResponse { outcome: Some(outcome) }.encode_to_vec();
    seeds.extend(moved.map(|outcome| chosen(5, answer(outcome))));
    seeds
}
