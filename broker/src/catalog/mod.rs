//! The catalog: versioned resources, and what the cluster keeps about them.
//!
//! A pure function of the catalog's log. Owns: [`State`]. Never: reads a clock, compiles a schema,
//! or fails, except on an entry that this release cannot read, at which the node stops.

mod checkpoint;
mod command;
mod rules;
#[cfg(test)]
mod tests;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use command::{EntryError, KIND, Reply, decode, encode};
use weft_proto::resource::{self, Kind, PlacementStatus, SchemaStatus, SchemaVersion, StreamStatus};
use weft_proto::{Error, QualifiedName, Reason, Timestamp, internal, v1};

/// Resources by kind and name.
pub type Resources = BTreeMap<(Kind, QualifiedName), Arc<v1::Resource>>;

/// The catalog. Cloning it is cheap: resources are shared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    generation: u64,
    next_resource_uid: u64,
    next_partition_uid: u64,
    next_schema_id: u32,
    data_groups: u32,
    time: Timestamp,
    resources: Resources,
    nodes: BTreeMap<u64, internal::CatalogNode>,
}

/// What a change did, for those who watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Generation of the catalog after it.
    pub generation: u64,
    /// What.
    pub what: Changed,
}

/// A changed resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// As it is now.
    Put(Arc<v1::Resource>),
    /// As it was.
    Deleted(Arc<v1::Resource>),
    /// Nodes are no resources; only the generation rose.
    Node,
}

type Outcome = Result<(Option<Arc<v1::Resource>>, v1::Change, Option<Changed>), Error>;

impl State {
    /// An empty catalog of a cluster with so many data groups.
    pub fn new(data_groups: u32) -> Self {
        Self {
            next_resource_uid: 1,
            next_partition_uid: 1,
            next_schema_id: 1,
            data_groups: data_groups.max(1),
            ..Self::default()
        }
    }

    /// Applies the payload of one entry. `time` never goes back.
    ///
    /// # Errors
    ///
    /// An entry that this release cannot read. A refusal is a reply.
    pub fn apply(
        &mut self,
        payload: &[u8],
        time: Timestamp,
    ) -> Result<(Reply, Option<Change>), EntryError> {
        use internal::catalog_command::Change as Wanted;
        let command = decode(payload)?;
        self.time = self.time.max(time);
        let outcome = match command.change {
            Some(Wanted::Put(put)) => self.put(put),
            Some(Wanted::Delete(delete)) => self.delete(&delete),
            Some(Wanted::SetStatus(status)) => self.set_status(&status),
            Some(Wanted::Node(node)) => Ok(self.register(node)),
            None => return Err(EntryError::UnknownCommand),
        };
        Ok(match outcome {
            Ok((resource, change, changed)) => {
                let changed = changed.map(|what| {
                    self.generation += 1;
                    what
                });
                let generation = self.generation;
                // The resource tells the generation at which its spec changed, which is this one.
                let (resource, changed) = self.stamp(resource, change, changed);
                let change_event = changed.map(|what| Change { generation, what });
                (Reply { generation, outcome: Ok(resource), change }, change_event)
            }
            Err(error) => {
                let refused = Reply {
                    generation: self.generation,
                    outcome: Err(error.to_refusal()),
                    change: v1::Change::Unspecified,
                };
                (refused, None)
            }
        })
    }

    fn stamp(
        &mut self,
        resource: Option<Arc<v1::Resource>>,
        change: v1::Change,
        changed: Option<Changed>,
    ) -> (Option<Arc<v1::Resource>>, Option<Changed>) {
        let specs_changed = matches!(change, v1::Change::Created | v1::Change::Updated);
        let (Some(resource), Some(Changed::Put(_)), true) = (&resource, &changed, specs_changed) else {
            return (resource, changed);
        };
        let mut stamped = v1::Resource::clone(resource);
        stamped.generation = self.generation;
        let stamped = Arc::new(stamped);
        if let Ok((kind, name)) = resource::identify(&stamped) {
            self.resources.insert((kind, name), Arc::clone(&stamped));
        }
        (Some(Arc::clone(&stamped)), Some(Changed::Put(stamped)))
    }

