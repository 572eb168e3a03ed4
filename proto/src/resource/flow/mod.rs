//! Flows: what happens to an event, step by step, without a program.
//!
//! A flow stands in a function in the place of a command. Its steps run from the first on; each goes
//! to the one below it unless it says otherwise, and only ever to a later one.

mod check;
mod paths;
mod rules;
mod step;
mod template;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::DurationText;
pub use step::{
    AggregateStep, BridgeBody, BridgeMethod, BridgeStep, CacheSpec, DedupStep, DelayStep,
    EnrichStep, FanOutStep, FilterStep, FlowBranch, FlowRoute, FlowTarget, JoinSpec, OnTimeout,
    PublishStep, RouteMode, RouterStep, SplitStep, TransformStep,
};
pub use template::{Part, Pointer, Template};

/// Steps of one flow, those in branches counted.
pub const STEPS_MAX: usize = 64;
/// Fan-outs within each other at most.
pub const FAN_OUTS_DEPTH_MAX: usize = 3;
/// Where a path ends, in place of the name of a step.
pub const END: &str = "end";

/// What happens to an event, step by step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowSpec {
    /// From the first on, each to the one below it.
    pub steps: Vec<StepSpec>,
}

/// One step: its kind is the one of these fields that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepSpec {
    /// Its name, by which others lead to it; without one, that of its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Lets events pass, or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterStep>,
    /// Chooses where an event goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterStep>,
    /// Changes payload and attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transform: Option<TransformStep>,
    /// Makes one event of each element of an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitStep>,
    /// Makes one event of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<AggregateStep>,
    /// Fetches something and puts it into the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrich: Option<EnrichStep>,
    /// Calls a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeStep>,
    /// Gives the event back until later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<DelayStep>,
    /// Lets only the first of several that are alike pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedup: Option<DedupStep>,
    /// Publishes to a stream, and goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<PublishStep>,
    /// Goes several ways at once, and joins them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fan_out: Option<FanOutStep>,
    /// The step after it, or `end`; without it the one below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How long it may take; without it, as long as the function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// What is published once it was done, if the event fails for good later on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensate: Option<CompensateSpec>,
    /// What happens if it fails.
    #[serde(skip_serializing_if = "OnError::is_retry")]
    pub on_error: OnError,
}

/// What is published to undo a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompensateSpec {
    /// Where to: `name` or `namespace/name`.
    pub stream: String,
    /// The type of the event; without it `compensate.<step>`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub ty: Option<String>,
}

/// What happens if a step fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The event fails; what may pass is tried again, from the first step, as the function says.
    #[default]
    Retry,
    /// The event fails for good.
    Fail,
    /// It goes on as if the step were not there.
    Continue,
    /// The event, as it came into the step, goes to this stream, and its path ends.
    Stream(String),
    /// The event, as it came into the step, goes to this step.
    To(String),
}

impl OnError {
    fn is_retry(&self) -> bool {
        *self == Self::Retry
    }
}

