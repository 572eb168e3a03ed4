//! The checks of each stream's events, compiled once and kept while nothing changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use weft_proto::event::{self, EventView};
use weft_proto::filter::Candidate;
use weft_proto::resource::{BindingMode, BindingVersion, Kind};
use weft_proto::{
    Error, PartitionUid, QualifiedName, Reason, ResourceUid, Result, SchemaId, Timestamp, v1,
};
use weft_registry::{
    Binding, Bindings, Decision, Event, Gate, Governed, Limits, Mode, Pin, Refusal, Schema, Schemas,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::access::Decision as Allowed;
use crate::catalog::view;
use crate::data::{SchemaIds, lock};
use crate::resources::{Placement, Resources, StreamView};
use crate::subjects::SubjectHash;
use crate::{clock, delay};

/// Gates kept; a node with more streams compiles again now and then.
const GATES_LEN: usize = 1_024;

/// What the checks say of a batch.
#[derive(Debug)]
pub struct Verdicts {
    /// The accepted events, in order.
    pub events: Vec<Bytes>,
    /// What they fitted.
    pub schemas: SchemaIds,
    /// Hashes of their identities; empty where the stream does not look for repeats.
    pub ids: Vec<u64>,
    /// Hashes of their subjects; empty where the stream has no index of subjects.
    pub subjects: Vec<SubjectHash>,
    /// Index of each in the batch; none where all were accepted.
    pub accepted: Option<Vec<u32>>,
    /// The others.
    pub refusals: Vec<v1::IndexedRefusal>,
    /// Of the accepted events that are to be delivered at a time of their own, the hash of the identity in
    /// the place where they wait, whatever the stream; none where none is.
    pub delayed: Option<Vec<Option<u64>>>,
    /// Whether the accepted events are the bytes that were sent: attributes that only the broker sets
    /// are taken out.
    pub unchanged: bool,
}

/// What is known of an accepted event.
struct Judged {
    schema: SchemaId,
    id: Option<u64>,
    subject: Option<SubjectHash>,
    delayed: Option<u64>,
}

/// A gate and what it was made from.
#[derive(Clone, Debug)]
struct Kept {
    generations: Vec<u64>,
    gate: Arc<Gate>,
}

/// Checks events; clones share what is compiled.
#[derive(Clone, Debug)]
pub struct Gates {
    resources: Resources,
    /// Of the hashes of identities and subjects: the same on all nodes of the cluster.
    seed: u64,
    kept: Arc<Mutex<BTreeMap<ResourceUid, Kept>>>,
}

impl Gates {
    /// Checks by the schemas of this catalog.
    pub fn new(resources: Resources, cluster_uid: &str) -> Self {
        let seed = xxh3_64(cluster_uid.as_bytes());
        Self { resources, seed, kept: Arc::default() }
    }

    /// The hash of a subject, as it is stored with events.
    pub fn hash_of_subject(&self, subject: &str) -> SubjectHash {
        SubjectHash::of(self.seed, subject)
    }

    /// Checks each event by the rules of CloudEvents, what its publisher is allowed, and the schema
    /// that governs it.
    ///
    /// # Errors
    ///
    /// `Internal` when a schema that was accepted does not compile here: nothing may pass then.
    pub fn check(
        &self,
        stream: &StreamView,
        placement: &Placement,
        events: Vec<Bytes>,
        allowed: &Allowed,
    ) -> Result<Verdicts> {
        let now = clock::now();
        let gate = if stream.bindings.is_empty() { None } else { Some(self.gate(stream)?) };
        let gate = gate.filter(|gate| !gate.is_open());
        let mut accepted = Vec::with_capacity(events.len());
        let mut schemas = Vec::new();
        let mut ids = Vec::with_capacity(if stream.dedup { events.len() } else { 0 });
        let mut subjects = Vec::with_capacity(if stream.subject_index { events.len() } else { 0 });
        let mut indexes = Vec::new();
        let mut delayed: Option<Vec<Option<u64>>> = None;
        let mut refusals = Vec::new();
        let mut unchanged = true;
        for (index, bytes) in (0_u32..).zip(events) {
            let sent = event::check(&bytes, stream.event_bytes_max);
            let own = sent.as_ref().ok().and_then(EventView::without_broker_attributes);
            let own = own.map(Bytes::from);
            // From here on there is only what will be stored.
            let checked =
                own.as_ref().map_or(sent, |own| event::check(own, stream.event_bytes_max));
            let verdict = checked.and_then(|view| {
                self.judge(stream, placement, gate.as_deref(), allowed, (&view, now))
            });
            match verdict {
                Ok(Judged { schema, id, subject, delayed: own_delayed }) => {
                    unchanged &= own.is_none();
                    if own_delayed.is_some() && delayed.is_none() {
                        delayed = Some(vec![None; accepted.len()]);
                    }
                    if let Some(delayed) = &mut delayed {
                        delayed.push(own_delayed);
                    }
                    accepted.push(own.unwrap_or(bytes));
                    ids.extend(id);
                    subjects.extend(subject);
                    if gate.is_some() {
                        schemas.push(schema);
                    }
                    if !refusals.is_empty() {
                        indexes.push(index);
                    }
                }
                Err(error) => {
                    if refusals.is_empty() {
                        // All before it were accepted.
                        indexes.extend(0..index);
                    }
                    let refusal = Some(error.to_refusal());
                    refusals.push(v1::IndexedRefusal { index, refusal });
                }
            }
        }
        let first = schemas.first().copied().unwrap_or_default();
        let uniform = schemas.iter().all(|schema| *schema == first);
        let schemas = if uniform { SchemaIds::All(first) } else { SchemaIds::Each(schemas) };
        let accepted_at = (!refusals.is_empty()).then_some(indexes);
        Ok(Verdicts {
            events: accepted,
            schemas,
            ids,
            subjects,
            accepted: accepted_at,
            refusals,
            delayed,
            unchanged,
        })
    }

    /// Checks one event by more than the rules of CloudEvents; what it fits, and its hashes.
    fn judge(
        &self,
        stream: &StreamView,
        placement: &Placement,
        gate: Option<&Gate>,
        allowed: &Allowed,
        (view, now): (&EventView<'_>, Timestamp),
    ) -> Result<Judged> {
        if !allowed.passes(&Candidate::new(*view)) {
            let message = format!(
                "events of type {:?} like this may not be published to {} by this caller",
                view.ty, stream.name
            );
            return Err(Error::new(Reason::PermissionDenied, message).with_field("type"));
        }
        let schema = gate.map_or(Ok(SchemaId(0)), |gate| judge(gate, view))?;
        let subject = || {
            let subject = view.attribute("subject");
            subject.map_or(SubjectHash::NONE, |text| self.hash_of_subject(&text))
        };
        let id = stream.dedup.then(|| hash_of(self.seed, placement.uid, view.source, view.id));
        let is_delayed = delay::due(view, now)?.is_some();
        let delayed =
            is_delayed.then(|| hash_of(self.seed, placement.delayed, view.source, view.id));
        Ok(Judged { schema, id, subject: stream.subject_index.then(subject), delayed })
    }

    /// The hash of an identity in a partition, as it is stored with events.
    pub fn hash_of_identity(&self, partition: PartitionUid, source: &str, id: &str) -> u64 {
        hash_of(self.seed, partition, source, id)
    }

    /// The hash of the subject of a stored event.
    pub fn subject_of(&self, event: &[u8]) -> SubjectHash {
        let view = EventView::parse(event);
        let subject = view.and_then(|view| {
            let subject = view.attribute("subject")?;
            Some(self.hash_of_subject(&subject))
        });
        subject.unwrap_or(SubjectHash::NONE)
    }

    fn gate(&self, stream: &StreamView) -> Result<Arc<Gate>> {
        let catalog = self.resources.snapshot();
        let schema_of = |binding: &weft_proto::resource::BindingSpec| {
            let name: QualifiedName = binding.schema.parse().ok()?;
            catalog.get(Kind::Schema, &name).map(|stored| (name, Arc::clone(stored)))
        };
        let schemas: Vec<_> = stream.bindings.iter().filter_map(schema_of).collect();
        let mut generations = vec![stream.generation];
        generations.extend(schemas.iter().map(|(_, stored)| stored.generation));
        if let Some(kept) = lock(&self.kept).get(&stream.uid)
            && kept.generations == generations
        {
            return Ok(Arc::clone(&kept.gate));
        }
        let mut compiled = Schemas::default();
        for (name, stored) in &schemas {
            let wanted: Vec<BindingVersion> = stream
                .bindings
                .iter()
                .filter(|binding| binding.schema.parse().ok().as_ref() == Some(name))
                .map(|binding| binding.version)
                .collect();
            let versions = view::schema_status(stored).versions;
            let newest = versions.last().map(|version| version.version);
            for version in versions {
                let number = BindingVersion::Number(version.version);
                let latest =
                    newest == Some(version.version) && wanted.contains(&BindingVersion::Latest);
                if latest || wanted.contains(&number) {
                    compiled.insert(Governed {
                        schema: name.to_string().into(),
                        id: weft_registry::SchemaId(version.id),
                        version: weft_registry::VersionNumber(version.version),
                        compiled: compile(version.document.get())?,
                    });
                }
            }
        }
        let bindings = stream.bindings.iter().map(|binding| Binding {
            event_type: binding.event_type.clone(),
            schema: binding
                .schema
                .parse::<QualifiedName>()
                .map_or_else(|_| binding.schema.clone(), |name| name.to_string()),
            pin: match binding.version {
                BindingVersion::Latest => Pin::Latest,
                BindingVersion::Number(number) => {
                    Pin::Version(weft_registry::VersionNumber(number))
                }
            },
            mode: match binding.mode {
                BindingMode::Off => Mode::Off,
                BindingMode::Enforce => Mode::Enforce,
            },
        });
        let unusable = |message: String| {
            Error::internal(format!("the schemas of {} cannot be used: {message}", stream.name))
        };
        let bindings =
            Bindings::new(bindings.collect()).map_err(|error| unusable(error.to_string()))?;
        let gate = Gate::new(bindings, &compiled).map_err(|error| unusable(error.to_string()))?;
        let gate = Arc::new(gate);
        let mut kept = lock(&self.kept);
        if kept.len() >= GATES_LEN {
            kept.pop_first();
        }
        kept.insert(stream.uid, Kept { generations, gate: Arc::clone(&gate) });
        Ok(gate)
    }
}

/// Compiles a schema document.
///
/// # Errors
///
/// `Invalid`, with the place in the document.
pub fn compile(document: &str) -> Result<Schema> {
    Schema::compile(document.as_bytes(), &Limits::default()).map_err(|problem| {
        Error::new(Reason::InvalidSchema, format!("the schema cannot be used: {problem}"))
            .with_field("spec.document")
    })
}

/// The hash of an identity. It is stored with the events: changing it needs a new entry format.
fn hash_of(seed: u64, partition: PartitionUid, source: &str, id: &str) -> u64 {
    let seed = xxh3_64_with_seed(&partition.get().to_le_bytes(), seed);
    xxh3_64_with_seed(id.as_bytes(), xxh3_64_with_seed(source.as_bytes(), seed))
}

fn judge(gate: &Gate, view: &EventView<'_>) -> Result<SchemaId> {
    let content_type = view.data_content_type();
    let event = Event {
        event_type: view.ty,
        datacontenttype: content_type.as_deref(),
        data: view.data_bytes(),
        has_dataref: view.attribute("dataref").is_some(),
    };
    match gate.check(&event) {
        Decision::Unchecked => Ok(SchemaId(0)),
        Decision::Accepted { schema_id, .. } => Ok(SchemaId(schema_id.0)),
        Decision::Refused(refusal) => Err(refused(&refusal)),
    }
}

fn refused(refusal: &Refusal) -> Error {
    Error::new(Reason::SchemaViolation, refusal.to_string())
        .with_field(refusal.violation.pointer.clone())
        .with_schema(v1::SchemaRef {
            id: refusal.schema_id.0,
            schema: refusal.schema.to_string(),
            version: refusal.version.0,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored with the events: other numbers would be another format.
    #[test]
    fn hash_of_an_identity_never_changes() {
        let event = |source: &str, id: &str| {
            let event = weft_proto::cloudevents::CloudEvent {
                id: id.to_owned(),
                source: source.to_owned(),
                spec_version: "1.0".to_owned(),
                r#type: "t".to_owned(),
                ..Default::default()
            };
            prost::Message::encode_to_vec(&event)
        };
        let hash = |source, id, partition| {
            let bytes = event(source, id);
            let view = EventView::parse(&bytes).unwrap();
            hash_of(7, PartitionUid(partition), view.source, view.id)
        };
        assert_eq!(hash("/shop", "order-1", 3), 2_861_452_097_231_758_919);
        // Where source ends and id begins matters, and so does the partition.
        assert_ne!(hash("/shopo", "rder-1", 3), hash("/shop", "order-1", 3));
        assert_ne!(hash("/shop", "order-1", 4), hash("/shop", "order-1", 3));
    }
}
