//! A reader of a whole stream: all that is stored, and then what is new.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use weft_client::{Client, Options, Position, ReadItem, ReadOptions};

use super::STREAMS;
use super::event::seen;
use super::lent::STREAM;
use super::recorder::Recorder;
use crate::check::history::{Key, Record};

/// A reader is replaced after a while.
const LIFE_MS: std::ops::Range<u64> = 2_000..10_000;
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Replayer {
    client: Client,
    recorder: Arc<Recorder>,
}

impl Replayer {
    pub(super) fn new(options: &Options, recorder: &Arc<Recorder>) -> anyhow::Result<Self> {
        Ok(Self { client: Client::connect(options)?, recorder: Arc::clone(recorder) })
    }

    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            let replay = self.replay();
            tokio::select! {
                () = stop.cancelled() => {}
                () = replay => sleep(PAUSE).await,
            }
        }
        Ok(())
    }

    async fn replay(&self) {
        let until = Instant::now() + Duration::from_millis(rand::random_range(LIFE_MS));
        let process = self.recorder.process();
        let options = ReadOptions {
            from: Position::Earliest,
            linearizable: true,
            ..ReadOptions::follow(STREAMS[STREAM as usize])
        };
        self.recorder.add(|t| Record::Replay { t, process, stream: STREAM });
        let Ok(mut reader) = self.client.read(options).await else { return };
        // Without a majority there is no answer; somebody else tries again.
        while let Ok(Ok(Some(item))) = timeout_at(until, reader.next()).await {
            match item {
                ReadItem::CaughtUp => self.recorder.add(|t| Record::CaughtUp { t, process }),
                ReadItem::Batch(batch) => {
                    let key = Key { stream: STREAM, partition: batch.partition.get() };
                    let events = batch.events.iter();
                    let seen = events.map(|(offset, event)| seen(offset.get(), event)).collect();
                    self.recorder.add(|t| Record::Replayed { t, process, key, seen });
                }
            }
        }
    }
}
