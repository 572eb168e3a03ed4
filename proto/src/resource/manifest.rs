//! Resources as people write them, in YAML or JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ContainerPolicySpec, FunctionSpec, GrantSpec, Kind, LimitSpec, ReplayJobSpec, SchemaSpec,
    StreamSpec, SubscriptionSpec, WebhookSpec, parse, problem,
};
use crate::{Error, Name, QualifiedName, Result, v1};

/// The only version so far.
pub const API_VERSION: &str = "weft/v1";

const LABELS_LEN_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 1_024;

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
        let spec = readable(resource)
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

/// The spec as a JSON value. A schema that would change by that (numbers beyond 64 bits) is given
/// as a string, which keeps every byte.
fn readable(resource: &v1::Resource) -> serde_json::Result<serde_json::Value> {
    if resource.kind == Kind::Schema.as_str() {
        let stored: SchemaSpec = serde_json::from_slice(&resource.spec)?;
        let value: serde_json::Result<serde_json::Value> = serde_json::from_slice(&resource.spec);
        let same = value.as_ref().ok().and_then(|value| {
            let again = SchemaSpec::deserialize(value).ok()?.hash().ok()?;
            Some(again == stored.hash().ok()?)
        });
        if same != Some(true) {
            let format = serde_json::to_value(stored.format)?;
            return Ok(serde_json::json!({"format": format, "document": stored.document.get()}));
        }
    }
    serde_json::from_slice(&resource.spec)
}

