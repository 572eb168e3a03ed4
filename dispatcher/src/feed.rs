//! One trigger: keeps its subscription in the catalog, joins it and carries frames both ways.
//!
//! *Owns* the membership and the credit. *Never* decides about an event. A broken connection is
//! joined again; what was not settled comes again, and the rules of delivery know it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use weft_proto::v1::subscribe_response::Frame;
use weft_proto::v1::{EventBatch, Resource, SettledRange, SubscriptionPosition};
use weft_proto::{Epoch, Error, Offset, PartitionId, QualifiedName, Reason, Result, Timestamp};

use crate::delivery::{FeedId, Place, Random, backoff_max};
use crate::port::{Member, Mesh, SUBSCRIPTION};

/// Events that may be held in memory for one trigger.
pub(crate) const HELD_EVENTS_MAX: u64 = 1024;
/// Bytes of events that may be held in memory for one trigger.
pub(crate) const HELD_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Settle commands that may wait for their answer. What comes meanwhile shares the next one.
const SETTLES_MAX: usize = 4;
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(10);
/// Says which function a subscription serves.
pub(crate) const FUNCTION_LABEL: &str = "weft.function";

/// What a feed tells the runner of the function.
#[derive(Debug)]
pub(crate) enum Told {
    /// A partition is ours now.
    Assigned { partition: PartitionId, watermark: Offset },
    /// A partition is somebody else's.
    Revoked { partition: PartitionId },
    /// Events of one partition.
    Leased(Leased),
    /// These are settled for good.
    Settled { places: Vec<Place> },
    /// These were acknowledged under a lease that had ended.
    Fenced { places: Vec<Place> },
    /// How far behind the subscription is.
    Positions { positions: Vec<SubscriptionPosition> },
    /// The subscription works.
    Joined,
    /// The subscription does not work; it is tried again.
    Trouble { error: Error },
}

/// Events of one partition that were appended together.
#[derive(Debug)]
pub(crate) struct Leased {
    pub(crate) partition: PartitionId,
    pub(crate) epoch: Epoch,
    pub(crate) appended: Timestamp,
    pub(crate) events: Vec<(Offset, Bytes)>,
}

/// What the runner wants of a feed. Bounded by what is leased, so nobody ever waits to put it in.
#[derive(Debug, Default)]
struct Wanted {
    acks: Vec<(PartitionId, Epoch, Offset)>,
    released_events: u64,
    released_bytes: u64,
}

/// The runner's end of a feed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<(Mutex<Wanted>, Notify)>);

impl Outbox {
    pub(crate) fn ack(&self, place: Place, epoch: Epoch) {
        self.change(|wanted| wanted.acks.push((place.partition, epoch, place.offset)));
    }

