//! Looking at the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_proto::resource::{self, Kind, SchemaStatus, StreamStatus};
use weft_proto::{PartitionUid, QualifiedName, ResourceUid, SchemaId, Timestamp, internal, v1};

use super::{Placement, ReplayJob, Resources, State, Stream, Subscription};

impl State {
    /// Rises with each change of anything.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of data groups of the cluster.
    pub fn data_groups(&self) -> u32 {
        self.data_groups
    }

    /// Log time of the newest change.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// All resources.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// One resource.
    pub fn get(&self, kind: Kind, name: &QualifiedName) -> Option<&Arc<v1::Resource>> {
        self.resources.get(&(kind, name.clone()))
    }

    /// Resources of one kind, by name.
    pub fn of_kind(
        &self,
        kind: Kind,
    ) -> impl Iterator<Item = (&QualifiedName, &Arc<v1::Resource>)> {
        self.resources
            .iter()
            .filter(move |((other, _), _)| *other == kind)
            .map(|((_, name), resource)| (name, resource))
    }

    /// A stream.
    pub fn stream(&self, name: &QualifiedName) -> Option<&Arc<Stream>> {
        self.index.streams.get(name)
    }

    /// A subscription.
    pub fn subscription(&self, name: &QualifiedName) -> Option<&Arc<Subscription>> {
        self.index.subscriptions.get(name)
    }

    /// The replay jobs of a target, by name.
    pub fn replay_jobs(&self, target: ResourceUid) -> impl Iterator<Item = &Arc<ReplayJob>> {
        self.index.replay_jobs.get(&target).into_iter().flat_map(BTreeMap::values)
    }

    /// All partitions of all streams.
    pub fn partitions(&self) -> impl Iterator<Item = (&QualifiedName, Placement)> {
        let of = |(name, stream)| {
            let stream: &Arc<Stream> = stream;
            stream.placements.iter().map(move |placement| (name, *placement))
        };
        self.index.streams.iter().flat_map(of)
    }

    /// Name and version of the schema with this number; nothing when it was deleted since.
    pub fn schema_by_id(&self, id: SchemaId) -> Option<(&QualifiedName, u32)> {
        self.index.schema_versions.get(&id).map(|(name, version)| (name, *version))
    }

    /// Where nodes can be reached.
    pub fn nodes(&self) -> impl Iterator<Item = &internal::CatalogNode> {
        self.nodes.values()
    }

    /// Every resource below was made already; a missing one is gone.
    pub fn resource_uids_end(&self) -> ResourceUid {
        ResourceUid(self.next_resource_uid)
    }

    /// Every partition below was made already; a missing one is gone.
    pub fn partition_uids_end(&self) -> PartitionUid {
        PartitionUid(self.next_partition_uid)
    }
}

/// The versions of a schema.
pub fn schema_status(schema: &v1::Resource) -> SchemaStatus {
    // The catalog itself wrote it.
    serde_json::from_slice(&schema.status).unwrap_or_default()
}

/// Where a stream is.
pub fn stream_status(stream: &v1::Resource) -> StreamStatus {
    serde_json::from_slice(&stream.status).unwrap_or_default()
}

/// What a stream is.
pub fn stream_spec(stream: &v1::Resource) -> resource::StreamSpec {
    resource::parse(Kind::Stream, &stream.spec).unwrap_or_default()
}
