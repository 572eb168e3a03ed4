//! Looking at the catalog.

use std::sync::Arc;

use weft_proto::resource::{self, Kind, SchemaStatus, StreamStatus};
use weft_proto::{PartitionUid, QualifiedName, ResourceUid, Timestamp, internal, v1};

use super::{Resources, State};

impl State {
    /// Rises with each change of anything.
    pub fn generation(&self) -> u64 {
        self.generation
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
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&QualifiedName, &Arc<v1::Resource>)> {
        self.resources
            .iter()
            .filter(move |((other, _), _)| *other == kind)
            .map(|((_, name), resource)| (name, resource))
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
