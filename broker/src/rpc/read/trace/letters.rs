//! Which of the found events were given up, and what became of that.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use weft_proto::event::EventView;
use weft_proto::{Offset, PartitionId, QualifiedName, Result, v1};

use super::{Place, Served};
use crate::lend::{Story, story_of};
use crate::resources::{StreamView, SubscriptionView};
use crate::rpc::find::{Budget, Found, Which};
use crate::rpc::read::Service;

/// A dead letter of a found event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) story: Story,
    pub(super) trace: v1::DeadLetterTrace,
}

/// The dead letters of the found events, by subscription and place of the event; the newest of each, but
/// one of a replay job only where there is no other.
#[derive(Default)]
pub(super) struct Letters(BTreeMap<(String, PartitionId, Offset), Letter>);

impl Letters {
    pub(super) fn of(
        &self,
        subscription: &QualifiedName,
        partition: PartitionId,
        offset: Offset,
    ) -> Option<&Letter> {
        self.0.get(&(subscription.to_string(), partition, offset))
    }
}

impl Service {
    /// Looks through the dead letters from the oldest of the events on: none is given up before it is
    /// appended.
    pub(super) async fn letters(
        &self,
        stream: &StreamView,
        subscriptions: &[(SubscriptionView, Option<Served>)],
        events: &[Found],
        budget: &mut Budget,
    ) -> Result<Letters> {
        let Some(oldest) = events.iter().map(|found| found.time).min() else {
            return Ok(Letters::default());
        };
        let places: Vec<Place> =
            events.iter().map(|found| (found.placement.partition, found.offset)).collect();
        let from = v1::Position { at: Some(v1::position::At::Time(oldest.into())) };
        let mut letters = Letters::default();
        let look = |found: Found| {
            let story = EventView::parse(&found.event).and_then(|view| story_of(&view));
            if let Some(story) = story.filter(|one| places.contains(&(one.partition, one.offset))) {
                let trace = v1::DeadLetterTrace {
                    offset: found.offset.get(),
                    time_us: found.time.as_micros(),
                    reason: story.reason.clone(),
                    replay_job: story.replay_job.clone(),
                    ..v1::DeadLetterTrace::default()
                };
                let key = (story.subscription.clone(), story.partition, story.offset);
                let known = letters.0.get(&key).is_some_and(|one| one.story.replay_job.is_empty());
                // What a replay job gave up says nothing of the first delivery.
                if !known || story.replay_job.is_empty() {
                    letters.0.insert(key, Letter { story, trace });
                }
            }
            ControlFlow::Continue(false)
        };
        self.finder().scan((stream, Which::DeadLetters), &from, budget, look).await?;
        for (view, _) in subscriptions {
            for found in events {
                let (partition, offset) = (found.placement.partition, found.offset);
                let key = (view.name.to_string(), partition, offset);
                let Some(letter) = letters.0.get_mut(&key) else { continue };
                let at = Offset(letter.trace.offset);
                self.ingest.group(found.placement.group)?.with_state(|state| {
                    if let Some(cursor) = state.cursors().get(view.uid, found.placement.dead) {
                        letter.trace.redriven = cursor.parked().contains_key(&at);
                        letter.trace.settled =
                            at < cursor.watermark() || cursor.settled().contains(at);
                    }
                });
            }
        }
        Ok(letters)
    }
}
