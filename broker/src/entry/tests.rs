//! Golden bytes, round trips and hostile bytes of the entry format.

use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;
use weft_proto::packed::{self, Codec};
use weft_proto::{
    Epoch, NodeId, Offset, PartitionUid, ProducerId, ResourceUid, SchemaId, Sequence,
};

use super::*;
use crate::subjects::SubjectHash;
use crate::subscription::desk::{LeaseId, Token};
use crate::subscription::{Failure, Parked};

const NOW: Timestamp = Timestamp::from_micros(0x0102_0304_0506_0708);

fn events(texts: &[&'static str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

fn encode(batches: &[NewBatch<'_>]) -> Bytes {
    let mut builder = EntryBuilder::new();
    for batch in batches {
        builder.push(*batch).unwrap();
    }
    let bytes = builder.bytes();
    let payload = builder.finish(NOW);
    assert_eq!(payload.len(), bytes, "the builder knows its size");
    payload
}

fn decode_batches(payload: &Bytes) -> Vec<Batch> {
    match Entry::decode(payload).unwrap().content {
        Content::Batches(batches) => batches,
        Content::Command(command) => panic!("{command:?} is no batch"),
    }
}

fn producer_batch() -> ProducerBatch {
    ProducerBatch {
        id: ProducerId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        epoch: Epoch(3),
        sequence: Sequence(9),
        previous: Sequence(7),
    }
}

fn parked() -> Parked {
    Parked {
        attempts: 3,
        first_failure: Timestamp::from_micros(5),
        due: Timestamp::from_micros(8),
        void: Token { epoch: Epoch(2), lease: LeaseId(6) },
        failure: Failure::new("no"),
    }
}

#[test]
fn what_a_batch_settles_has_golden_bytes() {
    let events = events(&["ab", ""]);
    let settles = Settles {
        subscription: ResourceUid(2),
        partition: PartitionUid(3),
        epoch: Epoch(7),
        offsets: vec![Offset(9), Offset(8)],
    };
    let plain = NewBatch::new(PartitionUid(17), Offset(258), Payload::Events(&events));

    let payload = encode(&[NewBatch { settles: Some(&settles), ..plain }]);

    let section: Vec<u8> = [2, 3, 7, 9, 8].into_iter().flat_map(u64::to_le_bytes).collect();
    let plain = encode(&[plain]);
    let at = plain.len() - 6;
    assert_eq!(payload[at..at + 40], section[..]);
    assert_eq!(payload[at + 40..], plain[at..]);
    let decoded = decode_batches(&payload);
    assert_eq!(decoded[0].header.settles, Some(settles));
}

/// Behind all else: a batch of nobody has the bytes that it always had.
#[test]
fn the_node_that_took_a_batch_in_comes_last() {
    let events = events(&["ab", ""]);
    let plain = NewBatch::new(PartitionUid(17), Offset(258), Payload::Events(&events));

    let payload = encode(&[NewBatch { ingest: Some(NodeId(3)), ..plain }]);

    let plain = encode(&[plain]);
    let at = plain.len() - 6;
    assert_eq!(payload[at..at + 8], [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(payload[at + 8..], plain[at..]);
    assert_eq!(decode_batches(&payload)[0].header.ingest, Some(NodeId(3)));
    assert_eq!(decode_batches(&plain)[0].header.ingest, None);
}

#[test]
fn batches_have_golden_bytes() {
    let events = events(&["ab", ""]);
    let batch = NewBatch {
        schema: SchemaId(5),
        event_schemas: &[SchemaId(5), SchemaId(6)],
        id_hashes: &[0xaaaa_aaaa_aaaa_aaaa, 0xbbbb_bbbb_bbbb_bbbb],
        producer: Some(producer_batch()),
        idempotency_key: Some([0xcc; 16]),
        ..NewBatch::new(PartitionUid(17), Offset(258), Payload::Events(&events))
    };

    let payload = encode(&[batch]);

    let mut golden = vec![0, 1, 0, 0]; // Format, kind, flags.
    golden.extend([8, 7, 6, 5, 4, 3, 2, 1]); // Time.
    golden.extend([115, 0, 0, 0]); // Bytes of the table.
    golden.extend([17, 0, 0, 0, 0, 0, 0, 0]); // Partition.
    golden.extend([2, 0, 0, 0]); // Count.
    golden.extend([2, 1, 0, 0, 0, 0, 0, 0]); // Expected base.
    golden.extend([6, 0, 0, 0]); // Bytes of the body.
    golden.extend(crc32c::crc32c(b"\x12\x02ab\x12\x00").to_le_bytes());
    golden.extend([0x0f, 0]); // Flags.
    golden.extend([0]); // Codec.
    golden.extend([5, 0, 0, 0]); // Schema.
    golden.extend(1..=16); // Producer.
    golden.extend([3, 0, 0, 0, 0, 0, 0, 0]); // Epoch.
    golden.extend([9, 0, 0, 0, 0, 0, 0, 0]); // Sequence.
    golden.extend([7, 0, 0, 0, 0, 0, 0, 0]); // Previous.
    golden.extend([5, 0, 0, 0, 6, 0, 0, 0]); // Schema of each event.
    golden.extend([0xaa; 8]); // Hash of each identity.
    golden.extend([0xbb; 8]);
    golden.extend([0xcc; 16]); // Idempotency key.
    golden.extend(b"\x12\x02ab\x12\x00");
    assert_eq!(payload[..], golden[..]);
}

/// The batch of `batches_have_golden_bytes` with subjects: behind all that was there before, so that
/// a batch without them has the bytes that it always had.
#[test]
fn subject_hashes_follow_all_other_sections() {
    let events = events(&["ab", ""]);
    let batch = NewBatch {
        id_hashes: &[0xaaaa_aaaa_aaaa_aaaa, 0xbbbb_bbbb_bbbb_bbbb],
        idempotency_key: Some([0xcc; 16]),
        ..NewBatch::new(PartitionUid(17), Offset(258), Payload::Events(&events))
    };
    let subjects = [SubjectHash([0xdd; 16]), SubjectHash::NONE];
    let plain = encode(&[batch]);

    let payload = encode(&[NewBatch { subject_hashes: &subjects, ..batch }]);

    let table_end = PREFIX_LEN + 4 + batch::FIXED_LEN + 2 * 8 + 16;
    let mut golden = plain.to_vec();
    golden[PREFIX_LEN] += 32; // Bytes of the table.
    golden[PREFIX_LEN + 4 + 28] |= 0x20; // Flags.
    golden.splice(table_end..table_end, [[0xdd; 16], [0; 16]].concat());
    assert_eq!(payload[..], golden[..]);
    assert_eq!(plain[PREFIX_LEN + 4 + 28], 0x0c);
    let header = &decode_batches(&payload)[0].header;
    assert_eq!(header.subject_hashes().collect::<Vec<_>>(), subjects);
    assert_eq!(decode_batches(&plain)[0].header.subject_hashes().len(), 0);
    let cut = payload.slice(..payload.len() - 1);
    assert_eq!(Entry::decode(&cut), Err(EntryError::Damaged(DecodeError::Truncated)));
}

#[test]
fn checksum_is_crc32c() {
    // The check value of CRC-32/ISCSI.
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn commands_have_golden_bytes() {
    let member = Member::new("m1").unwrap();
    let range = OffsetRange::new(Offset(1), Offset(4)).unwrap();
    let (subscription, partition) = (ResourceUid(2), PartitionUid(3));
    let golden: [(Command, u8, &str); 9] = [
        (
            Command::Open(vec![Opening { partition, start: Offset(9) }]),
            2,
            "01000000 0300000000000000 0900000000000000",
        ),
        (Command::Seal(vec![partition]), 3, "01000000 0300000000000000"),
        (
            Command::Trim(Trim { floor_index: 8, floors: vec![(partition, Offset(9))] }),
            4,
            "0800000000000000 01000000 0300000000000000 0900000000000000",
        ),
        (
            Command::Lease(vec![Lease {
                subscription,
                partition,
                start: Offset(9),
                member,
                lends: false,
            }]),
            5,
            "01000000 0200000000000000 0300000000000000 0900000000000000 0200 6d31 00",
        ),
        (
            Command::Settle(vec![Settlement {
                subscription,
                partition,
                epoch: Epoch(7),
                ranges: vec![range],
                parked: vec![(Offset(6), parked())],
                lends: true,
            }]),
            6,
            "01000000 0200000000000000 0300000000000000 0700000000000000 \
             01000000 0100000000000000 0400000000000000 \
             01000000 0600000000000000 03000000 0500000000000000 0800000000000000 \
             0200000000000000 0600000000000000 0200 6e6f 01",
        ),
        (
            Command::Seek(vec![Seek { subscription, partition, to: Offset(9) }]),
            11,
            "01000000 0200000000000000 0300000000000000 0900000000000000",
        ),
        (Command::Drop(vec![partition]), 7, "01000000 0300000000000000"),
        (Command::Forget(subscription), 8, "0200000000000000"),
        (
            Command::Pass(partition, producer_batch()),
            10,
            "0300000000000000 0102030405060708090a0b0c0d0e0f10 0300000000000000 \
             0900000000000000 0700000000000000",
        ),
    ];

    for (command, kind, hex) in golden {
        let payload = command.encode(NOW);

        assert_eq!(payload[..4], [0, kind, 0, 0]);
        assert_eq!(payload[4..12], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(format!("{:x}", payload.slice(12..)), hex.replace(' ', ""));
        let entry = Entry { time: NOW, content: Content::Command(command) };
        assert_eq!(Entry::decode(&payload), Ok(entry));
    }
}

#[test]
fn unknown_things_are_errors() {
    let events = events(&["a"]);
    let payload = encode(&[NewBatch::new(PartitionUid(1), Offset(0), Payload::Events(&events))]);
    let with = |at: usize, byte: u8| {
        let mut changed = payload.to_vec();
        changed[at] = byte;
        Entry::decode(&Bytes::from(changed)).unwrap_err()
    };

    assert_eq!(with(0, 1), EntryError::UnknownFormat(1));
    assert_eq!(with(1, 0), EntryError::UnknownKind(0));
    assert_eq!(with(1, 9), EntryError::Unsupported("a tombstone"));
    assert_eq!(with(1, 12), EntryError::UnknownKind(12));
    assert_eq!(with(2, 1), EntryError::UnknownFlags(1));
    let header = PREFIX_LEN + 4;
    assert_eq!(with(header + 29, 0x01), EntryError::UnknownBatchFlags(0x100));
    assert_eq!(with(header + 29, 0x80), EntryError::UnknownBatchFlags(0x8000));
    assert_eq!(with(header + 30, 3), EntryError::UnknownCodec(3));
}

#[test]
fn encrypted_batch_is_parsed_then_refused() {
    let events = events(&["a"]);
    let plain = encode(&[NewBatch::new(PartitionUid(1), Offset(0), Payload::Events(&events))]);
    let table_end = PREFIX_LEN + 4 + batch::FIXED_LEN;
    let mut payload = plain.to_vec();
    payload[PREFIX_LEN + 4 + 28] = 0x10;
    payload[PREFIX_LEN] += 16;

    payload.splice(table_end..table_end, [0xdd; 16]);

    assert_eq!(
        Entry::decode(&Bytes::from(payload)),
        Err(EntryError::Unsupported("an encrypted batch"))
    );
}

#[test]
fn claimed_lengths_are_not_believed() {
    // A settle whose list claims four billion settlements, and a batch with as many events.
    let mut settle = Command::Settle(vec![]).encode(NOW).to_vec();
    settle[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let events = events(&["a"]);
    let mut batch =
        encode(&[NewBatch::new(PartitionUid(1), Offset(0), Payload::Events(&events))]).to_vec();
    batch[24..28].copy_from_slice(&u32::MAX.to_le_bytes());

    let truncated = Err(EntryError::Damaged(DecodeError::Truncated));
    assert_eq!(Entry::decode(&Bytes::from(settle)), truncated);
    assert!(matches!(
        Entry::decode(&Bytes::from(batch)),
        Err(EntryError::Damaged(DecodeError::Malformed(_)))
    ));
}

#[test]
fn count_is_at_most_what_fits() {
    let count = |claimed: u32, bytes: usize| {
        let mut list = claimed.to_le_bytes().to_vec();
        list.resize(4 + bytes, 0);
        Reader::new(&list).count(8)
    };

    assert_eq!(count(2, 16), Ok(2));
    assert_eq!(count(3, 23), Err(DecodeError::Truncated));
    assert_eq!(count(u32::MAX, 16), Err(DecodeError::Truncated));
}

#[test]
fn wrong_frames_end_the_events_with_an_error() {
    let wrong: [&'static [u8]; 5] =
        [b"\x1a\x01a", b"\x12\x02a", b"\x12", b"\x12\x80", b"\x12\x80\x80\x80\x80\x80\x00"];

    for body in wrong {
        let mut events = Events::new(Bytes::from([b"\x12\x01e", body].concat()));

        assert_eq!(events.next(), Some(Ok(Bytes::from_static(b"e"))));
        assert!(matches!(events.next(), Some(Err(_))), "{body:?}");
        assert_eq!(events.next(), None);
        assert!(frame::count(body).is_err());
    }
}

#[test]
fn damaged_body_misses_its_checksum() {
    let events = events(&["abc"]);
    let mut payload =
        encode(&[NewBatch::new(PartitionUid(1), Offset(0), Payload::Events(&events))]).to_vec();
    *payload.last_mut().unwrap() ^= 1;

    let batch = &decode_batches(&Bytes::from(payload))[0];

    assert!(matches!(batch.verify(), Err(EntryError::Checksum { .. })));
}

#[test]
fn bodies_share_the_memory_of_the_entry() {
    let events = events(&["abc", "de"]);
    let payload = encode(&[NewBatch::new(PartitionUid(1), Offset(0), Payload::Events(&events))]);
    let range = payload.as_ptr_range();

    let batch = &decode_batches(&payload)[0];

    assert!(range.contains(&batch.body.as_ptr()));
    for event in batch.events().unwrap() {
        assert!(range.contains(&event.unwrap().as_ptr()));
    }
}

#[test]
fn time_can_be_changed_without_a_copy() {
    let events = events(&["abc"]);
    let payload = encode(&[NewBatch::new(PartitionUid(1), Offset(0), Payload::Events(&events))]);
    let before = Entry::decode(&payload).unwrap();
    let copied = with_time(payload.clone(), Timestamp::from_micros(5)).unwrap();
    assert_ne!(copied.as_ptr(), payload.as_ptr());
    drop(before);
    let place = payload.as_ptr();

    let payload = with_time(payload, Timestamp::from_micros(5)).unwrap();

    assert_eq!(payload.as_ptr(), place);
    assert_eq!(payload, copied);
    assert_eq!(Entry::decode(&payload).unwrap().time, Timestamp::from_micros(5));
    assert!(with_time(Bytes::from_static(b"short"), NOW).is_err());
}

#[test]
fn lists_that_miss_the_count_are_refused() {
    let events = events(&["a", "b"]);
    let batch = NewBatch::new(PartitionUid(1), Offset(0), Payload::Events(&events));
    let framed = Bytes::from_static(b"\x12\x01a");
    let two = NonZeroU32::new(2).unwrap();
    let mut builder = EntryBuilder::new();

    let none = NewBatch { payload: Payload::Events(&[]), ..batch };
    assert_eq!(builder.push(none), Err(BuildError::Empty));
    let schemas = NewBatch { event_schemas: &[SchemaId(1)], ..batch };
    assert!(matches!(builder.push(schemas), Err(BuildError::CountMismatch { found: 1, .. })));
    let hashes = NewBatch { id_hashes: &[0], ..batch };
    assert!(matches!(builder.push(hashes), Err(BuildError::CountMismatch { found: 1, .. })));
    let subjects = NewBatch { subject_hashes: &[SubjectHash::NONE; 3], ..batch };
    assert!(matches!(builder.push(subjects), Err(BuildError::CountMismatch { found: 3, .. })));
    let settles = Settles {
        subscription: ResourceUid(1),
        partition: PartitionUid(1),
        epoch: Epoch(1),
        offsets: vec![Offset(0); 3],
    };
    let settles = NewBatch { settles: Some(&settles), ..batch };
    assert!(matches!(builder.push(settles), Err(BuildError::CountMismatch { found: 3, .. })));
    let framed = NewBatch { payload: Payload::Framed { count: two, body: &framed }, ..batch };
    assert!(matches!(builder.push(framed), Err(BuildError::CountMismatch { found: 1, .. })));
    assert!(builder.is_empty());
}

#[test]
fn frames_agree_with_protobuf() {
    use weft_proto::v1::EventBatch;

    for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_152] {
        let mut framed = BytesMut::new();
        frame::put(&mut framed, &vec![0; len]);
        assert_eq!(framed.len(), framed_len(len), "{len}");
        assert_eq!(frame::count(&framed), Ok(1), "{len}");
    }
    let message = EventBatch { events: vec![<_>::default(); 2], ..Default::default() };
    let wire = prost_bytes(&message);
    assert_eq!(wire[..], b"\x12\x00\x12\x00"[..]);
}

fn prost_bytes(message: &weft_proto::v1::EventBatch) -> Vec<u8> {
    prost::Message::encode_to_vec(message)
}

prop_compose! {
    fn any_batch()(
        events in vec(vec(any::<u8>(), 0..200), 1..20),
        partition in any::<u64>(),
        expected in any::<u64>(),
        schema in any::<u32>(),
        with in any::<[bool; 7]>(),
        numbers in any::<(u128, u64, u64, u64)>(),
    ) -> OwnedBatch {
        OwnedBatch { events: events.into_iter().map(Bytes::from).collect(), partition, expected,
            schema, with, numbers }
    }
}

#[derive(Clone, Debug)]
struct OwnedBatch {
    events: Vec<Bytes>,
    partition: u64,
    expected: u64,
    schema: u32,
    with: [bool; 7],
    numbers: (u128, u64, u64, u64),
}

impl OwnedBatch {
    fn producer(&self) -> Option<ProducerBatch> {
        let (id, epoch, sequence, previous) = self.numbers;
        self.with[0].then_some(ProducerBatch {
            id: ProducerId(id),
            epoch: Epoch(epoch),
            sequence: Sequence(sequence),
            previous: Sequence(previous),
        })
    }

    fn schemas(&self) -> Vec<SchemaId> {
        let len = if self.with[1] { self.events.len() } else { 0 };
        (0..len).map(|i| SchemaId(u32::try_from(i).unwrap() + 1)).collect()
    }

    fn hashes(&self) -> Vec<u64> {
        let len = if self.with[2] { self.events.len() } else { 0 };
        (0..len).map(|i| u64::try_from(i).unwrap() << 40 | 5).collect()
    }

    fn subjects(&self) -> Vec<SubjectHash> {
        let len = if self.with[4] { self.events.len() } else { 0 };
        (0..len).map(|i| SubjectHash([u8::try_from(i).unwrap(); 16])).collect()
    }

    fn key(&self) -> Option<[u8; 16]> {
        self.with[3].then_some([7; 16])
    }

    fn settles(&self) -> Option<Settles> {
        let offsets = (0..self.events.len()).map(|i| Offset(u64::try_from(i).unwrap()));
        self.with[5].then(|| Settles {
            subscription: ResourceUid(self.partition),
            partition: PartitionUid(self.expected),
            epoch: Epoch(3),
            offsets: offsets.collect(),
        })
    }

    fn ingest(&self) -> Option<NodeId> {
        self.with[6].then_some(NodeId(self.expected))
    }

    fn check(&self, batch: &Batch) -> Result<(), TestCaseError> {
        let header = &batch.header;
        prop_assert_eq!(header.partition, PartitionUid(self.partition));
        prop_assert_eq!(header.expected, Offset(self.expected));
        prop_assert_eq!(header.producer, self.producer());
        prop_assert_eq!(header.idempotency_key, self.key());
        prop_assert_eq!(&header.settles, &self.settles());
        prop_assert_eq!(header.ingest, self.ingest());
        let hashes = self.hashes();
        prop_assert!(header.id_hashes().eq(hashes.iter().copied()));
        prop_assert!(header.subject_hashes().eq(self.subjects()));
        for i in 0..header.count.get() {
            let own = self.schemas().get(usize::try_from(i).unwrap()).copied();
            prop_assert_eq!(header.schema_of(i), own.unwrap_or(SchemaId(self.schema)));
        }
        batch.verify().unwrap();
        let events: Vec<Bytes> = batch.events().unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(&events, &self.events);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn batches_survive_the_log(owned in vec(any_batch(), 0..5)) {
        let lists: Vec<_> = owned
            .iter()
            .map(|batch| (batch.schemas(), batch.hashes(), batch.subjects(), batch.settles()))
            .collect();
        let batches: Vec<_> = owned.iter().zip(&lists).map(|(batch, lists)| NewBatch {
            schema: SchemaId(batch.schema),
            event_schemas: &lists.0,
            id_hashes: &lists.1,
            subject_hashes: &lists.2,
            producer: batch.producer(),
            idempotency_key: batch.key(),
            settles: lists.3.as_ref(),
            ingest: batch.ingest(),
            ..NewBatch::new(
                PartitionUid(batch.partition),
                Offset(batch.expected),
                Payload::Events(&batch.events),
            )
        }).collect();

        let payload = encode(&batches);

        let decoded = decode_batches(&payload);
        prop_assert_eq!(decoded.len(), owned.len());
        for (batch, owned) in decoded.iter().zip(&owned) {
            owned.check(batch)?;
        }
        // What was read can be written again, framed.
        let again: Vec<_> = batches.iter().zip(&decoded).map(|(batch, decoded)| NewBatch {
            payload: Payload::Framed { count: decoded.header.count, body: &decoded.body },
            ..*batch
        }).collect();
        prop_assert_eq!(encode(&again), payload);
    }

    #[test]
    fn compressed_bodies_give_their_events(owned in any_batch()) {
        for codec in [Codec::Lz4, Codec::Zstd] {
            let packed = packed::pack(codec, owned.events.clone()).unwrap();
            let count = NonZeroU32::new(packed.count).unwrap();
            let (raw_len, body) = (packed.raw_bytes, &packed.body);
            let payload = Payload::Packed { count, codec, raw_len, body };
            let batch = NewBatch::new(PartitionUid(1), Offset(0), payload);

            let batch = &decode_batches(&encode(&[batch]))[0];

            batch.verify().unwrap();
            prop_assert_eq!(batch.header.packed, Some((codec, raw_len)));
            prop_assert_eq!(&batch.body, body);
            let events: Vec<Bytes> = batch.events().unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(&events, &owned.events);
        }
    }
}

#[test]
fn a_claim_beyond_every_batch_takes_no_memory() {
    let body = Bytes::from_static(b"short");
    for codec in [Codec::Lz4, Codec::Zstd] {
        let payload =
            Payload::Packed { count: NonZeroU32::MIN, codec, raw_len: u32::MAX, body: &body };
        let batch = NewBatch::new(PartitionUid(1), Offset(0), payload);

        let refused = decode_batches(&encode(&[batch]))[0].events().unwrap_err();

        let claims = DecodeError::Malformed("a compressed body claims to be too long");
        assert_eq!(refused, claims);
    }
}

/// Reads everything there is to read.
fn exhaust(payload: &Bytes) {
    let Ok(Entry { content: Content::Batches(batches), .. }) = Entry::decode(payload) else {
        return;
    };
    for batch in batches {
        _ = batch.verify();
        let count = batch.header.count.get();
        if let Ok(events) = batch.events() {
            let events = events.take_while(Result::is_ok).count();
            assert!(batch.header.packed.is_some() || events <= payload.len());
        }
        _ = (batch.header.schema_of(count), batch.header.id_hashes().count());
        _ = batch.header.subject_hashes().count();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn hostile_bytes_never_panic(kind in 0_u8..12, rest in vec(any::<u8>(), 0..300)) {
        let mut payload = vec![0, kind, 0, 0];
        payload.extend(rest);
        exhaust(&Bytes::from(payload));
    }

    #[test]
    fn damaged_entries_never_panic(
        owned in any_batch(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let subjects = owned.subjects();
        let batch = NewBatch {
            producer: owned.producer(),
            subject_hashes: &subjects,
            ..NewBatch::new(PartitionUid(1), Offset(0), Payload::Events(&owned.events))
        };
        let mut payload = encode(&[batch, batch]).to_vec();
        for (index, byte) in damage {
            let at = index.index(payload.len().min(160));
            payload[at] = byte;
        }
        exhaust(&Bytes::copy_from_slice(&payload[..cut.index(payload.len() + 1)]));
        exhaust(&Bytes::from(payload));
    }
}
