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
