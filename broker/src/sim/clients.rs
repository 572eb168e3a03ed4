//! Those who use the simulated cluster: publishers that retry, one that never does, a member that
//! leases and settles.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use weft_proto::{
    AckLevel, Epoch, Error, GroupId, Offset, PartitionUid, ProducerId, ResourceUid, SchemaId,
    Sequence,
};

use super::node::Running;
use super::observer::Observer;
use super::plant::Plant;
use super::random::Random;
use crate::data::{DataGroup, NewAppend, SchemaIds};
use crate::entry::{Command, Lease, Member, OffsetRange, ProducerBatch, Settlement};
use crate::state::Reply;
use crate::subjects::Expectations;
use crate::subscription::LeaseReply;

/// How long a client waits for an answer; then it does not know.
const PATIENCE: Duration = Duration::from_secs(2);
/// Events of one batch.
const EVENTS: Range<u64> = 1..4;

/// What clients know of the nodes. Clones share it.
#[derive(Clone)]
pub(crate) struct Directory {
    /// The nodes that run.
    pub(crate) running: Arc<Mutex<Vec<Running>>>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) stopping: Arc<Mutex<bool>>,
}

impl Directory {
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.lock().unwrap()
    }

    /// Chooses a node to ask: mostly one that says it leads.
    fn choose(&self, group: GroupId, random: &mut Random) -> Option<(Running, DataGroup)> {
        let running = self.running.lock().unwrap().clone();
        let all = running.iter().flat_map(|node| node.data.iter().map(move |data| (node, data)));
        let all: Vec<_> = all.filter(|(_, data)| data.id == group).collect();
        if all.is_empty() {
            return None;
        }
        let leads = |data: &DataGroup| data.raft.leader_watch().borrow().is_self_ready;
        let leaders: Vec<_> = all.iter().copied().filter(|(_, data)| leads(data)).collect();
        let among = if leaders.is_empty() || random.once_in(6) { all } else { leaders };
        let (node, data) = random.pick(&among);
        Some((node.clone(), data.clone()))
    }
}

fn unknown() -> Error {
    Error::unavailable("nobody knows")
}

/// Asks something of a node, as over a connection: it breaks with the node.
async fn ask<T>(node: &Running, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        biased;
        () = node.process.death() => Err(unknown()),
        answer = node.process.run(work) => answer,
        () = tokio::time::sleep(PATIENCE) => Err(unknown()),
    }
}

/// A batch that asks for nothing special.
pub(crate) fn plain(
    partition: PartitionUid,
    events: Vec<Bytes>,
    producer: Option<ProducerBatch>,
) -> NewAppend {
    NewAppend {
        partition,
        events,
        packed: None,
        schemas: SchemaIds::All(SchemaId(0)),
        ids: Vec::new(),
        subjects: Vec::new(),
        producer,
        expected: Expectations::default(),
        atomic: false,
        ack: AckLevel::Durable,
        settles: None,
        ingest: None,
    }
}

#[derive(Clone)]
struct Batch {
    events: Vec<Bytes>,
    producer: ProducerBatch,
}

/// A producer as the client library is one: what is not acknowledged it sends again, in order.
pub(crate) struct Producer {
    pub(crate) directory: Directory,
    pub(crate) random: Random,
    pub(crate) group: GroupId,
    pub(crate) partition: PartitionUid,
    pub(crate) id: ProducerId,
    pub(crate) window: usize,
    pub(crate) pause_millis: Range<u64>,
}

impl Producer {
    /// Publishes until it shall stop and all is acknowledged.
    pub(crate) async fn run(mut self) {
        let (mut epoch, mut sequence, mut previous) = (1, 0, 0);
        let mut waiting: VecDeque<Batch> = VecDeque::new();
        let mut retries = false;
        let mut last_rounds = 1;
        loop {
            if self.directory.is_stopping() {
                if waiting.is_empty() && last_rounds == 0 {
                    return;
                }
                last_rounds = 0;
            } else if self.random.once_in(60) {
                // A new run of the producer: it knows nothing of what it sent before.
                (epoch, sequence, previous) = (epoch + 1, 0, 0);
                waiting.clear();
            }
            let goal = 1 + self.random.index(self.window);
            while waiting.len() < goal {
                sequence += self.random.within(1..3);
                waiting.push_back(self.batch(epoch, sequence, previous));
                previous = sequence;
            }
            let landed = self.send(&waiting, retries).await;
            waiting.drain(..landed);
            retries = !waiting.is_empty();
            let pause = if retries { 20..150 } else { self.pause_millis.clone() };
            tokio::time::sleep(self.random.millis(pause)).await;
        }
    }

