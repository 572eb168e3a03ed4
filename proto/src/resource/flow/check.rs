//! The rules and limits of a flow; every error names its field.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::{Paths, check_stream};
use super::rules::{
    attribute, attribute_text, duration, filters, is_attribute_name, leaves, pointer, range,
    template,
};
use super::step::{
    AggregateStep, BridgeBody, BridgeStep, DelayStep, EnrichStep, FanOutStep, JoinSpec, RouteMode,
    TransformStep,
};
use super::{
    DurationText, END, FAN_OUTS_DEPTH_MAX, FlowSpec, OnError, STEPS_MAX, StepKind, StepSpec,
    Template,
};
use crate::event::EVENT_BYTES_MAX;
use crate::resource::{SecretRef, WebhookUrl, problem};
use crate::{Name, Result};

const ROUTES_MAX: usize = 64;
const BRANCHES_MAX: usize = 16;
const PATCH_LEN_MAX: usize = 64;
const ATTRIBUTES_MAX: usize = 64;
const HEADERS_MAX: usize = 32;
const SPLIT_MAX: u32 = 10_000;
const AGGREGATE_COUNT_MAX: u32 = 1_000;
/// What goes around the payloads has to fit into an event, too.
const AGGREGATE_BYTES_MAX: usize = EVENT_BYTES_MAX * 9 / 10;
const CACHE_ENTRIES_MAX: u32 = 10_000;
const DEDUP_ENTRIES_MAX: u32 = 100_000;
/// Longest time in all these.
const DAY: DurationText = DurationText::from_secs(24 * 3_600);
const DELAY_MAX: DurationText = DurationText::from_secs(365 * 24 * 3_600);
/// What the protocol, the event and the call itself say.
const HEADERS_OF_THE_CALL: [&str; 10] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "authorization",
    "idempotency-key",
];

impl FlowSpec {
    /// Checks the rules that need no other resource.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field below `field`.
    pub fn check(&self, field: &str) -> Result<()> {
        let count = self.steps().len();
        if count > STEPS_MAX {
            let message = format!("{count} steps, more than {STEPS_MAX}");
            return Err(problem(format!("{field}.steps"), message));
        }
        let mut walk = Walk { names: BTreeSet::new() };
        walk.list(&self.steps, &format!("{field}.steps"), 0, false)
    }
}

/// What has been seen of a flow.
struct Walk<'s> {
    names: BTreeSet<&'s str>,
}

impl<'s> Walk<'s> {
    fn list(
        &mut self,
        steps: &'s [StepSpec],
        field: &str,
        depth: usize,
        mut has_effect: bool,
    ) -> Result<()> {
        if steps.is_empty() {
            return Err(problem(field, "there is no step"));
        }
        for (place, step) in steps.iter().enumerate() {
            self.name(step, &format!("{field}[{place}]"))?;
        }
        let mut paths = Paths::new(steps);
        for (place, step) in steps.iter().enumerate() {
            let field = format!("{field}[{place}]");
            paths.check(place, &field)?;
            let kind = step.kind().map_err(|error| problem(&field, error))?;
            common(step, kind, &field)?;
            let own = format!("{field}.{}", kind.word());
            match kind {
                StepKind::Delay(_) if has_effect => {
                    let message = "a delay gives the event back and the flow begins anew: it comes \
                                   before steps that do something; what is published later has the \
                                   attribute deliverat";
                    return Err(problem(own, message));
                }
                StepKind::Delay(_) | StepKind::Aggregate(_) if depth > 0 => {
                    let message = "not within a fan_out: its branches are one event";
                    return Err(problem(own, message));
                }
                StepKind::FanOut(fan) => self.fan_out(fan, &own, depth)?,
                _ => one(kind, &own)?,
            }
            has_effect |= match kind {
                // On one of its ways something may be done while another gives the event back.
                StepKind::Router(router) => router.mode == RouteMode::All,
                StepKind::Filter(_)
                | StepKind::Transform(_)
                | StepKind::Enrich(_)
                | StepKind::Dedup(_)
                | StepKind::Delay(_) => false,
                _ => true,
            };
        }
        Ok(())
    }

    fn name(&mut self, step: &'s StepSpec, field: &str) -> Result<()> {
        step.kind().map_err(|error| problem(field, error))?;
        let label = step.label();
        let named = format!("{field}.name");
        // `fan_out` is the one word that is no name.
        if let Some(name) = &step.name {
            name.parse::<Name>().map_err(|error| problem(&named, error.to_string()))?;
        }
        if label == END {
            return Err(problem(named, format!("{END:?} is where a path ends, no step")));
        }
        if !self.names.insert(label) {
            let message = match step.name {
                Some(_) => format!("there are two steps {label:?}"),
                None => format!("there are two steps {label:?}: give them names"),
            };
            return Err(problem(named, message));
        }
        Ok(())
    }

