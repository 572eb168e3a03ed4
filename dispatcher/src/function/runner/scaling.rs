//! From the rules of scaling to instances.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::debug;

use super::Runner;
use crate::delivery::{InstanceId, RevisionNo};

use crate::scale::{Demand, Policy, Restart, Scale};

/// Requests at once that an instance is taken to be good for as long as nothing is known.
const PERMITS_GUESS: u32 = 8;

/// What is known of one revision.
#[derive(Debug)]
pub(super) struct Track {
    scale: Scale,
    pub(super) restart: Restart,
}

impl Track {
    fn new(policy: Policy) -> Self {
        Self { scale: Scale::new(policy), restart: Restart::default() }
    }

    /// Before this time no instance is started.
    pub(super) fn starts_at(&self) -> Duration {
        self.restart.ready_at()
    }
}

impl Runner {
    /// Starts and drains instances as the rules want.
    pub(super) fn scale(&mut self, now: Duration) {
        let shared: Vec<RevisionNo> = self.plan.shares.iter().map(|&(one, _)| one).collect();
        let mut wanted: BTreeSet<RevisionNo> = self.delivery.wanted().collect();
        wanted.extend(&shared);
        let outdated: Vec<InstanceId> = self
            .fleet
            .serving()
            .filter(|(_, revision)| !wanted.contains(revision))
            .map(|(id, _)| id)
            .collect();
        for id in outdated {
            self.drain(id);
        }
        self.tracks.retain(|revision, _| wanted.contains(revision));
        self.check_at = None;
        if self.is_ending {
            return;
        }
        // The first share carries the minimum, and takes what it needs first.
        let order = shared.iter().chain(wanted.iter().filter(|one| !shared.contains(one)));
        let order: Vec<RevisionNo> = order.copied().collect();
        let mut left = self.plan.scale.max;
        for (place, revision) in order.into_iter().enumerate() {
            let min = if place == 0 && !self.turns.is_empty() { self.plan.scale.min } else { 0 };
            left = left.saturating_sub(self.scale_one(revision, min, left, now));
        }
    }

    /// Says how many instances of the revision there shall be.
    fn scale_one(&mut self, revision: RevisionNo, min: u32, max: u32, now: Duration) -> u32 {
        let serving: Vec<InstanceId> = self.fleet.serving_of(revision).collect();
        let starting = self.fleet.starting_len(revision);
        let have = u32::try_from(serving.len() + starting).unwrap_or(u32::MAX);
        let in_flight = serving.iter().map(|&id| u64::from(self.delivery.in_flight_of(id)));
        let runnable = self.delivery.runnable(revision);
        let demand = Demand {
            // More instances of what fails would only fail more.
            runnable: if self.delivery.is_well(revision, now) { runnable } else { runnable.min(1) },
            in_flight: in_flight.sum(),
            permits: self.permits(revision),
            instances: have,
        };
        // A revision that gets events has an instance, whatever others have.
        let policy = Policy { min, max: max.max(1), ..self.plan.scale.clone() };
        let track = self.tracks.entry(revision).or_insert_with(|| Track::new(policy.clone()));
        track.scale.handle_policy(policy);
        let decision = track.scale.decide(demand, now);
        let check_at = self.check_at.into_iter().chain(decision.check_at).min();
        let (failures, starts_at) = (track.restart.failures(), track.restart.ready_at());
        self.check_at = check_at;
        if decision.want > have && now >= starts_at {
            // After a failure one at a time: the next will probably fail as well.
            let more = if failures > 0 { u32::from(starting == 0) } else { decision.want - have };
            for _ in 0..more {
                self.start(revision);
            }
        }
        let surplus = usize::try_from(have.saturating_sub(decision.want)).unwrap_or(0);
        let mut idle_first = serving;
        idle_first.sort_by_key(|&id| self.delivery.in_flight_of(id));
        for id in idle_first.into_iter().take(surplus) {
            self.drain(id);
        }
        decision.want
    }

    /// Requests at once that an instance shall be taken to be good for.
    fn permits(&self, revision: RevisionNo) -> u32 {
        let found = self.plan.revisions.get(&revision);
        let concurrency = found.map(|found| found.template.concurrency).unwrap_or_default();
        let hard = if concurrency.hard == 0 { u32::MAX } else { concurrency.hard };
        let learned = self.delivery.permits_of(revision).unwrap_or(PERMITS_GUESS).min(hard);
        (learned.saturating_mul(concurrency.target) / 100).max(1)
    }

    fn start(&mut self, revision: RevisionNo) {
        let id = InstanceId(self.next_instance + 1);
        let Some(launch) = self.plan.launch(id, revision) else { return };
        self.next_instance = id.0;
        debug!(function = %self.plan.name, instance = self.next_instance, "starting an instance");
        self.fleet.start(launch, revision);
        self.metrics.starts.increment(1);
        self.mark_changed();
    }

    pub(super) fn drain(&mut self, id: InstanceId) {
        self.delivery.handle_instance_draining(id);
        self.fleet.drain(id);
        self.mark_changed();
    }
}
