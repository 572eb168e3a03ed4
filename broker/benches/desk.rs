//! What it costs to lend an event and to take its ack: the goal is a million a second on one core in
//! mode `Shared`, which is 1,000 ns each.
//!
//! `cargo bench -p weft-broker --bench desk`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weft_broker::subscription::desk::{
    Act, Backoff, Desk, LeaseId, MemberId, Mode, Offered, Policy, Settle,
};
use weft_broker::subscription::{OffsetSet, UnsettledMax};
use weft_proto::{Epoch, Offset, Timestamp};

/// Events that are lent, acked and committed together.
const BATCH: u64 = 256;

/// Keys of the events.
const KEYS: u64 = 1_000;

/// Events that wait beside those that are lent.
const BACKLOG: u64 = 2_048;

struct Bench {
    desk: Desk,
    now: Timestamp,
    keys: u64,
}

impl Bench {
    fn new(mode: Mode, keys: u64) -> Self {
        let policy = Policy {
            mode,
            lease: Some(Duration::from_secs(30)),
            grace: Duration::from_secs(10),
            attempts_max: None,
            backoff: Backoff { base: Duration::from_secs(1), cap: Duration::from_mins(1) },
            age_max: None,
            unsettled_max: UnsettledMax { events: usize::MAX, bytes: u64::MAX },
            hold_max: u32::MAX,
            counts_detach: true,
            sole: None,
        };
        let (settled, parked) = (OffsetSet::default(), BTreeMap::new());
        let mut desk = Desk::open(policy, (Epoch(0), Epoch(1)), Offset(0), settled, parked, 1);
        let now = Timestamp::from_micros(1_000_000);
        desk.attach(MemberId(1), "member", now);
        let mut bench = Self { desk, now, keys };
        bench.offer(BACKLOG);
        bench
    }

    fn offer(&mut self, events: u64) {
        for _ in 0..events {
            let offset = self.desk.reads_from();
            // Neighbours have different keys.
            let key = offset.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.keys;
            self.desk.offer(Offered { offset, key, bytes: 1_000, expires: None });
        }
    }

    /// Offers, lends, acks and commits so many events.
    fn turn(&mut self) {
        self.offer(BATCH);
        let mut grants = Vec::new();
        self.now = self.now.saturating_add(Duration::from_micros(BATCH));
        self.desk.take(MemberId(1), BATCH, u64::MAX, self.now, &mut grants);
        let last = grants.last().map_or(LeaseId(0), |grant| grant.lease);
        let first = grants.first().map_or(LeaseId(1), |grant| grant.lease);
        let settle = Settle { member: "member", epoch: Epoch(1), first, last, act: &Act::Ack };
        let mut verdicts = Vec::new();
        self.desk.settle(&settle, self.now, &mut verdicts);
        black_box(verdicts);
        if let Some(change) = self.desk.next_change() {
            self.desk.committed(change.no);
        }
    }
}

/// One iteration stands for one event: each 256th does the work of a batch.
fn lend_and_ack(c: &mut Criterion) {
    let mut group = c.benchmark_group("desk");
    group.throughput(Throughput::Elements(1));
    for (name, mode, keys) in [
        ("an event, shared", Mode::Shared, 1),
        ("an event, key-shared by 1,000 keys", Mode::KeyShared, KEYS),
    ] {
        let mut bench = Bench::new(mode, keys);
        let mut event = 0_u64;
        group.bench_function(name, |b| {
            b.iter(|| {
                event += 1;
                if event.is_multiple_of(BATCH) {
                    bench.turn();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lend_and_ack);
criterion_main!(benches);
