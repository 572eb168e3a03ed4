//! Events of one key wait in one lane; only the head of a lane may be sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weft_proto::PartitionId;

use super::types::{FeedId, Place};

/// Identity of a lane. An event without a key is a lane of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LaneId {
    Key(FeedId, PartitionId, Box<[u8]>),
    Single(Place),
}

impl LaneId {
    pub(super) fn of(place: Place, key: Option<&[u8]>) -> Self {
        key.map_or(Self::Single(place), |key| Self::Key(place.feed, place.partition, key.into()))
    }
}

/// Where a lane that may go on queues up among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Front,
    Back,
}

#[derive(Debug)]
struct Lane {
    places: BTreeSet<Place>,
    /// The event that is in flight or parked: nothing behind it moves.
    busy: Option<Place>,
    is_ready: bool,
}

/// All lanes of a function and the order in which they take turns.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<LaneId, Lane>,
    /// INVARIANT: exactly the lanes with `is_ready`, each once.
    ready: VecDeque<LaneId>,
}

impl Lanes {
    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn insert(&mut self, id: &LaneId, place: Place) {
        let lane = self.lanes.entry(id.clone()).or_insert_with(|| Lane {
            places: BTreeSet::new(),
            busy: None,
            is_ready: false,
        });
        lane.places.insert(place);
        self.wake(id, End::Back);
    }

    /// Takes the head of the next lane; the lane stands still until `retry` or `finish`.
    pub(super) fn start_next(&mut self) -> Option<Place> {
        let id = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&id)?;
        lane.is_ready = false;
        lane.busy = lane.places.first().copied();
        lane.busy
    }

    /// The busy event of the lane may be sent again.
    pub(super) fn retry(&mut self, id: &LaneId, end: End) {
        if let Some(lane) = self.lanes.get_mut(id) {
            lane.busy = None;
            self.wake(id, end);
        }
    }

    /// The event leaves its lane; what stands behind it may go on.
    pub(super) fn finish(&mut self, id: &LaneId, place: Place) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        lane.places.remove(&place);
        if lane.busy == Some(place) {
            lane.busy = None;
        }
        if lane.places.is_empty() {
            if lane.is_ready {
                self.ready.retain(|ready| ready != id);
            }
            self.lanes.remove(id);
        } else {
            self.wake(id, End::Back);
        }
    }

    fn wake(&mut self, id: &LaneId, end: End) {
        if let Some(lane) = self.lanes.get_mut(id)
            && lane.busy.is_none()
            && !lane.is_ready
            && !lane.places.is_empty()
        {
            lane.is_ready = true;
            match end {
                End::Front => self.ready.push_front(id.clone()),
                End::Back => self.ready.push_back(id.clone()),
            }
        }
    }
}
