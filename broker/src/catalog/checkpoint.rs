//! The whole catalog as bytes: deterministic, so that equal states have equal checkpoints.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use weft_proto::{Timestamp, internal, resource};
use xxhash_rust::xxh3::xxh3_64;

use super::State;

const FORMAT: u32 = 0;

impl State {
    /// The bytes of the state.
    pub fn encode(&self) -> Bytes {
        let resources = self.resources.values().map(|stored| (**stored).clone()).collect();
        let state = internal::CatalogState {
            format: FORMAT,
            generation: self.generation,
            next_resource_uid: self.next_resource_uid,
            next_partition_uid: self.next_partition_uid,
            next_schema_id: self.next_schema_id,
            data_groups: self.data_groups,
            resources,
            nodes: self.nodes.values().cloned().collect(),
            time_us: self.time.as_micros(),
            keys: self.keys.values().cloned().collect(),
            key_secret: self.key_secret.clone(),
        };
        state.encode_to_vec().into()
    }

    /// Reads a state.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let state = internal::CatalogState::decode(bytes).map_err(|error| error.to_string())?;
        if state.format != FORMAT {
            return Err(format!("it has format {}, this release reads format 0", state.format));
        }
        let mut resources = super::Resources::new();
        let mut index = super::index::Index::default();
        for stored in state.resources {
            let key = resource::identify(&stored).map_err(|error| error.to_string())?;
            index.put(key.0, &key.1, &stored).map_err(|error| error.to_string())?;
            resources.insert(key, Arc::new(stored));
        }
        Ok(Self {
            generation: state.generation,
            next_resource_uid: state.next_resource_uid,
            next_partition_uid: state.next_partition_uid,
            next_schema_id: state.next_schema_id,
            data_groups: state.data_groups,
            time: Timestamp::from_micros(state.time_us),
            resources,
            nodes: state.nodes.into_iter().map(|node| (node.id, node)).collect(),
            keys: state.keys.into_iter().map(|key| (key.id.clone(), key)).collect(),
            key_secret: state.key_secret,
            index,
        })
    }

    /// Equal on all replicas that applied the same entries.
    pub fn state_hash(&self) -> u64 {
        xxh3_64(&self.encode())
    }
}
