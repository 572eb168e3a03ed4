//! Events that came of the found ones, belong to the same flow, or are copies of them.

use std::ops::ControlFlow;

use weft_proto::event::EventView;
use weft_proto::filter::Candidate;
use weft_proto::resource::Verb;
use weft_proto::{Offset, PartitionId, QualifiedName, Result, Timestamp, v1};

use crate::access::{Caller, Decision};
use crate::rpc::find::{Budget, Found, Which};
use crate::rpc::read::Service;

/// Events of each kind that are told of.
const EACH_MAX: usize = 20;
/// Set by replay jobs on what they publish again.
const REPLAY_JOB: &str = "weftreplayjob";

/// A found event, as others refer to it.
struct Origin {
    partition: PartitionId,
    offset: Offset,
    id: String,
    source: String,
    correlation: Option<String>,
    related: Vec<v1::RelatedEvent>,
}

/// The found events of a stream, and what belongs to each of them.
pub(super) struct Relatives {
    stream: QualifiedName,
    oldest: Timestamp,
    origins: Vec<Origin>,
}

impl Relatives {
    pub(super) fn new(found: &[Found], stream: &QualifiedName) -> Self {
        let origins = found.iter().filter_map(|found| {
            let view = EventView::parse(&found.event)?;
            Some(Origin {
                partition: found.placement.partition,
                offset: found.offset,
                id: view.id.to_owned(),
                source: view.source.to_owned(),
                correlation: view.attribute("correlationid").map(std::borrow::Cow::into_owned),
                related: Vec::new(),
            })
        });
        Self {
            stream: stream.clone(),
            oldest: found.iter().map(|found| found.time).min().unwrap_or_default(),
            origins: origins.collect(),
        }
    }

    /// Gives each event what belongs to it; `events` are in the order of what was found.
    pub(super) fn tell(self, events: &mut [v1::EventTrace]) {
        for (event, origin) in events.iter_mut().zip(self.origins) {
            event.related = origin.related;
        }
    }

    fn look(&mut self, stream: &QualifiedName, found: &Found, view: &EventView<'_>) {
        let cause = view.attribute("causationid");
        let flow = view.attribute("correlationid");
        let (partition, offset) = (found.placement.partition, found.offset);
        for origin in &mut self.origins {
            let is_itself =
                *stream == self.stream && (origin.partition, origin.offset) == (partition, offset);
            let relation = if is_itself {
                continue;
            } else if cause.as_deref() == Some(origin.id.as_str()) {
                v1::EventRelation::Derived
            } else if view.id == origin.id && view.source == origin.source {
                v1::EventRelation::Copy
            } else if flow.is_some() && flow.as_deref() == origin.correlation.as_deref() {
                v1::EventRelation::Correlated
            } else {
                continue;
            };
            let known = origin.related.iter().filter(|one| one.relation() == relation).count();
            if known < EACH_MAX {
                origin.related.push(v1::RelatedEvent {
                    relation: relation.into(),
                    stream: stream.to_string(),
                    partition: partition.get(),
                    offset: offset.get(),
                    append_time_us: found.time.as_micros(),
                    id: view.id.to_owned(),
                    source: view.source.to_owned(),
                    r#type: view.ty.to_owned(),
                    replay_job: view.attribute(REPLAY_JOB).unwrap_or_default().into_owned(),
                });
            }
        }
    }
}

impl Service {
    /// Looks through a stream from the oldest of the events on. Nothing where the caller may not read,
    /// or there is no such stream.
    pub(super) async fn relatives(
        &self,
        caller: &Caller,
        name: &QualifiedName,
        relatives: &mut Relatives,
        budget: &mut Budget,
    ) -> Result<Option<v1::Searched>> {
        let visible = caller.decide(Verb::Read, name);
        if visible == Decision::Denied {
            return Ok(None);
        }
        let Ok(stream) = self.ingest.resources().stream_named(&name.to_string()) else {
            return Ok(None);
        };
        self.confirm(stream.placements.iter().copied().map(Ok)).await?;
        let oldest = relatives.oldest;
        let from = v1::Position { at: Some(v1::position::At::Time(oldest.into())) };
        let look = |found: Found| {
            let view = EventView::parse(&found.event);
            let seen = view.filter(|view| visible.passes(&Candidate::new(*view)));
            if let Some(view) = &seen {
                relatives.look(name, &found, view);
            }
            ControlFlow::Continue(seen.is_some())
        };
        self.finder().scan((&stream, Which::Events), &from, budget, look).await.map(Some)
    }
}
