//! What steps do elsewhere, and the events that undo it.

use bytes::Bytes;
use weft_proto::QualifiedName;

use super::Engine;
use super::state::{Effect, EffectId, Fate, weigh};
use crate::delivery::Outcome;
use crate::flow::call::may_be_done;
use crate::flow::failure::Failure;
use crate::flow::parts::{Parts, digest, stamp};
use crate::flow::render::Scope;
use crate::flow::types::ItemId;

impl Engine {
    /// A step begins to do something elsewhere.
    pub(super) fn begin_effect(&mut self, id: ItemId) {
        let effect = EffectId(self.fresh());
        let Some(item) = self.items.get_mut(&id) else { return };
        item.effect = Some(effect);
        let Ok(scope) = Scope::new(&item.event) else { return };
        let view = scope.view();
        let of = (view.source.to_owned(), view.id.to_owned());
        let mut open = 0;
        for origin in &item.origins {
            if let Some(run) = self.runs.get_mut(origin) {
                run.effects.push(effect);
                open += 1;
            }
        }
        let event = item.event.clone();
        self.used = self.used.saturating_add(weigh(&event));
        let (step, hops, cause) = (item.at, item.hops, item.cause.clone());
        let (is_done, fate) = (false, Fate::Open);
        let known = Effect { step, of, event, is_done, hops, cause, open, fate };
        self.effects.insert(effect, known);
    }

    /// It was done.
    pub(super) fn done_effect(&mut self, id: ItemId) {
        let Some(item) = self.items.get_mut(&id) else { return };
        let Some(known) = item.effect.take() else { return };
        let (event, cause) = (item.event.clone(), item.cause.clone());
        if let Some(effect) = self.effects.get_mut(&known) {
            self.used = self.used.saturating_sub(weigh(&effect.event));
            self.used = self.used.saturating_add(weigh(&event));
            (effect.event, effect.cause, effect.is_done) = (event, cause, true);
        }
    }

    /// What a step that failed was about to do elsewhere: it may have been done.
    pub(super) fn end_own_effect(&mut self, id: ItemId, failure: &Failure) {
        let Some(item) = self.items.get_mut(&id) else { return };
        let Some(known) = item.effect.take() else { return };
        let is_unstored = failure.outcome == Outcome::ReplyFailed;
        if may_be_done(failure) || is_unstored {
            return;
        }
        if let Some(effect) = self.effects.remove(&known) {
            self.used = self.used.saturating_sub(weigh(&effect.event));
        }
    }

    /// One of the deliveries of an effect is over; returns it with the last one.
    pub(super) fn end_effect(&mut self, id: EffectId, fate: Fate) -> Option<Effect> {
        let effect = self.effects.get_mut(&id)?;
        effect.fate = effect.fate.max(fate);
        effect.open = effect.open.saturating_sub(1);
        if effect.open > 0 {
            return None;
        }
        let effect = self.effects.remove(&id)?;
        self.used = self.used.saturating_sub(weigh(&effect.event));
        Some(effect)
    }

    /// The event that undoes something.
    pub(super) fn compensation(
        &self,
        effect: &Effect,
        failure: &Failure,
    ) -> Option<(QualifiedName, Bytes)> {
        let step = self.plan.steps.get(effect.step)?;
        let (stream, ty) = step.compensate.as_ref()?;
        let mut parts = Parts::read(&effect.event).ok()?;
        parts.derive(&self.plan.function, &step.name, effect.cause.as_deref());
        let function = self.plan.function.to_string();
        let (source, id) = &effect.of;
        parts.id = digest(&[&function, &step.name, "compensate", source, id]);
        parts.ty.clone_from(ty);
        parts.set_text("compensates", step.name.as_str());
        parts.set_text("outcome", if effect.is_done { "done" } else { "unknown" });
        parts.set_text("flowstep", failure.step.as_str());
        parts.set_text("flowreason", failure.reason);
        let event = parts.encode("compensation").ok()?;
        // An event that came too far is undone all the same.
        let event = stamp(&event, effect.hops).unwrap_or(event);
        Some((stream.clone(), event))
    }
}