    fn fan_out(&mut self, fan: &'s FanOutStep, field: &str, depth: usize) -> Result<()> {
        if depth >= FAN_OUTS_DEPTH_MAX {
            let message = format!("more than {FAN_OUTS_DEPTH_MAX} fan-outs within each other");
            return Err(problem(field, message));
        }
        let branches = format!("{field}.branches");
        range(fan.branches.len(), 1, BRANCHES_MAX, &branches)?;
        for (place, branch) in fan.branches.iter().enumerate() {
            let branches = format!("{branches}[{place}]");
            let named = format!("{branches}.name");
            branch.name.parse::<Name>().map_err(|error| problem(&named, error.to_string()))?;
            if fan.branches.iter().take(place).any(|other| other.name == branch.name) {
                return Err(problem(named, format!("there are two branches {:?}", branch.name)));
            }
            self.list(&branch.steps, &format!("{branches}.steps"), depth + 1, true)?;
        }
        if let JoinSpec::Count(count) = fan.join {
            let most = fan.branches.len();
            range(count as usize, 1, most, &format!("{field}.join.count"))?;
        }
        fan.into.iter().try_for_each(|into| pointer(into, &format!("{field}.into")))
    }
}

fn common(step: &StepSpec, kind: StepKind<'_>, field: &str) -> Result<()> {
    let word = kind.word();
    if let Some(timeout) = step.timeout {
        let field = format!("{field}.timeout");
        if !matches!(kind, StepKind::Enrich(_) | StepKind::Bridge(_) | StepKind::FanOut(_)) {
            let message = match kind {
                StepKind::Aggregate(_) => "an aggregate says with after how long it waits".into(),
                StepKind::Publish(_) => "a publish takes as long as the function may".into(),
                _ => format!("a {word} takes no time"),
            };
            return Err(problem(field, message));
        }
        duration(timeout, DAY, &field)?;
    }
    if let Some(compensate) = &step.compensate {
        let field = format!("{field}.compensate");
        if !matches!(kind, StepKind::Bridge(_) | StepKind::Publish(_)) {
            let message = format!("a {word} changes nothing elsewhere that could be undone");
            return Err(problem(field, message));
        }
        check_stream(&compensate.stream, &format!("{field}.stream"))?;
        attribute_text(compensate.ty.as_deref(), &format!("{field}.type"))?;
    }
    let may_fail = !matches!(kind, StepKind::Filter(_) | StepKind::Router(_));
    if !may_fail && step.on_error != OnError::Retry {
        let message = format!("a {word} does not fail: an expression that does is false");
        return Err(problem(format!("{field}.on_error"), message));
    }
    if step.on_error == OnError::Continue && matches!(kind, StepKind::Publish(_)) {
        let message = "what is not stored would be lost";
        return Err(problem(format!("{field}.on_error"), message));
    }
    Ok(())
}

fn one(kind: StepKind<'_>, field: &str) -> Result<()> {
    let at = |name: &str| format!("{field}.{name}");
    match kind {
        StepKind::Filter(filter) => filters(&filter.when, &at("when")),
        StepKind::Router(router) => {
            range(router.routes.len(), 1, ROUTES_MAX, &at("routes"))?;
            for (place, route) in router.routes.iter().enumerate() {
                filters(&route.when, &at(&format!("routes[{place}].when")))?;
            }
            Ok(())
        }
        StepKind::Transform(transform) => check_transform(transform, field),
        StepKind::Split(split) => {
            pointer(&split.at, &at("at"))?;
            range(split.max, 1, SPLIT_MAX, &at("max"))?;
            attribute_text(split.ty.as_deref(), &at("type"))
        }
        StepKind::Aggregate(aggregate) => check_aggregate(aggregate, field),
        StepKind::Enrich(enrich) => check_enrich(enrich, field),
        StepKind::Bridge(bridge) => check_bridge(bridge, field),
        StepKind::Delay(delay) => check_delay(delay, field),
        StepKind::Dedup(dedup) => {
            dedup.key.iter().try_for_each(|key| template(key, &at("key")).map(drop))?;
            duration(dedup.window, DAY, &at("window"))?;
            range(dedup.entries, 1, DEDUP_ENTRIES_MAX, &at("entries"))
        }
        StepKind::Publish(publish) => check_stream(&publish.stream, &at("stream")),
        StepKind::FanOut(_) => Ok(()),
    }
}

fn check_transform(transform: &TransformStep, field: &str) -> Result<()> {
    let at = |name: &str| format!("{field}.{name}");
    let TransformStep { patch, merge, set, remove } = transform;
    if patch.is_empty() && merge.is_none() && set.is_empty() && remove.is_empty() {
        return Err(problem(field, "there is nothing to change: patch, merge, set or remove"));
    }
    range(patch.len(), 0, PATCH_LEN_MAX, &at("patch"))?;
    for (place, operation) in patch.iter().enumerate() {
        let read: serde_json::Result<json_patch::PatchOperation> =
            serde_json::from_value(operation.clone());
        read.map_err(|error| problem(at(&format!("patch[{place}]")), error.to_string()))?;
    }
    merge.iter().try_for_each(|merge| leaves(merge, &at("merge")))?;
    range(set.len() + remove.len(), 0, ATTRIBUTES_MAX, &at("set"))?;
    for (name, text) in set {
        let field = at(&format!("set.{name}"));
        attribute(name, &field)?;
        template(text, &field)?;
    }
    for (place, name) in remove.iter().enumerate() {
        let field = at(&format!("remove[{place}]"));
        attribute(name, &field)?;
        if matches!(name.as_str(), "source" | "type") {
            return Err(problem(field, format!("an event cannot be without {name}")));
        }
    }
    Ok(())
}

