//! The catalog: versioned resources, and what the cluster keeps about them.
//!
//! A pure function of the catalog's log. Owns: [`State`]. Never: reads a clock, compiles a schema,
//! or fails, except on an entry that this release cannot read, at which the node stops.
//!
//! Watching needs nothing here: a copy of the state and every later [`Change`] leave no gap, and
//! their generations follow each other by one. A dry run is an `apply` on a copy.

mod checkpoint;
mod command;
mod index;
mod keys;
mod nodes;
mod policies;
mod quotas;
mod rules;
mod status;
#[cfg(test)]
mod tests;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

pub use command::{EntryError, KIND, Reply, decode, encode};
pub use index::{Placement, ReplayJob, Stream, Subscription};
use weft_proto::resource::{self, Kind};
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
    keys: BTreeMap<String, internal::CatalogKey>,
    key_secret: Bytes,
    index: index::Index,
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
    /// Neither are keys.
    Access,
}

/// What a command did.
struct Applied {
    resource: Option<Arc<v1::Resource>>,
    change: v1::Change,
    /// The generation rises exactly when this is there.
    changed: Option<Changed>,
    warnings: Vec<String>,
}

impl Applied {
    fn unchanged(resource: Option<Arc<v1::Resource>>) -> Self {
        Self { resource, change: v1::Change::Unchanged, changed: None, warnings: Vec::new() }
    }
}

type Outcome = Result<Applied, Error>;

impl State {
    /// An empty catalog of a cluster with so many data groups, numbered from 1.
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
        let command = decode(payload)?;
        let change = command.change.ok_or(EntryError::UnknownCommand)?;
        self.time = self.time.max(time);
        let outcome = match self.generation.checked_add(1) {
            Some(next) => self.apply_change(change, next),
            None => Err(Error::internal("the catalog has no generation left")),
        };
        Ok(match outcome {
            Ok(applied) => {
                self.generation += u64::from(applied.changed.is_some());
                let generation = self.generation;
                let reply = Reply {
                    generation,
                    outcome: Ok(applied.resource),
                    change: applied.change,
                    warnings: applied.warnings,
                };
                (reply, applied.changed.map(|what| Change { generation, what }))
            }
            Err(error) => {
                let reply = Reply {
                    generation: self.generation,
                    outcome: Err(error.to_refusal()),
                    change: v1::Change::Unspecified,
                    warnings: Vec::new(),
                };
                (reply, None)
            }
        })
    }

    fn apply_change(
        &mut self,
        change: internal::catalog_command::Change,
        generation: u64,
    ) -> Outcome {
        use internal::catalog_command::Change as Wanted;
        match change {
            Wanted::Put(put) => self.put(put, generation),
            Wanted::Delete(delete) => self.delete(&delete),
            Wanted::SetStatus(status) => self.set_status(&status),
            Wanted::Node(node) => self.register(node),
            Wanted::Admit(admit) => self.admit(admit),
            Wanted::Expel(expel) => self.expel(&expel),
            Wanted::Secure(secure) => self.secure(secure),
            Wanted::AddKey(add) => self.add_key(add.key),
            Wanted::RevokeKey(revoke) => self.revoke_key(&revoke),
        }
    }

    fn put(&mut self, put: internal::CatalogPut, generation: u64) -> Outcome {
        let new = put.resource.unwrap_or_default();
        resource::check(&new)?;
        let key = resource::identify(&new)?;
        let (kind, name) = (key.0, &key.1);
        let old = self.resources.get(&key).cloned();
        expect(kind, name, old.as_deref(), put.expected_generation)?;
        self.check_references(kind, name, &new, old.as_deref())?;
        self.check_quotas(kind, name, &new, old.as_deref())?;
        let warnings = rules::warnings(kind, &new)?;
        if let Some(old) = &old
            && is_same(kind, old, &new)?
        {
            return Ok(Applied { warnings, ..Applied::unchanged(Some(Arc::clone(old))) });
        }
        let status = self.status_of(kind, &new, old.as_deref())?;
        let (uid, created, change) = match &old {
            Some(old) => (old.uid, old.created, v1::Change::Updated),
            None => {
                (take(&mut self.next_resource_uid)?, Some(self.time.into()), v1::Change::Created)
            }
        };
        let stored = Arc::new(v1::Resource {
            kind: kind.as_str().to_owned(),
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            uid,
            generation,
            labels: new.labels,
            spec: new.spec,
            status: status.into(),
            created,
            updated: Some(self.time.into()),
        });
        self.index.put(kind, name, &stored)?;
        self.resources.insert(key, Arc::clone(&stored));
        let changed = Some(Changed::Put(Arc::clone(&stored)));
        Ok(Applied { resource: Some(stored), change, changed, warnings })
    }

    fn delete(&mut self, delete: &internal::CatalogDelete) -> Outcome {
        let key = key_of(&delete.kind, &delete.namespace, &delete.name)?;
        let Some(old) = self.resources.get(&key).cloned() else {
            return Err(unknown(key.0, &key.1));
        };
        expect(key.0, &key.1, Some(&old), delete.expected_generation)?;
        self.check_unused(key.0, &key.1)?;
        self.resources.remove(&key);
        self.index.remove(key.0, &key.1);
        let changed = Some(Changed::Deleted(old));
        Ok(Applied { change: v1::Change::Updated, changed, ..Applied::unchanged(None) })
    }

    fn set_status(&mut self, wanted: &internal::CatalogSetStatus) -> Outcome {
        let key = key_of(&wanted.kind, &wanted.namespace, &wanted.name)?;
        if !matches!(key.0, Kind::Function | Kind::Webhook) {
            let message = format!("the status of a {} is kept by the cluster itself", key.0);
            return Err(Error::invalid(message).with_field("kind"));
        }
        let Some(old) = self.resources.get(&key).filter(|old| old.uid == wanted.uid).cloned()
        else {
            return Err(unknown(key.0, &key.1));
        };
        status::check_reported(key.0, &wanted.status)?;
        if old.status == wanted.status {
            return Ok(Applied::unchanged(Some(old)));
        }
        let stored = Arc::new(v1::Resource {
            status: wanted.status.clone(),
            updated: Some(self.time.into()),
            ..v1::Resource::clone(&old)
        });
        self.resources.insert(key, Arc::clone(&stored));
        // The resource keeps its generation: its spec is the same.
        let changed = Some(Changed::Put(Arc::clone(&stored)));
        Ok(Applied { changed, ..Applied::unchanged(Some(stored)) })
    }
}

