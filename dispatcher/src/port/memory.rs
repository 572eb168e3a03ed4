//! A mesh in memory, with faults, for tests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;
use weft_proto::event::EventView;
use weft_proto::resource::{self, Kind, Start, SubscriptionSpec};
use weft_proto::v1::subscribe_response::Frame;
use weft_proto::v1::{
    Assigned, Delivery, EventBatch, Idle, Resource, Revoked, Settled, SettledRange,
    SubscriptionPosition,
};
use weft_proto::{Error, QualifiedName, Reason, ResourceUid, Result};

use crate::function::name_of;

use super::{Change, FUNCTION, Member, Mesh, SUBSCRIPTION};

#[derive(Debug, Default)]
struct Subscription {
    stream: String,
    acked: BTreeSet<u64>,
    epoch: u64,
    start: u64,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    resources: BTreeMap<(String, QualifiedName), Resource>,
    changes: Vec<(String, Change)>,
    streams: BTreeMap<QualifiedName, Vec<Bytes>>,
    subscriptions: BTreeMap<QualifiedName, Subscription>,
    publish_failures: u32,
    settle_losses: u32,
    settles_held: bool,
}

/// The mesh: one partition to a stream, everything at once and for good.
#[derive(Clone, Debug)]
pub struct MemoryMesh {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Default for MemoryMesh {
    fn default() -> Self {
        Self { state: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }
}

impl Subscription {
    fn watermark(&self) -> u64 {
        let mut watermark = self.start;
        while self.acked.contains(&watermark) {
            watermark += 1;
        }
        watermark
    }
}

impl MemoryMesh {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Creates a stream.
    pub fn create_stream(&self, name: &QualifiedName) {
        self.state().streams.entry(name.clone()).or_default();
    }

    /// All events of a stream.
    pub fn events(&self, stream: &QualifiedName) -> Vec<Bytes> {
        self.state().streams.get(stream).cloned().unwrap_or_default()
    }

    /// Offsets that a subscription has settled.
    pub fn acked(&self, subscription: &QualifiedName) -> BTreeSet<u64> {
        let state = self.state();
        state.subscriptions.get(subscription).map(|found| found.acked.clone()).unwrap_or_default()
    }

    /// The next publishes fail.
    pub fn fail_publishes(&self, count: u32) {
        self.state().publish_failures = count;
    }

    /// The next acknowledgements are stored, but their answers are lost with the connection.
    pub fn lose_settle_answers(&self, count: u32) {
        self.state().settle_losses = count;
    }

    /// From now on acknowledgements are neither stored nor answered, as while a group has no leader;
    /// those are lost. Or again they are.
    pub fn hold_settles(&self, held: bool) {
        self.state().settles_held = held;
    }

    /// Breaks the connection of every member.
    pub fn disconnect_members(&self) {
        for subscription in self.state().subscriptions.values_mut() {
            subscription.epoch += 1;
        }
        self.touch();
    }

    /// The status that was last reported for a function, as JSON.
    pub fn status(&self, function: &QualifiedName) -> Vec<u8> {
        let key = (FUNCTION.to_owned(), function.clone());
        self.state().resources.get(&key).map(|found| found.status.to_vec()).unwrap_or_default()
    }

    /// Waits until `is_so`, looking again after each change.
    pub async fn wait_until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        while !is_so(self) {
            changed.changed().await.ok();
        }
    }

    fn put_now(&self, mut resource: Resource) -> Result<()> {
        let name = name_of(&resource)?;
        let mut state = self.state();
        state.generation += 1;
        let key = (resource.kind.clone(), name.clone());
        let known = state.resources.get(&key);
        if known.is_some_and(|known| known.spec == resource.spec && known.labels == resource.labels)
        {
            return Ok(());
        }
        resource.uid = known.map_or(state.generation, |known| known.uid);
        resource.generation = state.generation;
        if resource.kind == SUBSCRIPTION {
            state.subscribe(name, &resource.spec)?;
        }
        let change = Change::Put(Box::new(resource.clone()));
        state.changes.push((resource.kind.clone(), change));
        state.resources.insert(key, resource);
        drop(state);
        self.touch();
        Ok(())
    }

    fn delete_now(&self, kind: &str, name: &QualifiedName) {
        let mut state = self.state();
        if let Some(gone) = state.resources.remove(&(kind.to_owned(), name.clone())) {
            let change = Change::Deleted { name: name.clone(), uid: ResourceUid(gone.uid) };
            state.changes.push((kind.to_owned(), change));
        }
        if kind == SUBSCRIPTION {
            state.subscriptions.remove(name);
        }
        drop(state);
        self.touch();
    }

