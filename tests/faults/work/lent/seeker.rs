//! Moves cursors back now and then, and has dead letters delivered again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use weft_client::{Client, Options, Position, Redrive};
use weft_proto::{Offset, PartitionId};

use super::{STREAM, SUBSCRIPTIONS};
use crate::check::history::{Desk, Key, Record};
use crate::work::PARTITIONS;
use crate::work::recorder::Recorder;

const PAUSE_MS: std::ops::Range<u64> = 6_000..14_000;
/// In so many turns, once dead letters are delivered again.
const REDRIVES: u32 = 3;
/// By so many events, at most.
const BACK_MAX: u64 = 40;
/// For a node to say how far a cursor is.
const STATUS_MAX: Duration = Duration::from_secs(2);

pub(super) struct Seeker {
    nodes: Vec<Client>,
    client: Client,
    recorder: Arc<Recorder>,
}

impl Seeker {
    pub(super) fn new(endpoints: &[String], recorder: &Arc<Recorder>) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for endpoint in endpoints {
            nodes.push(Client::connect(&Options::new([endpoint]))?);
        }
        let client = Client::connect(&Options::new(endpoints))?;
        Ok(Self { nodes, client, recorder: Arc::clone(recorder) })
    }

    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(Duration::from_millis(rand::random_range(PAUSE_MS))) => {}
            }
            let subscription = rand::random_range(0..SUBSCRIPTIONS.len());
            let partition = rand::random_range(0..PARTITIONS);
            if rand::random_range(0..REDRIVES) == 0 {
                // What is not taken on now is so at another time, or stays a dead letter.
                drop(self.client.redrive(SUBSCRIPTIONS[subscription].0, Redrive::default()).await);
                continue;
            }
            if let Some(was) = self.watermark(SUBSCRIPTIONS[subscription].0, partition).await {
                self.seek(subscription, partition, was).await?;
            }
        }
    }

    /// Where the cursor is at least. A node that was away knows of an older place, or of one from
    /// before the cursor was moved back: so a majority is asked, and the lowest place counts.
    async fn watermark(&self, subscription: &str, partition: u32) -> Option<u64> {
        let mut places = Vec::new();
        for node in &self.nodes {
            let Ok(Ok(status)) = timeout(STATUS_MAX, node.status()).await else { continue };
            let of = |name: &str| name.rsplit('/').next() == Some(subscription);
            let own = status.subscriptions.iter().find(|one| of(&one.subscription));
            let cursors = own.into_iter().flat_map(|one| &one.cursors);
            places.extend(
                cursors.filter(|cursor| cursor.partition == partition).map(|one| one.watermark),
            );
        }
        let is_majority = places.len() * 2 > self.nodes.len();
        places.into_iter().min().filter(|_| is_majority)
    }

    async fn seek(&self, subscription: usize, partition: u32, was: u64) -> anyhow::Result<()> {
        let to = was.saturating_sub(rand::random_range(0..BACK_MAX));
        let name = SUBSCRIPTIONS[subscription].0;
        let key = Key { stream: STREAM, partition };
        let desk =
            Desk { subscription: u32::try_from(subscription)?, key, redriven: false, job: 0 };
        let op = self.recorder.op();
        self.recorder.add(|t| Record::Seek { t, op, desk, to, was });
        let (partition, position) = (Some(PartitionId(partition)), Position::Offset(Offset(to)));
        // Without an answer it may have been moved.
        if let Ok(cursors) = self.client.seek(name, partition, position).await {
            for cursor in cursors {
                let (to, epoch) = (cursor.offset, cursor.epoch);
                self.recorder.add(|t| Record::Sought { t, op, to, epoch });
            }
        }
        Ok(())
    }
}
