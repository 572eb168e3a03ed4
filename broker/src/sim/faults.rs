//! Faults: which there are, what ends each, and when the next one comes.

use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::random::Random;

/// By how much a clock is wrong at most, in microseconds: more than a checkpoint's interval.
const SKEW_MICROS: u64 = 30 * 60 * 1_000_000;

/// What ends a fault.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Boot(u64),
    Resume(u64),
    Open(Vec<(u64, u64)>),
}

/// Plays faults by seed.
pub(crate) struct Faults {
    pub(crate) random: Random,
    next: Instant,
    ends: Vec<(Instant, End)>,
    pub(crate) count: u64,
}

impl Faults {
    pub(crate) fn new(random: Random) -> Self {
        Self { random, next: Instant::now(), ends: Vec::new(), count: 0 }
    }

    /// A node is down; it comes back after a while.
    pub(crate) fn down(&mut self, node: u64, longest: u64) {
        let until = Instant::now() + self.random.millis(5..longest.max(6));
        self.ends.push((until, End::Boot(node)));
    }

    /// What ended meanwhile.
    pub(crate) fn ended(&mut self) -> Vec<End> {
        let now = Instant::now();
        let (due, rest) =
            std::mem::take(&mut self.ends).into_iter().partition(|(at, _)| *at <= now);
        self.ends = rest;
        let due: Vec<(Instant, End)> = due;
        due.into_iter().map(|(_, end)| end).collect()
    }

    /// Whether the next fault is due.
    pub(crate) fn is_due(&mut self, cluster: &Cluster) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.next = now + self.random.millis(cluster.site.plan.fault_millis.clone());
        true
    }

    /// Lets something bad happen, every second time to a leader.
    pub(crate) async fn strike(&mut self, cluster: &mut Cluster) {
        self.count += 1;
        let longest = longest(cluster);
        let any = self.random.within(1..cluster.site.plan.nodes + 1);
        let leader = if self.random.once_in(2) { cluster.leader() } else { None };
        let node = leader.unwrap_or(any);
        match self.random.within(0..24) {
            0..3 => self.kill(cluster, node, longest),
            3 => {
                for node in 1..=cluster.site.plan.nodes {
                    self.kill(cluster, node, longest);
                }
            }
            4 | 5 => {
                cluster.note(format_args!("{node} fails its next sync"));
                cluster.disk(node).fail_next_sync();
            }
            6 => {
                let stalled = self.random.millis(10..longest);
                cluster.note(format_args!("{node} has a stalled disk for {stalled:?}"));
                cluster.disk(node).stall(stalled);
            }
            7..10 => self.pause(cluster, node, longest),
            10 => self.isolate(cluster, node, longest, [true, true]),
            11 => self.isolate(cluster, node, longest, [true, false]),
            12 => self.isolate(cluster, node, longest, [false, true]),
            13 => self.split(cluster, longest),
            14 | 15 => {
                let way = (node, self.other(cluster, node));
                self.worsen(cluster, way, longest);
            }
            16..19 => self.step_clock(cluster, node),
            19..22 => self.trim(cluster, node),
            _ => {
                let to = self.other(cluster, node);
                cluster.transfer(node, to).await;
            }
        }
    }

    fn later(&mut self, longest: u64, end: End) {
        let at = Instant::now() + self.random.millis(5..longest);
        self.ends.push((at, end));
    }

    fn other(&mut self, cluster: &Cluster, node: u64) -> u64 {
        let nodes = cluster.site.plan.nodes;
        (node + self.random.within(0..nodes - 1)) % nodes + 1
    }

    fn kill(&mut self, cluster: &mut Cluster, node: u64, longest: u64) {
        if cluster.kill(node) {
            self.down(node, longest);
        }
    }

    fn pause(&mut self, cluster: &Cluster, node: u64, longest: u64) {
        if let Some(running) = cluster.running(node) {
            cluster.note(format_args!("{node} is paused"));
            running.process.pause();
            self.later(longest, End::Resume(node));
        }
    }

    fn isolate(&mut self, cluster: &Cluster, node: u64, longest: u64, cut: [bool; 2]) {
        let others = (1..=cluster.site.plan.nodes).filter(|other| *other != node);
        let both = others.flat_map(|other| [(cut[0], (node, other)), (cut[1], (other, node))]);
        let ways: Vec<_> = both.filter_map(|(cut, way)| cut.then_some(way)).collect();
        self.block(cluster, ways, longest);
    }

    fn split(&mut self, cluster: &Cluster, longest: u64) {
        let nodes = cluster.site.plan.nodes;
        let side = self.random.within(1..(1 << nodes) - 1);
        let on = |node: u64| side & (1 << (node - 1)) != 0;
        let all = (1..=nodes).flat_map(|from| (1..=nodes).map(move |to| (from, to)));
        let ways = all.filter(|(from, to)| on(*from) != on(*to)).collect();
        self.block(cluster, ways, longest);
    }

    fn block(&mut self, cluster: &Cluster, ways: Vec<(u64, u64)>, longest: u64) {
        cluster.note(format_args!("{ways:?} are cut"));
        let resets = self.random.once_in(2);
        for way in &ways {
            cluster.site.network.block(*way);
            if resets {
                cluster.site.network.reset(*way);
            }
        }
        self.later(longest, End::Open(ways));
    }

    fn worsen(&mut self, cluster: &Cluster, way: (u64, u64), longest: u64) {
        if self.random.once_in(2) {
            cluster.note(format_args!("{way:?} is reset"));
            return cluster.site.network.reset(way);
        }
        cluster.note(format_args!("{way:?} is slow"));
        cluster.site.network.slow(way, 20..120);
        self.later(longest, End::Open(vec![way]));
    }

    /// Back a little or far ahead: far enough that a checkpoint is due.
    fn step_clock(&mut self, cluster: &mut Cluster, node: u64) {
        let step = self.random.within(0..SKEW_MICROS);
        let skew = cluster.skew(node).saturating_add_unsigned(step)
            - i64::try_from(SKEW_MICROS / 4).unwrap();
        cluster.note(format_args!("{node} has a clock that is {skew} us off"));
        cluster.set_skew(node, skew);
    }

    fn trim(&mut self, cluster: &Cluster, node: u64) {
        let all = self.random.once_in(2);
        for other in 1..=cluster.site.plan.nodes {
            if all || other == node {
                cluster.trim(other);
            }
        }
    }
}

/// How long a fault lasts at most, in milliseconds.
fn longest(cluster: &Cluster) -> u64 {
    let election = cluster.site.plan.timers.election_max;
    u64::try_from(election.as_millis()).unwrap() * 4
}

/// How long the end of a run may take.
pub(crate) const CALM: Duration = Duration::from_mins(1);
