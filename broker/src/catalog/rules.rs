//! Rules between resources: what refers to what, and what may change.

use std::collections::BTreeSet;

use weft_proto::resource::{
    self, BindingMode, BindingVersion, ContainerPolicySpec, FunctionSpec, FunctionTarget, Kind,
    MaxAge, RESTRICTED, ReplayJobSpec, ReplayState, ReplayTarget, Retention, Revision, StreamSpec,
    SubscriptionMode, SubscriptionSpec, WEBHOOK_LABEL, WebhookSpec,
};
use weft_proto::{Error, QualifiedName, Reason, v1};

use super::{State, view};

/// So many users of a resource are named in an error.
const USERS_NAMED_MAX: usize = 10;

impl State {
    /// Refuses what refers to nothing, and changes that a kind does not allow.
    pub(super) fn check_references(
        &self,
        kind: Kind,
        name: &QualifiedName,
        new: &v1::Resource,
        old: Option<&v1::Resource>,
    ) -> Result<(), Error> {
        match kind {
            Kind::Schema | Kind::Grant | Kind::Limit | Kind::ContainerPolicy => Ok(()),
            Kind::Stream => {
                let spec: StreamSpec = resource::parse(kind, &new.spec)?;
                if let Some(old) = old {
                    let old: StreamSpec = resource::parse(kind, &old.spec)?;
                    if old.partitions != spec.partitions {
                        let message = format!(
                            "the stream {name} has {} partitions; their number cannot change, or keys would move",
                            old.partitions
                        );
                        return Err(fixed("spec.partitions", message));
                    }
                    if old.subject_index != spec.subject_index {
                        let has = if old.subject_index { "an" } else { "no" };
                        let message = format!(
                            "the stream {name} was created with {has} index of subjects; that cannot change, an index made later would lack the events before it: create another stream"
                        );
                        return Err(fixed("spec.subject_index", message));
                    }
                }
                self.check_bindings(&spec)
            }
            Kind::Subscription => {
                let spec: SubscriptionSpec = resource::parse(kind, &new.spec)?;
                self.check_stream(&spec.stream, "spec.stream")?;
                let Some(old) = old else { return Ok(()) };
                let old: SubscriptionSpec = resource::parse(kind, &old.spec)?;
                // `orders` and `default/orders` are one stream.
                let is_same_stream =
                    old.stream.parse::<QualifiedName>() == spec.stream.parse::<QualifiedName>();
                let stream = if is_same_stream { &spec.stream } else { &old.stream }.clone();
                let same =
                    SubscriptionSpec { stream, start: old.start, mode: old.mode, ..spec.clone() };
                if same != spec {
                    let message = format!(
                        "stream, start and mode of the subscription {name} cannot change; its cursor belongs to them"
                    );
                    return Err(fixed("spec", message));
                }
                Ok(())
            }
            Kind::ReplayJob => {
                let spec: ReplayJobSpec = resource::parse(kind, &new.spec)?;
                self.check_replay_job(name, &spec, old)
            }
            Kind::Function => {
                let spec: FunctionSpec = resource::parse(kind, &new.spec)?;
                self.check_policy(name, &spec)?;
                self.check_triggers(name, &spec, old)?;
                check_revisions(name, &spec, old)?;
                for (place, trigger) in spec.triggers.iter().enumerate() {
                    self.check_stream(&trigger.stream, &format!("spec.triggers[{place}].stream"))?;
                }
                if let Some(flow) = &spec.flow {
                    for (field, stream) in flow.streams("spec.flow") {
                        self.check_stream(stream, &field)?;
                    }
                }
                match &spec.reply {
                    Some(reply) => self.check_stream(&reply.stream, "spec.reply.stream"),
                    None => Ok(()),
                }
            }
            Kind::Webhook => {
                let spec: WebhookSpec = resource::parse(kind, &new.spec)?;
                self.check_stream(&spec.stream, "spec.stream")?;
                self.check_cursor(name, &spec, old)
            }
        }
    }

    /// All but pace and state belongs to what was replayed so far.
    fn check_replay_job(
        &self,
        name: &QualifiedName,
        spec: &ReplayJobSpec,
        old: Option<&v1::Resource>,
    ) -> Result<(), Error> {
        let Some(old) = old else { return self.check_replay_target(spec) };
        let old: ReplayJobSpec = resource::parse(Kind::ReplayJob, &old.spec)?;
        if old.state == ReplayState::Cancelled && spec.state != ReplayState::Cancelled {
            let message = format!("the replay job {name} was cancelled; start another one");
            return Err(fixed("spec.state", message));
        }
        let same = ReplayJobSpec { pace: spec.pace, state: spec.state, ..old };
        if same != *spec {
            let message = format!(
                "only pace and state of the replay job {name} can change; start another one for another range or target"
            );
            return Err(fixed("spec", message));
        }
        Ok(())
    }

