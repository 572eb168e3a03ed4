//! Limits: how much of the cluster somebody may use.
//!
//! All live in the namespace `weft-system`: who grants in a namespace does not decide how much of
//! everybody's machines it may take. Of several limits that apply, the lowest counts.

use serde::{Deserialize, Serialize};

use super::{grant, problem};
use crate::{Pattern, QualifiedName, Result};

/// How much somebody may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSpec {
    /// As in a grant: each of them, and everybody in a group of that name, may use so much.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<String>,
    /// Calls begun, on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u64>,
    /// Bytes of events published, on each node that leads one of the partitions: exact for a stream
    /// of one partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_bytes_per_second: Option<u64>,
    /// Bytes of events sent to readers and members of subscriptions, on each node. Slows them down;
    /// nothing is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<u64>,
    /// Connections on which the principal has shown itself, on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Calls that are open at the same time, streams among them, on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_calls: Option<u32>,
    /// Bytes of events that were sent and not acknowledged yet, on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_bytes: Option<u64>,
    /// Patterns of namespaces: each of them may hold so much.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Streams in the namespace, in the whole cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<u32>,
    /// Subscriptions in the namespace, in the whole cluster; the one of each trigger of a function is
    /// among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<u32>,
    /// Bytes that its streams may hold: the sum of partitions times `retention.max_bytes`, which all
    /// streams of the namespace must then have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

impl LimitSpec {
    /// Checks the rules that need no other resource.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn check(&self, name: &QualifiedName) -> Result<()> {
        if !name.namespace.is_system() {
            return Err(problem("metadata.namespace", "limits live in the namespace weft-system"));
        }
        grant::check_principals(&self.principals)?;
        for (place, pattern) in self.namespaces.iter().enumerate() {
            Pattern::new(pattern)
                .map_err(|error| problem(format!("spec.namespaces[{place}]"), error.to_string()))?;
        }
        let rates = [
            ("requests_per_second", self.requests_per_second),
            ("publish_bytes_per_second", self.publish_bytes_per_second),
            ("read_bytes_per_second", self.read_bytes_per_second),
            ("connections", self.connections.map(u64::from)),
            ("open_calls", self.open_calls.map(u64::from)),
            ("in_flight_bytes", self.in_flight_bytes),
        ];
        let counts = [
            ("streams", self.streams.map(u64::from)),
            ("subscriptions", self.subscriptions.map(u64::from)),
            ("stored_bytes", self.stored_bytes),
        ];
        for (field, value) in rates {
            if value == Some(0) {
                let message = "a limit of 0 is a denial: write a grant with `effect: deny`";
                return Err(problem(format!("spec.{field}"), message));
            }
            if value.is_some() && self.principals.is_empty() {
                let message = "it needs `principals`: whose it is";
                return Err(problem(format!("spec.{field}"), message));
            }
        }
        for (field, value) in counts {
            if value.is_some() && self.namespaces.is_empty() {
                let message = "it needs `namespaces`: whose it is";
                return Err(problem(format!("spec.{field}"), message));
            }
        }
        if rates.iter().chain(&counts).all(|(_, value)| value.is_none()) {
            return Err(problem("spec", "it limits nothing"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_field_is_named() {
        let field = |name: &str, json: &str| {
            let spec: LimitSpec = serde_json::from_str(json).unwrap();
            let found = spec.check(&name.parse().unwrap()).err();
            found.and_then(|error| error.field().map(str::to_owned)).unwrap_or_default()
        };
        for (json, wanted) in [
            (r#"{"principals":["*"],"requests_per_second":5}"#, ""),
            (r#"{"namespaces":["shop-*"],"streams":0,"stored_bytes":1}"#, ""),
            (r#"{"principals":["*"]}"#, "spec"),
            (r#"{"requests_per_second":5}"#, "spec.requests_per_second"),
            (r#"{"principals":["*"],"open_calls":0}"#, "spec.open_calls"),
            (r#"{"principals":["*"],"streams":5}"#, "spec.streams"),
            (r#"{"principals":["x"],"open_calls":1}"#, "spec.principals[0]"),
            (r#"{"namespaces":[""],"streams":5}"#, "spec.namespaces[0]"),
        ] {
            assert_eq!(field("weft-system/l", json), wanted, "{json}");
        }
        let elsewhere = r#"{"principals":["*"],"open_calls":1}"#;
        assert_eq!(field("shop/l", elsewhere), "metadata.namespace");
    }
}
