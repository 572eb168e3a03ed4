//! A mesh in memory, with faults, for tests.

mod lend;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;
use weft_proto::event::EventView;
use weft_proto::resource::{self, FunctionSpec, Kind, Start, SubscriptionSpec};
use weft_proto::v1::Resource;
use weft_proto::{Error, QualifiedName, Reason, ResourceUid, Result, Timestamp};

use super::{Change, FUNCTION, Joining, Membership, Mesh, SUBSCRIPTION};
use crate::function::name_of;
pub use lend::MemoryMembership;
use lend::Subscription;

#[derive(Debug, Default)]
struct State {
    generation: u64,
    resources: BTreeMap<(String, QualifiedName), Resource>,
    changes: Vec<(String, Change)>,
    streams: BTreeMap<QualifiedName, Vec<Bytes>>,
    subscriptions: BTreeMap<QualifiedName, Subscription>,
    publish_failures: u32,
    settle_losses: u32,
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

    /// Offsets that a subscription has settled, dead letters among them.
    pub fn acked(&self, subscription: &QualifiedName) -> BTreeSet<u64> {
        let state = self.state();
        state.subscriptions.get(subscription).map(|found| found.settled.clone()).unwrap_or_default()
    }

    /// Dead letters of a subscription: offset, and why.
    pub fn dead(&self, subscription: &QualifiedName) -> BTreeMap<u64, String> {
        let state = self.state();
        state.subscriptions.get(subscription).map(|found| found.dead.clone()).unwrap_or_default()
    }

    /// The next publishes fail.
    pub fn fail_publishes(&self, count: u32) {
        self.state().publish_failures = count;
    }

    /// The next acts are stored, but their answers are lost with the connection.
    pub fn lose_settle_answers(&self, count: u32) {
        self.state().settle_losses = count;
    }

    /// Ends every membership; what was lent comes again.
    pub fn disconnect_members(&self) {
        for subscription in self.state().subscriptions.values_mut() {
            subscription.disconnect();
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
        if resource.kind == FUNCTION {
            // What the cluster does; a function that it would refuse is stored as it is.
            let parse = |spec: &[u8]| resource::parse::<FunctionSpec>(Kind::Function, spec).ok();
            let old = state.resources.get(&key).and_then(|known| parse(&known.spec));
            if let Some(mut spec) = parse(&resource.spec)
                && spec.revise(&key.1.name, old.as_ref(), "somebody", Timestamp::default()).is_ok()
            {
                let text = serde_json::to_vec(&spec);
                resource.spec = text.map_err(|error| Error::internal(error.to_string()))?.into();
            }
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
        match self.subscriptions.entry(name) {
            Entry::Occupied(mut present) => present.get_mut().spec = spec,
            Entry::Vacant(vacant) => {
                vacant.insert(Subscription::new(stream, spec, start));
            }
        }
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

    fn join(&self, subscription: &QualifiedName, joining: Joining) -> Box<dyn Membership> {
        Box::new(self.take_part(subscription, &joining))
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
