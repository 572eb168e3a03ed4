//! Roles: verbs that are usually granted together.

use serde::{Deserialize, Serialize};

use super::grant::Verb;

/// A set of verbs with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees resources, reads events, takes part in subscriptions.
    Reader,
    /// Sees resources and publishes events; reads none.
    Writer,
    /// Makes, changes and deletes resources and looks after the cluster; reads and publishes no
    /// events.
    Operator,
    /// What a dispatcher does: runs functions, and makes the subscriptions of their triggers.
    Dispatcher,
    /// May do everything.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::Reader, Self::Writer, Self::Operator, Self::Dispatcher, Self::Admin];

    /// Its verbs.
    pub const fn verbs(self) -> &'static [Verb] {
        match self {
            Self::Reader => &[Verb::View, Verb::Read, Verb::Subscribe],
            Self::Writer => &[Verb::View, Verb::Publish],
            Self::Operator => &[Verb::View, Verb::Edit, Verb::Operate],
            Self::Dispatcher => {
                &[Verb::View, Verb::Read, Verb::Subscribe, Verb::Publish, Verb::Edit, Verb::Report]
            }
            Self::Admin => &Verb::ALL,
        }
    }
}