    fn check_replay_target(&self, spec: &ReplayJobSpec) -> Result<(), Error> {
        let name = spec.target.subscription()?;
        let owner = match &spec.target {
            ReplayTarget::Subscription(_) => None,
            ReplayTarget::Webhook(_) => Some(Kind::Webhook),
            ReplayTarget::Function(_) => Some(Kind::Function),
        };
        if let Some(kind) = &owner {
            let owner = spec.target.name()?;
            let Some(stored) = self.get(*kind, &owner) else {
                let message = format!("there is no {kind} {owner}");
                let error = Error::new(Reason::UnknownResource, message);
                return Err(error.with_field(spec.target.field()));
            };
            if let ReplayTarget::Function(target) = &spec.target {
                check_function_target(target, &resource::parse(*kind, &stored.spec)?)?;
            }
        }
        let target = self.subscription(&name);
        let Some(target) = target else {
            let message = match &owner {
                None => format!("there is no Subscription {name}; create it first"),
                Some(kind) => format!(
                    "the subscription {name} of the {kind} is not made yet: does a dispatcher run?"
                ),
            };
            let error = Error::new(Reason::UnknownResource, message);
            return Err(error.with_field(spec.target.field()));
        };
        if target.spec.mode == SubscriptionMode::Exclusive {
            let message = format!(
                "the subscription {name} is exclusive: it has one order, in which nothing can be put; move its cursor by `weft subscription seek`, or replay to one in mode shared or key-shared"
            );
            return Err(fixed("spec.target.subscription", message));
        }
        // Whoever writes it is the cluster, when the job is made.
        match &spec.resolved {
            Some(range) if range.target_uid == target.uid.get() => Ok(()),
            Some(_) => Err(Error::unavailable("the target of the replay job changed; try again")),
            None => Err(Error::invalid("the range is not resolved").with_field("spec.resolved")),
        }
    }

    /// A trigger's subscription has its name and cursor from it: neither may be anybody else's.
    fn check_triggers(
        &self,
        name: &QualifiedName,
        spec: &FunctionSpec,
        old: Option<&v1::Resource>,
    ) -> Result<(), Error> {
        let old: Option<FunctionSpec> =
            old.map(|old| resource::parse(Kind::Function, &old.spec)).transpose()?;
        let old = old.map(|old| old.triggers).unwrap_or_default();
        for (place, trigger) in spec.triggers.iter().enumerate() {
            let moved = old.iter().find(|old| {
                let same = old.stream.parse::<QualifiedName>() == trigger.stream.parse();
                let fixed = (&old.start, old.ordering) == (&trigger.start, trigger.ordering);
                old.name == trigger.name && !(same && fixed)
            });
            if moved.is_some() {
                let message = format!(
                    "stream, start and ordering of the trigger {} cannot change, its cursor belongs \
                     to them; give the new trigger another name",
                    trigger.name
                );
                return Err(fixed(&format!("spec.triggers[{place}]"), message));
            }
        }
        // `fn-a-b-c` is trigger `c` of function `a-b`, or trigger `b-c` of function `a`.
        let close = |one: &str, other: &str| {
            one.strip_prefix(other).is_some_and(|rest| rest.starts_with('-'))
        };
        for (other, stored) in self.of_kind(Kind::Function) {
            let (one, two) = (name.name.as_str(), other.name.as_str());
            if other.namespace != name.namespace || !(close(one, two) || close(two, one)) {
                continue;
            }
            let other_spec: FunctionSpec = resource::parse(Kind::Function, &stored.spec)?;
            for (place, trigger) in spec.triggers.iter().enumerate() {
                let wanted = FunctionSpec::subscription_name(&name.name, &trigger.name)?;
                for taken in &other_spec.triggers {
                    if FunctionSpec::subscription_name(&other.name, &taken.name)? == wanted {
                        let message = format!(
                            "the subscription {wanted} belongs to the trigger {} of the Function \
                             {other}; give this trigger another name",
                            taken.name
                        );
                        return Err(fixed(&format!("spec.triggers[{place}].name"), message));
                    }
                }
            }
        }
        Ok(())
    }

