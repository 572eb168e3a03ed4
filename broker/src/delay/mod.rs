//! Events whose time has not come: attribute `deliverat`.
//!
//! Each partition has a place for them beside it, a partition of the same group. What is published
//! for later is appended there, durably and recognised when it is repeated. When its time has come,
//! the leader of the group moves it: one entry of the log appends it to the partition and settles it
//! in the other place, so that after a crash at any moment it is in one place or the other. From
//! then on it is an event like all others.
//!
//! *Owns* the moves of this node's groups. *Never* keeps anything that the log does not have.

mod agenda;
mod cancel;
mod mover;
mod place;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use weft_proto::event::EventView;
use weft_proto::{Error, GroupId, PartitionUid, Reason, ResourceUid, Result, Timestamp};

use crate::data::lock;
use crate::resources::Placement;

pub use mover::Mover;

/// The attribute that says when an event is to be delivered: a timestamp.
pub const ATTRIBUTE: &str = "deliverat";
/// How far ahead that may be.
const AHEAD_MAX: Duration = Duration::from_hours(24 * 366);
/// Events of one partition that may wait: the leader knows each of them by its offset and time.
const WAITING_MAX: usize = 262_144;

/// When an event is to be delivered, if it says so.
///
/// # Errors
///
/// `Invalid` for what is no timestamp, or too far ahead.
pub fn due(event: &EventView<'_>, now: Timestamp) -> Result<Option<Timestamp>> {
    let Some(text) = event.attribute(ATTRIBUTE) else { return Ok(None) };
    let invalid = |message: String| Error::invalid(message).with_field(ATTRIBUTE);
    let due: Timestamp = text
        .parse()
        .map_err(|_error| invalid(format!("{ATTRIBUTE} is no time of RFC 3339: {text:?}")))?;
    if due > now.saturating_add(AHEAD_MAX) {
        return Err(invalid(format!("{ATTRIBUTE} is more than 366 days ahead: {text}")));
    }
    Ok(Some(due))
}

/// When a stored event is due. It was checked at the door; without a time its time has come.
pub fn due_of(event: &EventView<'_>) -> Timestamp {
    event.attribute(ATTRIBUTE).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A place for delayed events, and the stream whose cursor tells what was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The stream.
    pub stream: ResourceUid,
    /// Whether the last offset of each subject is kept.
    pub subject_index: bool,
    /// Where the events wait, and where they go.
    pub placement: Placement,
}

/// What publishers and movers of this node know of each other; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wakes: Mutex<BTreeMap<GroupId, Arc<Notify>>>,
    waiting: Mutex<BTreeMap<PartitionUid, usize>>,
    cancels: Mutex<BTreeMap<GroupId, Vec<cancel::Cancel>>>,
}

impl Delays {
    /// Rings when events were published for later.
    fn wakes(&self, group: GroupId) -> Arc<Notify> {
        Arc::clone(lock(&self.shared.wakes).entry(group).or_default())
    }

    /// Events were published for later: one of them may be the next.
    pub fn published(&self, group: GroupId) {
        self.wakes(group).notify_one();
    }

    /// # Errors
    ///
    /// `Overloaded` while too many wait.
    pub fn check_room(&self, place: PartitionUid, more: usize) -> Result<()> {
        let waiting = lock(&self.shared.waiting).get(&place).copied().unwrap_or(0);
        if waiting.saturating_add(more) > WAITING_MAX {
            let message = format!(
                "{waiting} delayed events wait in this partition, of at most {WAITING_MAX}"
            );
            return Err(Error::new(Reason::Overloaded, message).with_not_applied());
        }
        Ok(())
    }

    fn waits(&self, place: PartitionUid, events: usize) {
        lock(&self.shared.waiting).insert(place, events);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use weft_proto::cloudevents::CloudEvent;
    use weft_proto::cloudevents::cloud_event::CloudEventAttributeValue;
    use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;

    use super::*;

    fn due_of(value: Option<Attr>) -> Result<Option<Timestamp>> {
        let attribute = value.map(|attr| CloudEventAttributeValue { attr: Some(attr) });
        let attributes = attribute.map(|value| (ATTRIBUTE.to_owned(), value));
        let event = CloudEvent {
            id: "1".to_owned(),
            source: "/s".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "t".to_owned(),
            attributes: attributes.into_iter().collect(),
            ..CloudEvent::default()
        };
        let bytes = event.encode_to_vec();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        due(&EventView::parse(&bytes).unwrap(), now)
    }

    #[test]
    fn the_time_may_be_a_text_or_a_timestamp_and_not_too_far_ahead() {
        let text = |text: &str| due_of(Some(Attr::CeString(text.to_owned())));
        let wanted: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();

        assert_eq!(due_of(None).unwrap(), None);
        assert_eq!(text("2026-06-01T12:00:00Z").unwrap(), Some(wanted));
        assert_eq!(text("2026-06-01T14:00:00+02:00").unwrap(), Some(wanted));
        let stamp = due_of(Some(Attr::CeTimestamp(wanted.into())));
        assert_eq!(stamp.unwrap(), Some(wanted));
        assert!(text("1999-01-01T00:00:00Z").unwrap().is_some());
        for bad in ["", "tomorrow", "2026-06-01", "2027-02-01T00:00:00Z"] {
            let error = text(bad).unwrap_err();
            assert_eq!(error.field(), Some(ATTRIBUTE), "{bad:?}");
        }
    }

    #[test]
    fn too_many_are_refused() {
        let delays = Delays::default();
        let place = PartitionUid(7);
        delays.check_room(place, WAITING_MAX).unwrap();
        delays.waits(place, WAITING_MAX);

        let refused = delays.check_room(place, 1).unwrap_err();
        assert_eq!(refused.reason(), Reason::Overloaded);
        delays.check_room(PartitionUid(8), 1).unwrap();
    }
}
