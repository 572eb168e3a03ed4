//! Grants: who may do what with which resources and events.
//!
//! Nothing is allowed without a grant; of those that apply, one that denies wins.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{problem, role::Role};
use crate::filter::{self, Filter};
use crate::{Error, Pattern, QualifiedName, Result};

/// Entries of each list in a grant.
const LIST_LEN_MAX: usize = 256;
/// Longest name of a principal, in bytes.
pub const PRINCIPAL_BYTES_MAX: usize = 512;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Append events to a stream.
    Publish,
    /// Read events of a stream.
    Read,
    /// Take part in a subscription; its stream must be readable, too.
    Subscribe,
    /// See resources, except grants and limits.
    View,
    /// Create, change and delete streams, schemas, subscriptions and functions.
    Edit,
    /// Set the status of functions and webhooks: what a dispatcher does.
    Report,
    /// See, create, change and delete grants, limits and keys; create, change and delete webhooks
    /// and policies.
    Govern,
    /// Look after the cluster: its status, its nodes, its metrics.
    Operate,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 8] = [
        Self::Publish,
        Self::Read,
        Self::Subscribe,
        Self::View,
        Self::Edit,
        Self::Report,
        Self::Govern,
        Self::Operate,
    ];

    /// The name, as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Subscribe => "subscribe",
            Self::View => "view",
            Self::Edit => "edit",
            Self::Report => "report",
            Self::Govern => "govern",
            Self::Operate => "operate",
        }
    }

    /// Whether it is about events, so that types and filters of a grant count.
    pub const fn is_about_events(self) -> bool {
        matches!(self, Self::Publish | Self::Read | Self::Subscribe)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Verb {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Error::invalid(format!("{text:?} is no verb; verbs are {known}")).with_field("verb")
        })
    }
}

/// What a grant does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It allows.
    #[default]
    Allow,
    /// It denies, whatever others allow.
    Deny,
}

/// Who may do what with which resources and events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantSpec {
    /// `key:NAMESPACE/NAME`, `cert:URI`, `jwt:ISSUER:SUBJECT`, `group:ISSUER:NAME`, or `*` for
    /// everybody who has shown a credential.
    pub principals: Vec<String>,
    /// Allow, or deny.
    #[serde(default)]
    pub effect: Effect,
    /// The verbs of a role; instead of `verbs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// What may be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<Verb>,
    /// Patterns of the names of resources; for `publish` and `read` that of the stream. None = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Patterns of namespaces: only in grants of the namespace `weft-system`, which hold anywhere.
    /// All others hold in their own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Patterns of the types of events, for `publish`, `read` and `subscribe`. None = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// What events must be like, for the same verbs; all must pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
}

impl GrantSpec {
    /// The verbs it is about.
    pub fn verbs(&self) -> &[Verb] {
        match self.role {
            Some(role) => role.verbs(),
            None => &self.verbs,
        }
    }

    /// Checks the rules that need no other resource.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn check(&self, name: &QualifiedName) -> Result<()> {
        if self.principals.is_empty() {
            return Err(problem("spec.principals", "a grant names at least one principal"));
        }
        check_principals(&self.principals)?;
        match (self.role, self.verbs.as_slice()) {
            (None, []) => return Err(problem("spec.role", "a grant has a role, or verbs")),
            (Some(_), [_, ..]) => {
                return Err(problem("spec.verbs", "a grant has either a role or verbs"));
            }
            _ => {}
        }
        if !self.namespaces.is_empty() && !name.namespace.is_system() {
            let message = "only grants of the namespace weft-system hold in others";
            return Err(problem("spec.namespaces", message));
        }
        check_patterns("names", &self.names)?;
        check_patterns("namespaces", &self.namespaces)?;
        check_patterns("types", &self.types)?;
        let is_about_events = self.verbs().iter().any(|verb| verb.is_about_events());
        let has_condition = !(self.types.is_empty() && self.filters.is_empty());
        if has_condition && !is_about_events {
            let field = if self.types.is_empty() { "spec.filters" } else { "spec.types" };
            let message = "types and filters only matter to publish, read and subscribe";
            return Err(problem(field, message));
        }
        filter::check_all(&self.filters).map_err(|error| {
            problem(format!("spec.{}", error.field().unwrap_or("filters")), error.message())
        })
    }
}

