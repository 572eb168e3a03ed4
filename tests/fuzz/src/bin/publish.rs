//! A batch from a publisher, as the protobuf message of the stream: what the broker does with it up
//! to its queue, and what the leader does before it proposes.

#![cfg_attr(fuzzing, no_main)]

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use weft_broker::entry::{Content, Entry};
use weft_broker::fuzzing::{check_batch, entry_of};
use weft_broker::ingest::BATCH_EVENTS_MAX;
use weft_broker::resources::{Placement, StreamView};
use weft_fuzz::{Input, chosen, sample};
use weft_proto::packed::{Codec, pack};
use weft_proto::{GroupId, PartitionId, PartitionUid, ResourceUid, event, v1};

weft_fuzz::target!();

pub const MAX_LEN: usize = 8_192;

fn stream(partitions: u32, subject_index: bool) -> StreamView {
    let placement = |partition: u32| Placement {
        partition: PartitionId(partition),
        uid: PartitionUid(u64::from(partition) + 100),
        dead: PartitionUid(u64::from(partition) + 1_000),
        delayed: PartitionUid(u64::from(partition) + 2_000),
        group: GroupId(1),
    };
    StreamView {
        name: "orders".parse().expect("a name"),
        uid: ResourceUid(1),
        generation: 1,
        event_bytes_max: 2_000,
        dedup: true,
        subject_index,
        placements: (0..partitions).map(placement).collect::<Arc<[_]>>(),
        bindings: Arc::default(),
    }
}

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let choice = input.u8();
    let stream = stream(u32::from(choice & 3) + 1, choice & 4 != 0);
    let bytes = Bytes::copy_from_slice(input.rest());
    let Ok(batch) = v1::PublishBatch::decode(bytes) else { return false };
    let Ok(parcels) = check_batch(&stream, batch) else { return false };
    for (partition, payload) in parcels {
        // A partition that the publisher names is looked up by ingest.
        _ = stream.placement(partition);
        let Ok((events, entry)) = entry_of(payload) else { return false };
        assert!(events.len() <= BATCH_EVENTS_MAX);
        // What a leader stores, every reader must get back.
        let Content::Batches(batches) = Entry::decode(&entry).expect("our entry").content else {
            panic!("a batch became a command");
        };
        let [batch] = batches.as_slice() else { panic!("one batch became several") };
        let read = batch.events().and_then(Iterator::collect::<Result<Vec<_>, _>>);
        assert_eq!(read.expect("what is stored can be read"), events);
        for bytes in &events {
            if let Ok(view) = event::check(bytes, stream.event_bytes_max) {
                assert!(view.own_len() <= stream.event_bytes_max);
                assert!(
                    event::partition_of(&view, stream.partitions()).get() < stream.partitions()
                );
            }
        }
    }
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let events: Vec<Bytes> = sample::encoded().into_iter().map(Bytes::from).collect();
    let subject = |partition| v1::ExpectedSubject {
        subject: "cart/7".to_owned(),
        partition,
        ..Default::default()
    };
    let identity =
        v1::BatchIdentity { producer: vec![7; 16].into(), epoch: 1, sequence: 2, previous: 1 };
    let batches = [
        v1::PublishBatch { tag: 1, events: events.clone(), ..Default::default() },
        v1::PublishBatch {
            events: events.clone(),
            partition: Some(0),
            identity: Some(identity),
            ack: 2,
            expected: vec![v1::ExpectedOffset { partition: 0, offset: 7 }],
            expected_subjects: vec![subject(None), subject(Some(0))],
            ..Default::default()
        },
        v1::PublishBatch {
            partition: Some(1),
            packed: pack(Codec::Zstd, events.clone()).ok(),
            ..Default::default()
        },
        v1::PublishBatch {
            partition: Some(1),
            packed: pack(Codec::Lz4, events).ok(),
            ..Default::default()
        },
        v1::PublishBatch::default(),
    ];
    // An EventList that any protobuf library reads, though none writes it: with a field that it does
    // not have, and with a length of one digit too many.
    let event = sample::encode(&sample::events()[1]);
    let raw = {
        let len = u8::try_from(event.len()).expect("a short event");
        let mut raw = vec![0x08, 0x01, 0x12, len | 0x80, 0x00];
        raw.extend(&event);
        raw
    };
    let odd = v1::PackedEvents {
        codec: Codec::Lz4.to_wire().into(),
        count: 1,
        raw_bytes: u32::try_from(raw.len()).expect("short"),
        body: Codec::Lz4.compress(&raw).expect("compresses").into(),
    };
    let batches = batches.into_iter().chain([v1::PublishBatch {
        partition: Some(0),
        packed: Some(odd),
        ..Default::default()
    }]);
    let batches: Vec<_> = batches.collect();
    let seed = |(number, batch): (usize, &v1::PublishBatch)| {
        chosen(number as u8 | 4, batch.encode_to_vec())
    };
    batches.iter().enumerate().map(seed).collect()
}
