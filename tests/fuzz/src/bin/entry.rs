//! One payload of a data group's log: `weft_broker::entry::Entry::decode`. Every replica applies what
//! it accepts, so it must accept nothing that was not written by us, and write the same bytes again.

#![cfg_attr(fuzzing, no_main)]

use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};
use weft_broker::entry::{
    Command, Content, Entry, EntryBuilder, Lease, Member, NewBatch, OffsetRange, Opening, Payload,
    ProducerBatch, Seek, Settlement, Trim, with_time,
};
use weft_broker::subjects::SubjectHash;
use weft_broker::subscription::{Failure, Parked};
use weft_fuzz::sample;
use weft_proto::packed::Codec;
use weft_proto::{
    Epoch, NodeId, Offset, PartitionUid, ProducerId, ResourceUid, SchemaId, Sequence, Timestamp,
};

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

pub fn run(data: &[u8]) -> bool {
    let payload = Bytes::copy_from_slice(data);
    let Ok(entry) = Entry::decode(&payload) else { return false };
    let later = Timestamp::from_micros(7);
    let moved = Entry::decode(&with_time(payload, later).expect("a payload has a time")).unwrap();
    assert_eq!(moved, Entry { time: later, ..entry.clone() });
    match &entry.content {
        Content::Command(command) => assert_eq!(command.encode(entry.time), data),
        Content::Batches(batches) => {
            for batch in batches {
                let header = &batch.header;
                assert_eq!(batch.body.len(), header.body_len as usize);
                for hashes in [header.id_hashes().len(), header.subject_hashes().len()] {
                    assert!(hashes == 0 || hashes == header.count.get() as usize);
                }
                _ = header.schema_of(0);
                _ = header.schema_of(u32::MAX);
                let _whole = batch.verify();
                if let Ok(events) = batch.events() {
                    events.for_each(drop);
                }
            }
        }
    }
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let time = Timestamp::from_micros(1_767_000_000_000_000);
    let (uid, subscription) = (PartitionUid(3), ResourceUid(9));
    let range = |first, last| OffsetRange::new(Offset(first), Offset(last)).expect("a range");
    let producer = ProducerBatch {
        id: ProducerId(7),
        epoch: Epoch(1),
        sequence: Sequence(2),
        previous: Sequence(1),
    };
    let commands = [
        Command::Open(vec![Opening { partition: uid, start: Offset(0) }]),
        Command::Seal(vec![uid]),
        Command::Trim(Trim { floor_index: 5, floors: vec![(uid, Offset(2))] }),
        Command::Lease(vec![Lease {
            subscription,
            partition: uid,
            start: Offset(0),
            member: Member::new("me").expect("short"),
            lends: true,
        }]),
        Command::Settle(vec![Settlement {
            subscription,
            partition: uid,
            epoch: Epoch(1),
            ranges: vec![range(0, 3), range(5, 5)],
            parked: vec![(Offset(6), Parked { failure: Failure::new("no"), ..Parked::default() })],
            lends: true,
        }]),
        Command::Seek(vec![Seek { subscription, partition: uid, to: Offset(3) }]),
        Command::Drop(vec![uid]),
        Command::Forget(subscription),
        Command::Pass(uid, producer),
    ];
    let mut seeds: Vec<Vec<u8>> =
        commands.iter().map(|command| command.encode(time).to_vec()).collect();

    let events: Vec<Bytes> = sample::encoded().into_iter().take(2).map(Bytes::from).collect();
    let mut builder = EntryBuilder::new();
    let hashes = [SubjectHash::of(1, "a"), SubjectHash::NONE];
    builder
        .push(NewBatch {
            producer: Some(producer),
            idempotency_key: Some([7; 16]),
            event_schemas: &[SchemaId(1), SchemaId(2)],
            id_hashes: &[1, 2],
            subject_hashes: &hashes,
            ingest: Some(NodeId(3)),
            ..NewBatch::new(uid, Offset(0), Payload::Events(&events))
        })
        .expect("fits");
    let framed = framed(&events);
    for codec in [Codec::Lz4, Codec::Zstd] {
        let packed = Bytes::from(codec.compress(&framed).expect("compresses"));
        let mut builder = EntryBuilder::new();
        let count = NonZeroU32::new(2).expect("not zero");
        let raw_len = u32::try_from(framed.len()).expect("short");
        let payload = Payload::Packed { count, codec, raw_len, body: &packed };
        builder.push(NewBatch::new(uid, Offset(7), payload)).expect("fits");
        seeds.push(builder.finish(time).to_vec());
    }
    seeds.push(builder.finish(time).to_vec());
    seeds.push(vec![1; 40]);
    seeds
}

/// Events as they lie in a body: field 2 of a message.
fn framed(events: &[Bytes]) -> BytesMut {
    let mut out = BytesMut::new();
    for event in events {
        prost::encoding::bytes::encode(2, event, &mut out);
    }
    out
}
