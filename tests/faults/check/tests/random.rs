//! Histories of a model that keeps its promises, with clients that crash at random moments.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::super::history::{History, Record, Seen};
use super::super::{Class, check};
use super::story::{KEY, NODES, Story, seen};

/// What somebody does next.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A publisher begins a send of so many events.
    Send { publisher: u32, events: u64 },
    /// The log takes the oldest send of a publisher that it has not.
    Append { publisher: u32 },
    /// A publisher hears what became of it; or gives up.
    Answer { publisher: u32, heard: bool },
    /// The cluster refuses the oldest send that it has not appended.
    Refuse { publisher: u32 },
    /// A reader reads on, at most so much.
    Read { reader: usize, most: usize },
    /// A publisher or a reader comes back as somebody else.
    Crash { client: usize },
    /// The last answer comes again.
    Repeat,
}

const PUBLISHERS: u32 = 3;
const READERS: usize = 2;

fn act() -> impl Strategy<Value = Act> {
    let publisher = 0..PUBLISHERS;
    prop_oneof![
        3 => (publisher.clone(), 1..4_u64).prop_map(|(publisher, events)| Act::Send { publisher, events }),
        3 => publisher.clone().prop_map(|publisher| Act::Append { publisher }),
        3 => (publisher.clone(), prop::bool::weighted(0.8))
            .prop_map(|(publisher, heard)| Act::Answer { publisher, heard }),
        1 => publisher.prop_map(|publisher| Act::Refuse { publisher }),
        2 => (0..READERS, 1..6_usize).prop_map(|(reader, most)| Act::Read { reader, most }),
        1 => (0..PUBLISHERS as usize + READERS).prop_map(|client| Act::Crash { client }),
        1 => Just(Act::Repeat),
    ]
}

/// One send of a publisher; a publisher has one at a time.
#[derive(Clone, Debug)]
struct Send {
    op: u64,
    values: Vec<u64>,
    offsets: Option<Vec<u64>>,
}

#[derive(Debug, Default)]
struct Model {
    story: Story,
    log: Vec<u64>,
    sends: [Option<Send>; PUBLISHERS as usize],
    /// Sends whose publisher crashed; the cluster may take them later.
    orphans: Vec<Send>,
    names: [u32; PUBLISHERS as usize],
    readers: [(u32, usize); READERS],
    fresh: u32,
    value: u64,
    last: Option<(u64, Vec<u64>)>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self { names: [1, 2, 3], fresh: 10, ..Self::default() };
        model.readers = [(8, 0), (9, 0)];
        model
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Send { publisher, events } => self.send(publisher as usize, events),
            Act::Append { publisher } => self.append(publisher as usize),
            Act::Answer { publisher, heard } => self.answer(publisher as usize, heard),
            Act::Refuse { publisher } => {
                if let Some(send) =
                    self.sends[publisher as usize].take_if(|send| send.offsets.is_none())
                {
                    self.story.fail(send.op);
                }
            }
            Act::Read { reader, most } => self.read(reader, most),
            Act::Crash { client } => self.crash(client),
            Act::Repeat => {
                if let Some((op, offsets)) = &self.last {
                    self.story.ok(*op, KEY, offsets);
                }
            }
        }
    }

    fn send(&mut self, publisher: usize, events: u64) {
        if self.sends[publisher].is_none() {
            let values: Vec<u64> = (self.value..self.value + events).collect();
            self.value += events;
            let op = self.story.invoke(self.names[publisher], &values);
            self.sends[publisher] = Some(Send { op, values, offsets: None });
        }
    }

    fn append(&mut self, publisher: usize) {
        let orphan = self.orphans.pop();
        let send = match &mut self.sends[publisher] {
            Some(send) if send.offsets.is_none() => send,
            _ => {
                // A send from before a crash arrives late.
                self.log.extend(orphan.into_iter().flat_map(|orphan| orphan.values));
                return;
            }
        };
        self.orphans.extend(orphan);
        let first = self.log.len() as u64;
        send.offsets = Some((first..first + send.values.len() as u64).collect());
        self.log.extend(&send.values);
    }

    fn answer(&mut self, publisher: usize, heard: bool) {
        let Some(send) = self.sends[publisher].take() else { return };
        match send.offsets {
            Some(offsets) if heard => {
                self.story.ok(send.op, KEY, &offsets);
                self.last = Some((send.op, offsets));
            }
            Some(_) => self.story.info(send.op),
            None => {
                self.story.info(send.op);
                self.orphans.push(send);
                self.rename(publisher);
            }
        }
    }

    fn rename(&mut self, publisher: usize) {
        self.names[publisher] = self.fresh;
        self.fresh += 1;
    }

    fn read(&mut self, reader: usize, most: usize) {
        let (process, from) = self.readers[reader];
        let found: Vec<(u64, u64)> =
            (0..).zip(self.log.iter().copied()).skip(from).take(most).collect();
        self.readers[reader].1 += found.len();
        self.story = std::mem::take(&mut self.story).poll(process, &found);
    }

    fn crash(&mut self, client: usize) {
        if client < PUBLISHERS as usize {
            // Nobody notes how its send ended.
            self.orphans.extend(self.sends[client].take().filter(|send| send.offsets.is_none()));
            self.rename(client);
        } else {
            let reader = client - PUBLISHERS as usize;
            let from = self.readers[reader].1 / 2;
            self.readers[reader] = (self.fresh, from);
            self.story = std::mem::take(&mut self.story).assign(self.fresh, from as u64).fault();
            self.fresh += 1;
        }
    }

    fn end(self) -> History {
        let log: Vec<(u64, u64)> = (0..).zip(self.log).collect();
        self.story.end(&log).history
    }
}