    fn put(&mut self, put: internal::CatalogPut) -> Outcome {
        let new = put.resource.unwrap_or_default();
        resource::check(&new)?;
        let (kind, name) = resource::identify(&new)?;
        let key = (kind, name);
        let old = self.resources.get(&key).cloned();
        expect(kind, &key.1, old.as_deref(), put.expected_generation)?;
        self.check_references(kind, &key.1, &new, old.as_deref())?;
        if let Some(old) = &old
            && is_same(kind, old, &new)
        {
            return Ok((Some(Arc::clone(old)), v1::Change::Unchanged, None));
        }
        let change = if old.is_some() { v1::Change::Updated } else { v1::Change::Created };
        let uid = old.as_ref().map_or(self.next_resource_uid, |old| old.uid);
        if old.is_none() {
            self.next_resource_uid += 1;
        }
        let status = self.status_of(kind, &new, old.as_deref())?;
        let stored = Arc::new(v1::Resource {
            kind: kind.as_str().to_owned(),
            namespace: key.1.namespace.to_string(),
            name: key.1.name.to_string(),
            uid,
            generation: 0,
            labels: new.labels,
            spec: new.spec,
            status: status.into(),
            created: old.as_ref().map_or(Some(self.time.into()), |old| old.created),
            updated: Some(self.time.into()),
        });
        self.resources.insert(key, Arc::clone(&stored));
        Ok((Some(Arc::clone(&stored)), change, Some(Changed::Put(stored))))
    }

    /// What the cluster itself keeps beside a spec.
    fn status_of(
        &mut self,
        kind: Kind,
        new: &v1::Resource,
        old: Option<&v1::Resource>,
    ) -> Result<Vec<u8>, Error> {
        let written = |error| Error::internal("a status cannot be written").with_source(error);
        match (kind, old) {
            (Kind::Stream, None) => {
                let spec: resource::StreamSpec = resource::parse(kind, &new.spec)?;
                let placements = (0..spec.partitions).map(|partition| self.place(partition)).collect();
                serde_json::to_vec(&StreamStatus { placements }).map_err(written)
            }
            (Kind::Schema, _) => {
                let spec: resource::SchemaSpec = resource::parse(kind, &new.spec)?;
                let mut status = old.map(view::schema_status).unwrap_or_default();
                self.add_version(&spec, &mut status);
                serde_json::to_vec(&status).map_err(written)
            }
            (_, Some(old)) => Ok(old.status.to_vec()),
            (_, None) => Ok(b"{}".to_vec()),
        }
    }

    /// Spreads partitions over the data groups, in order of their uids.
    fn place(&mut self, partition: u32) -> PlacementStatus {
        let uid = self.next_partition_uid;
        self.next_partition_uid += 1;
        let group = u32::try_from(uid % u64::from(self.data_groups)).unwrap_or(0) + 1;
        PlacementStatus { partition, uid, group }
    }

    fn add_version(&mut self, spec: &resource::SchemaSpec, status: &mut SchemaStatus) {
        let hash = format!("{:016x}", spec.hash());
        // A document that comes back becomes the newest version again, under a number of its own:
        // `latest` must mean what was put last.
        if status.versions.last().is_some_and(|last| last.hash == hash) {
            return;
        }
        let version = status.versions.last().map_or(1, |last| last.version + 1);
        let id = self.next_schema_id;
        self.next_schema_id += 1;
        status.versions.push(SchemaVersion { version, id, hash, document: spec.document.clone() });
    }

    fn delete(&mut self, delete: &internal::CatalogDelete) -> Outcome {
        let (kind, name) = key_of(&delete.kind, &delete.namespace, &delete.name)?;
        let key = (kind, name);
        let Some(old) = self.resources.get(&key).cloned() else {
            return Err(unknown(kind, &key.1));
        };
        expect(kind, &key.1, Some(&old), delete.expected_generation)?;
        self.check_unused(kind, &key.1)?;
        self.resources.remove(&key);
        Ok((None, v1::Change::Updated, Some(Changed::Deleted(old))))
    }

