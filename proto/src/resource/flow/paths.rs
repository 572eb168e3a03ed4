//! Where steps lead: only to later ones, and every step is reached.

use std::collections::BTreeMap;

use super::{END, FlowTarget, OnError, StepKind, StepSpec};
use crate::resource::problem;
use crate::{QualifiedName, Result};

/// One list of steps: that of the flow, or of a branch.
pub(super) struct Paths<'s> {
    steps: &'s [StepSpec],
    places: BTreeMap<&'s str, usize>,
    reached: Vec<bool>,
}

impl<'s> Paths<'s> {
    pub(super) fn new(steps: &'s [StepSpec]) -> Self {
        let places = steps.iter().enumerate().map(|(place, step)| (step.label(), place)).collect();
        let mut reached = vec![false; steps.len()];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        Self { steps, places, reached }
    }

    /// Checks where the step at a place leads; to be called in order.
    pub(super) fn check(&mut self, place: usize, field: &str) -> Result<()> {
        let Some(step) = self.steps.get(place) else { return Ok(()) };
        if self.reached.get(place) != Some(&true) {
            let message = format!("no step leads to {:?}", step.label());
            return Err(problem(field, message));
        }
        let kind = step.kind().map_err(|error| problem(field, error))?;
        match (kind, &step.next) {
            (StepKind::Router(router), next) => {
                if next.is_some() {
                    let message = "a router says with each route where events go";
                    return Err(problem(format!("{field}.next"), message));
                }
                for (route, one) in router.routes.iter().enumerate() {
                    let field = format!("{field}.router.routes[{route}]");
                    self.target(place, one.to.as_ref(), one.stream.as_ref(), &field)?;
                }
                self.optional(place, router.default.as_ref(), &format!("{field}.router.default"))?;
            }
            (kind, next) => {
                if let StepKind::Filter(filter) = kind {
                    let field = format!("{field}.filter.else");
                    self.optional(place, filter.otherwise.as_ref(), &field)?;
                }
                match next {
                    Some(next) => self.leads_to(place, next, &format!("{field}.next"))?,
                    None => self.reach(place + 1),
                }
            }
        }
        match &step.on_error {
            OnError::To(next) => self.leads_to(place, next, &format!("{field}.on_error.to")),
            OnError::Stream(stream) => check_stream(stream, &format!("{field}.on_error.stream")),
            OnError::Retry | OnError::Fail | OnError::Continue => Ok(()),
        }
    }

    fn reach(&mut self, place: usize) {
        if let Some(reached) = self.reached.get_mut(place) {
            *reached = true;
        }
    }

    fn optional(&mut self, place: usize, target: Option<&FlowTarget>, field: &str) -> Result<()> {
        let Some(target) = target else { return Ok(()) };
        self.target(place, target.to.as_ref(), target.stream.as_ref(), field)
    }

    fn target(
        &mut self,
        place: usize,
        to: Option<&String>,
        stream: Option<&String>,
        field: &str,
    ) -> Result<()> {
        match (to, stream) {
            (Some(to), None) => self.leads_to(place, to, &format!("{field}.to")),
            (None, Some(stream)) => check_stream(stream, &format!("{field}.stream")),
            (None, None) => Err(problem(field, "say where: to a step, or a stream")),
            (Some(_), Some(_)) => Err(problem(field, "to a step or to a stream, not both")),
        }
    }

    fn leads_to(&mut self, place: usize, name: &str, field: &str) -> Result<()> {
        if name == END {
            return Ok(());
        }
        match self.places.get(name).copied() {
            Some(found) if found > place => {
                self.reach(found);
                Ok(())
            }
            Some(_) => {
                let message = format!("{name:?} is not after this step: a flow has no loops");
                Err(problem(field, message))
            }
            None => Err(problem(field, format!("there is no step {name:?} in this list"))),
        }
    }
}

pub(super) fn check_stream(stream: &str, field: &str) -> Result<()> {
    match stream.parse::<QualifiedName>() {
        Ok(_) => Ok(()),
        Err(error) => Err(problem(field, error.to_string())),
    }
}
