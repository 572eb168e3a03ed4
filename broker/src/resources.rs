//! The catalog on this node: what it says now, how it changes, and the way to change it.
//!
//! *Owns* the handle of the catalog's group. Reads are served from this node's own replica; a
//! caller that must see its own write says from which generation on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, watch};
use tracing::error;
use weft_proto::filter::Compiled;
use weft_proto::resource::{self, Kind, Start, SubscriptionMode, SubscriptionSpec};
use weft_proto::{
    Error, GroupId, NodeId, Offset, PartitionId, PartitionUid, Principal, QualifiedName, Reason,
    ResourceUid, Result, SchemaId, Timestamp, internal, v1,
};

use crate::access::Rules;
use crate::catalog::{self, Change, Changed, Reply, State, view};
use crate::data::lock;
use crate::data::sequencer::Directory;
use crate::ingest::Forwarder;
use crate::raft::group::{Group, ProposeError};
use crate::raft::machine::{Applied, Machine, Unreadable};
use crate::raft::types::Reply as Answer;
use crate::retention::{Policies, Policy};
use crate::{clock, delay};

/// Changes that a slow watcher may fall behind; beyond it the watch ends and is begun anew.
const CHANGES_LEN: usize = 1_024;
/// How long a caller waits for the generation it asks for.
const GENERATION_PATIENCE: Duration = Duration::from_secs(2);
/// How long a change waits for its answer.
const PROPOSE_PATIENCE: Duration = Duration::from_secs(10);

/// The state machine of the catalog's group on this node.
#[derive(Debug)]
pub struct CatalogMachine {
    state: State,
    schemas: Arc<BTreeMap<u32, v1::SchemaRef>>,
    generation: watch::Sender<u64>,
    changes: broadcast::Sender<Change>,
    /// Who may do what, compiled.
    rules: watch::Sender<Arc<Rules>>,
    broken: watch::Sender<Option<String>>,
}

impl CatalogMachine {
    /// An empty catalog of a cluster with so many data groups.
    pub fn new(data_groups: u32) -> Self {
        Self {
            state: State::new(data_groups),
            schemas: Arc::default(),
            generation: watch::Sender::new(0),
            changes: broadcast::Sender::new(CHANGES_LEN),
            rules: watch::Sender::default(),
            broken: watch::Sender::new(None),
        }
    }

    /// Tells of an entry that this release cannot read: the process must end.
    pub fn broken(&self) -> watch::Receiver<Option<String>> {
        self.broken.subscribe()
    }

    /// Who may do what, as it changes.
    pub fn rules(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.subscribe()
    }

    fn compile_rules(&mut self) {
        self.rules.send_replace(Arc::new(Rules::of(&self.state)));
    }

    fn index_schemas(&mut self) {
        let mut schemas = BTreeMap::new();
        for (name, schema) in self.state.of_kind(Kind::Schema) {
            for version in view::schema_status(schema).versions {
                let (schema, id, version) = (name.to_string(), version.id, version.version);
                schemas.insert(id, v1::SchemaRef { id, schema, version });
            }
        }
        self.schemas = Arc::new(schemas);
    }
}

impl Machine for CatalogMachine {
    fn apply(&mut self, entry: &Applied<'_>) -> Answer {
        if self.broken.borrow().is_some() {
            return Answer(Bytes::new());
        }
        match self.state.apply(entry.payload, Timestamp::from_micros(entry.time_micros)) {
            Ok((reply, change)) => {
                if let Some(change) = change {
                    let what = match &change.what {
                        Changed::Put(resource) | Changed::Deleted(resource) => Some(resource),
                        Changed::Node | Changed::Access => None,
                    };
                    let is_rule = |resource: &v1::Resource| {
                        [Kind::Grant, Kind::Limit].iter().any(|kind| resource.kind == kind.as_str())
                    };
                    if change.what == Changed::Access || what.is_some_and(|what| is_rule(what)) {
                        self.compile_rules();
                    }
                    if what.is_some_and(|resource| resource.kind == Kind::Schema.as_str()) {
                        self.index_schemas();
                    }
                    self.generation.send_replace(change.generation);
                    // Nobody may be watching.
                    _ = self.changes.send(change);
                }
                Answer(reply.encode())
            }
            // Skipping it would let this replica differ from the others.
            Err(unreadable) => {
                let message =
                    format!("catalog: entry {} cannot be applied: {unreadable}", entry.index);
                error!(index = entry.index, "{message}");
                self.broken.send_replace(Some(message));
                Answer(Bytes::new())
            }
        }
    }

