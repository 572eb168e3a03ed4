//! A point of a log as it stands in values: 40 bytes.

use crate::store::StoreError;

/// A place in a group's log, right after one entry. Equal on every replica that has the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogPoint {
    /// The index of the entry.
    pub index: u64,
    /// The term of the entry.
    pub term: u64,
    /// The bytes of all payloads up to and with the entry's own.
    pub pos: u64,
    /// The log time in microseconds: the greatest leader time so far.
    pub time: u64,
    /// The hash of the log up to and with the entry.
    pub chain: u64,
}

/// How many bytes a point takes.
pub const LEN: usize = 40;

/// Encodes a point.
pub fn encode(point: &LogPoint) -> Vec<u8> {
    super::join([point.index, point.term, point.pos, point.time, point.chain])
}

/// Decodes a point.
pub fn decode(value: &[u8]) -> Result<LogPoint, StoreError> {
    super::fixed::<5>("point", value).map(|[index, term, pos, time, chain]| LogPoint {
        index,
        term,
        pos,
        time,
        chain,
    })
}