    /// A webhook's subscription has its cursor and mode from it, and may be nobody else's.
    fn check_cursor(
        &self,
        name: &QualifiedName,
        spec: &WebhookSpec,
        old: Option<&v1::Resource>,
    ) -> Result<(), Error> {
        if let Some(old) = old {
            let old: WebhookSpec = resource::parse(Kind::Webhook, &old.spec)?;
            let is_same_stream =
                old.stream.parse::<QualifiedName>() == spec.stream.parse::<QualifiedName>();
            if !is_same_stream || old.start != spec.start || old.ordered != spec.ordered {
                let message = format!(
                    "stream, start and order of the webhook {name} cannot change, its cursor belongs \
                     to them; give the new webhook another name"
                );
                return Err(fixed("spec", message));
            }
            return Ok(());
        }
        let subscription = QualifiedName {
            namespace: name.namespace.clone(),
            name: WebhookSpec::subscription_name(&name.name)?,
        };
        let taken = self.get(Kind::Subscription, &subscription);
        if taken
            .is_some_and(|taken| taken.labels.get(WEBHOOK_LABEL) != Some(&name.name.to_string()))
        {
            let message = format!(
                "the subscription {subscription} exists, and its name and cursor are the webhook's: \
                 delete it, or give the webhook another name"
            );
            return Err(Error::new(Reason::AlreadyExists, message).with_field("metadata.name"));
        }
        Ok(())
    }

    fn check_bindings(&self, spec: &StreamSpec) -> Result<(), Error> {
        for (place, binding) in spec.schemas.iter().enumerate() {
            if binding.mode == BindingMode::Off {
                continue;
            }
            let field = format!("spec.schemas[{place}].schema");
            let Ok(name) = binding.schema.parse::<QualifiedName>() else { continue };
            let Some(schema) = self.get(Kind::Schema, &name) else {
                let message = format!("there is no Schema {name}; register it first");
                return Err(Error::new(Reason::UnknownResource, message).with_field(field));
            };
            if let BindingVersion::Number(number) = binding.version {
                let versions = view::schema_status(schema).versions;
                if !versions.iter().any(|version| version.version == number) {
                    let message = format!("the Schema {name} has no version {number}");
                    let field = format!("spec.schemas[{place}].version");
                    return Err(Error::new(Reason::UnknownResource, message).with_field(field));
                }
            }
        }
        Ok(())
    }

    fn check_stream(&self, text: &str, field: &str) -> Result<(), Error> {
        let name: QualifiedName = text
            .parse()
            .map_err(|error: weft_proto::NameError| Error::invalid(error.to_string()))?;
        if self.get(Kind::Stream, &name).is_some() {
            return Ok(());
        }
        let message = format!("there is no Stream {name}; create it first");
        Err(Error::new(Reason::UnknownStream, message).with_field(field))
    }

    /// Refuses to delete what others stand on, and names them.
    pub(super) fn check_unused(&self, kind: Kind, name: &QualifiedName) -> Result<(), Error> {
        let users: Vec<String> = self
            .resources()
            .iter()
            .filter(|((other, _), resource)| uses(*other, resource, kind, name))
            .map(|((other, user), _)| format!("{other} {user}"))
            .collect();
        if users.is_empty() {
            return Ok(());
        }
        let named = users.get(..USERS_NAMED_MAX).unwrap_or(&users).join(", ");
        let more = match users.len().saturating_sub(USERS_NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!("the {kind} {name} is used by {named}{more}; delete them first");
        Err(Error::new(Reason::FailedPrecondition, message))
    }
}

/// What is allowed but probably not meant.
pub(super) fn warnings(kind: Kind, new: &v1::Resource) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    match kind {
        Kind::Stream => {
            let spec: StreamSpec = resource::parse(kind, &new.spec)?;
            let Retention { max_age, max_bytes, max_events } = spec.retention;
            if max_age == MaxAge::Forever && max_bytes.is_none() && max_events.is_none() {
                warnings.push(
                    "no limit of retention: the stream grows until disks are full".to_owned(),
                );
            }
        }
        Kind::Function => {
            let spec: FunctionSpec = resource::parse(kind, &new.spec)?;
            let reads = |stream: &QualifiedName| {
                spec.triggers.iter().any(|trigger| trigger.stream.parse().as_ref() == Ok(stream))
            };
            let reply = spec.reply.iter().map(|reply| reply.stream.as_str());
            let flow = spec.flow.iter().flat_map(|flow| flow.streams(""));
            let written = reply.chain(flow.map(|(_, stream)| stream));
            let written = written.filter_map(|stream| stream.parse::<QualifiedName>().ok());
            for stream in written.filter(reads).collect::<BTreeSet<_>>() {
                warnings.push(format!(
                    "events go to {stream}, which the function itself is run for: unless a \
                     filter keeps them out it never ends"
                ));
            }
        }
        Kind::Webhook => {
            let spec: WebhookSpec = resource::parse(kind, &new.spec)?;
            if spec.secrets.is_empty() {
                warnings.push(
                    "without secrets nothing is signed: the receiver cannot tell who sent it"
                        .to_owned(),
                );
            }
        }
        Kind::ContainerPolicy => {
            let spec: ContainerPolicySpec = resource::parse(kind, &new.spec)?;
            if spec.allow_unenforced {
                warnings.push(
                    "where a rule of it cannot be enforced, functions run without it".to_owned(),
                );
            }
        }
        Kind::Schema | Kind::Subscription | Kind::ReplayJob | Kind::Grant | Kind::Limit => {}
    }
    Ok(warnings)
}

