//! Admission and log together, under loss, refusals, leader changes and late proposals.
//!
//! Faults: entries refused without reaching the log, uncommitted entries cut off at a leader
//! change, answers that are late or never come, a deposed leader that goes on admitting, clients
//! that retry anything at any leader.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use weft_proto::{Epoch, Offset, PartitionUid, ProducerId, Sequence, Timestamp};

use super::{Admission, BatchReply, Decision, place};
use crate::entry::{
    Command, Content, Entry, EntryBuilder, NewBatch, Opening, Payload, ProducerBatch,
};
use crate::state::{GroupState, Reply};

const PARTITIONS: u64 = 2;
const PRODUCERS: usize = 3;

type BatchKey = (PartitionUid, ProducerId, Epoch, Sequence);

#[derive(Clone, Debug)]
enum Action {
    /// A client sends its next batch, with so many events, to the newest or an older leader.
    Publish { client: usize, count: u32, gap: u64, to_old: bool },
    /// A client sends something again that it sent before.
    Retry { client: usize, which: prop::sample::Index, to_old: bool },
    /// A client starts again under a newer epoch.
    Restart { client: usize },
    /// A proposal reaches the log.
    Arrive { from_old: bool },
    /// The log refuses a proposal although its leader leads.
    Refuse,
    /// The oldest entry that is not committed is committed and applied.
    Commit,
    /// A leader learns the next outcome.
    Answer,
    /// Another leader; so many uncommitted entries survive.
    Elect { keep: usize },
}

fn action() -> impl Strategy<Value = Action> {
    let client = || 0..PRODUCERS * 2;
    prop_oneof![
        6 => (client(), 1_u32..4, 0_u64..3, any::<bool>())
            .prop_map(|(client, count, gap, to_old)| Action::Publish { client, count, gap, to_old }),
        4 => (client(), any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(client, which, to_old)| Action::Retry { client, which, to_old }),
        1 => client().prop_map(|client| Action::Restart { client }),
        6 => any::<bool>().prop_map(|from_old| Action::Arrive { from_old }),
        1 => Just(Action::Refuse),
        6 => Just(Action::Commit),
        6 => Just(Action::Answer),
        1 => (0_usize..6).prop_map(|keep| Action::Elect { keep }),
    ]
}

#[derive(Clone, Debug)]
struct Proposal {
    term: u64,
    payload: Bytes,
    batch: (PartitionUid, Offset),
}

#[derive(Debug, Default)]
struct Leader {
    term: u64,
    admission: Admission,
    /// Proposed, not yet in the log.
    proposals: VecDeque<Proposal>,
    /// Applied, its outcome not yet seen.
    outcomes: VecDeque<(PartitionUid, Offset, BatchReply)>,
}

/// One producer in one partition.
#[derive(Debug)]
struct Client {
    partition: PartitionUid,
    id: ProducerId,
    epoch: Epoch,
    sent: Vec<(ProducerBatch, u32)>,
    /// In older epochs.
    sent_before: Vec<(ProducerBatch, u32)>,
}

#[derive(Debug)]
struct World {
    newest: Leader,
    old: Leader,
    /// What the old leader knows: nothing new since it was deposed.
    old_state: GroupState,
    state: GroupState,
    committed: Vec<Bytes>,
    uncommitted: VecDeque<Proposal>,
    clients: Vec<Client>,
    /// What replies and duplicates said, by batch.
    acknowledged: BTreeMap<BatchKey, Offset>,
}

