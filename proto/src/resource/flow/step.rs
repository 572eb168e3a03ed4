//! The kinds of steps, as they are written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DurationText, StepSpec};
use crate::filter::Filter;
use crate::resource::SecretRef;

/// Lets events pass, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterStep {
    /// All of these pass.
    pub when: Vec<Filter>,
    /// Where the others go; without it, their path ends.
    #[serde(rename = "else", default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<FlowTarget>,
}

/// Where an event goes: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowTarget {
    /// A later step, or `end`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// A stream; its path ends there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
}

/// Chooses where an event goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterStep {
    /// In their order.
    pub routes: Vec<FlowRoute>,
    /// Where an event goes that no route takes; without it, its path ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<FlowTarget>,
    /// Whether it goes by the first route that takes it, or by all of them.
    #[serde(default)]
    pub mode: RouteMode,
}

/// One way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowRoute {
    /// All of these pass.
    pub when: Vec<Filter>,
    /// A later step, or `end`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// A stream; its path ends there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
}

/// How many routes an event goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteMode {
    /// The first that takes it.
    #[default]
    First,
    /// All that take it.
    All,
}

/// Changes payload and attributes, in this order. Templates see the event as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformStep {
    /// JSON Patch, RFC 6902, of the payload.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patch: Vec<Value>,
    /// JSON Merge Patch, RFC 7386, of the payload; its texts are templates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<Value>,
    /// Attributes to set: templates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Attributes to take away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// Makes one event of each element of an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitStep {
    /// Where the array is in the payload: a JSON pointer.
    #[serde(default)]
    pub at: String,
    /// More elements than this are an error.
    #[serde(default = "split_max_default")]
    pub max: u32,
    /// The type of the events; without it, that of the whole.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub ty: Option<String>,
}

/// Makes one event of several: an array of their payloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregateStep {
    /// Events with the same value of this template belong together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Instead of `key` and `count`: what a split took apart comes together again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Complete once there are so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Complete with the first event that passes all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<Filter>,
    /// How long after its first event a group waits.
    pub after: DurationText,
    /// What happens then.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// Complete before its payloads have more bytes together.
    #[serde(default = "aggregate_bytes_default")]
    pub max_bytes: u32,
    /// The type of the event; without it, that of the first.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub ty: Option<String>,
}

/// What happens to a group that is not complete in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It goes on as it is.
    #[default]
    Emit,
    /// Its events fail for good.
    Fail,
}

/// Fetches JSON with GET and puts it into the payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrichStep {
    /// A template; only path and query may have holes.
    pub url: String,
    /// Where the answer goes: a JSON pointer.
    pub into: String,
    /// More headers: templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The value of the header `authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<SecretRef>,
    /// For how long, and how many, answers are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,
}

/// Answers that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// For so long.
    pub ttl: DurationText,
    /// So many; the oldest goes first.
    #[serde(default = "cache_entries_default")]
    pub entries: u32,
}

/// Calls a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeStep {
    /// A template; only path and query may have holes.
    pub url: String,
    /// How.
    #[serde(default)]
    pub method: BridgeMethod,
    /// More headers: templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The value of the header `authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<SecretRef>,
    /// What is sent.
    #[serde(default)]
    pub body: BridgeBody,
    /// Where a JSON answer goes in the payload; without it nobody reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum BridgeMethod {
    #[default]
    Post,
    Put,
    Patch,
    Delete,
    Get,
}

/// What a call sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeBody {
    /// The event: attributes as headers, the payload as the body.
    #[default]
    Binary,
    /// The event as JSON.
    Structured,
    /// The payload.
    Data,
    /// Nothing.
    None,
    /// This JSON, whose texts are templates.
    Template(Value),
}

/// Gives the event back until later: one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayStep {
    /// So long after its `time`; without one, after it was stored.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<DurationText>,
    /// The attribute that says until when, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Further ahead than this is an error.
    #[serde(default = "delay_max_default")]
    pub max: DurationText,
}

/// Lets only the first of several that are alike pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DedupStep {
    /// Events with the same value of this template are alike; without it, those with the same source and
    /// id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For how long one is remembered.
    pub window: DurationText,
    /// How many are remembered; the oldest goes first.
    #[serde(default = "dedup_entries_default")]
    pub entries: u32,
}

/// Publishes to a stream, and goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishStep {
    /// `name` or `namespace/name`.
    pub stream: String,
}

/// Goes several ways at once, and joins them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FanOutStep {
    /// The ways.
    pub branches: Vec<FlowBranch>,
    /// Which of them are waited for.
    #[serde(default)]
    pub join: JoinSpec,
    /// Where their results go in the payload, by the names of the branches: a JSON pointer. Without it
    /// the event goes on as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
}

/// One way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowBranch {
    /// What its result is called.
    pub name: String,
    /// Its steps; the payload after the last is its result.
    pub steps: Vec<StepSpec>,
}

/// Which branches are waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinSpec {
    /// All of them.
    #[default]
    All,
    /// The first that comes to its end.
    Any,
    /// So many.
    Count(u32),
}

const fn split_max_default() -> u32 {
    1_000
}

const fn aggregate_bytes_default() -> u32 {
    256 << 10
}

const fn cache_entries_default() -> u32 {
    1_000
}

const fn dedup_entries_default() -> u32 {
    10_000
}

const fn delay_max_default() -> DurationText {
    DurationText::from_secs(7 * 24 * 3_600)
}
