//! On whose behalf a call is made.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The authenticated caller. Every core function takes one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Principal(String);

impl Principal {
    /// A caller with this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Whoever can reach a listener that asks for no credential.
    pub fn anonymous() -> Self {
        Self("anonymous".to_owned())
    }

    /// The broker itself, acting for no caller.
    pub fn system() -> Self {
        Self("_weft".to_owned())
    }

    /// Whoever can reach a cluster that asks nobody who they are.
    pub fn is_anonymous(&self) -> bool {
        self.0 == "anonymous"
    }

    /// Whether it is the broker itself.
    pub fn is_system(&self) -> bool {
        self.0 == "_weft"
    }

    /// The name, for logs and for peers.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