impl World {
    fn new() -> Self {
        let partitions = 0..PARTITIONS;
        let openings = partitions
            .clone()
            .map(|uid| Opening { partition: PartitionUid(uid), start: Offset(0) })
            .collect();
        let payload = Command::Open(openings).encode(Timestamp::from_micros(1));
        let mut state = GroupState::new();
        state.apply(&payload, 1).unwrap();
        let client = |(partition, id)| Client {
            partition: PartitionUid(partition),
            id: ProducerId(id),
            epoch: Epoch(1),
            sent: vec![],
            sent_before: vec![],
        };
        let ids = 0..u128::try_from(PRODUCERS).unwrap();
        Self {
            newest: Leader { term: 1, ..Leader::default() },
            old: Leader::default(),
            old_state: state.clone(),
            state,
            committed: vec![payload],
            uncommitted: VecDeque::new(),
            clients: partitions
                .flat_map(|p| ids.clone().map(move |id| (p, id)))
                .map(client)
                .collect(),
            acknowledged: BTreeMap::new(),
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            &Action::Publish { client, count, gap, to_old } => {
                let Client { id, epoch, ref mut sent, .. } = self.clients[client];
                let previous = sent.last().map_or(Sequence(0), |(batch, _)| batch.sequence);
                let sequence = Sequence(previous.get() + 1 + gap);
                let batch = ProducerBatch { id, epoch, sequence, previous };
                sent.push((batch, count));
                self.send(client, batch, count, to_old);
            }
            Action::Retry { client, which, to_old } => {
                let Client { sent, sent_before, .. } = &self.clients[*client];
                let sent: Vec<_> = sent_before.iter().chain(sent).collect();
                if !sent.is_empty() {
                    let &(batch, count) = *which.get(&sent);
                    self.send(*client, batch, count, *to_old);
                }
            }
            &Action::Restart { client } => {
                let client = &mut self.clients[client];
                client.epoch = Epoch(client.epoch.get() + 1);
                client.sent_before.append(&mut client.sent);
            }
            &Action::Arrive { from_old } => self.arrive(from_old),
            Action::Refuse => {
                if let Some(Proposal { batch: (uid, base), .. }) = self.newest.proposals.pop_front()
                {
                    self.newest.admission.fail(uid, base);
                }
            }
            Action::Commit => self.commit(),
            Action::Answer => self.answer(),
            &Action::Elect { keep } => self.elect(keep),
        }
    }

    fn send(&mut self, client: usize, batch: ProducerBatch, count: u32, to_old: bool) -> Decision {
        let uid = self.clients[client].partition;
        let (leader, state) =
            if to_old { (&mut self.old, &self.old_state) } else { (&mut self.newest, &self.state) };
        let count = NonZeroU32::new(count).unwrap();
        let decision = leader.admission.admit(state.partitions(), uid, count, Some(batch));
        match decision {
            Decision::Append { base } => {
                let events = vec![Bytes::from_static(b"event"); count.get().try_into().unwrap()];
                let mut builder = EntryBuilder::new();
                let new = NewBatch::new(uid, base, Payload::Events(&events));
                builder.push(NewBatch { producer: Some(batch), ..new }).unwrap();
                let payload = builder.finish(Timestamp::from_micros(leader.term));
                leader.proposals.push_back(Proposal {
                    term: leader.term,
                    payload,
                    batch: (uid, base),
                });
            }
            Decision::Duplicate { first, .. } => {
                self.acknowledge((uid, batch.id, batch.epoch, batch.sequence), first);
            }
            _ => {}
        }
        decision
    }

    fn acknowledge(&mut self, key: BatchKey, base: Offset) {
        let before = self.acknowledged.insert(key, base);
        assert!(before.is_none_or(|before| before == base), "{key:?}: {before:?}, then {base}");
    }

    fn arrive(&mut self, from_old: bool) {
        let leader = if from_old { &mut self.old } else { &mut self.newest };
        let Some(proposal) = leader.proposals.pop_front() else {
            return;
        };
        // The proposal names its leader; the log refuses it under another one.
        if proposal.term == self.newest.term {
            self.uncommitted.push_back(proposal);
        }
    }

    fn commit(&mut self) {
        let Some(Proposal { term, payload, batch: (uid, base) }) = self.uncommitted.pop_front()
        else {
            return;
        };
        self.committed.push(payload.clone());
        let index = u64::try_from(self.committed.len()).unwrap();
        let outcome = self.state.apply(&payload, index).unwrap();
        let Reply::Batches { batches, .. } = outcome.reply else {
            panic!("no reply to a batch");
        };
        if term == self.newest.term {
            self.newest.outcomes.push_back((uid, base, batches[0]));
        }
    }

