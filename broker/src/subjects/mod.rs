//! Where the last event of each subject is, and whether that is what a publisher expects.
//!
//! The header of a batch carries a hash of each event's subject, and every replica writes the offset
//! of the last event of each subject beside its log. The leader asks there, and on top of it what is
//! in flight ([`Claims`]), before it proposes. So whether a batch is accepted follows from its
//! expected base alone, as without expectations.
//!
//! The answer is by hash, without a look at the stored event: 128 bits, so that two subjects of one
//! partition do not meet by chance.
//!
//! Never: decides what becomes of a batch; reads a clock or a disk.

mod claims;
mod expected;
#[cfg(test)]
mod tests;

pub use claims::Claims;
pub use expected::{Expectations, ExpectedSubject};
use weft_proto::Offset;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The hash of a subject; all zero stands for an event without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubjectHash(pub(crate) [u8; Self::LEN]);

impl SubjectHash {
    /// How many bytes it has.
    pub const LEN: usize = 16;
    /// Stands for an event without subject.
    pub const NONE: Self = Self([0; Self::LEN]);

    /// The hash of a subject in the cluster of this seed. It is stored with the events: changing it
    /// needs a new entry format.
    pub fn of(seed: u64, subject: &str) -> Self {
        // A subject whose hash is all zero would be none; it shares the next one.
        Self(xxh3_128_with_seed(subject.as_bytes(), seed).max(1).to_be_bytes())
    }

    /// Whether there is a subject.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// Where events that follow each other are, those without subject left out.
pub fn places(
    hashes: impl IntoIterator<Item = SubjectHash>,
    base: Offset,
) -> impl Iterator<Item = (SubjectHash, Offset)> {
    let offsets = (0_u64..).map(move |number| Offset(base.0.saturating_add(number)));
    hashes.into_iter().zip(offsets).filter(|(hash, _)| hash.is_some())
}
