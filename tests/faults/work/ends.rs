//! Asks a node for the ends of partitions, with all that was acknowledged before: a leader that was
//! deposed must not answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use weft_client::{Client, Position};

use super::STREAMS;
use super::recorder::Recorder;
use crate::check::history::{Key, Record};
use crate::lab::node::Node;

const PAUSE_MS: std::ops::Range<u64> = 50..400;
const LIMIT: Duration = Duration::from_secs(3);

pub(super) struct Asker {
    client: Client,
    node: usize,
    recorder: Arc<Recorder>,
}

impl Asker {
    pub(super) fn new(node: &Node, recorder: &Arc<Recorder>) -> anyhow::Result<Self> {
        Ok(Self { client: node.client()?, node: node.number, recorder: Arc::clone(recorder) })
    }

    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let process = self.recorder.process();
        while !stop.is_cancelled() {
            for (stream, name) in (0..).zip(STREAMS) {
                let from = self.recorder.now();
                let ask = self.client.locate_linearizable(name, Position::Latest);
                // Without a majority there is no answer.
                let Ok(Ok(offsets)) = timeout(LIMIT, ask).await else { continue };
                for offset in offsets {
                    let key = Key { stream, partition: offset.partition };
                    let (node, end) = (self.node, offset.latest);
                    self.recorder.add(|t| Record::End { t, process, node, key, from, end });
                }
            }
            sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
        }
        Ok(())
    }
}