    fn checkpoint(&self) -> Bytes {
        self.state.encode()
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Unreadable> {
        self.state = match state {
            Some(bytes) => State::decode(bytes).map_err(Unreadable)?,
            None => State::new(self.state.data_groups()),
        };
        self.index_schemas();
        self.compile_rules();
        self.generation.send_replace(self.state.generation());
        Ok(())
    }
}

/// Where a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its number within the stream.
    pub partition: PartitionId,
    /// Its identity in the cluster.
    pub uid: PartitionUid,
    /// Where its dead letters are, in the same group.
    pub dead: PartitionUid,
    /// Where its events wait whose time has not come, in the same group.
    pub delayed: PartitionUid,
    /// The group that carries it.
    pub group: GroupId,
}

/// A stream as the catalog has it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "settings of the stream, as written")]
pub struct StreamView {
    /// Its name.
    pub name: QualifiedName,
    /// Its identity.
    pub uid: ResourceUid,
    /// Changes with its spec.
    pub generation: u64,
    /// Largest event.
    pub event_bytes_max: usize,
    /// Whether repeats of an event are recognised by source and id.
    pub dedup: bool,
    /// Whether the last offset of each subject is kept.
    pub subject_index: bool,
    /// Where its partitions are.
    pub placements: Arc<[Placement]>,
    /// Which schema governs what.
    pub bindings: Arc<[resource::BindingSpec]>,
}

impl StreamView {
    fn of(name: &QualifiedName, stored: &v1::Resource) -> Self {
        let spec = view::stream_spec(stored);
        let placements =
            view::stream_status(stored).placements.into_iter().map(|placed| Placement {
                partition: PartitionId(placed.partition),
                uid: PartitionUid(placed.uid),
                dead: PartitionUid(placed.dead),
                delayed: PartitionUid(placed.delayed),
                group: GroupId(placed.group),
            });
        Self {
            name: name.clone(),
            uid: ResourceUid(stored.uid),
            generation: stored.generation,
            event_bytes_max: usize::try_from(spec.event_bytes_max).unwrap_or(usize::MAX),
            dedup: spec.dedup,
            subject_index: spec.subject_index,
            placements: placements.collect(),
            bindings: spec.schemas.into(),
        }
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.placements.len()).unwrap_or(u32::MAX)
    }

    /// Where a partition is.
    ///
    /// # Errors
    ///
    /// `Invalid` when the stream has no such partition.
    pub fn placement(&self, partition: PartitionId) -> Result<Placement> {
        let found = usize::try_from(partition.get()).ok().and_then(|at| self.placements.get(at));
        found.copied().ok_or_else(|| {
            let message = format!(
                "the stream {} has {} partitions; there is no partition {partition}",
                self.name,
                self.partitions()
            );
            Error::invalid(message).with_field("partition")
        })
    }
}

/// A subscription as the catalog has it.
#[derive(Clone, Debug)]
pub struct SubscriptionView {
    /// Its name.
    pub name: QualifiedName,
    /// Its identity.
    pub uid: ResourceUid,
    /// What it reads.
    pub stream: StreamView,
    /// Which events.
    pub filters: Compiled,
    /// Where a new cursor begins.
    pub start: SubscriptionStart,
    /// Who gets what.
    pub mode: SubscriptionMode,
}

/// Where a new cursor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionStart {
    /// With the first stored event.
    Earliest,
    /// At this offset.
    Offset(Offset),
    /// With the first event appended at or after this instant.
    Time(Timestamp),
}

/// The catalog on this node; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Resources {
    node: NodeId,
    raft: Group,
    machine: Arc<Mutex<CatalogMachine>>,
    generation: watch::Receiver<u64>,
    /// Generation of the catalog when this node first reached its leader. Before it is known here,
    /// what this node does not know may exist all the same.
    start: Arc<OnceLock<u64>>,
    forwarder: Forwarder,
}

