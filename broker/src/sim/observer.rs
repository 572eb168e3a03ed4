//! Sees every message, every applied entry and every acknowledgement of a run, and holds them
//! against the promises of consensus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use weft_proto::internal as wire;
use weft_proto::{GroupId, Offset, PartitionUid};
use xxhash_rust::xxh3::xxh3_64;

use super::disk::Disk;
use super::ledger::{Fact, Ledger};
use super::network::Way;
use super::plant::Plant;
use super::run::Seen;
use super::trace::Trace;
use super::violation::{Class, Violation};
use crate::raft::codec::decode_vote;
use crate::raft::log::LogReader;
use crate::raft::machine::Applied;
use crate::raft::record::Record;
use crate::raft::types::Reply;
use crate::store::Family;
use crate::store::keys::{entry, purged, vote};

/// The node that nothing is really sent to, where half of the nodes shall commit.
const FORGED: u64 = 2;

pub(crate) struct Observer {
    voters: usize,
    pub(crate) plant: Option<Plant>,
    trace: Mutex<Trace>,
    violation: Mutex<Option<Violation>>,
    facts: Mutex<Facts>,
}

#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) groups: BTreeMap<GroupId, Ledger>,
    disks: BTreeMap<u64, Disk>,
    readers: BTreeMap<(u64, GroupId), LogReader>,
    leaders: BTreeMap<(GroupId, u64), u64>,
    votes: BTreeMap<(GroupId, u64, u64), u64>,
    snapshots: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows a log id as `term.index`.
struct Id<'a>(Option<&'a wire::LogId>);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "{}.{}", id.term, id.index),
            None => f.write_str("-"),
        }
    }
}

