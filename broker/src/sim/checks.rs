//! What is checked across replicas: their logs while they run, everything at the end.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use weft_proto::GroupId;
use xxhash_rust::xxh3::xxh3_64;

use super::cluster::Cluster;
use super::violation::Class;
use crate::data::{DataGroup, lock};

/// What readers were shown and nobody had applied yet.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    next: BTreeMap<(u64, GroupId), u64>,
    unproven: Vec<(GroupId, u64, u64)>,
}

impl Shown {
    /// Reads on at every node, up to its commit.
    pub(crate) fn read(&mut self, cluster: &Cluster) {
        for (node, running) in cluster.nodes() {
            for data in &running.data {
                let next = self.next.entry((node, data.id)).or_default();
                let from = (*next).max(data.log.first_index());
                let Some(entries) = data.log.tail(from, 16 << 10) else {
                    // No longer in memory; its replica is compared at the end.
                    *next = data.log.committed().unwrap_or(0);
                    continue;
                };
                *next = from;
                for entry in entries {
                    *next = entry.index + 1;
                    if let Some(payload) = &entry.payload {
                        self.unproven.push((data.id, entry.index, xxh3_64(payload)));
                    }
                }
            }
        }
        self.prove(cluster, false);
    }

    /// Holds what was shown against what was agreed on.
    pub(crate) fn prove(&mut self, cluster: &Cluster, all: bool) {
        let observer = &cluster.site.observer;
        let facts = observer.facts();
        let mut wrong = Vec::new();
        self.unproven.retain(|(group, index, payload)| {
            let entries = facts.groups.get(group).map(|ledger| &ledger.entries);
            let known = entries.and_then(|entries| entries.get(index)).map(|fact| fact.payload);
            if known.map_or(all, |known| known != *payload) {
                wrong.push(format!("entry {index} of {group} was read, agreed is {known:x?}"));
            }
            known.is_none()
        });
        drop(facts);
        for detail in wrong {
            observer.fail(Class::UncommittedRead, detail);
        }
    }
}

/// Logs with the same entry at one index have the same entries before it.
pub(crate) fn logs_match(cluster: &Cluster) {
    for group in cluster.site.plan.groups() {
        let all: Vec<(u64, &DataGroup)> = of_group(cluster, group);
        for (at, (one, left)) in all.iter().enumerate() {
            for (other, right) in &all[at + 1..] {
                let (Some(a), Some(b)) = (left.log.last(), right.log.last()) else {
                    continue;
                };
                let index = a.index.min(b.index);
                let point = |data: &DataGroup| data.log.point(index).ok().flatten();
                let (Some(a), Some(b)) = (point(left), point(right)) else { continue };
                if a.term == b.term && a != b {
                    let detail = format!("{group} on nodes {one} and {other}: {a:?} and {b:?}");
                    cluster.site.observer.fail(Class::LogMismatch, detail);
                }
            }
        }
    }
}

fn of_group(cluster: &Cluster, group: GroupId) -> Vec<(u64, &DataGroup)> {
    let nodes = cluster.nodes();
    let all = nodes.flat_map(|(node, running)| running.data.iter().map(move |data| (node, data)));
    all.filter(|(_, data)| data.id == group).collect()
}

/// Whether all replicas of all groups run and have applied the same entries, all they have.
pub(crate) fn has_converged(cluster: &Cluster) -> bool {
    cluster.site.plan.groups().all(|group| {
        let all = of_group(cluster, group);
        let applied = |data: &DataGroup| data.raft.applied_watch().borrow().index;
        let upto = all.iter().map(|(_, data)| applied(data)).max().unwrap_or(0);
        let last = |data: &DataGroup| data.log.last().map_or(0, |point| point.index);
        let is_whole = |data: &DataGroup| applied(data) == upto && last(data) == upto;
        all.len() as u64 == cluster.site.plan.nodes
            && all.iter().all(|(_, data)| is_whole(data))
            && all.iter().any(|(_, data)| data.raft.leader_watch().borrow().is_self_ready)
    })
}

/// Every replica has all that was agreed on: in its state, in its log, on its disk.
pub(crate) fn replicas_are_whole(cluster: &Cluster) {
    for group in cluster.site.plan.groups() {
        for (node, data) in of_group(cluster, group) {
            let (index, hash) = {
                let machine = lock(&data.machine);
                (data.raft.applied_watch().borrow().index, machine.state().state_hash())
            };
            cluster.site.observer.state(group, index, hash);
            if let Err(detail) = log_is_whole(cluster, data) {
                let detail = format!("node {node} {group}: {detail}");
                cluster.site.observer.fail(Class::ReplicaIncomplete, detail);
            }
        }
    }
}

fn log_is_whole(cluster: &Cluster, data: &DataGroup) -> Result<(), String> {
    let first = data.log.first_index();
    let mut found = BTreeMap::new();
    let scanned = data.log.scan(first, u64::MAX, usize::MAX, &mut |entry| {
        if let Some(payload) = &entry.payload {
            found.insert(entry.index, (entry.term, xxh3_64(payload)));
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| error.to_string())?;
    let facts = cluster.site.observer.facts();
    let Some(ledger) = facts.groups.get(&data.id) else { return Ok(()) };
    let agreed: BTreeMap<_, _> = ledger
        .entries
        .range(first..)
        .map(|(index, fact)| (*index, (fact.term, fact.payload)))
        .collect();
    if found != agreed {
        let odd = agreed.iter().find(|(index, fact)| found.get(index) != Some(fact));
        return Err(format!(
            "{} of {} entries from {first} on; the first that differs: {odd:?}",
            found.len(),
            agreed.len()
        ));
    }
    let machine = lock(&data.machine);
    for (partition, events) in &ledger.partitions {
        let end = machine.state().partitions().get(*partition).map(|known| known.end().get());
        if end != Some(events.len() as u64) {
            return Err(format!("partition {partition} ends at {end:?}, not {}", events.len()));
        }
    }
    Ok(())
}

/// Says which entry a power cut of all nodes would take from one of them.
pub(crate) fn not_durable(cluster: &Cluster) -> Option<String> {
    let all = usize::try_from(cluster.site.plan.nodes).unwrap();
    let facts = cluster.site.observer.facts();
    facts.groups.iter().find_map(|(group, ledger)| {
        let mut entries = ledger.entries.iter().rev();
        let lost = entries.find_map(|(index, fact)| {
            let durable = facts.durable(*group, *index, *fact);
            (durable < all).then_some((index, durable))
        });
        lost.map(|(index, on)| format!("entry {index} of {group} is on {on} of {all} disks"))
    })
}
