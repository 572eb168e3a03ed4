//! One partition of a session, and the way to its desk.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use weft_proto::{Error, Result, internal, v1};

use super::fill::{self, Filler};
use super::held::Held;
use crate::lend::{Frame, Link, Request};
use crate::resources::Placement;

/// Before a desk is looked for again, at first and at most.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Slot {
    pub(super) placement: Placement,
    pub(super) held: Held,
    /// What a desk told; nothing before one did.
    position: Option<v1::SubscriptionPosition>,
    /// What is told to the member when all before it is: leases whose events are read meanwhile.
    pub(super) queue: VecDeque<Frame>,
    /// Reads events; absent while it does, and before it is needed.
    pub(super) filler: Option<Filler>,
    pub(super) is_filling: bool,
    /// This replica was behind: events come with their leases.
    pub(super) is_behind: bool,
    link: Option<Link>,
    /// Settle frames that have no answer: sent again to the next desk.
    settles: BTreeMap<u64, v1::Settle>,
    is_open: bool,
    /// Being looked for.
    is_attaching: bool,
    attachment: usize,
    attach_at: Instant,
    down_since: Instant,
    pause: Duration,
}

impl Slot {
    pub(super) fn new(placement: Placement) -> Self {
        Self {
            placement,
            held: Held::default(),
            position: None,
            queue: VecDeque::new(),
            filler: None,
            is_filling: false,
            is_behind: false,
            link: None,
            settles: BTreeMap::new(),
            is_open: false,
            is_attaching: false,
            attachment: 0,
            attach_at: Instant::now(),
            down_since: Instant::now(),
            pause: PAUSE,
        }
    }

    /// When to look for a desk; nothing while there is one.
    pub(super) fn attach_at(&self) -> Option<Instant> {
        (self.link.is_none() && !self.is_attaching).then_some(self.attach_at)
    }

    /// A desk is being looked for; gives the number of the attachment.
    pub(super) fn attaches(&mut self) -> usize {
        self.is_attaching = true;
        self.is_open = false;
        self.attachment = self.attachment.wrapping_add(1);
        self.attachment
    }

    /// Whether this is the newest attachment.
    pub(super) fn is_current(&self, attachment: usize) -> bool {
        self.attachment == attachment
    }

    /// There is one; it may have said so before.
    pub(super) async fn attached(&mut self, link: Link) {
        self.is_attaching = false;
        self.link = Some(link);
        self.send_unanswered().await;
    }

    /// No desk was found.
    pub(super) fn failed(&mut self) {
        self.is_attaching = false;
        self.attach_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Whether it is not without a desk for longer than this.
    pub(super) fn is_patient(&self, patience: Duration) -> bool {
        self.is_open || self.down_since.elapsed() < patience
    }

    pub(super) async fn opened(&mut self, opened: &internal::Opened) {
        self.is_open = true;
        self.pause = PAUSE;
        self.held.taken(opened);
        if let (Some(position), Some(assigned)) = (&mut self.position, opened.assigned) {
            position.watermark = assigned.watermark;
        }
        self.send_unanswered().await;
    }

    /// This replica is behind: leases are given back, and with them all that came after them and waits, so
    /// that nothing overtakes them. From now on events come with their leases. Gives what to settle, and the
    /// credit that was spent on it.
    pub(super) fn give_back(
        &mut self,
        tag: u64,
        first: internal::Granted,
    ) -> (v1::Settle, v1::Credit) {
        self.is_behind = true;
        let mut all = vec![first];
        for frame in std::mem::take(&mut self.queue) {
            match frame {
                Frame::Granted(granted) => all.push(granted),
                other => self.queue.push_back(other),
            }
        }
        let mut settle = v1::Settle { tag, ..v1::Settle::default() };
        let mut credit = v1::Credit::default();
        for internal::Granted { delivery, bytes } in all {
            let Some(delivery) = delivery else { continue };
            let count = fill::count(&delivery) as u64;
            let first = delivery.first_lease.unwrap_or_default();
            let last = first.saturating_add(count).saturating_sub(1);
            settle.nacks.push(v1::Nack {
                leases: Some(self.own(delivery.epoch, first, last)),
                delay_ms: None,
                reason: String::new(),
                uncounted: true,
            });
            credit.events = credit.events.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            credit.bytes = credit.bytes.saturating_add(bytes);
        }
        (settle, credit)
    }

    /// Leases of the partition itself: those come without their events.
    pub(super) fn own(&self, epoch: u64, first: u64, last: u64) -> v1::SettledRange {
        let partition = self.placement.partition.get();
        v1::SettledRange { partition, epoch, first, last, redriven: false, replay_job: 0 }
    }

    /// The desk told where it is.
    pub(super) fn told(&mut self, position: v1::SubscriptionPosition) {
        self.position = Some(position);
    }

    /// Where the desk is, or the last one was.
    pub(super) fn position(&self) -> Option<v1::SubscriptionPosition> {
        self.position
    }

    /// What the desk before did not answer.
    async fn send_unanswered(&mut self) {
        if !self.is_open || self.link.is_none() {
            return;
        }
        for settle in self.settles.values().cloned().collect::<Vec<_>>() {
            // If it is gone again, `ended` says so.
            _ = self.send(Request::Settle(settle)).await;
        }
    }

    pub(super) fn ended(&mut self) {
        self.link = None;
        if self.is_open {
            self.down_since = Instant::now();
        }
        self.is_open = false;
        self.failed();
    }

    /// # Errors
    ///
    /// When there is no desk.
    pub(super) async fn send(&self, request: Request) -> Result<()> {
        match &self.link {
            Some(link) => link.send(request).await,
            None => Err(Error::unavailable("there is no desk at present")),
        }
    }

    /// Sends a settle frame, now or to the next desk.
    pub(super) async fn settle(&mut self, settle: v1::Settle) {
        self.settles.insert(settle.tag, settle.clone());
        if self.is_open && self.send(Request::Settle(settle)).await.is_err() {
            // It goes to the next desk.
            self.ended();
        }
    }

    /// What the answer is about is held no longer. Until then it is: the next desk has to know of it,
    /// to settle it.
    pub(super) fn answered(&mut self, tag: u64) {
        if let Some(settle) = self.settles.remove(&tag) {
            self.held.settle(&settle);
        }
    }
}

/// A settle frame by partition.
///
/// # Errors
///
/// `Invalid`, with the field.
pub(super) fn split(settle: v1::Settle) -> Result<BTreeMap<u32, v1::Settle>> {
    let mut parts = Parts { tag: settle.tag, by_partition: BTreeMap::new() };
    for range in settle.acks {
        parts.of(Some(range), "acks")?.acks.push(range);
    }
    for nack in settle.nacks {
        parts.of(nack.leases, "nacks")?.nacks.push(nack);
    }
    for reject in settle.rejects {
        parts.of(reject.leases, "rejects")?.rejects.push(reject);
    }
    for extend in settle.extends {
        parts.of(extend.leases, "extends")?.extends.push(extend);
    }
    Ok(parts.by_partition)
}

struct Parts {
    tag: u64,
    by_partition: BTreeMap<u32, v1::Settle>,
}

impl Parts {
    fn of(&mut self, leases: Option<v1::SettledRange>, field: &str) -> Result<&mut v1::Settle> {
        let leases = leases.filter(|leases| leases.first <= leases.last).ok_or_else(|| {
            let message = "a range of leases is missing, or ends before it starts";
            Error::invalid(message).with_field(field)
        })?;
        let tag = self.tag;
        let part = self.by_partition.entry(leases.partition);
        Ok(part.or_insert_with(|| v1::Settle { tag, ..v1::Settle::default() }))
    }
}

/// Leases of a partition that the stream does not have.
pub(super) fn unknown(settle: &v1::Settle) -> Vec<v1::RefusedLeases> {
    let acks = settle.acks.iter().copied();
    let nacks = settle.nacks.iter().filter_map(|nack| nack.leases);
    let rejects = settle.rejects.iter().filter_map(|reject| reject.leases);
    let extends = settle.extends.iter().filter_map(|extend| extend.leases);
    let all = acks.chain(nacks).chain(rejects).chain(extends);
    let why = v1::Refused::Unknown.into();
    all.map(|leases| v1::RefusedLeases { leases: Some(leases), why }).collect()
}

#[cfg(test)]
mod tests {
    use weft_proto::{GroupId, PartitionId, PartitionUid};

