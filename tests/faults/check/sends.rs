//! What publishers sent and what they were told about it.

use std::collections::{BTreeMap, HashMap};

use super::history::{Key, Micros, Outcome, Process, Record, Sent, Value};
use super::{Class, Counts, Found};

/// What its publisher knows of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Acked(Key, u64),
    Refused,
    Unknown,
}

/// One send with all that was answered to it.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) process: Process,
    pub(super) invoked: Micros,
    pub(super) events: Vec<Sent>,
    /// The first acknowledgement: when, where, at which offsets.
    pub(super) acked: Option<(Micros, Key, Vec<u64>)>,
    answered: Answered,
    /// A later acknowledgement that says something else.
    contradiction: Option<(Key, Vec<u64>)>,
}

/// What was said short of an acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answered {
    #[default]
    Nothing,
    Refusal,
    /// A refusal before or after it says nothing about that attempt.
    Unknown,
}

/// All sends in the order in which they began, and an index of their events.
#[derive(Debug, Default)]
pub(super) struct Sends {
    pub(super) ops: Vec<Op>,
    values: HashMap<Value, (usize, usize)>,
    duplicates: u64,
}

impl Sends {
    pub(super) fn new(history: &[Record]) -> Self {
        let mut sends = Self::default();
        let mut by_op = HashMap::new();
        for record in history {
            match record {
                Record::Invoke { t, process, op, events } => {
                    let place = *by_op.entry(*op).or_insert(sends.ops.len());
                    // A retry is the same send.
                    if place == sends.ops.len() {
                        sends.begin(*t, *process, events);
                    }
                }
                Record::Done { t, op, outcome, .. } => {
                    if let Some(&place) = by_op.get(op) {
                        sends.end(place, *t, outcome);
                    }
                }
                _ => {}
            }
        }
        sends
    }

    fn begin(&mut self, invoked: Micros, process: Process, events: &[Sent]) {
        for (index, event) in events.iter().enumerate() {
            self.values.insert(event.value, (self.ops.len(), index));
        }
        self.ops.push(Op {
            process,
            invoked,
            events: events.to_vec(),
            acked: None,
            answered: Answered::Nothing,
            contradiction: None,
        });
    }

    fn end(&mut self, place: usize, t: Micros, outcome: &Outcome) {
        let Some(op) = self.ops.get_mut(place) else { return };
        match outcome {
            Outcome::Ok { key, offsets, duplicate } => {
                self.duplicates += u64::from(*duplicate);
                match &op.acked {
                    None => op.acked = Some((t, *key, offsets.clone())),
                    Some((_, first_key, first)) if (first_key, first) != (key, offsets) => {
                        op.contradiction = Some((*key, offsets.clone()));
                    }
                    Some(_) => {}
                }
            }
            // To be told that what is stored is not wanted.
            Outcome::Fail { .. } if let Some((_, key, _)) = op.acked => {
                op.contradiction = Some((key, Vec::new()));
            }
            Outcome::Fail { .. } if op.answered == Answered::Nothing => {
                op.answered = Answered::Refusal;
            }
            Outcome::Fail { .. } => {}
            Outcome::Info { .. } => op.answered = Answered::Unknown,
        }
    }

    pub(super) fn digest(&self, value: Value) -> Option<u64> {
        let &(op, index) = self.values.get(&value)?;
        Some(self.ops.get(op)?.events.get(index)?.digest)
    }

    /// `None` for what nobody published.
    pub(super) fn fate(&self, value: Value) -> Option<Fate> {
        let &(op, index) = self.values.get(&value)?;
        let op = self.ops.get(op)?;
        Some(match &op.acked {
            Some((_, key, offsets)) => Fate::Acked(*key, offsets.get(index).copied()?),
            None if op.answered == Answered::Refusal => Fate::Refused,
            None => Fate::Unknown,
        })
    }

    /// Acknowledged events with their places.
    pub(super) fn acked(&self) -> impl Iterator<Item = (Value, Key, u64)> {
        let acked = self.ops.iter().filter_map(|op| Some((op, op.acked.as_ref()?)));
        acked.flat_map(|(op, (_, key, offsets))| {
            op.events.iter().zip(offsets).map(|(event, &offset)| (event.value, *key, offset))
        })
    }

    pub(super) fn unknown(&self) -> impl Iterator<Item = Value> {
        let unknown =
            self.ops.iter().filter(|op| op.acked.is_none() && op.answered != Answered::Refusal);
        unknown.flat_map(|op| op.events.iter().map(|event| event.value))
    }

    pub(super) fn check(&self, found: &mut Found) {
        let mut last: BTreeMap<(Process, Key), u64> = BTreeMap::new();
        for op in &self.ops {
            let Some((_, key, offsets)) = &op.acked else { continue };
            if let Some((other_key, others)) = &op.contradiction {
                let told = format!("first told {offsets:?}, then {others:?} in {other_key}");
                found.add(Class::IdempotenceViolation, Some(*key), told);
            }
            if offsets.len() != op.events.len() || offsets.windows(2).any(|pair| pair[0] >= pair[1])
            {
                let what = format!("{} events at {offsets:?}", op.events.len());
                found.add(Class::IntNonmonotonicSend, Some(*key), what);
            }
            let (Some(&first), Some(&end)) = (offsets.first(), offsets.last()) else { continue };
            let before = last.entry((op.process, *key)).or_insert(first);
            if *before > first {
                let what = format!("process {} sent {before} before {first}", op.process);
                found.add(Class::NonmonotonicSend, Some(*key), what);
            }
            *before = (*before).max(end);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts { duplicates: self.duplicates, ..Counts::default() };
        let mut times = Vec::new();
        for op in &self.ops {
            let events = op.events.len() as u64;
            match &op.acked {
                Some((t, ..)) => {
                    counts.acked += events;
                    times.push(*t);
                }
                None if op.answered == Answered::Refusal => counts.refused += events,
                None => counts.unknown += events,
            }
        }
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
        let (gap, at) = gaps.max().unwrap_or_default();
        Counts { gap_ms: gap / 1_000, gap_at_ms: at / 1_000, ..counts }
    }
}