    /// An event is no longer held: the server may send another.
    pub(crate) fn release(&self, bytes: u64) {
        self.change(|wanted| {
            wanted.released_events += 1;
            wanted.released_bytes += bytes;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_one();
    }

    #[cfg(test)]
    pub(crate) fn released(&self) -> (u64, u64) {
        let wanted = self.0.0.lock().unwrap();
        (wanted.released_events, wanted.released_bytes)
    }

    fn take(&self, with_acks: bool) -> Wanted {
        let mut wanted = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let acks = if with_acks { std::mem::take(&mut wanted.acks) } else { Vec::new() };
        let rest = Wanted { acks: std::mem::take(&mut wanted.acks), ..Wanted::default() };
        let taken = std::mem::replace(&mut *wanted, rest);
        Wanted { acks, ..taken }
    }
}

/// One trigger of one function.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) id: FeedId,
    pub(crate) mesh: Arc<dyn Mesh>,
    pub(crate) subscription: Resource,
    pub(crate) name: QualifiedName,
    pub(crate) member: String,
    pub(crate) told_tx: mpsc::Sender<(FeedId, Told)>,
    pub(crate) outbox: Outbox,
}

/// Credit that is out.
#[derive(Debug, Default)]
struct Held {
    events: u64,
    bytes: u64,
}

/// One connection's worth of settling.
#[derive(Debug, Default)]
struct Settling {
    tag: u64,
    open: BTreeMap<u64, Vec<Place>>,
}

impl Feed {
    /// Runs until stopped.
    pub(crate) async fn run(self, stop: CancellationToken, seed: u64) {
        let mut random = Random::new(seed);
        let mut held = Held::default();
        let mut failures = 0;
        loop {
            let error = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ended = self.follow(&mut held, &mut failures) => match ended {
                    Ok(()) => Error::unavailable("the server ended the subscription's stream"),
                    Err(error) => error,
                },
            };
            failures += 1;
            debug!(subscription = %self.name, %error, "subscription interrupted");
            let high = backoff_max(BACKOFF_BASE, BACKOFF_CAP, failures);
            let delay = random.between(high / 2, high);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                sent = self.tell(Told::Trouble { error }) => if sent.is_err() { return },
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(delay) => {}
            }
        }
    }

    async fn tell(&self, told: Told) -> Result<()> {
        let gone = |_| Error::unavailable("the function has ended");
        self.told_tx.send((self.id, told)).await.map_err(gone)
    }

    /// Creates the subscription, or brings it up to date.
    async fn ensure(&self) -> Result<()> {
        let present = self.mesh.get(SUBSCRIPTION, &self.name).await?;
        let owner = self.subscription.labels.get(FUNCTION_LABEL);
        if let Some(present) = present
            && present.labels.get(FUNCTION_LABEL) != owner
        {
            let message = format!(
                "subscription {} exists and is not this function's; rename the function or the \
                 trigger, or delete the subscription",
                self.name
            );
            return Err(Error::new(Reason::AlreadyExists, message));
        }
        self.mesh.put(self.subscription.clone()).await
    }

    async fn follow(&self, held: &mut Held, failures: &mut u32) -> Result<()> {
        self.ensure().await?;
        let mut member = self.mesh.open(&self.name, &self.member).await?;
        // Acknowledgements that were meant for the broken connection are stale: their events are
        // leased again and acknowledged then.
        self.outbox.take(true).forget_into(held);
        let events = HELD_EVENTS_MAX.saturating_sub(held.events);
        let bytes = HELD_BYTES_MAX.saturating_sub(held.bytes);
        member.credit(u32::try_from(events).unwrap_or(u32::MAX), bytes).await?;
        self.tell(Told::Joined).await?;
        let mut settling = Settling::default();
        loop {
            tokio::select! {
                biased;
                frame = member.next() => {
                    let Some(frame) = frame? else { return Ok(()) };
                    *failures = 0;
                    self.handle(frame, held, &mut settling).await?;
                }
                () = self.outbox.0.1.notified() => {}
            }
            self.pass_on(member.as_mut(), held, &mut settling).await?;
        }
    }

    async fn handle(&self, frame: Frame, held: &mut Held, settling: &mut Settling) -> Result<()> {
        match frame {
            Frame::Assigned(assigned) => {
                let partition = PartitionId(assigned.partition);
                let watermark = Offset(assigned.watermark);
                self.tell(Told::Assigned { partition, watermark }).await
            }
            Frame::Revoked(revoked) => {
                self.tell(Told::Revoked { partition: PartitionId(revoked.partition) }).await
            }
            Frame::Delivery(delivery) => {
                let Some(batch) = delivery.batch else { return Ok(()) };
                let partition = PartitionId(batch.partition);
                let appended = Timestamp::from_micros(batch.append_time_us);
                let events = offsets(batch)?;
                held.events += events.len() as u64;
                held.bytes += events.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
                let epoch = Epoch(delivery.epoch);
                self.tell(Told::Leased(Leased { partition, epoch, appended, events })).await
            }
            Frame::Settled(settled) => {
                let places = settling.open.remove(&settled.tag).unwrap_or_default();
                let is_fenced = |place: &Place| settled.fenced.contains(&place.partition.get());
                let (fenced, places): (Vec<_>, Vec<_>) = places.into_iter().partition(is_fenced);
                if !fenced.is_empty() {
                    self.tell(Told::Fenced { places: fenced }).await?;
                }
                self.tell(Told::Settled { places }).await
            }
            // Triggers are alone with their subscriptions: nothing is lent.
            Frame::Seam(_) => Ok(()),
            Frame::Idle(idle) => self.tell(Told::Positions { positions: idle.positions }).await,
        }
    }

    /// Passes on what the runner wants.
    async fn pass_on(
        &self,
        member: &mut dyn Member,
        held: &mut Held,
        settling: &mut Settling,
    ) -> Result<()> {
        let wanted = self.outbox.take(settling.open.len() < SETTLES_MAX);
        if wanted.released_events > 0 || wanted.released_bytes > 0 {
            let events = u32::try_from(wanted.released_events).unwrap_or(u32::MAX);
            let bytes = wanted.released_bytes;
            wanted.forget_into(held);
            member.credit(events, bytes).await?;
        }
        if wanted.acks.is_empty() {
            return Ok(());
        }
        settling.tag += 1;
        let place = |&(partition, _, offset)| Place { feed: self.id, partition, offset };
        settling.open.insert(settling.tag, wanted.acks.iter().map(place).collect());
        member.settle(settling.tag, ranges(wanted.acks)).await
    }
}

impl Wanted {
    fn forget_into(&self, held: &mut Held) {
        held.events = held.events.saturating_sub(self.released_events);
        held.bytes = held.bytes.saturating_sub(self.released_bytes);
    }
}

/// The offset of each event of a batch.
fn offsets(batch: EventBatch) -> Result<Vec<(Offset, Bytes)>> {
    let dense = batch.offset_deltas.is_empty();
    if !dense && batch.offset_deltas.len() != batch.events.len() {
        return Err(Error::internal("a batch has not one offset for each event"));
    }
    let first = Offset(batch.first_offset);
    let deltas = batch.offset_deltas.into_iter().map(u64::from);
    let place = |(index, event): (usize, Bytes), delta: Option<u64>| {
        let offset = first.checked_add(delta.unwrap_or(index as u64));
        offset.map(|offset| (offset, event)).ok_or_else(|| Error::internal("an offset overflows"))
    };
    let mut deltas = deltas;
    batch.events.into_iter().enumerate().map(|item| place(item, deltas.next())).collect()
}