    fn publish_now(
        &self,
        stream: &QualifiedName,
        events: Vec<Bytes>,
    ) -> Result<Vec<Result<(), Error>>> {
        let mut state = self.state();
        if state.publish_failures > 0 {
            state.publish_failures -= 1;
            return Err(Error::unavailable("no leader"));
        }
        let Some(stored) = state.streams.get_mut(stream) else {
            return Err(Error::new(Reason::UnknownStream, format!("no stream {stream}")));
        };
        let identity = |bytes: &Bytes| {
            EventView::parse(bytes).map(|view| (view.source.to_owned(), view.id.to_owned()))
        };
        let mut known: BTreeMap<_, Bytes> =
            stored.iter().filter_map(|bytes| Some((identity(bytes)?, bytes.clone()))).collect();
        let mut results = Vec::new();
        for event in events {
            results.push(match identity(&event) {
                None => Err(Error::new(Reason::MalformedEvent, "no event")),
                Some(identity) => match known.get(&identity) {
                    Some(same) if *same == event => Ok(()),
                    Some(_) => Err(Error::new(Reason::AlreadyExists, "other content")),
                    None => {
                        known.insert(identity, event.clone());
                        stored.push(event);
                        Ok(())
                    }
                },
            });
        }
        drop(state);
        self.touch();
        Ok(results)
    }
}

impl State {
    fn subscribe(&mut self, name: QualifiedName, spec: &[u8]) -> Result<()> {
        let spec: SubscriptionSpec = resource::parse(Kind::Subscription, spec)?;
        let stream: QualifiedName =
            spec.stream.parse().map_err(|error| Error::invalid(format!("{error}")))?;
        let end = self.streams.get(&stream).map(Vec::len);
        let end = end.ok_or_else(|| Error::new(Reason::UnknownStream, "unknown stream"))? as u64;
        let start = if spec.start == Start::Earliest { 0 } else { end };
        let fresh = Subscription { stream: stream.to_string(), start, ..Subscription::default() };
        self.subscriptions.entry(name).or_insert(fresh);
        Ok(())
    }
}

impl Mesh for MemoryMesh {
    fn watch(
        &self,
        kind: &'static str,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Change>>>> {
        let state = self.state();
        let present = state.resources.values().filter(|resource| resource.kind == kind);
        let present = present.map(|resource| Change::Put(Box::new(resource.clone())));
        let first: VecDeque<Change> = present.chain([Change::Synced]).collect();
        let at = state.changes.len();
        drop(state);
        let start = (self.clone(), first, at, self.changed.subscribe());
        let changes =
            stream::unfold(start, move |(mesh, mut first, mut at, mut changed)| async move {
                loop {
                    if let Some(change) = first.pop_front() {
                        return Some((Ok(change), (mesh, first, at, changed)));
                    }
                    let next = mesh.state().changes.get(at).cloned();
                    if let Some((of, change)) = next {
                        at += 1;
                        if of != kind {
                            continue;
                        }
                        return Some((Ok(change), (mesh, first, at, changed)));
                    }
                    changed.changed().await.ok()?;
                }
            });
        Box::pin(async move { Ok(changes.boxed()) })
    }

    fn get(
        &self,
        kind: &'static str,
        name: &QualifiedName,
    ) -> BoxFuture<'_, Result<Option<Resource>>> {
        let found = self.state().resources.get(&(kind.to_owned(), name.clone())).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn list(&self, kind: &'static str) -> BoxFuture<'_, Result<Vec<Resource>>> {
        let state = self.state();
        let found = state.resources.values().filter(|resource| resource.kind == kind);
        let found = found.cloned().collect();
        Box::pin(async move { Ok(found) })
    }

    fn put(&self, resource: Resource) -> BoxFuture<'_, Result<()>> {
        let result = self.put_now(resource);
        Box::pin(async move { result })
    }

    fn delete(&self, kind: &'static str, name: &QualifiedName) -> BoxFuture<'_, Result<()>> {
        self.delete_now(kind, name);
        Box::pin(async { Ok(()) })
    }

    fn set_status(
        &self,
        kind: &'static str,
        name: &QualifiedName,
        uid: ResourceUid,
        status: Vec<u8>,
    ) -> BoxFuture<'_, Result<()>> {
        let key = (kind.to_owned(), name.clone());
        let found = self.state().resources.get_mut(&key).map(|resource| {
            if resource.uid == uid.get() {
                resource.status = status.into();
            }
        });
        self.touch();
        let result =
            found.ok_or_else(|| Error::new(Reason::UnknownResource, format!("no {kind} {name}")));
        Box::pin(async move { result })
    }