impl Resources {
    /// Puts the parts together.
    pub fn new(
        node: NodeId,
        raft: Group,
        machine: Arc<Mutex<CatalogMachine>>,
        forwarder: Forwarder,
    ) -> Self {
        let generation = lock(&machine).generation.subscribe();
        Self { node, raft, machine, generation, start: Arc::default(), forwarder }
    }

    /// The catalog as it is now on this node.
    pub fn snapshot(&self) -> State {
        lock(&self.machine).state.clone()
    }

    /// The catalog as it is now, and every change after it, without gap.
    pub fn watch(&self) -> (State, broadcast::Receiver<Change>) {
        let machine = lock(&self.machine);
        (machine.state.clone(), machine.changes.subscribe())
    }

    /// Changes with every change of the catalog.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }

    /// Waits until this node knows the catalog of a generation.
    ///
    /// # Errors
    ///
    /// `Unavailable` when it does not within 2 s.
    pub async fn wait_for(&self, generation: u64) -> Result<()> {
        if *self.generation.borrow() >= generation {
            return Ok(());
        }
        let mut known = self.generation.clone();
        let late = || {
            Error::unavailable(format!(
                "this node does not know generation {generation} of the catalog yet"
            ))
            .with_not_applied()
            .with_retry_after(Duration::from_millis(200))
        };
        let reached = known.wait_for(|known| *known >= generation);
        match tokio::time::timeout(GENERATION_PATIENCE, reached).await {
            Ok(Ok(_reached)) => Ok(()),
            Ok(Err(_closed)) => Err(late()),
            Err(_elapsed) => Err(late()),
        }
    }

    /// A stream by the name that a caller wrote.
    ///
    /// # Errors
    ///
    /// `Invalid` for what is no name, `NotFound` for what is no stream.
    pub fn stream_named(&self, text: &str) -> Result<StreamView> {
        let name = parse_name(text, "stream")?;
        let machine = lock(&self.machine);
        let found = machine.state.get(Kind::Stream, &name);
        let found = found.map(|stored| StreamView::of(&name, stored));
        drop(machine);
        found.ok_or_else(|| self.missing(unknown_stream(&name)))
    }

    /// A stream that another node has resolved; waits a while if this node lags behind.
    pub async fn stream_by_uid(&self, name: &QualifiedName, uid: u64) -> Result<StreamView> {
        let find = || {
            let machine = lock(&self.machine);
            let stored = machine.state.get(Kind::Stream, name).filter(|stored| stored.uid == uid);
            stored.map(|stored| StreamView::of(name, stored))
        };
        let mut known = self.generation.clone();
        known.mark_unchanged();
        let until = tokio::time::Instant::now() + GENERATION_PATIENCE;
        loop {
            // Never within `wait_for`: its closure runs under the lock of the watch, which applying
            // takes while it holds the catalog. Each would wait for the other.
            if let Some(stream) = find() {
                return Ok(stream);
            }
            let changed = tokio::time::timeout_at(until, known.changed()).await;
            if !changed.is_ok_and(|changed| changed.is_ok()) {
                return Err(self.missing(unknown_stream(name)));
            }
        }
    }

    /// The error for something that this node does not know: while it starts, it cannot tell.
    pub(crate) fn missing(&self, error: Error) -> Error {
        let known = *self.generation.borrow();
        if self.start.get().is_some_and(|start| known >= *start) {
            return error;
        }
        Error::unavailable(format!("this node is still starting: {error}, as far as it knows"))
            .with_not_applied()
            .with_retry_after(Duration::from_millis(200))
    }

