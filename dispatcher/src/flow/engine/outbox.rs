//! Events that are to be published: those of one stream in the order in which they came.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use weft_proto::QualifiedName;

use super::state::FailingId;
use crate::flow::types::{ItemId, PublicationId};

/// Events of one publication.
const EVENTS_MAX: usize = 500;
/// Bytes of one publication, unless one event has more.
const BYTES_MAX: usize = 1 << 20;

/// For whom something is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// An event, under a name that the flow gave it or the one it came with.
    Item { item: ItemId, is_derived: bool },
    /// A failure that is being undone.
    Failing(FailingId),
}

/// Events that are to be published.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lanes: BTreeMap<QualifiedName, Lane>,
    in_flight: BTreeMap<PublicationId, Sent>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<(Owner, Bytes)>,
    /// One publication at a time keeps the order.
    is_busy: bool,
}

#[derive(Debug)]
struct Sent {
    stream: QualifiedName,
    owners: Vec<Owner>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, stream: &QualifiedName, owner: Owner, event: Bytes) {
        self.bytes = self.bytes.saturating_add(event.len());
        let lane = self.lanes.entry(stream.clone()).or_default();
        lane.waiting.push_back((owner, event));
    }

    /// What may be published now, under this number.
    pub(super) fn next(&mut self, id: PublicationId) -> Option<(QualifiedName, Vec<Bytes>)> {
        let is_free = |lane: &Lane| !lane.is_busy && !lane.waiting.is_empty();
        let (stream, lane) = self.lanes.iter_mut().find(|(_, lane)| is_free(lane))?;
        let (mut owners, mut events, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        while let Some((_, event)) = lane.waiting.front()
            && events.len() < EVENTS_MAX
            && (events.is_empty() || bytes.saturating_add(event.len()) <= BYTES_MAX)
            && let Some((owner, event)) = lane.waiting.pop_front()
        {
            bytes = bytes.saturating_add(event.len());
            owners.push(owner);
            events.push(event);
        }
        lane.is_busy = true;
        let stream = stream.clone();
        self.in_flight.insert(id, Sent { stream: stream.clone(), owners, bytes });
        Some((stream, events))
    }

    /// A publication has come to an end; for whom it was.
    pub(super) fn done(&mut self, id: PublicationId) -> Vec<Owner> {
        let Some(sent) = self.in_flight.remove(&id) else { return Vec::new() };
        self.bytes = self.bytes.saturating_sub(sent.bytes);
        if let Some(lane) = self.lanes.get_mut(&sent.stream) {
            lane.is_busy = false;
            if lane.waiting.is_empty() {
                self.lanes.remove(&sent.stream);
            }
        }
        sent.owners
    }

    /// Lets go of an event that is not there any more, if it was not sent yet.
    pub(super) fn forget(&mut self, item: ItemId) {
        let is_its = |owner: &Owner| matches!(owner, Owner::Item { item: of, .. } if *of == item);
        for lane in self.lanes.values_mut() {
            let bytes = &mut self.bytes;
            lane.waiting.retain(|(owner, event)| {
                if is_its(owner) {
                    *bytes = bytes.saturating_sub(event.len());
                }
                !is_its(owner)
            });
        }
        self.lanes.retain(|_, lane| lane.is_busy || !lane.waiting.is_empty());
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.in_flight.is_empty()
    }
}
