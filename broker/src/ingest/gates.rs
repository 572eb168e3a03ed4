//! The checks of each stream's events, compiled once and kept while nothing changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use weft_proto::event::{self, EventView};
use weft_proto::resource::{BindingMode, BindingVersion, Kind};
use weft_proto::{Error, QualifiedName, Reason, ResourceUid, Result, SchemaId, v1};
use weft_registry::{
    Binding, Bindings, Decision, Event, Gate, Governed, Limits, Mode, Pin, Refusal, Schema, Schemas,
};

use crate::catalog::view;
use crate::data::{SchemaIds, lock};
use crate::resources::{Resources, StreamView};

/// Gates kept; a node with more streams compiles again now and then.
const GATES_LEN: usize = 1_024;

/// What the checks say of a batch.
#[derive(Debug)]
pub struct Verdicts {
    /// The accepted events, in order.
    pub events: Vec<Bytes>,
    /// What they fitted.
    pub schemas: SchemaIds,
    /// The others.
    pub refusals: Vec<v1::IndexedRefusal>,
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
    kept: Arc<Mutex<BTreeMap<ResourceUid, Kept>>>,
}

impl Gates {
    /// Checks by the schemas of this catalog.
    pub fn new(resources: Resources) -> Self {
        Self { resources, kept: Arc::default() }
    }

    /// Checks each event by the rules of CloudEvents and the schema that governs it.
    ///
    /// # Errors
    ///
    /// `Internal` when a schema that was accepted does not compile here: nothing may pass then.
    pub fn check(&self, stream: &StreamView, events: Vec<Bytes>) -> Result<Verdicts> {
        let gate = if stream.bindings.is_empty() { None } else { Some(self.gate(stream)?) };
        let gate = gate.filter(|gate| !gate.is_open());
        let mut accepted = Vec::with_capacity(events.len());
        let mut ids = Vec::new();
        let mut refusals = Vec::new();
        for (index, bytes) in (0_u32..).zip(events) {
            let verdict = match event::check(&bytes, stream.event_bytes_max) {
                Err(error) => Err(error),
                Ok(view) => gate.as_deref().map_or(Ok(SchemaId(0)), |gate| judge(gate, &view)),
            };
            match verdict {
                Ok(id) => {
                    accepted.push(bytes);
                    if gate.is_some() {
                        ids.push(id);
                    }
                }
                Err(error) => {
                    let refusal = Some(error.to_refusal());
                    refusals.push(v1::IndexedRefusal { index, refusal });
                }
            }
        }
        let first = ids.first().copied().unwrap_or_default();
        let uniform = ids.iter().all(|id| *id == first);
        let schemas = if uniform { SchemaIds::All(first) } else { SchemaIds::Each(ids) };
        Ok(Verdicts { events: accepted, schemas, refusals })
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
                let latest = newest == Some(version.version) && wanted.contains(&BindingVersion::Latest);
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
            schema: binding.schema.parse::<QualifiedName>().map_or_else(|_| binding.schema.clone(), |name| name.to_string()),
            pin: match binding.version {
                BindingVersion::Latest => Pin::Latest,
                BindingVersion::Number(number) => Pin::Version(weft_registry::VersionNumber(number)),
            },
            mode: match binding.mode {
                BindingMode::Off => Mode::Off,
                BindingMode::Enforce => Mode::Enforce,
            },
        });
        let unusable = |message: String| Error::internal(format!("the schemas of {} cannot be used: {message}", stream.name));
        let bindings = Bindings::new(bindings.collect()).map_err(|error| unusable(error.to_string()))?;
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
