//! The state of a data group: as a checkpoint from disk or from another node, and as the sum of
//! entries.
//!
//! First byte even: the rest is a checkpoint. Odd: the rest makes commands and batches, each of which
//! is encoded, applied and checked; every replica does the same, so nothing may fail or differ.

#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use weft_broker::entry::{
    Command, EntryBuilder, Lease, Member, NewBatch, OffsetRange, Opening, Payload, ProducerBatch,
    Seek, Settlement, Settles, Trim,
};
use weft_broker::state::{GroupState, Reply};
use weft_broker::subjects::SubjectHash;
use weft_broker::subscription::Parked;
use weft_fuzz::{Input, chosen};
use weft_proto::{
    Epoch, NodeId, Offset, PartitionUid, ProducerId, ResourceUid, Sequence, Timestamp,
};

weft_fuzz::target!();

pub const MAX_LEN: usize = 2_048;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    if input.u8() & 1 == 0 {
        let bytes = input.rest();
        let Ok(state) = GroupState::decode(bytes) else { return false };
        assert_eq!(state.encode(), bytes, "a state has one encoding");
        let (mut state, payload) = (state, Command::Seal(vec![PartitionUid(1)]));
        step(&mut state, &payload.encode(Timestamp::from_micros(5)), 1);
        return true;
    }
    let mut state = GroupState::new();
    let mut index = 0;
    while !input.is_empty() {
        index += 1;
        let payload = payload(&mut input);
        step(&mut state, &payload, index);
    }
    let twin = GroupState::decode(&state.encode()).expect("we read what we write");
    assert_eq!(twin, state);
    assert_eq!(twin.state_hash(), state.state_hash());
    true
}

fn step(state: &mut GroupState, payload: &Bytes, index: u64) {
    let mut twin = GroupState::decode(&state.encode()).expect("we read what we write");
    assert_eq!(&twin, state);
    let before = (state.time(), state.pos(), state.floor_index());
    let outcome = state.apply(payload, index).expect("what we write applies");
    assert_eq!(twin.apply(payload, index).expect("on every replica"), outcome);
    assert_eq!(&twin, state, "replicas agree");
    assert!(state.time() >= before.0 && state.pos() >= before.1 && state.floor_index() >= before.2);
    assert_eq!(Reply::decode(&outcome.reply.encode()).expect("a reply is read"), outcome.reply);
    for (uid, partition) in state.partitions().iter() {
        assert!(partition.floor() <= partition.end(), "{uid}");
    }
}

fn uid(input: &mut Input<'_>) -> PartitionUid {
    PartitionUid(u64::from(input.u8() % 3))
}

fn payload(input: &mut Input<'_>) -> Bytes {
    let choice = input.u8() % 11;
    let time = Timestamp::from_micros(input.number());
    let subscription = ResourceUid(u64::from(input.u8() % 2));
    let producer = |input: &mut Input<'_>| ProducerBatch {
        id: ProducerId(u128::from(input.u8() % 2)),
        epoch: Epoch(input.number()),
        sequence: Sequence(input.number()),
        previous: Sequence(input.number()),
    };
    let command = match choice {
        0 => Command::Open(vec![Opening { partition: uid(input), start: Offset(input.number()) }]),
        1 => Command::Seal(vec![uid(input)]),
        2 => Command::Trim(Trim {
            floor_index: input.number(),
            floors: vec![(uid(input), Offset(input.number()))],
        }),
        3 => Command::Lease(vec![Lease {
            subscription,
            partition: uid(input),
            start: Offset(input.number()),
            member: Member::default(),
            lends: input.u8() % 2 == 0,
        }]),
        4 | 5 => {
            let (partition, epoch) = (uid(input), Epoch(input.number()));
            let ranges = (0..input.u8() % 4).filter_map(|_| {
                let first = input.number();
                OffsetRange::new(Offset(first), Offset(first.saturating_add(input.number())))
            });
            let ranges = ranges.collect();
            let parked = (0..input.u8() % 4).map(|_| {
                let (offset, attempts) = (Offset(input.number()), u32::from(input.u8()));
                (offset, Parked { attempts, ..Parked::default() })
            });
            let parked = parked.collect();
            let lends = input.u8() % 2 == 0;
            let settlement = Settlement { subscription, partition, epoch, ranges, parked, lends };
            Command::Settle(vec![settlement])
        }
        6 => Command::Drop(vec![uid(input)]),
        7 => Command::Forget(subscription),
        8 => Command::Pass(uid(input), producer(input)),
        9 => Command::Seek(vec![Seek {
            subscription,
            partition: uid(input),
            to: Offset(input.number()),
        }]),
        _ => {
            let events = vec![Bytes::from_static(b"event"); usize::from(input.u8() % 4) + 1];
            let ids: Vec<u64> = events.iter().map(|_| input.number()).collect();
            let subjects = vec![SubjectHash::NONE; events.len()];
            let named = input.bool().then(|| producer(input));
            let settles = input.bool().then(|| Settles {
                subscription,
                partition: uid(input),
                epoch: Epoch(input.number()),
                offsets: events.iter().map(|_| Offset(input.number())).collect(),
            });
            let mut builder = EntryBuilder::new();
            let batch = NewBatch {
                id_hashes: &ids,
                subject_hashes: &subjects,
                producer: named,
                settles: settles.as_ref(),
                ingest: settles.is_none().then_some(NodeId(2)),
                ..NewBatch::new(uid(input), Offset(input.number()), Payload::Events(&events))
            };
            builder.push(batch).expect("it is small");
            return builder.finish(time);
        }
    };
    command.encode(time)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], chosen(0, GroupState::new().encode())];
    // Open, append, lease, settle, trim, drop.
    let story: &[u8] = &[
        0, 1, 0, 1, 0, //
        9, 2, 0, 1, 5, 6, 0, 1, 0, //
        9, 2, 0, 0, 5, 1, 1, 1, 1, 0, 1, 2, //
        3, 3, 0, 1, 0, //
        4, 4, 0, 1, 1, 2, 0, 1, 1, 0, //
        2, 5, 0, 1, 1, 1, //
        8, 6, 0, 1, 0, 1, 2, 1, //
        1, 7, 0, 1,
    ];
    seeds.push(chosen(1, story));
    let mut state = GroupState::new();
    let mut input = Input::new(story);
    for index in 1..9 {
        let payload = payload(&mut input);
        state.apply(&payload, index).expect("the story applies");
    }
    seeds.push(chosen(0, state.encode()));
    seeds
}