    fn answer(&mut self) {
        let Some((uid, base, reply)) = self.newest.outcomes.pop_front() else {
            return;
        };
        match reply {
            BatchReply::Appended { base: at } => {
                assert_eq!(at, base);
                self.newest.admission.confirm(uid, base);
            }
            BatchReply::Void { .. } | BatchReply::Closed => {
                self.newest.admission.fail(uid, base);
            }
        }
    }

    fn elect(&mut self, keep: usize) {
        // What survives in the new leader's log is committed before its own blank entry.
        let term = self.newest.term + 1;
        self.old_state = self.state.clone();
        self.old = std::mem::replace(&mut self.newest, Leader { term, ..Leader::default() });
        self.uncommitted.truncate(keep);
        while !self.uncommitted.is_empty() {
            self.commit();
        }
    }

    /// Everything that is under way arrives.
    fn settle_down(&mut self) {
        while !self.newest.proposals.is_empty() {
            self.arrive(false);
        }
        while !self.uncommitted.is_empty() {
            self.commit();
        }
        while !self.newest.outcomes.is_empty() {
            self.answer();
        }
        assert_eq!(self.newest.admission.in_flight(), 0);
    }

    /// After the faults every client gets its batches of the current epoch in, in order.
    fn heal(&mut self) {
        self.settle_down();
        for client in 0..self.clients.len() {
            for (batch, count) in self.clients[client].sent.clone() {
                let decision = self.send(client, batch, count, false);
                assert!(
                    matches!(decision, Decision::Append { .. } | Decision::Duplicate { .. }),
                    "{batch:?}: {decision:?}"
                );
                self.settle_down();
                let again = self.send(client, batch, count, false);
                assert!(matches!(again, Decision::Duplicate { .. }), "{batch:?}: {again:?}");
            }
        }
    }

    /// Reads the log as a reader does: from the end before it, without replies.
    fn check(&self) {
        let mut ends = BTreeMap::new();
        let mut places = BTreeMap::new();
        let mut newest: BTreeMap<_, (Epoch, Sequence)> = BTreeMap::new();
        for payload in &self.committed {
            let Content::Batches(batches) = Entry::decode(payload).unwrap().content else {
                continue;
            };
            for batch in batches {
                let header = &batch.header;
                let base = *ends.entry(header.partition).or_insert(Offset(0));
                let Some(end) = place(base, header.expected, header.count) else {
                    continue;
                };
                ends.insert(header.partition, end);
                let ProducerBatch { id, epoch, sequence, previous } = header.producer.unwrap();
                let before = places.insert((header.partition, id, epoch, sequence), base);
                assert_eq!(before, None, "{id} {sequence} was appended twice");
                let last = newest.insert((header.partition, id), (epoch, sequence));
                match last {
                    Some((last_epoch, last)) if last_epoch == epoch => assert_eq!(previous, last),
                    Some((last_epoch, _)) => assert!(last_epoch < epoch),
                    None => assert_eq!(previous, Sequence(0)),
                }
            }
        }
        for (uid, partition) in self.state.partitions().iter() {
            assert_eq!(partition.end(), ends.get(&uid).copied().unwrap_or_default());
        }
        for (key, base) in &self.acknowledged {
            assert_eq!(places.get(key), Some(base), "{key:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn batches_are_appended_once_and_in_order(actions in vec(action(), 0..120)) {
        let mut world = World::new();

        for action in &actions {
            world.act(action);
        }
        world.check();
        world.heal();

        world.check();
        let replayed = world.committed.iter().zip(1..).fold(
            GroupState::new(),
            |mut state, (payload, index)| {
                state.apply(payload, index).unwrap();
                state
            },
        );
        prop_assert_eq!(replayed.state_hash(), world.state.state_hash());
    }
}