fn check_patterns(field: &str, patterns: &[String]) -> Result<()> {
    if patterns.len() > LIST_LEN_MAX {
        let message = format!("{} patterns, more than {LIST_LEN_MAX}", patterns.len());
        return Err(problem(format!("spec.{field}"), message));
    }
    for (place, pattern) in patterns.iter().enumerate() {
        Pattern::new(pattern)
            .map_err(|error| problem(format!("spec.{field}[{place}]"), error.to_string()))?;
    }
    Ok(())
}

/// Checks a list of principals.
///
/// # Errors
///
/// `Invalid`, naming the place in `spec.principals`.
pub(super) fn check_principals(principals: &[String]) -> Result<()> {
    if principals.len() > LIST_LEN_MAX {
        let message = format!("{} principals, more than {LIST_LEN_MAX}", principals.len());
        return Err(problem("spec.principals", message));
    }
    for (place, principal) in principals.iter().enumerate() {
        check_principal(principal)
            .map_err(|message| problem(format!("spec.principals[{place}]"), message))?;
    }
    Ok(())
}

/// Checks the name of a principal or group, or `*`.
///
/// # Errors
///
/// What is wrong with it, as a sentence.
pub fn check_principal(text: &str) -> Result<(), String> {
    if text == "*" {
        return Ok(());
    }
    if text.len() > PRINCIPAL_BYTES_MAX {
        return Err(format!("a principal has at most {PRINCIPAL_BYTES_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("a principal has no control characters".to_owned());
    }
    let forms = "a principal is key:NAMESPACE/NAME, cert:URI, jwt:ISSUER:SUBJECT, \
                 group:ISSUER:NAME, or * for everybody with a credential";
    let wrong = || format!("{text:?} is none: {forms}");
    let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
    let is_good = match kind {
        // Written in full: `key:orders` would look like a key of any namespace.
        "key" => rest.contains('/') && rest.parse::<QualifiedName>().is_ok(),
        "cert" => rest.contains(':'),
        "jwt" | "group" => rest.split_once(':').is_some_and(|(issuer, name)| {
            issuer.parse::<crate::Name>().is_ok() && !name.is_empty()
        }),
        _ => false,
    };
    if is_good { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_field_is_named() {
        let field = |name: &str, json: &str| {
            let spec: GrantSpec = serde_json::from_str(json).unwrap();
            let found = spec.check(&name.parse().unwrap()).err();
            found.and_then(|error| error.field().map(str::to_owned)).unwrap_or_default()
        };
        for (json, wanted) in [
            (r#"{"principals":["*"],"role":"reader"}"#, ""),
            (
                r#"{"principals":["key:a/b","cert:spiffe://x/y","jwt:c:d","group:c:d e"],"verbs":["read"]}"#,
                "",
            ),
            (r#"{"principals":[],"role":"reader"}"#, "spec.principals"),
            (r#"{"principals":["*"]}"#, "spec.role"),
            (r#"{"principals":["*"],"role":"reader","verbs":["read"]}"#, "spec.verbs"),
            (r#"{"principals":["*","bob"],"role":"reader"}"#, "spec.principals[1]"),
            (r#"{"principals":["key:orders"],"role":"reader"}"#, "spec.principals[0]"),
            (r#"{"principals":["jwt::a"],"role":"reader"}"#, "spec.principals[0]"),
            (r#"{"principals":["*"],"role":"reader","names":[""]}"#, "spec.names[0]"),
            (r#"{"principals":["*"],"role":"reader","namespaces":["*"]}"#, "spec.namespaces"),
            (r#"{"principals":["*"],"verbs":["view"],"types":["a*"]}"#, "spec.types"),
            (r#"{"principals":["*"],"verbs":["read"],"types":["*a*a*a*a*"]}"#, "spec.types[0]"),
            (
                r#"{"principals":["*"],"verbs":["read"],"filters":[{"exact":{}}]}"#,
                "spec.filters[0].exact",
            ),
            (
                r#"{"principals":["*"],"verbs":["read"],"filters":[{"not":{"sql":"type ="}}]}"#,
                "spec.filters[0].not.sql",
            ),
        ] {
            assert_eq!(field("shop/g", json), wanted, "{json}");
        }
        let everywhere = r#"{"principals":["*"],"role":"reader","namespaces":["shop*"]}"#;
        assert_eq!(field("weft-system/g", everywhere), "");
        assert!(serde_json::from_str::<GrantSpec>(r#"{"principals":["*"],"roles":1}"#).is_err());
    }
}