/// A step by its kind.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "as in `StepSpec`")]
pub enum StepKind<'s> {
    Filter(&'s FilterStep),
    Router(&'s RouterStep),
    Transform(&'s TransformStep),
    Split(&'s SplitStep),
    Aggregate(&'s AggregateStep),
    Enrich(&'s EnrichStep),
    Bridge(&'s BridgeStep),
    Delay(&'s DelayStep),
    Dedup(&'s DedupStep),
    Publish(&'s PublishStep),
    FanOut(&'s FanOutStep),
}

/// The words for kinds, for errors.
const KINDS: &str =
    "filter, router, transform, split, aggregate, enrich, bridge, delay, dedup, publish, fan_out";

impl StepKind<'_> {
    /// In a word, as it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Filter(_) => "filter",
            Self::Router(_) => "router",
            Self::Transform(_) => "transform",
            Self::Split(_) => "split",
            Self::Aggregate(_) => "aggregate",
            Self::Enrich(_) => "enrich",
            Self::Bridge(_) => "bridge",
            Self::Delay(_) => "delay",
            Self::Dedup(_) => "dedup",
            Self::Publish(_) => "publish",
            Self::FanOut(_) => "fan_out",
        }
    }
}

impl StepSpec {
    /// Its kind.
    ///
    /// # Errors
    ///
    /// A sentence, unless there is exactly one.
    pub fn kind(&self) -> Result<StepKind<'_>, String> {
        let all = [
            self.filter.as_ref().map(StepKind::Filter),
            self.router.as_ref().map(StepKind::Router),
            self.transform.as_ref().map(StepKind::Transform),
            self.split.as_ref().map(StepKind::Split),
            self.aggregate.as_ref().map(StepKind::Aggregate),
            self.enrich.as_ref().map(StepKind::Enrich),
            self.bridge.as_ref().map(StepKind::Bridge),
            self.delay.as_ref().map(StepKind::Delay),
            self.dedup.as_ref().map(StepKind::Dedup),
            self.publish.as_ref().map(StepKind::Publish),
            self.fan_out.as_ref().map(StepKind::FanOut),
        ];
        let mut given = all.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(kind), None) => Ok(kind),
            (None, _) => Err(format!("a step is one of {KINDS}; this one is none")),
            (Some(one), Some(other)) => {
                let (one, other) = (one.word(), other.word());
                Err(format!("a step is one thing; this one is {one} and {other}"))
            }
        }
    }

    /// Its name, or the word for its kind.
    pub fn label(&self) -> &str {
        match (&self.name, self.kind()) {
            (Some(name), _) => name,
            (None, Ok(kind)) => kind.word(),
            (None, Err(_)) => "",
        }
    }
}

fn add_streams<'s>(steps: &'s [StepSpec], field: &str, all: &mut Vec<(String, &'s str)>) {
    for (place, step) in steps.iter().enumerate() {
        let field = format!("{field}[{place}]");
        let mut add = |name: &str, stream: Option<&'s String>| {
            all.extend(stream.map(|stream| (format!("{field}.{name}.stream"), stream.as_str())));
        };
        if let Some(filter) = &step.filter {
            let other = filter.otherwise.as_ref();
            add("filter.else", other.and_then(|other| other.stream.as_ref()));
        }
        if let Some(router) = &step.router {
            for (route, one) in router.routes.iter().enumerate() {
                add(&format!("router.routes[{route}]"), one.stream.as_ref());
            }
            let default = router.default.as_ref();
            add("router.default", default.and_then(|default| default.stream.as_ref()));
        }
        add("publish", step.publish.as_ref().map(|publish| &publish.stream));
        add("compensate", step.compensate.as_ref().map(|compensate| &compensate.stream));
        if let OnError::Stream(stream) = &step.on_error {
            add("on_error", Some(stream));
        }
        if let Some(fan) = &step.fan_out {
            for (branch, one) in fan.branches.iter().enumerate() {
                let field = format!("{field}.fan_out.branches[{branch}].steps");
                add_streams(&one.steps, &field, all);
            }
        }
    }
}

impl FlowSpec {
    /// All steps, those of branches after the step that has them.
    pub fn steps(&self) -> Vec<&StepSpec> {
        fn add<'s>(steps: &'s [StepSpec], all: &mut Vec<&'s StepSpec>) {
            for step in steps {
                all.push(step);
                for branch in step.fan_out.iter().flat_map(|fan| &fan.branches) {
                    add(&branch.steps, all);
                }
            }
        }
        let mut all = Vec::new();
        add(&self.steps, &mut all);
        all
    }

    /// All streams that it publishes to, each with its field below `field`.
    pub fn streams(&self, field: &str) -> Vec<(String, &str)> {
        let mut streams = Vec::new();
        add_streams(&self.steps, &format!("{field}.steps"), &mut streams);
        streams
    }

    /// Whether it sends requests to addresses outside.
    pub fn calls_out(&self) -> bool {
        self.steps().iter().any(|step| step.enrich.is_some() || step.bridge.is_some())
    }

    /// Whether events are kept while others are waited for. Such a flow must not be given the events
    /// of a key one after the other: the next would wait for the one before, which waits for it.
    pub fn holds_events(&self) -> bool {
        self.steps().iter().any(|step| step.aggregate.is_some())
    }
}
