//! Whether a history keeps what the cluster promises. Pure: a history in, anomalies out.
//!
//! Time grows with the length of the history, but for sorting. Rules and names of the classes follow
//! Jepsen's test of Kafka, but tolerate neither gaps nor skips.

mod availability;
pub(crate) mod history;
mod lent;
mod order;
mod places;
mod polls;
mod replicas;
mod seam;
mod sends;
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use self::history::{Answer, JobEnd, Key, Record};
use self::places::Places;
use self::sends::Sends;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Class {
    /// Acknowledged or read, and gone although later events are there.
    LostWrite,
    /// Acknowledged, and not there at the end; or there, and not settled by a subscription.
    Unseen,
    /// One event at two places.
    Duplicate,
    /// Two events at one offset.
    InconsistentOffsets,
    /// An offset that no event has.
    OffsetGap,
    /// A replica lacks what another has.
    ReplicaDivergence,
    /// Other bytes than were published.
    Altered,
    /// Nobody published it.
    Unexpected,
    /// Read although it was refused.
    G1a,
    /// A reader missed events between two reads.
    PollSkip,
    /// A reader went back between two reads.
    NonmonotonicPoll,
    /// A reader missed events within one read.
    IntPollSkip,
    /// A reader went back within one read.
    IntNonmonotonicPoll,
    /// Events of one publisher in the wrong order.
    NonmonotonicSend,
    /// Events of one batch in the wrong order.
    IntNonmonotonicSend,
    /// An event stands before one that was acknowledged before it was published; or a subscription
    /// delivers events of one key, or of a partition to its only member, in another order than theirs.
    KeyOrder,
    /// A retry was given another place.
    IdempotenceViolation,
    /// A reader that asked for all that was acknowledged did not get it.
    StaleRead,
    /// A subscription delivers again what was settled, or what nothing happened to.
    DupBeyondBound,
    /// A subscription went back, and nobody moved it.
    CursorRegress,
    /// A member settled what it did not hold any more.
    StaleOwnerAck,
    /// A member was served after another one had taken over from it.
    TwoOwners,
    /// A replay job delivered what is not in its range, or its range lacks what was acknowledged before.
    ReplayRange,
    /// A reader missed events, or saw them twice, between what was stored and what is new.
    ReplayLiveSeam,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Anomaly {
    pub(crate) class: Class,
    pub(crate) key: Option<Key>,
    pub(crate) detail: String,
}

/// How much was done, and how well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    /// Events by what became of them.
    pub(crate) acked: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    /// Unknown to their publisher, and stored.
    pub(crate) recovered: u64,
    /// Answered from what the cluster remembers of a retry.
    pub(crate) duplicates: u64,
    /// Events that readers saw while faults went on.
    pub(crate) polled: u64,
    /// Events in the final reads of all replicas.
    pub(crate) final_reads: u64,
    /// Events that members of subscriptions were lent, first or again.
    pub(crate) lent: u64,
    /// Those of them that came for a replay job, and replay jobs that came to their end.
    pub(crate) replayed: u64,
    pub(crate) jobs: u64,
    /// Acts of members that were answered with ok, and that were refused.
    pub(crate) settled: u64,
    pub(crate) unsettled: u64,
    /// Events in dead letters at the end.
    pub(crate) letters: u64,
    /// Longest time without any acknowledgement, in milliseconds, and when it began.
    pub(crate) gap_ms: u64,
    pub(crate) gap_at_ms: u64,
}

/// What a history shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) anomalies: Vec<Anomaly>,
    pub(crate) counts: Counts,
    /// Longest waits for an acknowledgement in milliseconds, by the kind of fault.
    pub(crate) waits: BTreeMap<String, Vec<u64>>,
}

impl Class {
    /// All of them.
    pub(crate) const ALL: &[Self] = &[
        Self::LostWrite,
        Self::Unseen,
        Self::Duplicate,
        Self::InconsistentOffsets,
        Self::OffsetGap,
        Self::ReplicaDivergence,
        Self::Altered,
        Self::Unexpected,
        Self::G1a,
        Self::PollSkip,
        Self::NonmonotonicPoll,
        Self::IntPollSkip,
        Self::IntNonmonotonicPoll,
        Self::NonmonotonicSend,
        Self::IntNonmonotonicSend,
        Self::KeyOrder,
        Self::IdempotenceViolation,
        Self::StaleRead,
        Self::DupBeyondBound,
        Self::CursorRegress,
        Self::StaleOwnerAck,
        Self::TwoOwners,
        Self::ReplayRange,
        Self::ReplayLiveSeam,
    ];
}

impl Findings {
    /// Number of anomalies of each class.
    pub(crate) fn classes(&self) -> BTreeMap<Class, usize> {
        let mut classes = BTreeMap::new();
        for anomaly in &self.anomalies {
            *classes.entry(anomaly.class).or_default() += 1;
        }
        classes
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_string(self).unwrap_or_default();
        f.write_str(name.trim_matches('"'))
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.class)?;
        if let Some(key) = self.key {
            write!(f, " in {key}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.partition)
    }
}

/// Where the checkers put what they find.
#[derive(Debug, Default)]
struct Found(Vec<Anomaly>);

impl Found {
    fn add(&mut self, class: Class, key: Option<Key>, detail: impl fmt::Display) {
        self.0.push(Anomaly { class, key, detail: detail.to_string() });
    }
}

/// Everything that is wrong with a history.
pub(crate) fn check(history: &[Record]) -> Findings {
    let sends = Sends::new(history);
    let places = Places::new(history, &sends);
    let mut found = Found::default();
    sends.check(&mut found);
    order::check(&sends, &mut found);
    order::check_ends(history, &sends, &mut found);
    polls::check(history, &places, &mut found);
    places.check(&sends, &mut found);
    replicas::check(history, &sends, &places, &mut found);
    lent::check(history, &sends, &mut found);
    seam::check(history, &sends, &places, &mut found);
    let waits = availability::waits(history, &sends);
    Findings { anomalies: found.0, counts: counts(history, &sends, &places), waits }
}

fn counts(history: &[Record], sends: &Sends, places: &Places) -> Counts {
    let mut counts = sends.counts();
    counts.recovered = sends.unknown().filter(|value| places.is_seen(*value)).count() as u64;
    for record in history {
        match record {
            Record::Poll { seen, .. } => counts.polled += seen.len() as u64,
            Record::Final { seen, .. } => counts.final_reads += seen.len() as u64,
            Record::Lend { desk, events, .. } => {
                let events = events.len() as u64;
                counts.lent += events;
                counts.replayed += if desk.job == 0 { 0 } else { events };
            }
            Record::Job { end: JobEnd::Done, .. } => counts.jobs += 1,
            Record::Settled { answer: Answer::Ok, .. } => counts.settled += 1,
            Record::Settled { answer: Answer::Refused { .. }, .. } => counts.unsettled += 1,
            Record::Letters { letters, .. } => counts.letters += letters.len() as u64,
            _ => {}
        }
    }
    counts
}