    fn batch(&mut self, epoch: u64, sequence: u64, previous: u64) -> Batch {
        let count = self.random.within(EVENTS);
        let id = self.id;
        let event = |number| Bytes::from(format!("{}/{epoch}/{sequence}/{number}", id.0));
        let producer = ProducerBatch {
            id,
            epoch: Epoch(epoch),
            sequence: Sequence(sequence),
            previous: Sequence(previous),
        };
        Batch { events: (0..count).map(event).collect(), producer }
    }

    /// Sends all at once; returns how many of them, from the front, were acknowledged.
    async fn send(&mut self, batches: &VecDeque<Batch>, retries: bool) -> usize {
        let Some((node, data)) = self.directory.choose(self.group, &mut self.random) else {
            return 0;
        };
        tokio::time::sleep(self.random.millis(0..4)).await;
        let forgets = retries && self.directory.observer.plant == Some(Plant::ForgottenProducer);
        let partition = self.partition;
        let all: Vec<_> = batches
            .iter()
            .map(|batch| {
                let producer = (!forgets).then_some(batch.producer);
                plain(partition, batch.events.clone(), producer)
            })
            .collect();
        let sequencer = data.sequencer.clone();
        let queue = async move {
            let mut answers = Vec::new();
            for append in all {
                answers.push(sequencer.append(append).await?);
            }
            Ok(answers)
        };
        let Ok(answers) = ask(&node, queue).await else { return 0 };
        let mut landed = 0;
        for (answer, batch) in answers.into_iter().zip(batches) {
            let answer = async { answer.await.unwrap_or_else(|_gone| Err(unknown())) };
            let Ok(appended) = ask(&node, answer).await else { break };
            let first = appended.runs[0].first;
            let observer = &self.directory.observer;
            let shown = batch.producer.sequence;
            observer.note(format_args!("acknowledged {}/{shown} at {first}", self.id.0));
            observer.acknowledged(self.group, partition, first, &batch.events);
            landed += 1;
        }
        landed
    }
}

/// Publishes each event once and never again: what is refused must not be stored.
pub(crate) async fn publish_once(
    directory: Directory,
    mut random: Random,
    group: GroupId,
    partition: PartitionUid,
) {
    let mut number = 0;
    while !directory.is_stopping() {
        tokio::time::sleep(random.millis(20..200)).await;
        let Some((node, data)) = directory.choose(group, &mut random) else { continue };
        number += 1;
        let events = vec![Bytes::from(format!("once/{partition}/{number}"))];
        let append = plain(partition, events.clone(), None);
        let sequencer = data.sequencer.clone();
        let work = async move {
            let answer = sequencer.append(append).await?;
            answer.await.unwrap_or_else(|_gone| Err(unknown()))
        };
        let observer = &directory.observer;
        match ask(&node, work).await {
            Ok(appended) => {
                observer.acknowledged(group, partition, appended.runs[0].first, &events);
            }
            Err(error) if error.not_applied() => observer.refused(group, &events),
            Err(_unknown) => {}
        }
    }
}

/// Takes leases and settles what it may, and sometimes what it may not.
pub(crate) async fn settle(
    directory: Directory,
    mut random: Random,
    group: GroupId,
    partition: PartitionUid,
) {
    let subscription = ResourceUid(7);
    let (mut epoch, mut watermark) = (Epoch(0), Offset(0));
    while !directory.is_stopping() {
        tokio::time::sleep(random.millis(30..250)).await;
        let Some((node, data)) = directory.choose(group, &mut random) else { continue };
        let command = if epoch == Epoch(0) || random.once_in(5) {
            let member = Member::new("member").unwrap();
            let (start, lends) = (Offset(0), random.once_in(2));
            Command::Lease(vec![Lease { subscription, partition, start, member, lends }])
        } else {
            let first = Offset(watermark.get() + random.within(0..3));
            let last = Offset(first.get() + random.within(0..4));
            let ranges = vec![OffsetRange::new(first, last).unwrap()];
            Command::Settle(vec![Settlement {
                subscription,
                partition,
                epoch,
                ranges,
                parked: Vec::new(),
                lends: random.once_in(2),
            }])
        };
        let sequencer = data.sequencer.clone();
        match ask(&node, async move { sequencer.command(command).await }).await {
            Ok(Reply::Leases(replies)) => {
                if let Some(LeaseReply::Leased { epoch: now, watermark: at, .. }) = replies.first()
                {
                    // Now and then it goes on under the lease that it lost.
                    epoch = if random.once_in(8) { epoch.max(Epoch(1)) } else { *now };
                    watermark = *at;
                }
            }
            Ok(_) => watermark = Offset(watermark.get() + random.within(0..3)),
            Err(_unknown) => {}
        }
    }
}
