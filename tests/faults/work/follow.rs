//! A reader of one partition at one node, through all that happens to the node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use weft_client::{Client, Error, Position, ReadItem, ReadOptions, Reason};
use weft_proto::Offset;

use super::STREAMS;
use super::event::seen;
use super::recorder::Recorder;
use crate::check::history::{Key, Record};
use crate::lab::node::Node;

/// A reader is replaced after a while, by one that begins where it was, or somewhat earlier.
const LIFE_MS: std::ops::Range<u64> = 5_000..40_000;
const BACK_MAX: u64 = 500;
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Follower {
    client: Client,
    node: usize,
    key: Key,
    recorder: Arc<Recorder>,
    next: u64,
}

impl Follower {
    pub(super) fn new(node: &Node, key: Key, recorder: &Arc<Recorder>) -> anyhow::Result<Self> {
        let (client, number) = (node.client()?, node.number);
        Ok(Self { client, node: number, key, recorder: Arc::clone(recorder), next: 0 })
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            let read = self.read();
            tokio::select! {
                () = stop.cancelled() => {}
                () = read => sleep(PAUSE).await,
            }
        }
        Ok(())
    }

    async fn read(&mut self) {
        let until = Instant::now() + Duration::from_millis(rand::random_range(LIFE_MS));
        let back = if rand::random_range(0..3) == 0 { rand::random_range(0..BACK_MAX) } else { 0 };
        self.next = self.next.saturating_sub(back);
        let (process, key, from) = (self.recorder.process(), self.key, self.next);
        let options = ReadOptions {
            partitions: vec![key.partition],
            from: Position::Offset(Offset(from)),
            ..ReadOptions::follow(STREAMS[key.stream as usize])
        };
        // Not reached, or not that far yet: somebody tries again.
        let mut reader = match self.client.read(options).await {
            Ok(reader) => reader,
            Err(error) => return self.restart(&error).await,
        };
        self.recorder.add(|t| Record::Assign { t, process, key, from });
        while let Ok(next) = timeout_at(until, reader.next()).await {
            let batch = match next {
                Ok(Some(ReadItem::Batch(batch))) => batch,
                Ok(Some(ReadItem::CaughtUp)) => continue,
                Ok(None) => return,
                Err(error) => return self.restart(&error).await,
            };
            let found: Vec<_> =
                batch.events.iter().map(|(offset, event)| seen(offset.get(), event)).collect();
            let Some(last) = found.last() else { continue };
            self.next = last.offset + 1;
            let node = self.node;
            self.recorder.add(|t| Record::Poll { t, process, node, key, seen: found });
        }
    }

    /// After retention passed by, the next reader begins at the floor.
    async fn restart(&mut self, error: &Error) {
        if error.reason() != Reason::OffsetOutOfRange {
            return;
        }
        let stream = STREAMS[self.key.stream as usize];
        let Ok(offsets) = self.client.locate(stream, Position::Earliest).await else { return };
        let own = offsets.iter().find(|offset| offset.partition == self.key.partition);
        // Above the end, the replica only lags.
        self.next = own.map_or(self.next, |own| self.next.max(own.earliest));
    }
}