fn check_aggregate(aggregate: &AggregateStep, field: &str) -> Result<()> {
    let at = |name: &str| format!("{field}.{name}");
    match (&aggregate.key, aggregate.whole) {
        (Some(key), false) => template(key, &at("key")).map(drop)?,
        (None, true) => {}
        (None, false) => {
            let message = "say what belongs together: a key, or whole for the parts of a split";
            return Err(problem(at("key"), message));
        }
        (Some(_), true) => {
            return Err(problem(at("key"), "whole has the key of the split"));
        }
    }
    match aggregate.count {
        Some(_) if aggregate.whole => {
            return Err(problem(at("count"), "whole has the count of the split"));
        }
        Some(count) => range(count, 2, AGGREGATE_COUNT_MAX, &at("count"))?,
        None => {}
    }
    filters(&aggregate.until, &at("until"))?;
    duration(aggregate.after, DAY, &at("after"))?;
    range(aggregate.max_bytes as usize, 1_024, AGGREGATE_BYTES_MAX, &at("max_bytes"))?;
    attribute_text(aggregate.ty.as_deref(), &at("type"))
}

fn check_enrich(enrich: &EnrichStep, field: &str) -> Result<()> {
    let at = |name: &str| format!("{field}.{name}");
    call(&enrich.url, &enrich.headers, enrich.authorization.as_ref(), field)?;
    pointer(&enrich.into, &at("into"))?;
    if let Some(cache) = enrich.cache {
        duration(cache.ttl, DAY, &at("cache.ttl"))?;
        range(cache.entries, 1, CACHE_ENTRIES_MAX, &at("cache.entries"))?;
    }
    Ok(())
}

fn check_bridge(bridge: &BridgeStep, field: &str) -> Result<()> {
    call(&bridge.url, &bridge.headers, bridge.authorization.as_ref(), field)?;
    if let BridgeBody::Template(json) = &bridge.body {
        leaves(json, &format!("{field}.body.template"))?;
    }
    bridge.into.iter().try_for_each(|into| pointer(into, &format!("{field}.into")))
}

fn check_delay(delay: &DelayStep, field: &str) -> Result<()> {
    let at = |name: &str| format!("{field}.{name}");
    duration(delay.max, DELAY_MAX, &at("max"))?;
    match (delay.wait, &delay.until) {
        (Some(wait), None) => duration(wait, delay.max, &at("for")),
        (None, Some(until)) => is_attribute_name(until, &at("until")),
        (None, None) => Err(problem(field, "say how long (for), or until when (until)")),
        (Some(_), Some(_)) => Err(problem(field, "for or until, not both")),
    }
}

fn call(
    url: &str,
    headers: &BTreeMap<String, String>,
    authorization: Option<&SecretRef>,
    field: &str,
) -> Result<()> {
    let at = |name: &str| format!("{field}.{name}");
    let template_of = template(url, &at("url"))?;
    let base = base_of(&template_of).map_err(|error| problem(at("url"), error))?;
    WebhookUrl::parse(&base).map_err(|error| problem(at("url"), format!("the address {error}")))?;
    range(headers.len(), 0, HEADERS_MAX, &at("headers"))?;
    for (name, text) in headers {
        let field = at(&format!("headers.{name}"));
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(problem(field, "a header has a name in lower case: a-z, 0-9 and -"));
        }
        let is_taken = HEADERS_OF_THE_CALL.contains(&name.as_str()) || name.starts_with("ce-");
        if is_taken {
            let message = match name.as_str() {
                "authorization" => "secrets come from files: authorization: {file: NAME}",
                _ => "the call sets this header itself",
            };
            return Err(problem(field, message));
        }
        template(text, &field)?;
    }
    authorization.map_or(Ok(()), |secret| secret.check(&at("authorization")))
}

/// The address up to the first hole, so that no event decides who is called.
fn base_of(template: &Template) -> Result<String, String> {
    let Some(super::Part::Text(text)) = template.parts().first() else {
        return Err("the address begins with https://HOST/, without holes".to_owned());
    };
    let rest = text.split_once("://").map(|(_, rest)| rest);
    let has_path = rest.is_some_and(|rest| rest.contains('/'));
    if !has_path && !template.is_plain() {
        return Err("holes come after https://HOST/".to_owned());
    }
    let mut base = String::new();
    for part in template.parts() {
        match part {
            super::Part::Text(text) => base.push_str(text),
            _ => base.push('0'),
        }
    }
    Ok(base)
}
