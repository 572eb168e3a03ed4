//! Typed resources: what the `spec` of each kind means.
//!
//! The wire carries a spec as JSON; here it gets types, defaults and rules. Unknown fields are
//! errors, so that a misspelt one never passes for a default.

mod canonical;
mod duration;
pub mod flow;
mod function;
mod grant;
mod kind;
mod limit;
mod manifest;
mod place;
mod policy;
mod quantity;
mod replay_job;
mod revision;
mod role;
mod scaling;
mod schema;
mod stream;
mod subscription;
mod template;
mod trigger;
mod webhook;
mod webhook_url;

pub use duration::DurationText;
pub use function::{
    Concurrency, Condition, FunctionSpec, FunctionStatus, Instances, LogLine, ReplySpec,
    RevisionStatus, TriggerStatus,
};
pub use grant::{Effect, GrantSpec, PRINCIPAL_BYTES_MAX, Verb, check_principal};
pub use kind::Kind;
pub use limit::LimitSpec;
pub use manifest::{API_VERSION, Manifest, Metadata, check, identify};
pub use place::{EventAt, Place};
pub use policy::{
    Asked, ContainerPolicySpec, Denial, Limited, MaximaSpec, Policy, RESTRICTED, Rule,
};
pub use quantity::{BytesText, CpuText};
pub use replay_job::{
    FunctionTarget, ReplayJobSpec, ReplayPace, ReplayPartition, ReplayRange, ReplayState,
    ReplayTarget,
};
pub use revision::{LATEST, Revision, Template, TrafficSpec};
pub use role::Role;
pub use scaling::ScalingSpec;
pub use schema::{SchemaFormat, SchemaSpec, SchemaStatus, SchemaVersion};
pub use stream::{
    BindingMode, BindingSpec, BindingVersion, MaxAge, PARTITIONS_MAX, PlacementStatus, Retention,
    StreamSpec, StreamStatus,
};
pub use subscription::{OrderKey, Start, SubscriptionMode, SubscriptionRetry, SubscriptionSpec};
pub use template::{
    EnvVar, ProbeSpec, Protocol, ResourcesSpec, Runtime, SecretKeyRef, SecuritySpec,
};
pub use trigger::{BatchSpec, OnExhausted, OnPermanent, Ordering, RetrySpec, TriggerSpec};
pub use webhook::{
    ConsentStatus, Disabled, SecretRef, WEBHOOK_LABEL, WebhookMode, WebhookRetry, WebhookSpec,
    WebhookStatus,
};
pub use webhook_url::{Host, WebhookUrl};

use crate::{Error, Result};

/// Largest spec, in bytes of JSON.
pub const SPEC_BYTES_MAX: usize = 1 << 20;

/// Reads a spec from JSON.
///
/// # Errors
///
/// `Invalid`, with the place in the text.
pub fn parse<T: serde::de::DeserializeOwned>(kind: Kind, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| {
        Error::invalid(format!("the spec of this {kind} is wrong: {error}")).with_field("spec")
    })
}

/// A problem with one field.
fn problem(field: impl Into<String>, message: impl Into<String>) -> Error {
    Error::invalid(message).with_field(field)
}
