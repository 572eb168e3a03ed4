//! What is done to a cluster in a round, and when: all of it follows from the seed. Pure.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::lab::Tool;
use crate::lab::disk::Kind;

/// Which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// Whoever leads the first partition at that moment.
    Leader,
    /// Somebody else.
    Follower,
}

/// Something that happens to a cluster and is over after a while. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// kill -9 of one node, and its restart.
    Kill { target: Target, down: u64 },
    /// The same for two of three.
    KillMajority { down: u64 },
    /// The same for all, at the same moment or one after the other.
    KillAll { apart: u64, down: u64 },
    /// SIGSTOP, later SIGCONT.
    Pause { target: Target, hold: u64 },
    /// A follower stops, the leader is killed, the follower wakes.
    PauseKill { hold: u64, down: u64 },
    /// SIGTERM and restart of each node in turn.
    Restart { apart: u64 },
    /// No packet between a node and the others; clients may still reach it, or not.
    Isolate { target: Target, clients: bool, hold: u64 },
    /// A node hears nobody, or is heard by nobody.
    OneWay { target: Target, deaf: bool, hold: u64 },
    /// Two nodes do not hear each other; the third hears both.
    Bridge { hold: u64 },
    /// All packets take longer.
    Delay { each: u64, hold: u64 },
    /// Each sync of one node takes longer.
    SlowDisk { target: Target, each: u64, hold: u64 },
    /// One sync of a node fails: the process must end.
    SyncError { target: Target, down: u64 },
    /// One sync of each node fails; whoever goes on is killed after a while.
    SyncErrorAll { hold: u64, down: u64 },
    /// One disk has no room left.
    FullDisk { target: Target, hold: u64 },
    /// A follower comes back with an older copy of its folder, in the worst moment: it alone has
    /// what the leader acknowledged. A node that is in order refuses to start so.
    OldCopy { hold: u64 },
    /// The power of one node fails.
    Cut { target: Target, down: u64 },
    /// The power of all nodes fails, at the same moment or one after the other.
    CutAll { apart: u64, down: u64 },
}

impl Fault {
    /// The kind, for reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Kill { target: Target::Leader, .. } => "kill-leader",
            Self::Kill { .. } => "kill-follower",
            Self::KillMajority { .. } => "kill-majority",
            Self::KillAll { .. } => "kill-all",
            Self::Pause { target: Target::Leader, .. } => "pause-leader",
            Self::Pause { .. } => "pause-follower",
            Self::PauseKill { .. } => "pause-kill",
            Self::Restart { .. } => "restart",
            Self::Isolate { target: Target::Leader, .. } => "isolate-leader",
            Self::Isolate { .. } => "isolate-follower",
            Self::OneWay { deaf: true, .. } => "one-way-deaf",
            Self::OneWay { .. } => "one-way-mute",
            Self::Bridge { .. } => "bridge",
            Self::Delay { .. } => "delay",
            Self::SlowDisk { .. } => "slow-disk",
            Self::SyncError { .. } => "sync-error",
            Self::SyncErrorAll { .. } => "sync-error-all",
            Self::FullDisk { .. } => "full-disk",
            Self::OldCopy { .. } => "old-copy",
            Self::Cut { .. } => "power-cut",
            Self::CutAll { .. } => "power-cut-all",
        }
    }

    /// What it needs.
    pub(crate) fn tool(&self) -> Tool {
        match self {
            Self::Kill { .. }
            | Self::KillMajority { .. }
            | Self::KillAll { .. }
            | Self::Pause { .. }
            | Self::PauseKill { .. }
            | Self::OldCopy { .. }
            | Self::Restart { .. } => Tool::Signals,
            Self::Isolate { .. }
            | Self::OneWay { .. }
            | Self::Bridge { .. }
            | Self::Delay { .. } => Tool::Switch,
            Self::SlowDisk { .. } | Self::SyncError { .. } | Self::SyncErrorAll { .. } => {
                Tool::Shim
            }
            Self::FullDisk { .. } => Tool::SmallDisk,
            Self::Cut { .. } | Self::CutAll { .. } => Tool::PowerCut,
        }
    }
}

/// A round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) disk: Kind,
    /// Each fault, and how long to wait after it.
    pub(crate) steps: Vec<(Fault, u64)>,
    /// How long to go on with nothing happening.
    pub(crate) quiet: u64,
}

/// One round in so many has no fault at all: clusters have lost data without any.
const QUIET_ROUNDS: u32 = 8;
const QUIET_MS: u64 = 5_000;