    fn open(
        &self,
        subscription: &QualifiedName,
        _member: &str,
    ) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        let mut state = self.state();
        let opened = state.subscriptions.get_mut(subscription).map(|found| {
            found.epoch += 1;
            let watermark = found.watermark();
            let assigned = Assigned { partition: 0, epoch: found.epoch, watermark };
            MemoryMember {
                mesh: self.clone(),
                name: subscription.clone(),
                epoch: found.epoch,
                next: watermark,
                events: 0,
                bytes: 0,
                frames: VecDeque::from([Frame::Assigned(assigned)]),
                changed: self.changed.subscribe(),
            }
        });
        drop(state);
        // An older member learns that it was replaced.
        self.touch();
        Box::pin(async move {
            let member = opened.ok_or_else(|| Error::new(Reason::UnknownResource, "unknown"))?;
            Ok(Box::new(member) as Box<dyn Member>)
        })
    }

    fn publish(
        &self,
        stream: &QualifiedName,
        events: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), Error>>>> {
        let result = self.publish_now(stream, events);
        Box::pin(async move { result })
    }
}

#[derive(Debug)]
struct MemoryMember {
    mesh: MemoryMesh,
    name: QualifiedName,
    epoch: u64,
    next: u64,
    events: u64,
    bytes: u64,
    frames: VecDeque<Frame>,
    changed: watch::Receiver<u64>,
}

#[expect(clippy::large_enum_variant, reason = "a few in tests, each moved once")]
enum Step {
    Frame(Frame),
    Ended,
    Wait,
}

impl MemoryMember {
    fn step(&mut self) -> Step {
        if let Some(frame) = self.frames.pop_front() {
            return Step::Frame(frame);
        }
        let state = self.mesh.state();
        let Some(subscription) = state.subscriptions.get(&self.name) else { return Step::Ended };
        if subscription.epoch != self.epoch {
            return Step::Ended;
        }
        let stream = subscription
            .stream
            .parse()
            .ok()
            .and_then(|name: QualifiedName| state.streams.get(&name));
        let Some(stream) = stream else { return Step::Ended };
        while subscription.acked.contains(&self.next) {
            self.next += 1;
        }
        let event = usize::try_from(self.next).ok().and_then(|at| stream.get(at));
        let Some(event) = event.filter(|_| self.events > 0 && self.bytes > 0) else {
            return Step::Wait;
        };
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(event.len() as u64);
        let batch = EventBatch {
            events: vec![event.clone()],
            first_offset: self.next,
            ..EventBatch::default()
        };
        self.next += 1;
        Step::Frame(Frame::Delivery(Delivery {
            epoch: self.epoch,
            batch: Some(batch),
            ..Delivery::default()
        }))
    }

    fn settle_now(&mut self, tag: u64, acks: &[SettledRange]) -> Result<()> {
        let mut state = self.mesh.state();
        if state.settles_held {
            return Ok(());
        }
        let is_lost = state.settle_losses > 0;
        state.settle_losses = state.settle_losses.saturating_sub(1);
        let Some(subscription) = state.subscriptions.get_mut(&self.name) else {
            return Err(Error::new(Reason::UnknownResource, "unknown"));
        };
        let mut fenced = BTreeSet::new();
        for range in acks {
            if range.epoch == subscription.epoch {
                subscription.acked.extend(range.first..=range.last);
            } else {
                fenced.insert(range.partition);
            }
        }
        let stream: QualifiedName =
            subscription.stream.parse().map_err(|error| Error::internal(format!("{error}")))?;
        let watermark = subscription.watermark();
        if is_lost {
            subscription.epoch += 1;
        }
        let end = state.streams.get(&stream).map_or(0, Vec::len) as u64;
        drop(state);
        let fenced = fenced.into_iter().collect();
        self.frames.push_back(Frame::Settled(Settled { tag, fenced, ..Settled::default() }));
        let position = SubscriptionPosition { partition: 0, watermark, end, next: end };
        self.frames.push_back(Frame::Idle(Idle { positions: vec![position] }));
        if is_lost {
            self.frames.clear();
            self.frames.push_back(Frame::Revoked(Revoked { partition: 0, epoch: self.epoch }));
        }
        self.mesh.touch();
        Ok(())
    }
}

impl Member for MemoryMember {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Frame>>> {
        Box::pin(async {
            loop {
                self.changed.mark_unchanged();
                match self.step() {
                    Step::Frame(frame) => return Ok(Some(frame)),
                    Step::Ended => return Ok(None),
                    Step::Wait => drop(self.changed.changed().await),
                }
            }
        })
    }

    fn credit(&mut self, events: u32, bytes: u64) -> BoxFuture<'_, Result<()>> {
        self.events += u64::from(events);
        self.bytes += bytes;
        Box::pin(async { Ok(()) })
    }

    fn settle(&mut self, tag: u64, acks: Vec<SettledRange>) -> BoxFuture<'_, Result<()>> {
        let result = self.settle_now(tag, &acks);
        Box::pin(async move { result })
    }
}