impl Observer {
    pub(crate) fn new(voters: usize, plant: Option<Plant>, trace: Trace) -> Arc<Self> {
        Arc::new(Self {
            voters,
            plant,
            trace: Mutex::new(trace),
            violation: Mutex::new(None),
            facts: Mutex::default(),
        })
    }

    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        lock(&self.trace).line(what);
    }

    pub(crate) fn trace(&self) -> MutexGuard<'_, Trace> {
        lock(&self.trace)
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        lock(&self.facts)
    }

    /// Notes a failure; the first one counts.
    pub(crate) fn fail(&self, class: Class, detail: String) {
        let violation = Violation { class, detail };
        self.note(format_args!("VIOLATION {violation}"));
        lock(&self.violation).get_or_insert(violation);
    }

    fn check(&self, found: Result<(), (Class, String)>) {
        if let Err((class, detail)) = found {
            self.fail(class, detail);
        }
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        lock(&self.violation).clone()
    }

    /// How much happened so far.
    pub(crate) fn seen(&self) -> Seen {
        let facts = self.facts();
        let mut seen = Seen { snapshots: facts.snapshots, ..Seen::default() };
        seen.terms = facts.leaders.len() as u64;
        for ledger in facts.groups.values() {
            seen.entries += ledger.entries.len() as u64;
            seen.events += ledger.partitions.values().map(|all| all.len() as u64).sum::<u64>();
            seen.voids += ledger.voids;
            seen.checkpoints += ledger.checkpoints.len() as u64;
        }
        seen
    }

    /// Whether what is sent to a node is answered on its behalf.
    pub(crate) fn forges(&self, to: u64) -> bool {
        self.plant == Some(Plant::CommitWithHalf) && to == FORGED
    }

    /// A node starts over a disk.
    pub(crate) fn boots(&self, node: u64, disk: Disk) {
        self.facts().disks.insert(node, disk);
    }

    pub(crate) fn reads(&self, node: u64, group: GroupId, reader: LogReader) {
        self.facts().readers.insert((node, group), reader);
    }

    pub(crate) fn ends(&self, node: u64) {
        self.facts().readers.retain(|(owner, _), _| *owner != node);
    }

    // --- Messages ----------------------------------------------------------------------------

    pub(crate) fn append(&self, (from, to): Way, request: &wire::AppendRequest) {
        let vote = request.vote.unwrap_or_default();
        let kind = if request.entries.is_empty() { "beat" } else { "append" };
        let previous = Id(request.previous.as_ref());
        let commit = Id(request.commit.as_ref());
        let (group, term, count) = (request.group, vote.term, request.entries.len());
        self.note(format_args!(
            "{from}>{to} g{group} {kind} t{term} after {previous} +{count} commit {commit}"
        ));
        if vote.committed {
            self.leads(GroupId(group), term, vote.node_id);
        }
    }

    pub(crate) fn appended(&self, (from, to): Way, response: &wire::AppendResponse) {
        use wire::append_response::Outcome;
        let shown = match &response.outcome {
            Some(Outcome::Matched(matched)) => format!("has {}", Id(matched.log_id.as_ref())),
            Some(Outcome::Conflict(id)) => format!("conflicts at {}", Id(Some(id))),
            Some(Outcome::HigherVote(vote)) => format!("is in term {}", vote.term),
            Some(Outcome::Unavailable(reason)) => format!("is unavailable: {reason}"),
            Some(Outcome::Received(told)) => {
                format!("has all of term {} up to {} in memory", told.term, told.time_micros)
            }
            None => "says nothing".to_owned(),
        };
        self.note(format_args!("{from}<{to} {shown}"));
    }

    pub(crate) fn vote(&self, (from, to): Way, request: &wire::VoteRequest) {
        let vote = request.vote.unwrap_or_default();
        let kind = if request.pre_vote { "pre-vote" } else { "vote" };
        let (group, term, last) = (request.group, vote.term, Id(request.last.as_ref()));
        self.note(format_args!("{from}>{to} g{group} {kind} t{term} last {last}"));
        if !request.pre_vote {
            self.votes(GroupId(group), from, term, from);
        }
    }

    pub(crate) fn voted(&self, way: Way, request: &wire::VoteRequest, answer: &wire::VoteResponse) {
        let (from, to) = way;
        let kind = if request.pre_vote { "pre-vote" } else { "vote" };
        let granted = if answer.granted { "granted" } else { "denied" };
        let term = request.vote.unwrap_or_default().term;
        self.note(format_args!("{from}<{to} g{} {kind} t{term} {granted}", request.group));
        if answer.granted && !request.pre_vote {
            self.votes(GroupId(request.group), to, term, from);
        }
    }

    pub(crate) fn transfer(&self, (from, to): Way, request: &wire::TransferLeaderRequest) {
        self.note(format_args!("{from}>{to} g{} take over, {}", request.group, request.to));
    }

    pub(crate) fn snapshot(&self, (from, to): Way, head: &wire::SnapshotHead, data: &Bytes) {
        let hash = xxh3_64(data);
        self.facts().snapshots += 1;
        let last = Id(head.last.as_ref());
        self.note(format_args!("{from}>{to} g{} snapshot at {last} {hash:016x}", head.group));
    }

    fn leads(&self, group: GroupId, term: u64, node: u64) {
        let mut facts = self.facts();
        match facts.leaders.insert((group, term), node) {
            Some(known) if known == node => return,
            Some(known) => {
                drop(facts);
                let detail = format!("nodes {known} and {node} lead {group} in term {term}");
                return self.fail(Class::TwoLeaders, detail);
            }
            None => {}
        }
        let last = facts.groups.get(&group).and_then(Ledger::last);
        let reader = facts.readers.get(&(node, group)).cloned();
        drop(facts);
        let (Some((index, fact)), Some(reader)) = (last, reader) else { return };
        if fact.term >= term || reader.first_index() > index {
            return;
        }
        let found = reader.point(index).ok().flatten().map(|point| point.term);
        if found != Some(fact.term) {
            let detail = format!(
                "node {node} leads {group} in term {term}; entry {index} is agreed on in term {}, \
                 its log has {found:?}",
                fact.term
            );
            self.fail(Class::LeaderIncomplete, detail);
        }
    }

    /// A node gives its vote to another one, or to itself.
    fn votes(&self, group: GroupId, voter: u64, term: u64, candidate: u64) {
        let mut facts = self.facts();
        let known = *facts.votes.entry((group, voter, term)).or_insert(candidate);
        let stored =
            facts.disks.get(&voter).and_then(|disk| disk.synced(Family::Meta, &vote::key(group)));
        drop(facts);
        if known != candidate {
            let detail =
                format!("node {voter} votes for {known} and {candidate} in term {term} of {group}");
            self.fail(Class::VotedTwice, detail);
        }
        let stored = stored.and_then(|bytes| decode_vote(&bytes).ok());
        let (kept, kept_for, committed) = stored.map_or((0, 0, false), |vote| {
            (vote.leader_id.term, vote.leader_id.voted_for, vote.committed)
        });
        // Who learned of the leader of the term keeps that instead: it votes for nobody else.
        let durable = kept > term || (kept == term && (kept_for == candidate || committed));
        if !durable {
            let detail = format!(
                "node {voter} votes for {candidate} in term {term} of {group}, its disk has \
                 {kept_for} in term {kept}"
            );
            self.fail(Class::VoteNotDurable, detail);
        }
    }

    // --- State -------------------------------------------------------------------------------

    /// A replica applied an entry.
    pub(crate) fn applied(&self, node: u64, group: GroupId, applied: &Applied<'_>, reply: &Reply) {
        let (index, term) = (applied.index, applied.term);
        let mut facts = self.facts();
        let ledger = facts.groups.entry(group).or_default();
        let first = ledger.applied(index, term, applied.payload, &reply.0);
        let known = ledger.entries.get(&index).copied();
        let (first, found) = match first {
            Ok(first) => (first, Ok(())),
            Err(found) => (true, Err(found)),
        };
        let durable = known.map_or(0, |fact| facts.durable(group, index, fact));
        drop(facts);
        let hash = xxh3_64(applied.payload);
        self.note(format_args!("{node} g{group} applied {term}.{index} {hash:016x}"));
        self.check(found);
        if first && durable <= self.voters / 2 {
            let detail = format!(
                "node {node} applied entry {index} of {group}, which {durable} of {} nodes have \
                 on disk",
                self.voters
            );
            self.fail(Class::CommitNotDurable, detail);
        }
    }

    pub(crate) fn state(&self, group: GroupId, index: u64, hash: u64) {
        let found = self.facts().groups.entry(group).or_default().state(index, hash);
        self.check(found);
    }

    pub(crate) fn checkpoint(&self, node: u64, group: GroupId, index: u64, state: &Bytes) {
        let hash = xxh3_64(state);
        self.note(format_args!("{node} g{group} checkpoint at {index} {hash:016x}"));
        let found = self.facts().groups.entry(group).or_default().checkpoint(index, hash);
        self.check(found);
    }

    // --- Clients -----------------------------------------------------------------------------

    pub(crate) fn acknowledged(
        &self,
        group: GroupId,
        partition: PartitionUid,
        first: Offset,
        events: &[Bytes],
    ) {
        let found =
            self.facts().groups.entry(group).or_default().acknowledged(partition, first, events);
        self.check(found);
    }

    pub(crate) fn refused(&self, group: GroupId, events: &[Bytes]) {
        let found = self.facts().groups.entry(group).or_default().refused(events);
        self.check(found);
    }
}

impl Facts {
    /// How many nodes would still have an entry after a power cut of all.
    pub(crate) fn durable(&self, group: GroupId, index: u64, fact: Fact) -> usize {
        let has = |disk: &Disk| {
            let key = entry::key(index);
            let kept = disk
                .synced(Family::Log(group), &key)
                .and_then(|value| Record::decode(group, &key, &value).ok());
            let is_same = kept.is_some_and(|record| {
                record.point.term == fact.term && xxh3_64(&record.body) == fact.payload
            });
            let purged = || disk.synced(Family::Meta, &purged::key(group));
            let below = |bytes: Bytes| purged::decode(&bytes).is_ok_and(|at| at.index >= index);
            is_same || purged().is_some_and(below)
        };
        self.disks.values().filter(|disk| has(disk)).count()
    }
}
