//! Short histories, told in short words.

use super::super::history::{History, Injected, Key, Outcome, Process, Record, Seen, Sent, Value};

/// The partition of most stories.
pub(super) const KEY: Key = Key { stream: 0, partition: 0 };
pub(super) const OTHER: Key = Key { stream: 0, partition: 1 };
/// Replicas of a story.
pub(super) const NODES: usize = 3;

/// A history that grows; each line is a millisecond later.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    pub(super) history: History,
    pub(super) ops: u64,
    /// Microseconds in which nothing happened.
    idle: u64,
}

fn digest(value: Value) -> u64 {
    value.wrapping_mul(31) + 7
}

pub(super) fn seen(offset: u64, value: Value) -> Seen {
    Seen { offset, value, digest: digest(value) }
}

impl Story {
    pub(super) fn now(&self) -> u64 {
        1_000 * self.history.len() as u64 + self.idle
    }

    /// Nothing happens for so many milliseconds.
    pub(super) fn waits(mut self, ms: u64) -> Self {
        self.idle += 1_000 * ms;
        self
    }

    /// A send begins; its name.
    pub(super) fn invoke(&mut self, process: Process, values: &[Value]) -> u64 {
        let events = values.iter().map(|&value| Sent { value, digest: digest(value) }).collect();
        let (t, op) = (self.now(), self.ops);
        self.ops += 1;
        self.history.push(Record::Invoke { t, process, op, events });
        op
    }

    fn done(&mut self, op: u64, outcome: Outcome) {
        self.history.push(Record::Done { t: self.now(), process: 0, op, outcome });
    }

    pub(super) fn ok(&mut self, op: u64, key: Key, offsets: &[u64]) {
        self.done(op, Outcome::Ok { key, offsets: offsets.to_vec(), duplicate: false });
    }

    pub(super) fn fail(&mut self, op: u64) {
        self.done(op, Outcome::Fail { error: "refused".to_owned() });
    }

    pub(super) fn info(&mut self, op: u64) {
        self.done(op, Outcome::Info { error: "no answer".to_owned() });
    }

    /// A send of one event that is acknowledged.
    pub(super) fn sent(mut self, process: Process, value: Value, offset: u64) -> Self {
        let op = self.invoke(process, &[value]);
        self.ok(op, KEY, &[offset]);
        self
    }

    /// A send of one event that is refused.
    pub(super) fn refused(mut self, process: Process, value: Value) -> Self {
        let op = self.invoke(process, &[value]);
        self.fail(op);
        self
    }

    /// A send of one event that nobody answers.
    pub(super) fn open(mut self, process: Process, value: Value) -> Self {
        let op = self.invoke(process, &[value]);
        self.info(op);
        self
    }

    pub(super) fn assign(mut self, process: Process, from: u64) -> Self {
        self.history.push(Record::Assign { t: self.now(), process, key: KEY, from });
        self
    }

    pub(super) fn poll(mut self, process: Process, events: &[(u64, Value)]) -> Self {
        let seen = events.iter().map(|&(offset, value)| seen(offset, value)).collect();
        let t = self.now();
        self.history.push(Record::Poll { t, process, node: 0, key: KEY, seen });
        self
    }

    /// What one node has in the end.
    pub(super) fn has(
        mut self,
        node: usize,
        key: Key,
        floor: u64,
        events: &[(u64, Value)],
    ) -> Self {
        let seen: Vec<_> = events.iter().map(|&(offset, value)| seen(offset, value)).collect();
        let end = events.last().map_or(floor, |(offset, _)| offset + 1);
        self.history.push(Record::Final { t: self.now(), node, key, floor, end, seen });
        self
    }

    /// What all nodes have in the end.
    pub(super) fn end(mut self, events: &[(u64, Value)]) -> Self {
        for node in 0..NODES {
            self = self.has(node, KEY, 0, events);
        }
        self
    }

    /// What the nodes have in the end, one after the other.
    pub(super) fn ends(mut self, all: [&[(u64, Value)]; NODES]) -> Self {
        for (node, events) in all.into_iter().enumerate() {
            self = self.has(node, KEY, 0, events);
        }
        self
    }

    /// Somebody asks for the end now, and is answered.
    pub(super) fn asks(self, end: u64) -> Self {
        let now = self.now();
        self.asks_since(now, end)
    }

    /// The same, asked at another time.
    pub(super) fn asks_since(mut self, from: u64, end: u64) -> Self {
        let t = self.now();
        self.history.push(Record::End { t, process: 8, node: 0, key: KEY, from, end });
        self
    }

    pub(super) fn fault(mut self) -> Self {
        let (t, name, detail) = (self.now(), "kill-leader".to_owned(), String::new());
        self.history.push(Record::Fault { t, name, state: Injected::Installed, detail });
        self
    }

    /// Something in the middle that needs more words.
    pub(super) fn then(mut self, act: impl FnOnce(&mut Self)) -> Self {
        act(&mut self);
        self
    }

    /// Other bytes in the last line.
    pub(super) fn altered(mut self, place: usize) -> Self {
        if let Some(Record::Final { seen, .. } | Record::Poll { seen, .. }) =
            self.history.last_mut()
            && let Some(event) = seen.get_mut(place)
        {
            event.digest ^= 1;
        }
        self
    }
}

pub(super) fn story() -> Story {
    Story::default()
}
