//! Where an event is, for people who ask.

use weft_proto::{Offset, Timestamp};

use super::Desk;
use super::event::NEVER;

/// Where an event is that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// It was not offered yet.
    Unreached,
    /// It waits: for a member, behind its key, for its next try, or until it is settled for good.
    Queued,
    /// A member has it.
    Lent {
        /// The member.
        member: String,
        /// Which delivery this is, from 1.
        attempt: u32,
        /// When the lease ends by itself, if it does.
        ends: Option<Timestamp>,
    },
}

impl Desk {
    /// Where an event is. It goes through all leases: for a question now and then.
    pub fn whereabouts(&self, offset: Offset) -> Whereabouts {
        let lease = self.leases.iter().find(|(_, lease)| lease.event.offset == offset);
        if let Some((_, lease)) = lease {
            return Whereabouts::Lent {
                member: self.members.name(lease.holder).unwrap_or_default().to_owned(),
                attempt: lease.event.attempt(),
                ends: Some(lease.deadline()).filter(|&ends| ends != NEVER),
            };
        }
        if offset < self.next || self.retries.contains(offset) {
            return Whereabouts::Queued;
        }
        Whereabouts::Unreached
    }
}