    fn set_status(&mut self, wanted: &internal::CatalogSetStatus) -> Outcome {
        let (kind, name) = key_of(&wanted.kind, &wanted.namespace, &wanted.name)?;
        if !matches!(kind, Kind::Function) {
            let message = format!("the status of a {kind} is kept by the cluster itself");
            return Err(Error::invalid(message).with_field("kind"));
        }
        let key = (kind, name);
        let Some(old) = self.resources.get(&key).filter(|old| old.uid == wanted.uid).cloned() else {
            return Err(unknown(kind, &key.1));
        };
        let is_status =
            serde_json::from_slice::<resource::FunctionStatus>(&wanted.status).is_ok();
        if !is_status || wanted.status.len() > resource::SPEC_BYTES_MAX {
            return Err(Error::invalid("the status is no FunctionStatus").with_field("status"));
        }
        if old.status == wanted.status {
            return Ok((Some(old), v1::Change::Unchanged, None));
        }
        let stored = Arc::new(v1::Resource {
            status: wanted.status.clone(),
            updated: Some(self.time.into()),
            ..v1::Resource::clone(&old)
        });
        self.resources.insert(key, Arc::clone(&stored));
        // A status is no change of the resource: `stamp` leaves the generation alone.
        Ok((Some(Arc::clone(&stored)), v1::Change::Unchanged, Some(Changed::Put(stored))))
    }

    fn register(&mut self, node: internal::CatalogNode) -> (Option<Arc<v1::Resource>>, v1::Change, Option<Changed>) {
        if self.nodes.get(&node.id) == Some(&node) {
            return (None, v1::Change::Unchanged, None);
        }
        self.nodes.insert(node.id, node);
        (None, v1::Change::Updated, Some(Changed::Node))
    }
}

fn key_of(kind: &str, namespace: &str, name: &str) -> Result<(Kind, QualifiedName), Error> {
    let named = v1::Resource {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..v1::Resource::default()
    };
    resource::identify(&named)
}

fn unknown(kind: Kind, name: &QualifiedName) -> Error {
    let reason =
        if kind == Kind::Stream { Reason::UnknownStream } else { Reason::UnknownResource };
    Error::new(reason, format!("there is no {kind} {name}"))
}

/// Compare-and-set; 0 means that the resource must not exist.
fn expect(
    kind: Kind,
    name: &QualifiedName,
    old: Option<&v1::Resource>,
    expected: Option<u64>,
) -> Result<(), Error> {
    let Some(expected) = expected else { return Ok(()) };
    match old {
        Some(_) if expected == 0 => {
            Err(Error::new(Reason::AlreadyExists, format!("the {kind} {name} exists already")))
        }
        Some(old) if old.generation != expected => {
            let message = format!(
                "the {kind} {name} has generation {}, not {expected}: somebody changed it",
                old.generation
            );
            Err(Error::new(Reason::FailedPrecondition, message))
        }
        None if expected != 0 => Err(unknown(kind, name)),
        Some(_) | None => Ok(()),
    }
}

/// Same labels, and a spec of the same meaning.
fn is_same(kind: Kind, old: &v1::Resource, new: &v1::Resource) -> bool {
    fn equal<T: serde::de::DeserializeOwned + PartialEq>(kind: Kind, old: &[u8], new: &[u8]) -> bool {
        let (old, new) = (resource::parse::<T>(kind, old), resource::parse::<T>(kind, new));
        matches!((old, new), (Ok(old), Ok(new)) if old == new)
    }
    if old.labels != new.labels {
        return false;
    }
    match kind {
        Kind::Stream => equal::<resource::StreamSpec>(kind, &old.spec, &new.spec),
        Kind::Subscription => equal::<resource::SubscriptionSpec>(kind, &old.spec, &new.spec),
        Kind::Function => equal::<resource::FunctionSpec>(kind, &old.spec, &new.spec),
        Kind::Schema => {
            let hash = |bytes: &[u8]| {
                resource::parse::<resource::SchemaSpec>(kind, bytes).ok().map(|spec| spec.hash())
            };
            hash(&old.spec) == hash(&new.spec)
        }
    }
}