    use super::*;

    fn slot() -> Slot {
        Slot::new(Placement {
            partition: PartitionId(3),
            group: GroupId(1),
            uid: PartitionUid(7),
            dead: PartitionUid(8),
            delayed: PartitionUid(9),
        })
    }

    fn granted(first_lease: u64, events: u32, bytes: u64) -> internal::Granted {
        let batch = v1::EventBatch {
            first_offset: 100 + first_lease,
            offset_deltas: (0..events).collect(),
            ..v1::EventBatch::default()
        };
        let delivery = v1::Delivery {
            epoch: 5,
            batch: Some(batch),
            first_lease: Some(first_lease),
            ..v1::Delivery::default()
        };
        internal::Granted { delivery: Some(delivery), bytes }
    }

    #[test]
    fn nothing_overtakes_leases_that_are_given_back() {
        let mut slot = slot();
        let seam = || Frame::Seam(v1::Seam { partition: 3, ..v1::Seam::default() });
        slot.queue.extend([Frame::Granted(granted(3, 2, 40)), seam()]);
        slot.queue.push_back(Frame::Granted(granted(5, 1, 10)));

        let (settle, credit) = slot.give_back(9, granted(1, 2, 30));

        let ranges = settle.nacks.iter().map(|nack| {
            assert!(nack.uncounted && nack.delay_ms.is_none(), "at once, in their order");
            nack.leases.unwrap()
        });
        let own = |first, last| slot.own(5, first, last);
        assert_eq!(ranges.collect::<Vec<_>>(), [own(1, 2), own(3, 4), own(5, 5)]);
        assert_eq!((settle.tag, own(1, 2).partition), (9, 3));
        // Else the member would wait for ever for events that fit into it.
        assert_eq!(credit, v1::Credit { events: 5, bytes: 80 });
        assert!(slot.is_behind);
        assert!(matches!(slot.queue.pop_front(), Some(Frame::Seam(_))) && slot.queue.is_empty());
    }

    #[tokio::test]
    async fn a_position_is_told_only_after_a_desk_told_it() {
        let opened = |watermark| {
            let assigned = v1::Assigned { partition: 3, epoch: 1, watermark };
            internal::Opened { assigned: Some(assigned), ..internal::Opened::default() }
        };
        let mut slot = slot();

        // Not the beginning, and not "nothing is left".
        assert_eq!(slot.position(), None);
        slot.opened(&opened(40)).await;
        assert_eq!(slot.position(), None);

        let position = v1::SubscriptionPosition { partition: 3, watermark: 40, end: 50, next: 45 };
        slot.told(position);
        slot.ended();
        slot.opened(&opened(44)).await;
        let after = v1::SubscriptionPosition { watermark: 44, ..position };
        assert_eq!(slot.position(), Some(after));
    }
}
