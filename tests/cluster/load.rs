//! Publishers that never rest, and note what they were told about each event.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::task::JoinSet;
use tokio::time::sleep;
use weft_client::{Client, Error, Options, Pending, Publisher, PublisherOptions, Reason, Timeouts};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};

use super::checker::{Attempt, EventId, Fate, Partition};
use super::harness::{eventually, within};

/// Events of one publisher without an answer.
const WINDOW: usize = 64;
/// A publisher takes a breath after so many events: this is a load, not a benchmark.
const BURST: u64 = 8;
const PAUSE: Duration = Duration::from_millis(10);
/// Each publisher has so many keys, which spread over the partitions.
const KEYS: u64 = 8;
/// Longest time without an acknowledgement that is put down to a busy machine.
const PROGRESS_MAX: Duration = Duration::from_mins(1);
/// Publishers that give up early see events of unknown fate.
const IMPATIENT: Duration = Duration::from_millis(600);

/// Whether this publisher waits for an answer, however long that takes.
pub(crate) const fn is_patient(publisher: u32) -> bool {
    publisher.is_multiple_of(2)
}

/// Publishers at work.
#[derive(Debug)]
pub(crate) struct Load {
    publishers: JoinSet<Vec<Attempt>>,
    stop: Arc<AtomicBool>,
    acked: Vec<Arc<AtomicU64>>,
}

impl Load {
    /// Two publishers for each stream: one that waits for an answer, and one that soon gives up.
    pub(crate) fn start(options: &Options, streams: &[&str]) -> Self {
        Self::start_with(options, streams, PublisherOptions::default())
    }

    /// The same, publishing in another way.
    pub(crate) fn start_with(
        options: &Options,
        streams: &[&str],
        publishing: PublisherOptions,
    ) -> Self {
        let mut load = Self { publishers: JoinSet::new(), stop: Arc::default(), acked: Vec::new() };
        let defaults = Timeouts::default();
        let impatient = Timeouts { publish: IMPATIENT, ..defaults };
        for (stream, name) in (0..).zip(streams) {
            for _ in 0..2 {
                let publisher = u32::try_from(load.acked.len()).unwrap();
                let timeouts = if is_patient(publisher) { defaults } else { impatient };
                let acked = Arc::new(AtomicU64::new(0));
                let source = Source {
                    client: Client::connect(&Options { timeouts, ..options.clone() }).unwrap(),
                    stream,
                    name: (*name).to_owned(),
                    publishing,
                    publisher,
                    stop: Arc::clone(&load.stop),
                    acked: Arc::clone(&acked),
                };
                load.acked.push(acked);
                load.publishers.spawn(source.run());
            }
        }
        load
    }

    /// Waits until so many more events of each publisher are acknowledged.
    pub(crate) async fn progress(&self, more: u64) {
        let now = || self.acked.iter().map(|acked| acked.load(Ordering::Relaxed));
        let begin: Vec<u64> = now().collect();
        let what = format!("{more} more acknowledgements of each publisher, after {begin:?}");
        let all =
            async || begin.iter().zip(now()).all(|(old, new)| new >= old + more).then_some(());
        eventually(PROGRESS_MAX, &what, all).await;
    }

    /// Lets everything that is under way come to its end; what became of all events.
    pub(crate) async fn stop(mut self) -> Vec<Attempt> {
        self.stop.store(true, Ordering::Relaxed);
        let mut attempts = Vec::new();
        let limit = Timeouts::default().publish * 2;
        while let Some(ended) =
            within(limit, "the end of a publisher", self.publishers.join_next()).await
        {
            attempts.extend(ended.unwrap());
        }
        attempts
    }
}

struct Source {
    client: Client,
    stream: u32,
    name: String,
    publishing: PublisherOptions,
    publisher: u32,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
}

impl Source {
    async fn run(self) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        let mut pending = VecDeque::new();
        let mut publisher = None;
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let Some(open) = &publisher else {
                publisher = self.open().await;
                continue;
            };
            let id = EventId { publisher: self.publisher, number };
            let event = event(id);
            let digest = digest(&event);
            pending.push_back((id, digest, Publisher::send(open, event).await.unwrap()));
            let mut over = false;
            while pending.len() > WINDOW {
                over |= self.settle(&mut pending, &mut attempts).await;
            }
            if over {
                // Its numbering is used up; a new one must not overtake what is under way.
                while self.settle_any(&mut pending, &mut attempts).await {}
                publisher = None;
            }
            if number % BURST == 0 {
                sleep(PAUSE).await;
            }
        }
        while self.settle_any(&mut pending, &mut attempts).await {}
        attempts
    }

    /// Brokers may be away just now.
    async fn open(&self) -> Option<Publisher> {
        let opened = self.client.publisher(&self.name, self.publishing).await;
        match opened {
            Ok(publisher) => Some(publisher),
            Err(error) if error.is_retryable() => None,
            Err(error) => panic!("no publisher for {}: {error}", self.name),
        }
    }

    async fn settle_any(&self, pending: &mut Queue, attempts: &mut Vec<Attempt>) -> bool {
        let any = !pending.is_empty();
        self.settle(pending, attempts).await;
        any
    }

    /// Waits for the oldest; whether the publisher can publish no more.
    async fn settle(&self, pending: &mut Queue, attempts: &mut Vec<Attempt>) -> bool {
        let Some((id, digest, oldest)) = pending.pop_front() else { return false };
        let (fate, over) = match oldest.await {
            Ok(receipt) => {
                self.acked.fetch_add(1, Ordering::Relaxed);
                let partition =
                    Partition { stream: self.stream, partition: receipt.partition.get() };
                (Fate::Acked(partition, receipt.offset.get()), false)
            }
            Err(error) if error.not_applied() => (Fate::Refused, is_over(&error)),
            Err(error) => (Fate::Unknown, is_over(&error)),
        };
        attempts.push(Attempt { id, digest, fate });
        over
    }
}

type Queue = VecDeque<(EventId, u64, Pending)>;

fn is_over(error: &Error) -> bool {
    matches!(error.reason(), Reason::Fenced | Reason::UnknownProducer)
}

pub(crate) fn event(id: EventId) -> Bytes {
    event_with(id, format!("{id} ").repeat(20))
}

/// An event of about this size.
pub(crate) fn padded(id: EventId, bytes: usize) -> Bytes {
    event_with(id, "x".repeat(bytes))
}

fn event_with(id: EventId, text: String) -> Bytes {
    let subject = Attr::CeString(format!("key-{}", id.number % KEYS));
    let attribute = CloudEventAttributeValue { attr: Some(subject) };
    let event = CloudEvent {
        id: id.to_string(),
        source: format!("/load/{}", id.publisher),
        spec_version: "1.0".to_owned(),
        r#type: "com.example.load".to_owned(),
        attributes: [("subject".to_owned(), attribute)].into(),
        data: Some(Data::TextData(text)),
    };
    event.encode_to_vec().into()
}

/// Tells events apart that are not the same, byte for byte.
pub(crate) fn digest(event: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    hasher.finish()
}
