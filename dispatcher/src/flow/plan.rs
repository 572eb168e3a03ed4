//! A flow, compiled: all steps in one list, each with what comes after it.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_proto::filter::Compiled;
use weft_proto::resource::flow::{
    CacheSpec, DelayStep, END, FanOutStep, FlowSpec, FlowTarget, JoinSpec, OnError, Pointer,
    RouteMode, StepKind, StepSpec,
};
use weft_proto::{Error, QualifiedName, Result};

use super::aggregate::Aggregate;
use super::call::Call;
use super::dedup::Dedup;
use super::split::Split;
use super::transform::Transform;

/// A flow, ready for use.
#[derive(Debug)]
pub struct Plan {
    pub(super) function: QualifiedName,
    pub(super) reply: Option<QualifiedName>,
    pub(super) steps: Vec<Step>,
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) next: Next,
    pub(super) timeout: Option<Duration>,
    pub(super) compensate: Option<(QualifiedName, String)>,
    pub(super) on_error: Course,
}

/// What comes after a step.
#[derive(Clone, Debug)]
pub(super) enum Next {
    Step(usize),
    End,
    /// The event is published there, and its path ends.
    Stream(QualifiedName),
    /// Its path ends without anything.
    Nothing,
}

/// What happens if a step fails.
#[derive(Clone, Debug)]
pub(super) enum Course {
    Retry,
    Fail,
    Continue,
    Go(Next),
}

#[derive(Debug)]
pub(super) enum Kind {
    Filter { when: Compiled, otherwise: Next },
    Router { routes: Vec<(Compiled, Next)>, default: Next, mode: RouteMode },
    Transform(Transform),
    Split(Split),
    Aggregate(Aggregate),
    Call { call: Box<Call>, cache: Option<CacheSpec> },
    Delay(DelayStep),
    Dedup(Dedup),
    Publish(QualifiedName),
    FanOut(FanOut),
}

#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) branches: Vec<Branch>,
    pub(super) need: usize,
    pub(super) into: Option<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Branch {
    pub(super) name: String,
    pub(super) first: usize,
    /// Whether its result is a list, because it has a split.
    pub(super) is_list: bool,
}

impl Plan {
    /// Compiles a flow of a function, whose last step's events go to `reply`.
    ///
    /// # Errors
    ///
    /// `Invalid` for a flow that breaks a rule, naming the field.
    pub fn new(
        spec: &FlowSpec,
        function: QualifiedName,
        reply: Option<QualifiedName>,
    ) -> Result<Self> {
        spec.check("spec.flow")?;
        let mut steps = Vec::new();
        list(&spec.steps, &mut steps)?;
        Ok(Self { function, reply, steps: steps.into_iter().flatten().collect() })
    }

    pub(super) fn name_of(&self, place: usize) -> &str {
        self.steps.get(place).map_or("", |step| step.name.as_str())
    }
}

fn wrong(message: String) -> Error {
    Error::invalid(message).with_field("spec.flow")
}

/// Compiles a list of steps behind those that are there, and returns where its first one is.
fn list(specs: &[StepSpec], all: &mut Vec<Option<Step>>) -> Result<usize> {
    let first = all.len();
    // Those of a list come one after the other; those of branches after all of them.
    all.extend(specs.iter().map(|_| None));
    let places: BTreeMap<&str, usize> =
        specs.iter().enumerate().map(|(place, step)| (step.label(), first + place)).collect();
    for (place, spec) in specs.iter().enumerate() {
        let below = if place + 1 < specs.len() { Next::Step(first + place + 1) } else { Next::End };
        let compiled = step(spec, &places, below, all)?;
        if let Some(slot) = all.get_mut(first + place) {
            *slot = Some(compiled);
        }
    }
    Ok(first)
}

