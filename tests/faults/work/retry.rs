//! A publisher that numbers its batches itself, asks every node until it has an answer, and asks
//! again although it has one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_proto::Reason;
use weft_proto::v1::BatchIdentity;

use super::PARTITIONS;
use super::event::Events;
use super::recorder::Recorder;
use super::wire::{Answer, Wire};
use crate::check::history::{Key, Outcome};

const BATCH_MAX: usize = 3;
const PAUSE_MS: std::ops::Range<u64> = 5..40;
/// So short that many attempts succeed unheard.
const LIMIT_MS: std::ops::Range<u64> = 20..2_000;
/// One answer in so many is asked for again.
const AGAIN: u32 = 8;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);
/// A run of a producer has so many batches, then the next run begins to count anew.
const BATCHES: std::ops::Range<u64> = 5..200;
/// Runs of one producer.
const EPOCHS: u64 = 10;
/// Attempts after the publishers were told to stop.
const LAST_ATTEMPTS: usize = 20;

/// Batches that are kept to be asked for again much later; the broker remembers 64.
const KEPT: usize = 40;

pub(super) struct Source {
    wires: Vec<Wire>,
    stream: u32,
    recorder: Arc<Recorder>,
    /// What was stored, newest last.
    kept: VecDeque<Batch>,
}

/// A batch with all that a retry of it needs.
#[derive(Clone)]
struct Batch {
    process: u32,
    op: u64,
    key: Key,
    events: Vec<Bytes>,
    identity: BatchIdentity,
}

/// How the batch of a producer ended.
#[derive(PartialEq, Eq)]
enum End {
    Stored,
    Over,
}

impl Source {
    pub(super) fn new(
        endpoints: &[String],
        stream: u32,
        recorder: &Arc<Recorder>,
    ) -> anyhow::Result<Self> {
        let wires: anyhow::Result<_> =
            endpoints.iter().map(String::as_str).map(Wire::new).collect();
        let (wires, recorder) = (wires?, Arc::clone(recorder));
        Ok(Self { wires, stream, recorder, kept: VecDeque::new() })
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let (mut producer, mut epoch, mut partition): ([u8; 16], u64, u32) = (rand::random(), 0, 0);
        while !stop.is_cancelled() {
            let process = self.recorder.process();
            let mut events = Events::new(process);
            if epoch == EPOCHS {
                (producer, epoch, partition) =
                    (rand::random(), 0, rand::random_range(0..PARTITIONS));
            }
            epoch += 1;
            // An older run is fenced.
            self.kept.clear();
            let key = Key { stream: self.stream, partition };
            for sequence in 1..=rand::random_range(BATCHES) {
                if stop.is_cancelled() {
                    break;
                }
                let identity = BatchIdentity {
                    producer: Bytes::copy_from_slice(&producer),
                    epoch,
                    sequence,
                    previous: sequence - 1,
                };
                if self.batch(process, &mut events, key, identity, &stop).await == End::Over {
                    break;
                }
                sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
            }
        }
        Ok(())
    }

    async fn batch(
        &mut self,
        process: u32,
        events: &mut Events,
        key: Key,
        identity: BatchIdentity,
        stop: &CancellationToken,
    ) -> End {
        let count = rand::random_range(1..=BATCH_MAX);
        let (sent, stored): (Vec<_>, Vec<_>) = (0..count).map(|_| events.next()).unzip();
        let op = self.recorder.invoke(process, sent);
        let batch = Batch { process, op, key, events: stored, identity };
        let (mut open, mut left) = (false, LAST_ATTEMPTS);
        loop {
            let limit = Duration::from_millis(rand::random_range(LIMIT_MS));
            let answer = self.attempt(&batch, limit).await;
            match answer.outcome {
                Outcome::Ok { .. } => {
                    self.recorder.done(process, op, answer.outcome);
                    self.kept.push_back(batch);
                    self.ask_again().await;
                    return End::Stored;
                }
                Outcome::Info { error } => {
                    open = true;
                    self.recorder.done(process, op, Outcome::Info { error });
                }
                // The number cannot be used any more, whatever became of earlier attempts.
                Outcome::Fail { error } if is_final(answer.reason) => {
                    let outcome =
                        if open { Outcome::Info { error } } else { Outcome::Fail { error } };
                    self.recorder.done(process, op, outcome);
                    return End::Over;
                }
                Outcome::Fail { error } if !open && stop.is_cancelled() => {
                    self.recorder.done(process, op, Outcome::Fail { error });
                    return End::Over;
                }
                Outcome::Fail { .. } => {}
            }
            left -= usize::from(stop.is_cancelled());
            if left == 0 {
                return End::Over;
            }
            sleep(ATTEMPT_PAUSE).await;
        }
    }

    async fn attempt(&mut self, batch: &Batch, limit: Duration) -> Answer {
        let wire = rand::random_range(0..self.wires.len());
        let (events, identity) = (batch.events.clone(), Some(batch.identity.clone()));
        self.wires[wire].publish(batch.key, events, identity, limit).await
    }

    /// Asks now and then for what was stored just now, or a while ago: the answer must be the same.
    async fn ask_again(&mut self) {
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        let batch = match rand::random_range(0..AGAIN) {
            0 => self.kept.back(),
            1 => self.kept.front(),
            _ => None,
        };
        let Some(batch) = batch.cloned() else { return };
        let answer = self.attempt(&batch, Duration::from_secs(2)).await;
        // To be away just now is no answer.
        if matches!(answer.outcome, Outcome::Ok { .. }) || is_final(answer.reason) {
            self.recorder.done(batch.process, batch.op, answer.outcome);
        }
    }
}

fn is_final(reason: Option<Reason>) -> bool {
    matches!(reason, Some(Reason::Fenced | Reason::OutOfOrder | Reason::UnknownProducer))
}
