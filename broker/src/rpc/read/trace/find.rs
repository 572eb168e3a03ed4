//! From an id to the events that have it.

use std::ops::ControlFlow;
use std::time::Duration;

use weft_proto::event::EventView;
use weft_proto::filter::Candidate;
use weft_proto::{Offset, Result, v1};

use super::Found;
use super::scan::{Budget, Which};
use crate::access::Decision;
use crate::clock;
use crate::read::Tape;
use crate::resources::{Placement, StreamView};
use crate::rpc::read::Service;

/// Where looking begins unless it is said.
const BACK: Duration = Duration::from_hours(24);
/// Events of one id that are told of.
const FOUND_MAX: usize = 10;

/// What is looked for.
pub(super) struct Wanted<'a> {
    pub(super) id: &'a str,
    /// Empty: whatever it is.
    pub(super) source: &'a str,
    pub(super) from: Option<v1::Position>,
}

impl Wanted<'_> {
    fn is(&self, event: &EventView<'_>) -> bool {
        event.id == self.id && (self.source.is_empty() || event.source == self.source)
    }
}

impl Service {
    /// The events that are wanted and may be read, and what was looked through for them.
    pub(super) async fn find(
        &self,
        stream: &StreamView,
        visible: &Decision,
        wanted: &Wanted<'_>,
        budget: &mut Budget,
    ) -> Result<(Vec<Found>, v1::Searched)> {
        let may_see = |view: &EventView<'_>| visible.passes(&Candidate::new(*view));
        let is_it = |event: &[u8]| {
            EventView::parse(event).is_some_and(|view| wanted.is(&view) && may_see(&view))
        };
        if let Some(known) = self.remembered(stream, wanted).await?.filter(|one| is_it(&one.event))
        {
            let searched = v1::Searched {
                stream: stream.name.to_string(),
                from_us: known.time.as_micros(),
                events: 1,
                cut: false,
            };
            return Ok((vec![known], searched));
        }
        let day = || {
            let back = clock::now().saturating_sub(BACK);
            v1::Position { at: Some(v1::position::At::Time(back.into())) }
        };
        let from = wanted.from.unwrap_or_else(day);
        let mut all = Vec::new();
        let look = |found: Found| {
            let view = EventView::parse(&found.event).filter(may_see);
            let Some(is_wanted) = view.map(|view| wanted.is(&view)) else {
                return ControlFlow::Continue(false);
            };
            if is_wanted {
                all.push(found);
            }
            if all.len() < FOUND_MAX { ControlFlow::Continue(true) } else { ControlFlow::Break(()) }
        };
        let searched = self.scan((stream, Which::Events), &from, budget, look).await?;
        Ok((all, searched))
    }

    /// The event as it is known from recognising repeats, which takes source and id and goes back for
    /// minutes.
    async fn remembered(&self, stream: &StreamView, wanted: &Wanted<'_>) -> Result<Option<Found>> {
        if wanted.source.is_empty() || !stream.dedup {
            return Ok(None);
        }
        for placement in stream.placements.iter() {
            let gates = self.ingest.gates();
            let identity = gates.hash_of_identity(placement.uid, wanted.source, wanted.id);
            let known = self.ingest.group(placement.group)?.seen(identity);
            if let Some(offset) = known
                && let Some(found) = self.one(*placement, offset).await?
                && EventView::parse(&found.event).is_some_and(|view| wanted.is(&view))
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn one(&self, placement: Placement, offset: Offset) -> Result<Option<Found>> {
        let group = self.ingest.group(placement.group)?.clone();
        if offset < group.bounds(placement.uid).floor {
            return Ok(None);
        }
        let mut tape = Tape::new(group, placement.uid, self.history.clone(), offset);
        let runs = tape.read(Offset(offset.get().saturating_add(1)), 1).await?;
        let found = runs.into_iter().next().and_then(|run| {
            let event = run.events.into_iter().next()?;
            Some(Found { placement, offset: run.first, time: run.time, schema: run.schema, event })
        });
        Ok(found)
    }
}