fn step(
    spec: &StepSpec,
    places: &BTreeMap<&str, usize>,
    below: Next,
    all: &mut Vec<Option<Step>>,
) -> Result<Step> {
    let named = |name: &str| match places.get(name) {
        Some(place) => Ok(Next::Step(*place)),
        None if name == END => Ok(Next::End),
        None => Err(wrong(format!("there is no step {name:?}"))),
    };
    let target = |to: Option<&String>, at: Option<&String>| match (to, at) {
        (Some(to), _) => named(to),
        (None, Some(at)) => Ok(Next::Stream(stream(at)?)),
        (None, None) => Ok(Next::Nothing),
    };
    let optional = |one: Option<&FlowTarget>| match one {
        Some(one) => target(one.to.as_ref(), one.stream.as_ref()),
        None => Ok(Next::Nothing),
    };
    let kind = match spec.kind().map_err(wrong)? {
        StepKind::Filter(filter) => Kind::Filter {
            when: Compiled::new(&filter.when)?,
            otherwise: optional(filter.otherwise.as_ref())?,
        },
        StepKind::Router(spec) => {
            let routes = spec.routes.iter().map(|route| {
                let next = target(route.to.as_ref(), route.stream.as_ref())?;
                Ok((Compiled::new(&route.when)?, next))
            });
            let routes = routes.collect::<Result<_>>()?;
            Kind::Router { routes, default: optional(spec.default.as_ref())?, mode: spec.mode }
        }
        StepKind::FanOut(fan) => Kind::FanOut(fan_out(fan, all)?),
        other => plain(other)?,
    };
    let compensate = spec.compensate.as_ref().map(|compensate| {
        let ty = compensate.ty.clone();
        let ty = ty.unwrap_or_else(|| format!("compensate.{}", spec.label()));
        Ok::<_, Error>((stream(&compensate.stream)?, ty))
    });
    Ok(Step {
        name: spec.label().to_owned(),
        kind,
        next: match &spec.next {
            Some(next) => named(next)?,
            None => below,
        },
        timeout: spec.timeout.map(|timeout| timeout.0),
        compensate: compensate.transpose()?,
        on_error: match &spec.on_error {
            OnError::Retry => Course::Retry,
            OnError::Fail => Course::Fail,
            OnError::Continue => Course::Continue,
            OnError::To(to) => Course::Go(named(to)?),
            OnError::Stream(to) => Course::Go(Next::Stream(stream(to)?)),
        },
    })
}

/// The kinds that lead nowhere but on.
fn plain(kind: StepKind<'_>) -> Result<Kind> {
    Ok(match kind {
        StepKind::Transform(spec) => Kind::Transform(Transform::new(spec).map_err(wrong)?),
        StepKind::Split(spec) => Kind::Split(Split::new(spec).map_err(wrong)?),
        StepKind::Aggregate(spec) => Kind::Aggregate(Aggregate::new(spec).map_err(wrong)?),
        StepKind::Enrich(spec) => {
            let call = Box::new(Call::enrich(spec).map_err(wrong)?);
            Kind::Call { call, cache: spec.cache }
        }
        StepKind::Bridge(spec) => {
            Kind::Call { call: Box::new(Call::bridge(spec).map_err(wrong)?), cache: None }
        }
        StepKind::Delay(spec) => Kind::Delay(spec.clone()),
        StepKind::Dedup(spec) => Kind::Dedup(Dedup::new(spec).map_err(wrong)?),
        StepKind::Publish(spec) => Kind::Publish(stream(&spec.stream)?),
        StepKind::Filter(_) | StepKind::Router(_) | StepKind::FanOut(_) => {
            return Err(Error::internal("a kind of step is compiled elsewhere"));
        }
    })
}

fn fan_out(fan: &FanOutStep, all: &mut Vec<Option<Step>>) -> Result<FanOut> {
    let branches = fan.branches.iter().map(|branch| {
        Ok(Branch {
            name: branch.name.clone(),
            first: list(&branch.steps, all)?,
            is_list: branch.steps.iter().any(|step| step.split.is_some()),
        })
    });
    let branches = branches.collect::<Result<Vec<_>>>()?;
    let need = match fan.join {
        JoinSpec::All => branches.len(),
        JoinSpec::Any => 1,
        JoinSpec::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
    };
    let into = fan.into.as_deref().map(Pointer::parse).transpose().map_err(wrong)?;
    Ok(FanOut { branches, need, into: into.map(|into| into.steps().collect()) })
}

fn stream(text: &str) -> Result<QualifiedName> {
    text.parse().map_err(|error| Error::invalid(format!("stream {text:?}: {error}")))
}