    /// A subscription by the name that a caller wrote.
    ///
    /// # Errors
    ///
    /// As for streams.
    pub fn subscription_named(&self, text: &str) -> Result<SubscriptionView> {
        let name = parse_name(text, "subscription")?;
        let machine = lock(&self.machine);
        let Some(stored) = machine.state.get(Kind::Subscription, &name) else {
            let message = format!("there is no Subscription {name}");
            return Err(self.missing(Error::new(Reason::UnknownResource, message)));
        };
        let spec: SubscriptionSpec = resource::parse(Kind::Subscription, &stored.spec)?;
        let stream = parse_name(&spec.stream, "stream")?;
        let found = machine.state.get(Kind::Stream, &stream);
        let found = found.map(|stored| StreamView::of(&stream, stored));
        let created = stored.created.and_then(|time| Timestamp::try_from(time).ok());
        let start = match spec.start {
            Start::Earliest => SubscriptionStart::Earliest,
            Start::Offset(offset) => SubscriptionStart::Offset(Offset(offset)),
            // What was appended after the subscription was made belongs to it, even if nobody
            // joined it by then.
            Start::Latest => SubscriptionStart::Time(created.unwrap_or_default()),
            Start::Time(text) => SubscriptionStart::Time(
                text.parse()
                    .map_err(|error| Error::internal("a stored time is none").with_source(error))?,
            ),
        };
        let uid = ResourceUid(stored.uid);
        // Compiling takes its time, and the catalog must go on.
        drop(machine);
        Ok(SubscriptionView {
            name,
            uid,
            stream: found.ok_or_else(|| unknown_stream(&stream))?,
            filters: Compiled::new(&spec.filters)?,
            start,
            mode: spec.mode,
        })
    }

    /// A subscription as the catalog has it now.
    ///
    /// # Errors
    ///
    /// `NotFound` when it is gone, or another one has its name.
    pub fn subscription_entry(
        &self,
        view: &SubscriptionView,
    ) -> Result<Arc<catalog::Subscription>> {
        let machine = lock(&self.machine);
        let found = machine.state.subscription(&view.name).filter(|found| found.uid == view.uid);
        found
            .cloned()
            .ok_or_else(|| Error::new(Reason::UnknownResource, "the subscription was deleted"))
    }

    /// A replay job.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is none.
    pub fn replay_job(&self, name: &QualifiedName) -> Result<catalog::ReplayJob> {
        let machine = lock(&self.machine);
        let Some(stored) = machine.state.get(Kind::ReplayJob, name) else {
            let message = format!("there is no ReplayJob {name}");
            return Err(self.missing(Error::new(Reason::UnknownResource, message)));
        };
        let spec = resource::parse(Kind::ReplayJob, &stored.spec)?;
        Ok(catalog::ReplayJob { uid: ResourceUid(stored.uid), name: name.clone(), spec })
    }

    /// The replay jobs of a subscription.
    pub fn replay_jobs(&self, subscription: ResourceUid) -> Vec<Arc<catalog::ReplayJob>> {
        lock(&self.machine).state.replay_jobs(subscription).cloned().collect()
    }

    /// Whether a subscription still exists.
    ///
    /// # Errors
    ///
    /// `NotFound` when it does not.
    pub fn subscription_by_uid(&self, uid: ResourceUid) -> Result<()> {
        let machine = lock(&self.machine);
        let exists =
            machine.state.of_kind(Kind::Subscription).any(|(_, stored)| stored.uid == uid.get());
        if exists {
            return Ok(());
        }
        Err(Error::new(Reason::UnknownResource, "the subscription was deleted"))
    }

    /// A schema version as callers see it; nothing for 0.
    pub fn schema_ref(&self, id: SchemaId) -> Option<v1::SchemaRef> {
        if id == SchemaId(0) {
            return None;
        }
        let schemas = Arc::clone(&lock(&self.machine).schemas);
        let deleted = || v1::SchemaRef { id: id.get(), ..v1::SchemaRef::default() };
        Some(schemas.get(&id.get()).cloned().unwrap_or_else(deleted))
    }

    /// Changes the catalog, wherever its leader is. Whoever asks this node next finds the change.
    ///
    /// # Errors
    ///
    /// What the catalog refuses, or `Unavailable`.
    pub async fn change(
        &self,
        caller: &Principal,
        change: internal::catalog_command::Change,
    ) -> Result<Reply> {
        let principal = caller.name().to_owned();
        let command = internal::CatalogCommand { change: Some(change), principal };
        let payload = catalog::encode(&command, clock::now());
        let reply = match self.leader().await? {
            leader if leader == self.node => self.propose_here(payload).await?,
            leader => self.forwarder.catalog(leader, caller, payload).await?,
        };
        let reply = Reply::decode(&reply)?;
        self.start.get_or_init(|| reply.generation);
        // If this node lags for longer than this waits, the change counts all the same.
        _ = self.wait_for(reply.generation).await;
        Ok(reply)
    }

