//! Resources as people write them, in YAML or JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FunctionSpec, Kind, SchemaSpec, StreamSpec, SubscriptionSpec, parse, problem};
use crate::{Error, Name, QualifiedName, Result, v1};

/// The only version so far.
pub const API_VERSION: &str = "weft/v1";

/// A resource as it is written, and as it is exported.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `weft/v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// What it is.
    pub kind: String,
    /// How it is called.
    pub metadata: Metadata,
    /// What it shall be.
    #[serde(default)]
    pub spec: serde_json::Value,
}

/// How a resource is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace; `default` when absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Free text for people and programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Manifest {
    /// Checks all that needs no other resource and returns the wire form.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn to_resource(&self) -> Result<v1::Resource> {
        if self.api_version != API_VERSION {
            let message =
                format!("apiVersion is {:?}; this version takes {API_VERSION}", self.api_version);
            return Err(problem("apiVersion", message));
        }
        let kind: Kind = self.kind.parse()?;
        let spec = if self.spec.is_null() { serde_json::json!({}) } else { self.spec.clone() };
        let spec = serde_json::to_vec(&spec).map_err(|error| {
            problem("spec", "the spec cannot be written as JSON").with_source(error)
        })?;
        let resource = v1::Resource {
            kind: kind.as_str().to_owned(),
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
            labels: self.metadata.labels.clone().into_iter().collect(),
            spec: spec.into(),
            ..v1::Resource::default()
        };
        check(&resource)?;
        Ok(resource)
    }

    /// The form in which a resource is exported; applying it changes nothing.
    ///
    /// # Errors
    ///
    /// `Internal` when the spec is not JSON.
    pub fn from_resource(resource: &v1::Resource) -> Result<Self> {
        let spec = serde_json::from_slice(&resource.spec)
            .map_err(|error| Error::internal("the stored spec is not JSON").with_source(error))?;
        let namespace = match resource.namespace.as_str() {
            "default" => String::new(),
            other => other.to_owned(),
        };
        Ok(Self {
            api_version: API_VERSION.to_owned(),
            kind: resource.kind.clone(),
            metadata: Metadata {
                name: resource.name.clone(),
                namespace,
                labels: resource.labels.clone().into_iter().collect(),
            },
            spec,
        })
    }
}

/// Name and kind of a resource on the wire.
///
/// # Errors
///
/// `Invalid`, naming the field.
pub fn identify(resource: &v1::Resource) -> Result<(Kind, QualifiedName)> {
    let kind: Kind = resource.kind.parse()?;
    let namespace = match resource.namespace.as_str() {
        "" => Name::default_namespace(),
        text => text
            .parse()
            .map_err(|error: crate::NameError| problem("metadata.namespace", error.to_string()))?,
    };
    let name = resource
        .name
        .parse()
        .map_err(|error: crate::NameError| problem("metadata.name", error.to_string()))?;
    Ok((kind, QualifiedName { namespace, name }))
}

/// Checks a resource as far as that needs no other one.
///
/// # Errors
///
/// `Invalid`, naming the field.
pub fn check(resource: &v1::Resource) -> Result<()> {
    let (kind, name) = identify(resource)?;
    if resource.spec.len() > super::SPEC_BYTES_MAX {
        let message = format!(
            "the spec has {} bytes, more than {}",
            resource.spec.len(),
            super::SPEC_BYTES_MAX
        );
        return Err(problem("spec", message));
    }
    match kind {
        Kind::Stream => parse::<StreamSpec>(kind, &resource.spec)?.check(),
        Kind::Schema => parse::<SchemaSpec>(kind, &resource.spec)?.check(),
        Kind::Subscription => parse::<SubscriptionSpec>(kind, &resource.spec)?.check(),
        Kind::Function => parse::<FunctionSpec>(kind, &resource.spec)?.check(&name.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_taken_back() {
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "apiVersion": "weft/v1", "kind": "stream", "metadata": {"name": "orders"},
            "spec": {"partitions": 3},
        }))
        .unwrap();

        let resource = manifest.to_resource().unwrap();
        let again = Manifest::from_resource(&resource).unwrap().to_resource().unwrap();

        assert_eq!(again, resource);
        assert_eq!(resource.kind, "Stream");
    }

    #[test]
    fn wrong_parts_are_named() {
        let field = |json: serde_json::Value| {
            let manifest: Manifest = serde_json::from_value(json).unwrap();
            manifest.to_resource().unwrap_err().field().unwrap_or_default().to_owned()
        };
        let with = |key: &str, value: serde_json::Value| {
            let mut json = serde_json::json!({
                "apiVersion": "weft/v1", "kind": "Stream", "metadata": {"name": "orders"},
            });
            json[key] = value;
            json
        };

        assert_eq!(field(with("apiVersion", "v2".into())), "apiVersion");
        assert_eq!(field(with("kind", "Topic".into())), "kind");
        assert_eq!(field(with("metadata", serde_json::json!({"name": "A"}))), "metadata.name");
        assert_eq!(field(with("spec", serde_json::json!({"partitions": 0}))), "spec.partitions");
        assert_eq!(field(with("spec", serde_json::json!({"partition": 1}))), "spec");
    }
}