/// Joins neighbouring offsets into ranges.
fn ranges(mut acks: Vec<(PartitionId, Epoch, Offset)>) -> Vec<SettledRange> {
    acks.sort_unstable();
    let mut ranges: Vec<SettledRange> = Vec::new();
    for (partition, epoch, offset) in acks {
        match ranges.last_mut() {
            Some(range)
                if range.partition == partition.get()
                    && range.epoch == epoch.get()
                    && range.last.saturating_add(1) >= offset.get() =>
            {
                range.last = offset.get();
            }
            _ => ranges.push(SettledRange {
                partition: partition.get(),
                epoch: epoch.get(),
                first: offset.get(),
                last: offset.get(),
                redriven: false,
                replay_job: 0,
            }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tokio_util::task::TaskTracker;
    use weft_proto::cloudevents::CloudEvent;

    use super::*;
    use crate::port::memory::MemoryMesh;

    const ID: FeedId = FeedId(0);

    /// A feed on a stream of `count` small events, and what it tells.
    async fn feed(count: u64) -> (MemoryMesh, Feed, mpsc::Receiver<(FeedId, Told)>) {
        let mesh = MemoryMesh::default();
        let stream = "s".parse().unwrap();
        mesh.create_stream(&stream);
        let event = |id: u64| CloudEvent { id: id.to_string(), ..CloudEvent::default() };
        let events = (0..count).map(|id| event(id).encode_to_vec().into());
        mesh.publish(&stream, events.collect()).await.unwrap();
        let subscription = Resource {
            kind: SUBSCRIPTION.to_owned(),
            name: "fn-f-t".to_owned(),
            spec: "{\"stream\":\"s\",\"start\":\"earliest\"}".into(),
            ..Resource::default()
        };
        let (told_tx, told_rx) = mpsc::channel(4);
        let feed = Feed {
            id: ID,
            mesh: Arc::new(mesh.clone()),
            subscription,
            name: "fn-f-t".parse().unwrap(),
            member: "m".to_owned(),
            told_tx,
            outbox: Outbox::default(),
        };
        (mesh, feed, told_rx)
    }

    /// The sizes of the next `count` events.
    async fn take(told_rx: &mut mpsc::Receiver<(FeedId, Told)>, count: u64) -> Vec<u64> {
        let mut sizes = Vec::new();
        while (sizes.len() as u64) < count {
            if let (_, Told::Leased(Leased { events, .. })) = told_rx.recv().await.unwrap() {
                sizes.extend(events.iter().map(|(_, event)| event.len() as u64));
            }
        }
        sizes
    }

    #[tokio::test(start_paused = true)]
    async fn credit_bounds_what_is_held_and_comes_back_even_over_a_break() {
        let (mesh, feed, mut told_rx) = feed(HELD_EVENTS_MAX + 100).await;
        let outbox = feed.outbox.clone();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(feed.run(stop.clone(), 1));
        let sizes = take(&mut told_rx, HELD_EVENTS_MAX).await;
        let more = tokio::time::timeout(BACKOFF_CAP, take(&mut told_rx, 1)).await;
        assert!(more.is_err(), "more was sent than there was credit for");

        // The connection breaks, and only then everything is released.
        mesh.disconnect_members();
        assert!(matches!(told_rx.recv().await, Some((_, Told::Trouble { .. }))));
        for size in sizes {
            outbox.release(size);
        }

        // Nothing was acknowledged, so all comes again.
        let again = tokio::time::timeout(BACKOFF_CAP, take(&mut told_rx, HELD_EVENTS_MAX)).await;
        assert!(again.is_ok(), "credit was lost");
        stop.cancel();
        drop(told_rx);
        tasks.close();
        tasks.wait().await;
    }

    #[test]
    fn neighbours_are_settled_as_ranges() {
        let ack = |partition, epoch, offset| (PartitionId(partition), Epoch(epoch), Offset(offset));

        let ranges =
            ranges(vec![ack(0, 1, 6), ack(1, 1, 7), ack(0, 1, 5), ack(0, 2, 7), ack(0, 1, 9)]);

        let flat: Vec<_> = ranges.iter().map(|r| (r.partition, r.epoch, r.first, r.last)).collect();
        assert_eq!(flat, [(0, 1, 5, 6), (0, 1, 9, 9), (0, 2, 7, 7), (1, 1, 7, 7)]);
    }

    #[test]
    fn offsets_follow_the_batch_and_damage_is_an_error() {
        let batch = |first_offset, offset_deltas| EventBatch {
            events: vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")],
            first_offset,
            offset_deltas,
            ..EventBatch::default()
        };
        let of = |batch| {
            offsets(batch).map(|events| {
                events.into_iter().map(|(offset, _)| offset.get()).collect::<Vec<_>>()
            })
        };

        assert_eq!(of(batch(7, vec![])).unwrap(), [7, 8]);
        assert_eq!(of(batch(7, vec![0, 5])).unwrap(), [7, 12]);
        assert!(of(batch(7, vec![1])).is_err());
        assert!(of(batch(u64::MAX, vec![])).is_err());
    }
}
