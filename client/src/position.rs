//! Where to start and stop reading.

use weft_proto::{Offset, Timestamp, v1};

/// Where to start or stop reading, in every partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The first event that is still stored.
    Earliest,
    /// Just after the last event at the moment of the call.
    Latest,
    /// The same offset in each partition.
    Offset(Offset),
    /// The first event that was appended at or after this instant.
    Time(Timestamp),
}

/// A place that is named by an event: in the partition in which it lies its own offset, in the others the
/// first event that was appended at its time or later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPlace {
    /// The id of the event.
    pub id: String,
    /// Its source; without it the id must be that of one source only.
    pub source: Option<String>,
    /// It is looked for among what was appended from here on; without it among all that is stored.
    pub since: Option<Timestamp>,
}

impl From<EventPlace> for v1::EventPlace {
    fn from(place: EventPlace) -> Self {
        let EventPlace { id, source, since } = place;
        Self { id, source: source.unwrap_or_default(), since: since.map(Into::into) }
    }
}

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        use v1::position::At;
        let at = match position {
            Position::Earliest => At::Earliest(v1::Earliest {}),
            Position::Latest => At::Latest(v1::Latest {}),
            Position::Offset(offset) => At::Offset(offset.get()),
            Position::Time(time) => At::Time(time.into()),
        };
        Self { at: Some(at) }
    }
}
