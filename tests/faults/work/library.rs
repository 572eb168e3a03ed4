//! A publisher of the client library: many events under way, retries that never double.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_client::{
    Client, Error, ErrorKind, Options, Pending, Publisher, PublisherOptions, Reason, Timeouts,
};

use super::STREAMS;
use super::event::Events;
use super::recorder::Recorder;
use crate::check::history::{Key, Outcome, Process};

/// Events without an answer.
const WINDOW: usize = 64;
/// A breath after so many events: this is a load, not a benchmark.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) burst: u64,
    pub(super) pause: Duration,
}

/// Of most streams.
pub(super) const BUSY: Pace = Pace { burst: 8, pause: Duration::from_millis(25) };
/// Of what several members handle one by one.
pub(super) const CALM: Pace = Pace { burst: 3, pause: Duration::from_millis(50) };
/// Publishers that give up early see events of unknown fate.
const IMPATIENT: Duration = Duration::from_millis(600);
const PATIENT: Duration = Duration::from_secs(30);

pub(super) struct Source {
    options: Options,
    stream: u32,
    process: Process,
    events: Events,
    recorder: Arc<Recorder>,
    pace: Pace,
}

type Queue = VecDeque<(u64, Pending)>;

impl Source {
    pub(super) fn new(
        options: Options,
        stream: u32,
        (patient, pace): (bool, Pace),
        recorder: &Arc<Recorder>,
    ) -> Self {
        let publish = if patient { PATIENT } else { IMPATIENT };
        let timeouts = Timeouts { publish, ..Timeouts::default() };
        let process = recorder.process();
        let recorder = Arc::clone(recorder);
        let options = Options { timeouts, ..options };
        Self { options, stream, process, events: Events::new(process), recorder, pace }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let client = Client::connect(&self.options)?;
        let mut pending = Queue::new();
        let mut publisher = None;
        let mut number = 0_u64;
        while !stop.is_cancelled() {
            let Some(open) = &publisher else {
                publisher = self.open(&client).await?;
                continue;
            };
            let (sent, event) = self.events.next();
            let op = self.recorder.invoke(self.process, vec![sent]);
            match Publisher::send(open, event).await {
                Ok(sent) => pending.push_back((op, sent)),
                Err(error) => _ = self.failed(op, &error),
            }
            let mut over = false;
            while pending.len() > WINDOW {
                over |= self.settle(&mut pending).await;
            }
            if over {
                // Its numbering is used up; a new one must not overtake what is under way.
                while !pending.is_empty() {
                    self.settle(&mut pending).await;
                }
                publisher = None;
                self.process = self.recorder.process();
                self.events = Events::new(self.process);
            }
            number += 1;
            if number.is_multiple_of(self.pace.burst) {
                sleep(self.pace.pause).await;
            }
        }
        while !pending.is_empty() {
            self.settle(&mut pending).await;
        }
        Ok(())
    }

    /// Brokers may be away just now.
    async fn open(&self, client: &Client) -> anyhow::Result<Option<Publisher>> {
        let name = STREAMS[self.stream as usize];
        match client.publisher(name, PublisherOptions::default()).await {
            Ok(publisher) => Ok(Some(publisher)),
            // A stream that is gone is a loss, which the checkers will see.
            Err(error) if error.is_retryable() || error.kind() == ErrorKind::NotFound => {
                sleep(self.pace.pause).await;
                Ok(None)
            }
            Err(error) => anyhow::bail!("no publisher for {name}: {error}"),
        }
    }

    /// Waits for the oldest; whether the publisher can publish no more.
    async fn settle(&self, pending: &mut Queue) -> bool {
        let Some((op, oldest)) = pending.pop_front() else { return false };
        match oldest.await {
            Ok(receipt) => {
                let key = Key { stream: self.stream, partition: receipt.partition.get() };
                let offsets = vec![receipt.offset.get()];
                let outcome = Outcome::Ok { key, offsets, duplicate: receipt.duplicate };
                self.recorder.done(self.process, op, outcome);
                false
            }
            Err(error) => self.failed(op, &error),
        }
    }

    fn failed(&self, op: u64, error: &Error) -> bool {
        let text = format!("{}: {error}", error.reason());
        let outcome = if error.not_applied() {
            Outcome::Fail { error: text }
        } else {
            Outcome::Info { error: text }
        };
        self.recorder.done(self.process, op, outcome);
        matches!(error.reason(), Reason::Fenced | Reason::UnknownProducer)
    }
}
