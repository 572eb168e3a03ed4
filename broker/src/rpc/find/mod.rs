//! From an id to the events that have it.
//!
//! *Never* tells of an event that the caller may not read.

mod place;
mod scan;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use weft_proto::event::EventView;
use weft_proto::filter::Candidate;
use weft_proto::{GroupId, NodeId, Offset, Result, SchemaId, Timestamp, v1};

pub(in crate::rpc) use self::place::Spot;
pub(in crate::rpc) use self::scan::{Budget, Which};
use crate::access::Decision;
use crate::clock;
use crate::ingest::Ingest;
use crate::read::{History, Tape};
use crate::resources::{Placement, StreamView};

/// Where looking begins unless it is said.
const BACK: Duration = Duration::from_hours(24);
/// Events of one id that are told of.
const FOUND_MAX: usize = 10;

/// A stored event.
pub(in crate::rpc) struct Found {
    pub(in crate::rpc) placement: Placement,
    pub(in crate::rpc) offset: Offset,
    pub(in crate::rpc) time: Timestamp,
    pub(in crate::rpc) schema: SchemaId,
    /// The node at which its publisher asked.
    pub(in crate::rpc) ingest: Option<NodeId>,
    pub(in crate::rpc) event: Bytes,
}

/// What is looked for.
pub(in crate::rpc) struct Wanted<'a> {
    pub(in crate::rpc) id: &'a str,
    /// Empty: whatever it is.
    pub(in crate::rpc) source: &'a str,
    pub(in crate::rpc) from: Option<v1::Position>,
}

/// Looks through what this node has stored.
#[derive(Clone, Copy)]
pub(in crate::rpc) struct Finder<'a> {
    pub(in crate::rpc) ingest: &'a Ingest,
    pub(in crate::rpc) history: &'a History,
}

impl Wanted<'_> {
    fn is(&self, event: &EventView<'_>) -> bool {
        event.id == self.id && (self.source.is_empty() || event.source == self.source)
    }
}

impl Finder<'_> {
    /// Waits until this node has all that the groups of the stream agreed on.
    pub(in crate::rpc) async fn confirm(&self, stream: &StreamView) -> Result<()> {
        let groups: BTreeSet<GroupId> =
            stream.placements.iter().map(|placement| placement.group).collect();
        let confirmed = groups.into_iter().map(|group| self.ingest.confirm(group));
        futures::future::try_join_all(confirmed).await.map(drop)
    }

    /// The events that are wanted and may be read, and what was looked through for them.
    pub(in crate::rpc) async fn find(
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
        let mut known = self.remembered(stream, wanted).await?;
        known.retain(|one| is_it(&one.event));
        if let Some(oldest) = known.iter().map(|one| one.time).min() {
            let searched = v1::Searched {
                stream: stream.name.to_string(),
                from_us: oldest.as_micros(),
                events: known.len() as u64,
                cut: false,
            };
            return Ok((known, searched));
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

    /// The event in each partition as it is known from recognising repeats, which takes source and id
    /// and goes back for minutes.
    async fn remembered(&self, stream: &StreamView, wanted: &Wanted<'_>) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        if wanted.source.is_empty() || !stream.dedup {
            return Ok(all);
        }
        for placement in stream.placements.iter() {
            let gates = self.ingest.gates();
            let identity = gates.hash_of_identity(placement.uid, wanted.source, wanted.id);
            let known = self.ingest.group(placement.group)?.seen(identity);
            if let Some(offset) = known
                && let Some(found) = self.one(*placement, offset).await?
                && EventView::parse(&found.event).is_some_and(|view| wanted.is(&view))
            {
                all.push(found);
            }
        }
        Ok(all)
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
            Some(Found {
                placement,
                offset: run.first,
                time: run.time,
                schema: run.schema,
                ingest: run.ingest,
                event,
            })
        });
        Ok(found)
    }
}
