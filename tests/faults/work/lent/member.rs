//! One membership: notes what it is told and lent, and lets each event have its fate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_client::{Acker, Client, Delivery, Options, SubscriptionItem, SubscriptionOptions};

use super::deeds::{Deeds, Fate};
use super::{STREAM, SUBSCRIPTIONS};
use crate::check::history::{Desk, Key, Lent, Process, Record};
use crate::work::event::{STRANGE, name, replayed, seen};
use crate::work::recorder::Recorder;

/// Events that a member holds at once.
const EVENTS_MAX: u32 = 16;
/// For answers that a member waits for when it leaves.
const LEAVE_MAX: Duration = Duration::from_secs(5);

pub(super) struct Member {
    pub(super) options: Options,
    pub(super) subscription: u32,
    pub(super) name: String,
    pub(super) process: Process,
    pub(super) recorder: Arc<Recorder>,
    pub(super) drain: CancellationToken,
}

impl Member {
    /// Takes part until it has to leave, or is told that it is none any more.
    pub(super) async fn live(self, leave: CancellationToken) -> anyhow::Result<()> {
        let client = Client::connect(&self.options)?;
        let options = SubscriptionOptions {
            member: self.name.clone(),
            events_max: EVENTS_MAX,
            leases: true,
            ..SubscriptionOptions::default()
        };
        let (name, _) = SUBSCRIPTIONS[self.subscription as usize];
        let mut member = client.subscribe(name, options);
        let acker = member.acker();
        let mut deeds = JoinSet::new();
        let mut epochs = BTreeMap::new();
        loop {
            tokio::select! {
                () = leave.cancelled() => break,
                item = member.next() => self.take(item?, &acker, &mut epochs, &mut deeds),
                Some(_) = deeds.join_next(), if !deeds.is_empty() => {}
            }
        }
        // What was begun is answered; what was only planned is left to others.
        deeds.shutdown().await;
        drop(acker);
        _ = timeout(LEAVE_MAX, member.close()).await;
        Ok(())
    }

    /// The desk of a partition itself.
    fn desk(&self, partition: u32) -> Desk {
        let key = Key { stream: STREAM, partition };
        Desk { subscription: self.subscription, key, redriven: false, job: 0 }
    }

    fn take(
        &self,
        item: SubscriptionItem,
        acker: &Acker,
        epochs: &mut BTreeMap<u32, u64>,
        deeds: &mut JoinSet<()>,
    ) {
        match item {
            SubscriptionItem::Assigned { partition, epoch, watermark } => {
                epochs.insert(partition.get(), epoch.get());
                self.told(partition.get(), epoch.get(), watermark.get());
            }
            SubscriptionItem::Idle { positions } => {
                for (partition, watermark, _) in positions {
                    if let Some(&epoch) = epochs.get(&partition.get()) {
                        self.told(partition.get(), epoch, watermark.get());
                    }
                }
            }
            SubscriptionItem::Delivery(delivery) => self.lent(&delivery, acker, deeds),
            SubscriptionItem::Seam { .. }
            | SubscriptionItem::Revoked { .. }
            | SubscriptionItem::Turn { .. } => {}
        }
    }

    fn told(&self, partition: u32, epoch: u64, watermark: u64) {
        let (process, desk) = (self.process, self.desk(partition));
        self.recorder.add(|t| Record::Cursor { t, process, desk, epoch, watermark });
    }

    fn lent(&self, delivery: &Delivery, acker: &Acker, deeds: &mut JoinSet<()>) {
        let (process, epoch) = (self.process, delivery.epoch.get());
        let job = job_of(delivery);
        let own = self.desk(delivery.batch.partition.get());
        let desk = Desk { redriven: delivery.is_redriven, job, ..own };
        let mut events = Vec::new();
        for (place, (offset, event)) in delivery.batch.events.iter().enumerate() {
            let lease = delivery.lease(place).unwrap_or_default();
            let (offset, attempt) = (offset.get(), delivery.attempt(place));
            // It must say itself where it comes from.
            let is_marked = job == 0 || replayed(event) == Some((job, offset));
            let offset = if is_marked { offset } else { STRANGE };
            let value = seen(offset, event).value;
            events.push(Lent { lease, offset, value, name: name(event), attempt });
        }
        let leases: Vec<u64> = events.iter().map(|event| event.lease).collect();
        self.recorder.add(|t| Record::Lend { t, process, desk, epoch, events });
        for (place, lease) in leases.into_iter().enumerate() {
            let one = Deeds {
                acker: acker.clone(),
                held: delivery.one(place),
                recorder: Arc::clone(&self.recorder),
                process,
                desk,
                epoch,
                lease,
            };
            let fate = if self.drain.is_cancelled() { Fate::Done } else { Fate::random() };
            deeds.spawn(one.meet(fate));
        }
    }
}

/// The number of the replay job for which events come: by name, in the first of them.
fn job_of(delivery: &Delivery) -> u64 {
    let first = delivery.batch.events.first();
    let named = first.and_then(|(_, event)| replayed(event)).map(|(job, _)| job);
    match delivery.replay_job {
        Some(_) => named.unwrap_or(STRANGE),
        // Events of the subscription itself are not marked.
        None => named.map_or(0, |_| STRANGE),
    }
}