/// Revisions are carried on from what is stored, and not from what was stored when somebody looked.
fn check_revisions(
    name: &QualifiedName,
    spec: &FunctionSpec,
    old: Option<&v1::Resource>,
) -> Result<(), Error> {
    let Some(old) = old else { return Ok(()) };
    let old: FunctionSpec = resource::parse(Kind::Function, &old.spec)?;
    let same = |stored: &Revision| spec.revisions.iter().any(|revision| revision == stored);
    if old.revisions.last().is_none_or(same) {
        return Ok(());
    }
    Err(Error::unavailable(format!("the function {name} was changed meanwhile; try again")))
}

/// A replay job names what is there.
fn check_function_target(target: &FunctionTarget, function: &FunctionSpec) -> Result<(), Error> {
    let missing = |field: &str, what: &str, names: Vec<&str>| {
        let message = format!("there is no {what}; there are {}", names.join(", "));
        let error = Error::new(Reason::UnknownResource, message);
        Err(error.with_field(format!("spec.target.function.{field}")))
    };
    if !function.triggers.iter().any(|trigger| trigger.name == target.trigger) {
        let names = function.triggers.iter().map(|trigger| trigger.name.as_str()).collect();
        return missing("trigger", &format!("trigger {}", target.trigger), names);
    }
    match &target.revision {
        Some(revision) if function.revision(revision).is_none() => {
            let names = function.revisions.iter().map(|kept| kept.name.as_str()).collect();
            missing("revision", &format!("revision {revision}"), names)
        }
        _ => Ok(()),
    }
}

fn fixed(field: &str, message: String) -> Error {
    Error::new(Reason::FailedPrecondition, message).with_field(field)
}

fn uses(kind: Kind, resource: &v1::Resource, used: Kind, name: &QualifiedName) -> bool {
    let is = |text: &str| text.parse::<QualifiedName>().is_ok_and(|other| other == *name);
    match (kind, used) {
        (Kind::Stream, Kind::Schema) => resource::parse::<StreamSpec>(kind, &resource.spec)
            .is_ok_and(|spec| spec.schemas.iter().any(|binding| is(&binding.schema))),
        (Kind::Subscription, Kind::Stream) => {
            resource::parse::<SubscriptionSpec>(kind, &resource.spec)
                .is_ok_and(|spec| is(&spec.stream))
        }
        (Kind::Webhook, Kind::Stream) => {
            resource::parse::<WebhookSpec>(kind, &resource.spec).is_ok_and(|spec| is(&spec.stream))
        }
        (Kind::Function, Kind::Stream) => resource::parse::<FunctionSpec>(kind, &resource.spec)
            .is_ok_and(|spec| {
                spec.triggers.iter().any(|trigger| is(&trigger.stream))
                    || spec.reply.is_some_and(|reply| is(&reply.stream))
                    || spec
                        .flow
                        .is_some_and(|flow| flow.streams("").iter().any(|(_, stream)| is(stream)))
            }),
        // Without one of its name, `restricted` is built in.
        (Kind::Function, Kind::ContainerPolicy) if name.name.as_str() != RESTRICTED => {
            let is_near =
                name.namespace.is_system() || resource.namespace == name.namespace.as_str();
            is_near
                && resource::parse::<FunctionSpec>(kind, &resource.spec)
                    .is_ok_and(|spec| spec.policy == name.name.as_str())
        }
        _ => false,
    }
}