    /// Proposes an encoded change to the catalog's group, which this node must lead.
    pub(crate) async fn propose_here(&self, payload: Bytes) -> Result<Bytes> {
        let failed = |error: &ProposeError| match error {
            ProposeError::NotLeader { .. } => {
                Error::unavailable("this node does not lead the catalog")
                    .with_not_applied()
                    .with_retry_after(Duration::from_millis(200))
            }
            ProposeError::Unknown | ProposeError::Fatal => {
                Error::unavailable("the catalog's leader changed meanwhile; the fate is unknown")
            }
        };
        let proposed = async {
            let pending = self.raft.propose(payload).await.map_err(|error| failed(&error))?;
            let (_, reply) = pending.await.map_err(|error| failed(&error))?;
            Ok(reply.0)
        };
        match tokio::time::timeout(PROPOSE_PATIENCE, proposed).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Error::new(
                Reason::DeadlineExceeded,
                "no majority answered in time; the fate of the change is unknown",
            )),
        }
    }

    async fn leader(&self) -> Result<NodeId> {
        let mut leadership = self.raft.leader_watch();
        let none = || {
            Error::unavailable("the catalog has no leader at present")
                .with_not_applied()
                .with_retry_after(Duration::from_millis(500))
        };
        let wanted = leadership.wait_for(|now| now.leader.is_some());
        let found = tokio::time::timeout(Duration::from_secs(3), wanted).await;
        let found = found.map_err(|_elapsed| none())?.map_err(|_closed| none())?;
        found.leader.ok_or_else(none)
    }
}

impl Resources {
    /// The places for delayed events in a group.
    pub(crate) fn delays_of(&self, group: GroupId) -> Vec<delay::Waiting> {
        let state = self.snapshot();
        let streams = state.of_kind(Kind::Stream);
        streams
            .flat_map(|(name, stored)| {
                let stream = StreamView::of(name, stored);
                let own: Vec<_> = stream.placements.iter().copied().collect();
                own.into_iter().map(move |placement| delay::Waiting {
                    stream: stream.uid,
                    subject_index: stream.subject_index,
                    placement,
                })
            })
            .filter(|waiting| waiting.placement.group == group)
            .collect()
    }
}

fn parse_name(text: &str, field: &str) -> Result<QualifiedName> {
    text.parse()
        .map_err(|error: weft_proto::NameError| Error::invalid(error.to_string()).with_field(field))
}

fn unknown_stream(name: &QualifiedName) -> Error {
    Error::new(Reason::UnknownStream, format!("there is no Stream {name}")).with_field("stream")
}

impl Policies for Resources {
    fn policies_of(&self, group: GroupId) -> Vec<Policy> {
        let state = self.snapshot();
        let own = state.partitions().filter(|(_, placed)| placed.group == group);
        own.filter_map(|(name, placed)| {
            let spec = &state.stream(name)?.spec;
            let (own, dead) = (spec.retention.clone(), spec.dead_letter_retention());
            let own = Policy { partition: placed.uid, retention: own };
            Some([own, Policy { partition: placed.dead, retention: dead }])
        })
        .flatten()
        .collect()
    }
}

impl Directory for Resources {
    fn partitions_of(&self, group: GroupId) -> Vec<PartitionUid> {
        let state = self.snapshot();
        let placed = state
            .of_kind(Kind::Stream)
            .flat_map(|(_, stored)| view::stream_status(stored).placements);
        placed
            .filter(|place| place.group == group.get())
            .flat_map(|place| [place.uid, place.dead, place.delayed].map(PartitionUid))
            .collect()
    }

    fn partition_uids_end(&self) -> PartitionUid {
        lock(&self.machine).state.partition_uids_end()
    }

    fn cursor_owners(&self) -> Vec<ResourceUid> {
        let state = self.snapshot();
        // Streams have one on their own delayed events.
        let kinds = [Kind::Subscription, Kind::Stream, Kind::ReplayJob];
        let owners = kinds.into_iter().flat_map(|kind| state.of_kind(kind));
        owners.map(|(_, stored)| ResourceUid(stored.uid)).collect()
    }

    fn resource_uids_end(&self) -> ResourceUid {
        lock(&self.machine).state.resource_uids_end()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }
}
