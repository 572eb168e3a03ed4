//! What is looked up often, already read from its JSON.
//!
//! Follows from the resources alone, so no checkpoint carries it.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_proto::resource::{
    self, Kind, ReplayJobSpec, SchemaStatus, StreamSpec, StreamStatus, SubscriptionSpec,
};
use weft_proto::{
    Error, GroupId, NameError, PartitionId, PartitionUid, QualifiedName, ResourceUid, SchemaId, v1,
};

/// Where one partition is.
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

/// A stream: what it is and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its identity.
    pub uid: ResourceUid,
    /// What it is.
    pub spec: StreamSpec,
    /// One for each partition, in order.
    pub placements: Vec<Placement>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its identity; the cursor belongs to it.
    pub uid: ResourceUid,
    /// The stream it reads.
    pub stream: QualifiedName,
    /// What it is.
    pub spec: SubscriptionSpec,
}

/// A replay job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayJob {
    /// Its identity; the shadow cursor belongs to it.
    pub uid: ResourceUid,
    /// Its name.
    pub name: QualifiedName,
    /// What it is.
    pub spec: ReplayJobSpec,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    pub(super) streams: BTreeMap<QualifiedName, Arc<Stream>>,
    pub(super) subscriptions: BTreeMap<QualifiedName, Arc<Subscription>>,
    /// By the uid of their target.
    pub(super) replay_jobs: BTreeMap<ResourceUid, BTreeMap<QualifiedName, Arc<ReplayJob>>>,
    pub(super) schema_versions: BTreeMap<SchemaId, (QualifiedName, u32)>,
}

impl Index {
    /// Takes in a resource; on an error nothing changed.
    pub(super) fn put(
        &mut self,
        kind: Kind,
        name: &QualifiedName,
        stored: &v1::Resource,
    ) -> Result<(), Error> {
        let uid = ResourceUid(stored.uid);
        match kind {
            Kind::Stream => {
                let spec = resource::parse(kind, &stored.spec)?;
                let status: StreamStatus = status(stored)?;
                let placements = status.placements.into_iter().map(|placement| Placement {
                    partition: PartitionId(placement.partition),
                    uid: PartitionUid(placement.uid),
                    dead: PartitionUid(placement.dead),
                    delayed: PartitionUid(placement.delayed),
                    group: GroupId(placement.group),
                });
                let placements = placements.collect();
                self.streams.insert(name.clone(), Arc::new(Stream { uid, spec, placements }));
            }
            Kind::Subscription => {
                let spec: SubscriptionSpec = resource::parse(kind, &stored.spec)?;
                let stream = spec
                    .stream
                    .parse()
                    .map_err(|error: NameError| Error::invalid(error.to_string()))?;
                let subscription = Subscription { uid, stream, spec };
                self.subscriptions.insert(name.clone(), Arc::new(subscription));
            }
            Kind::Schema => {
                let status: SchemaStatus = status(stored)?;
                for version in status.versions {
                    let found = (name.clone(), version.version);
                    self.schema_versions.insert(SchemaId(version.id), found);
                }
            }
            Kind::ReplayJob => {
                let spec: ReplayJobSpec = resource::parse(kind, &stored.spec)?;
                let target = spec.resolved.as_ref().map_or(0, |range| range.target_uid);
                let job = ReplayJob { uid, name: name.clone(), spec };
                let jobs = self.replay_jobs.entry(ResourceUid(target)).or_default();
                jobs.insert(name.clone(), Arc::new(job));
            }
            Kind::Function | Kind::Webhook | Kind::Grant | Kind::Limit | Kind::ContainerPolicy => {}
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, kind: Kind, name: &QualifiedName) {
        match kind {
            Kind::Stream => drop(self.streams.remove(name)),
            Kind::Subscription => drop(self.subscriptions.remove(name)),
            Kind::Schema => self.schema_versions.retain(|_, (schema, _)| schema != name),
            Kind::ReplayJob => self.replay_jobs.retain(|_, jobs| {
                jobs.remove(name);
                !jobs.is_empty()
            }),
            Kind::Function | Kind::Webhook | Kind::Grant | Kind::Limit | Kind::ContainerPolicy => {}
        }
    }
}

fn status<T: serde::de::DeserializeOwned>(stored: &v1::Resource) -> Result<T, Error> {
    serde_json::from_slice(&stored.status).map_err(|error| {
        let message = format!("the status of the {} {} cannot be read", stored.kind, stored.name);
        Error::internal(message).with_source(error)
    })
}