fn check_labels(resource: &v1::Resource) -> Result<()> {
    let too_long = |text: &String| text.len() > LABEL_BYTES_MAX;
    if resource.labels.len() > LABELS_LEN_MAX {
        let message = format!("{} labels, more than {LABELS_LEN_MAX}", resource.labels.len());
        return Err(problem("metadata.labels", message));
    }
    for (name, value) in &resource.labels {
        if name.is_empty() || too_long(name) || too_long(value) {
            let message = format!(
                "a label has a name, and at most {LABEL_BYTES_MAX} bytes in name and value"
            );
            return Err(problem("metadata.labels", message));
        }
    }
    Ok(())
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
    let name = QualifiedName { namespace, name };
    let is_misplaced = name.name.is_reserved() && !name.namespace.is_system();
    if name.namespace.is_reserved()
        || is_misplaced
        || name.name.is_reserved() && kind != Kind::Stream
    {
        return Err(problem("metadata.name", format!("the name {name} is the cluster's own")));
    }
    Ok((kind, name))
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
    check_labels(resource)?;
    match kind {
        Kind::Stream => parse::<StreamSpec>(kind, &resource.spec)?.check(),
        Kind::Schema => parse::<SchemaSpec>(kind, &resource.spec)?.check(),
        Kind::Subscription => parse::<SubscriptionSpec>(kind, &resource.spec)?.check(),
        Kind::Function => parse::<FunctionSpec>(kind, &resource.spec)?.check(&name.name),
        Kind::ReplayJob => parse::<ReplayJobSpec>(kind, &resource.spec)?.check(),
        Kind::Webhook => parse::<WebhookSpec>(kind, &resource.spec)?.check(&name.name),
        Kind::Grant => parse::<GrantSpec>(kind, &resource.spec)?.check(&name),
        Kind::Limit => parse::<LimitSpec>(kind, &resource.spec)?.check(&name),
        Kind::ContainerPolicy => parse::<ContainerPolicySpec>(kind, &resource.spec)?.check(&name),
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
    fn every_kind_is_exported_and_taken_back_with_the_same_meaning() {
        let cases = [
            (
                "Stream",
                r#"{"partitions":3,"retention":{"max_age":"forever"},
                "schemas":[{"type":"a.*","schema":"s","version":2}]}"#,
            ),
            (
                "Subscription",
                r#"{"stream":"s","start":{"offset":7},"filters":[{"not":{"exact":{"type":"a"}}}]}"#,
            ),
            (
                "Function",
                r#"{"command":["a"],"timeout":"5s","triggers":[{"stream":"s","start":"earliest"}]}"#,
            ),
            (
                "Webhook",
                r#"{"stream":"s","url":"https://h.example/","mode":{"batch":7},"ordered":false,
                "secrets":[{"file":"a"}]}"#,
            ),
            (
                "Grant",
                r#"{"principals":["*"],"effect":"deny","verbs":["read"],"types":["a*"],
                "filters":[{"exact":{"subject":"a"}}]}"#,
            ),
            ("Limit", r#"{"principals":["*"],"open_calls":3}"#),
            (
                "ContainerPolicy",
                r#"{"registries":[],"limits_required":["pids"],"max":{"cpu":2,"memory":"1Gi"}}"#,
            ),
            (
                "Function",
                r#"{"image":"f","triggers":[{"stream":"s"}],"resources":{"cpu":"1500m"},
                "env":[{"name":"A","secretRef":{"name":"s","key":"k"}}],"probe":{}}"#,
            ),
            ("Schema", r#"{"document":{"b": 1.0, "a": [true]}}"#),
            ("Schema", r#"{"document":{"maximum":12345678901234567890123}}"#),
            ("Schema", r#"{"document":{"maximum":1e400}}"#),
            ("Schema", r#"{"document":"{\"maximum\":1e400}"}"#),
        ];
        for (kind, spec) in cases {
            let stored = v1::Resource {
                kind: kind.to_owned(),
                namespace: if kind == "Limit" { "weft-system" } else { "shop" }.to_owned(),
                name: "a".to_owned(),
                labels: [("team".to_owned(), "x".to_owned())].into(),
                spec: spec.to_owned().into(),
                ..v1::Resource::default()
            };
            let text = serde_json::to_string(&Manifest::from_resource(&stored).unwrap()).unwrap();
            let manifest: Manifest = serde_json::from_str(&text).unwrap();
            let keeps_its_form = !spec.contains("maximum");
            assert!(kind != "Schema" || manifest.spec["document"].is_object() == keeps_its_form);

            let taken = manifest.to_resource().unwrap();

            assert_eq!((&taken.namespace, &taken.labels), (&stored.namespace, &stored.labels));
            assert!(means_the_same(&taken, &stored), "{spec}");
        }
    }

    fn means_the_same(left: &v1::Resource, right: &v1::Resource) -> bool {
        fn equal<T: serde::de::DeserializeOwned + PartialEq>(left: &[u8], right: &[u8]) -> bool {
            serde_json::from_slice::<T>(left).unwrap()
                == serde_json::from_slice::<T>(right).unwrap()
        }
        let (left, right, kind) = (&left.spec, &right.spec, left.kind.as_str());
        let hash = |spec| serde_json::from_slice::<SchemaSpec>(spec).unwrap().hash().unwrap();
        match kind {
            "Stream" => equal::<StreamSpec>(left, right),
            "Subscription" => equal::<SubscriptionSpec>(left, right),
            "Function" => equal::<FunctionSpec>(left, right),
            "Webhook" => equal::<WebhookSpec>(left, right),
            "Grant" => equal::<GrantSpec>(left, right),
            "Limit" => equal::<LimitSpec>(left, right),
            "ContainerPolicy" => equal::<ContainerPolicySpec>(left, right),
            _ => hash(left) == hash(right),
        }
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
        let labels =
            |name: &str, value: &str| serde_json::json!({"name": "a", "labels": {name: value}});
        assert_eq!(field(with("metadata", labels("", "x"))), "metadata.labels");
        assert_eq!(field(with("metadata", labels("x", &"y".repeat(1_025)))), "metadata.labels");
        assert_eq!(field(with("spec", serde_json::json!({"partitions": 0}))), "spec.partitions");
        assert_eq!(field(with("spec", serde_json::json!({"partition": 1}))), "spec");
    }
}
