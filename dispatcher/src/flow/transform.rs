//! Changes payload and attributes: JSON Patch, JSON Merge Patch, assignments.

use bytes::Bytes;
use json_patch::PatchOperation;
use weft_proto::Timestamp;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::resource::flow::{Template, TransformStep};

use super::failure::Failure;
use super::parts::{Parts, is_unwieldy};
use super::render::{Escape, JsonTemplate, Scope};

/// Why it fails, in a word.
const REASON: &str = "transform";

/// A transformation, ready for use.
#[derive(Debug)]
pub(super) struct Transform {
    patch: Vec<PatchOperation>,
    merge: Option<JsonTemplate>,
    set: Vec<(String, Template)>,
    remove: Vec<String>,
}

impl Transform {
    pub(super) fn new(spec: &TransformStep) -> Result<Self, String> {
        let patch = spec.patch.iter().cloned().map(serde_json::from_value);
        let set = spec.set.iter().map(|(name, text)| Ok((name.clone(), Template::parse(text)?)));
        Ok(Self {
            patch: patch.collect::<Result<_, _>>().map_err(|error| error.to_string())?,
            merge: spec.merge.as_ref().map(JsonTemplate::new).transpose()?,
            set: set.collect::<Result<_, String>>()?,
            remove: spec.remove.clone(),
        })
    }

    /// What becomes of an event, once `derive` has given it a name of its own.
    pub(super) fn apply(
        &self,
        event: &Bytes,
        derive: impl FnOnce(&mut Parts),
    ) -> Result<Bytes, Failure> {
        let scope = Scope::new(event)?;
        let mut parts = Parts::read(event)?;
        if !self.patch.is_empty() || self.merge.is_some() {
            let mut data = scope.data()?.clone();
            for (place, operation) in self.patch.iter().enumerate() {
                json_patch::patch(&mut data, std::slice::from_ref(operation)).map_err(|error| {
                    Failure::permanent(REASON, format!("patch[{place}]: {}", error.kind))
                })?;
                // What is copied into itself doubles each time.
                if is_unwieldy(&data) {
                    let message = format!("patch[{place}]: the payload becomes too large");
                    return Err(Failure::permanent(REASON, message));
                }
            }
            if let Some(merge) = &self.merge {
                json_patch::merge(&mut data, &scope.json(merge)?);
            }
            parts.set_json(&data, REASON)?;
        }
        derive(&mut parts);
        for name in &self.remove {
            parts.attributes.remove(name);
        }
        for (name, template) in &self.set {
            let text = scope.text(template, Escape::Nothing)?;
            assign(&mut parts, name, text)?;
        }
        parts.encode(REASON)
    }
}

fn assign(parts: &mut Parts, name: &str, text: String) -> Result<(), Failure> {
    match name {
        "type" => parts.ty = text,
        "source" => parts.source = text,
        "dataschema" => drop(parts.attributes.insert(name.to_owned(), Attr::CeUri(text))),
        "time" => {
            let time: Timestamp = text
                .parse()
                .map_err(|error| Failure::permanent(REASON, format!("set.time: {error}")))?;
            parts.attributes.insert(name.to_owned(), Attr::CeTimestamp(time.into()));
        }
        _ => parts.set_text(name, text),
    }
    Ok(())
}