impl Plan {
    /// A round of a campaign that takes about so long.
    pub(crate) fn random(seed: u64, time: Duration) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let disk = match rng.random_range(0..10) {
            0..4 => Kind::Plain,
            4..6 => Kind::Small,
            _ => Kind::Image,
        };
        let nodes = 3;
        if rng.random_range(0..QUIET_ROUNDS) == 0 {
            return Self { seed, nodes, disk, steps: Vec::new(), quiet: time };
        }
        let (mut steps, mut planned) = (Vec::new(), 0);
        while planned < time {
            let fault = random(&mut rng, disk);
            let wait = rng.random_range(500..5_000);
            planned += duration(&fault) + wait;
            steps.push((fault, wait));
        }
        Self { seed, nodes, disk, steps, quiet: QUIET_MS }
    }

    /// The short piece: about so many kills, with pauses between them.
    pub(crate) fn short(seed: u64, kills: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut steps = Vec::new();
        let mut done = 0;
        while done < kills {
            let down = rng.random_range(100..800);
            let fault = match rng.random_range(0..9) {
                0..4 => Fault::Kill { target: Target::Leader, down },
                4..6 => Fault::Kill { target: Target::Follower, down },
                6 => Fault::KillAll { apart: 0, down },
                7 => Fault::Pause { target: Target::Leader, hold: down * 4 },
                _ => Fault::PauseKill { hold: 500, down },
            };
            done += usize::from(!matches!(fault, Fault::Pause { .. }));
            steps.push((fault, rng.random_range(500..2_000)));
        }
        Self { seed, nodes: 3, disk: Kind::Plain, steps, quiet: 2_000 }
    }

    /// These faults one after the other.
    pub(crate) fn of(disk: Kind, steps: Vec<(Fault, u64)>) -> Self {
        Self { seed: 0, nodes: 3, disk, steps, quiet: 1_000 }
    }

    /// This one fault so many times, with so much quiet before it.
    pub(crate) fn scripted(disk: Kind, fault: Option<Fault>, times: usize, quiet: u64) -> Self {
        let steps = fault.into_iter().flat_map(|fault| vec![(fault, 2_000); times]).collect();
        Self { seed: 0, nodes: 3, disk, steps, quiet }
    }
}

fn random(rng: &mut impl Rng, disk: Kind) -> Fault {
    let target = if rng.random_range(0..3) < 2 { Target::Leader } else { Target::Follower };
    let down = rng.random_range(100..4_000);
    // Short ones are more frequent: leases and elections are a matter of a second.
    let hold = 100 + 10_u64.pow(rng.random_range(2..=4)) * rng.random_range(1..20) / 10;
    let apart = if rng.random() { 0 } else { rng.random_range(0..500) };
    let special = rng.random_range(0..4) == 0;
    match disk {
        Kind::Small if special => return Fault::FullDisk { target, hold: hold + 3_000 },
        Kind::Image if special => return Fault::CutAll { apart, down },
        Kind::Image if rng.random_range(0..4) == 0 => return Fault::Cut { target, down },
        _ => {}
    }
    match rng.random_range(0..18) {
        0..3 => Fault::Kill { target, down },
        3 => Fault::KillMajority { down },
        4 => Fault::KillAll { apart, down },
        5..7 => Fault::Pause { target, hold },
        7 => Fault::PauseKill { hold: 1_000 + down, down },
        8 => Fault::Restart { apart: down },
        9..11 => Fault::Isolate { target, clients: rng.random(), hold },
        11..13 => Fault::OneWay { target, deaf: rng.random(), hold },
        13 => Fault::Bridge { hold },
        14 => Fault::Delay { each: rng.random_range(5..300), hold },
        15 => Fault::SlowDisk { target, each: rng.random_range(20..2_000), hold },
        16 => Fault::SyncErrorAll { hold: 1_000, down },
        _ => Fault::SyncError { target, down },
    }
}

/// About how long it takes.
fn duration(fault: &Fault) -> u64 {
    match *fault {
        Fault::Kill { down, .. }
        | Fault::KillMajority { down }
        | Fault::SyncError { down, .. }
        | Fault::Cut { down, .. } => down + 1_000,
        Fault::KillAll { apart, down } | Fault::CutAll { apart, down } => 3 * apart + down + 3_000,
        Fault::PauseKill { hold, down } | Fault::SyncErrorAll { hold, down } => hold + down + 1_000,
        Fault::Restart { apart } => 3 * (apart + 2_000),
        Fault::Pause { hold, .. }
        | Fault::Isolate { hold, .. }
        | Fault::OneWay { hold, .. }
        | Fault::Bridge { hold }
        | Fault::Delay { hold, .. }
        | Fault::SlowDisk { hold, .. }
        | Fault::FullDisk { hold, .. } => hold,
        Fault::OldCopy { hold } => 2 * hold,
    }
}
