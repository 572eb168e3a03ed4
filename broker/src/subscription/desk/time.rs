//! What happens because time passes.

use weft_proto::Timestamp;

use super::Desk;
use super::leases::End;
use super::settle::Back;
use crate::subscription::Failure;

impl Desk {
    /// Time passed: leases end, members are gone for good, failed events are due. Calling it at
    /// another time than [`Desk::next_timer`] does no harm.
    pub fn tick(&mut self, now: Timestamp) {
        self.clock(now);
        let mut is_changed = false;
        while let Some(token) = self.leases.next_expired(self.now) {
            is_changed = true;
            if let Some(lease) = self.end(token, End::Expired) {
                self.members.end(lease.holder, 1);
                let failure = Failure::new("the lease ended");
                let back = Back { delay: None, is_counted: true, failure };
                self.give_back(token, lease.event, back);
            }
        }
        while let Some(holder) = self.members.pop_gone(self.now) {
            is_changed = true;
            self.end_all(holder, End::Expired, self.policy.counts_detach);
        }
        self.release();
        if is_changed {
            self.leases.tidy();
            self.elect();
        }
    }

    /// Makes ready what is due.
    pub(super) fn release(&mut self) {
        while let Some(event) = self.retries.pop_due(self.now) {
            if let Some(event) = self.sift(event) {
                self.ready.give_back(event);
            }
        }
    }

    /// When to `tick` next.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let timers =
            [self.leases.next_deadline(), self.members.next_grace_end(), self.retries.next_due()];
        timers.into_iter().flatten().min()
    }

    /// Moves its time on; it never goes back.
    pub(super) fn clock(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }
}
