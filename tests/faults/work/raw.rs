//! A publisher that knows one node, asks once and believes what it is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::event::Events;
use super::recorder::Recorder;
use super::wire::Wire;
use super::{Lies, PARTITIONS};
use crate::check::history::{Key, Outcome};

const BATCH_MAX: usize = 4;
const PAUSE_MS: std::ops::Range<u64> = 2..30;
const LIMIT_MS: std::ops::Range<u64> = 300..5_000;

pub(super) struct Source {
    wire: Wire,
    stream: u32,
    recorder: Arc<Recorder>,
    lies: Lies,
}

impl Source {
    pub(super) fn new(
        endpoint: &str,
        stream: u32,
        recorder: &Arc<Recorder>,
        lies: Lies,
    ) -> anyhow::Result<Self> {
        Ok(Self { wire: Wire::new(endpoint)?, stream, recorder: Arc::clone(recorder), lies })
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut process = self.recorder.process();
        let mut events = Events::new(process);
        while !stop.is_cancelled() {
            let count = rand::random_range(1..=BATCH_MAX);
            let (sent, batch) = (0..count).map(|_| events.next()).unzip();
            let partition = rand::random_range(0..PARTITIONS);
            let key = Key { stream: self.stream, partition };
            let limit = Duration::from_millis(rand::random_range(LIMIT_MS));
            let op = self.recorder.invoke(process, sent);
            let answer = self.wire.publish(key, batch, None, limit).await;
            let unknown = matches!(answer.outcome, Outcome::Info { .. });
            let outcome = match answer.outcome {
                Outcome::Info { error } if answer.timed_out && self.lies.timeout_is_refusal => {
                    Outcome::Fail { error }
                }
                honest => honest,
            };
            self.recorder.done(process, op, outcome);
            if unknown {
                // What it sent may still arrive: for the order of its events it is somebody else.
                process = self.recorder.process();
                events = Events::new(process);
            }
            sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
        }
        Ok(())
    }
}