fn history(acts: Vec<Act>) -> History {
    let mut model = Model::new();
    for act in acts {
        model.act(act);
    }
    model.end()
}

fn runner() -> TestRunner {
    TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() })
}

pub(super) fn a_correct_log_raises_nothing() {
    let acts = prop::collection::vec(act(), 0..120);
    let result = runner().run(&acts, |acts| {
        let found = check(&history(acts));
        prop_assert!(found.anomalies.is_empty(), "{:#?}", found.anomalies);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Whatever is taken from all replicas, or changed in one, is noticed.
pub(super) fn damage_to_a_correct_log_is_found() {
    let acts = prop::collection::vec(act(), 40..120);
    let damage = (acts, any::<prop::sample::Index>(), 0..NODES + 1);
    let result = runner().run(&damage, |(acts, place, node)| {
        let mut history = history(acts);
        let acked = acked(&history);
        if acked.is_empty() {
            return Ok(());
        }
        let victim = acked[place.index(acked.len())];
        remove(&mut history, victim, node);
        let classes = check(&history).classes();
        let expected: &[Class] = if node == NODES {
            &[Class::LostWrite, Class::Unseen]
        } else {
            &[Class::ReplicaDivergence]
        };
        let hit = expected.iter().any(|class| classes.contains_key(class));
        if hit { Ok(()) } else { Err(TestCaseError::fail(format!("{victim}: {classes:?}"))) }
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn acked(history: &[Record]) -> Vec<u64> {
    use super::super::history::Outcome;
    let mut places = Vec::new();
    for record in history {
        if let Record::Done { outcome: Outcome::Ok { offsets, .. }, .. } = record {
            places.extend(offsets);
        }
    }
    places
}

/// Takes an offset from the final read of one node, or of all.
fn remove(history: &mut [Record], offset: u64, victim: usize) {
    let keep = |event: &Seen| event.offset != offset;
    for record in history {
        if let Record::Final { node, seen, .. } = record
            && (victim == NODES || victim == *node)
        {
            seen.retain(keep);
        }
    }
}

pub(super) fn a_history_survives_its_file() {
    let acts = prop::collection::vec(act(), 0..60);
    let result = runner().run(&acts, |acts| {
        let history = history(acts);
        for record in &history {
            let line = serde_json::to_string(record).unwrap_or_default();
            let back: Record = serde_json::from_str(&line)
                .map_err(|error| TestCaseError::fail(format!("{line}: {error}")))?;
            prop_assert_eq!(&back, record);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // The largest numbers are not rounded on the way.
    let big = seen(u64::MAX, u64::MAX - 1);
    let text = serde_json::to_string(&big).unwrap_or_default();
    assert_eq!(serde_json::from_str::<Seen>(&text).ok(), Some(big));
}
