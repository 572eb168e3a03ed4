//! Names of resources and of the namespaces they live in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: the length of a DNS label.
const NAME_LEN_MAX: usize = 63;

/// The namespace of what belongs to the whole cluster.
const SYSTEM_NAMESPACE: &str = "weft-system";
/// The stream of what was done and refused.
const AUDIT: &str = "_weft.audit";

/// A name of 1 to 63 characters `[a-z0-9-]`, or that of a stream that the cluster keeps for itself.
///
/// Names never become file paths; storage and caches key by uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A name that breaks the rule; the text says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError(String);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace of callers that name none.
    pub fn default_namespace() -> Self {
        Self("default".to_owned())
    }

    /// The namespace of what belongs to the whole cluster.
    pub fn system_namespace() -> Self {
        Self(SYSTEM_NAMESPACE.to_owned())
    }

    /// Whether it is the namespace of what belongs to the whole cluster.
    pub fn is_system(&self) -> bool {
        self.0 == SYSTEM_NAMESPACE
    }

    /// Whether only the cluster itself makes what has this name.
    pub fn is_reserved(&self) -> bool {
        self.0 == AUDIT
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError("a name is missing".to_owned()));
        }
        if text == AUDIT {
            return Ok(Self(text));
        }
        if text.len() > NAME_LEN_MAX {
            let length = text.len();
            return Err(NameError(format!(
                "a name has at most {NAME_LEN_MAX} characters, this one has {length}"
            )));
        }
        let wrong = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if let Some(wrong) = text.chars().find(|&c| wrong(c)) {
            return Err(NameError(format!(
                "name {text:?} has {wrong:?}; allowed are a-z, 0-9 and '-'"
            )));
        }
        Ok(Self(text))
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_from(text.to_owned())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `namespace/name`; the namespace `default` may be left out when written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QualifiedName {
    /// The namespace.
    pub namespace: Name,
    /// The name within it.
    pub name: Name,
}

impl QualifiedName {
    /// The stream of what was done and refused.
    pub fn audit() -> Self {
        Self { namespace: Name::system_namespace(), name: Name(AUDIT.to_owned()) }
    }
}

impl FromStr for QualifiedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((namespace, name)) => {
                let (namespace, name): (Name, Name) = (namespace.parse()?, name.parse()?);
                if namespace.is_reserved() || name.is_reserved() && !namespace.is_system() {
                    let message = format!("{text:?} is no name: {AUDIT} is in {SYSTEM_NAMESPACE}");
                    return Err(NameError(message));
                }
                Ok(Self { namespace, name })
            }
            None if text == AUDIT => Ok(Self::audit()),
            None => Ok(Self { namespace: Name::default_namespace(), name: text.parse()? }),
        }
    }
}

impl TryFrom<String> for QualifiedName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<QualifiedName> for String {
    fn from(name: QualifiedName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_namespace_may_be_left_out() {
        let short: QualifiedName = "orders".parse().unwrap();

        assert_eq!(short.to_string(), "default/orders");
        assert_eq!(short.to_string().parse::<QualifiedName>().unwrap(), short);
    }

    #[test]
    fn names_that_could_be_paths_are_refused() {
        for text in ["_weft.audit", "weft-system/_weft.audit"] {
            assert_eq!(text.parse::<QualifiedName>().unwrap(), QualifiedName::audit());
        }
        for text in ["shop/_weft.audit", "_weft.audit/a", "_weft.audit/_weft.audit", "_weft.x"] {
            assert!(text.parse::<QualifiedName>().is_err(), "{text:?} was accepted");
        }
        for text in ["", "..", "a/b/c", "Orders", "a b", "a.b", "_weft", "ä", &"a".repeat(64)] {
            assert!(text.parse::<QualifiedName>().is_err(), "{text:?} was accepted");
        }
    }
}