/// Takes a number that is never given again.
fn take(next: &mut u64) -> Result<u64, Error> {
    let taken = *next;
    *next = taken.checked_add(1).ok_or_else(|| Error::internal("the cluster has no uid left"))?;
    Ok(taken)
}

fn key_of(kind: &str, namespace: &str, name: &str) -> Result<(Kind, QualifiedName), Error> {
    resource::identify(&v1::Resource {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..v1::Resource::default()
    })
}

fn unknown(kind: Kind, name: &QualifiedName) -> Error {
    let reason = if kind == Kind::Stream { Reason::UnknownStream } else { Reason::UnknownResource };
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
fn is_same(kind: Kind, old: &v1::Resource, new: &v1::Resource) -> Result<bool, Error> {
    fn equal<T: serde::de::DeserializeOwned + PartialEq>(
        kind: Kind,
        old: &v1::Resource,
        new: &v1::Resource,
    ) -> Result<bool, Error> {
        let old: T = resource::parse(kind, &old.spec)?;
        Ok(old == resource::parse(kind, &new.spec)?)
    }
    if old.labels != new.labels {
        return Ok(false);
    }
    match kind {
        Kind::Stream => equal::<resource::StreamSpec>(kind, old, new),
        Kind::Subscription => equal::<resource::SubscriptionSpec>(kind, old, new),
        Kind::Function => equal::<resource::FunctionSpec>(kind, old, new),
        Kind::ReplayJob => equal::<resource::ReplayJobSpec>(kind, old, new),
        Kind::Webhook => equal::<resource::WebhookSpec>(kind, old, new),
        Kind::Grant => equal::<resource::GrantSpec>(kind, old, new),
        Kind::Limit => equal::<resource::LimitSpec>(kind, old, new),
        Kind::ContainerPolicy => equal::<resource::ContainerPolicySpec>(kind, old, new),
        Kind::Schema => {
            let spec: resource::SchemaSpec = resource::parse(kind, &new.spec)?;
            let hash = spec.hash()?;
            Ok(view::schema_status(old).versions.last().is_some_and(|last| last.hash == hash))
        }
    }
}
