//! Sharing a member's credit out among the desks of its partitions. Pure.
//!
//! A desk that has events and no credit says so once, and gets a share. Unused credit of others is
//! called back only when nothing else is left.

use weft_proto::v1;

/// The largest share of one desk.
const SHARE_EVENTS: u64 = 4_096;
const SHARE_BYTES: i64 = 2 << 20;

/// Credit of one member.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Not given to any desk; the bytes may be overdrawn by one event of each frame.
    events: u64,
    bytes: i64,
    shares: Vec<Share>,
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Share {
    events: u64,
    bytes: i64,
    /// It has events and no credit.
    wants: bool,
    is_recalled: bool,
}

impl Pool {
    /// No credit, for so many desks.
    pub(crate) fn new(desks: usize) -> Self {
        Self { events: 0, bytes: 0, shares: vec![Share::default(); desks] }
    }

    /// The member grants more.
    pub(crate) fn add(&mut self, credit: &v1::Credit) {
        self.events = self.events.saturating_add(credit.events.into());
        self.bytes = self.bytes.saturating_add_unsigned(credit.bytes);
    }

    /// A desk has events and no credit.
    pub(crate) fn offered(&mut self, desk: usize) {
        if let Some(share) = self.shares.get_mut(desk) {
            share.wants = true;
        }
    }

    /// What a desk gets now: if it asked, or has used up half of its share and others do not ask.
    pub(crate) fn next_grant(&mut self, desk: usize) -> Option<v1::Credit> {
        let asking = self.shares.iter().filter(|share| share.wants).count() as u64;
        let share = self.shares.get_mut(desk)?;
        let is_low = share.events > 0
            && (share.events < SHARE_EVENTS / 2 || share.bytes < SHARE_BYTES / 2)
            && !share.is_recalled
            && asking == 0;
        if self.events == 0 || self.bytes <= 0 || !(share.wants || is_low) {
            return None;
        }
        let parts = if share.wants { asking.max(1) } else { 1 };
        let events =
            self.events.div_ceil(parts).min(SHARE_EVENTS.saturating_sub(share.events)).max(1);
        let room = SHARE_BYTES.saturating_sub(share.bytes.max(0));
        let parts = i64::try_from(parts).unwrap_or(i64::MAX);
        let bytes = (self.bytes / parts).min(room).max(1);
        // Fewer frames are worth a little patience.
        if !share.wants && events < SHARE_EVENTS / 4 && bytes < SHARE_BYTES / 4 {
            return None;
        }
        self.events = self.events.saturating_sub(events);
        self.bytes = self.bytes.saturating_sub(bytes);
        share.events = share.events.saturating_add(events);
        share.bytes = share.bytes.saturating_add(bytes);
        share.wants = false;
        let (events, bytes) = (u32::try_from(events).ok()?, u64::try_from(bytes).ok()?);
        Some(v1::Credit { events, bytes })
    }

    /// Desks whose unused credit is needed elsewhere; each is named once until it answers.
    pub(crate) fn recalls(&mut self) -> Vec<usize> {
        let is_needed = self.shares.iter().any(|share| share.wants);
        if !is_needed || (self.events > 0 && self.bytes > 0) {
            return Vec::new();
        }
        let idle = self.shares.iter_mut().enumerate();
        let idle = idle.filter(|(_, share)| !share.wants && !share.is_recalled && share.events > 0);
        idle.map(|(desk, share)| {
            share.is_recalled = true;
            desk
        })
        .collect()
    }

    /// A desk sent events.
    pub(crate) fn spent(&mut self, desk: usize, events: u64, bytes: u64) {
        if let Some(share) = self.shares.get_mut(desk) {
            share.events = share.events.saturating_sub(events);
            share.bytes = share.bytes.saturating_sub_unsigned(bytes);
        }
    }

    /// A desk gave back what it had left.
    pub(crate) fn returned(&mut self, desk: usize, left: &v1::Credit) {
        if let Some(share) = self.shares.get_mut(desk) {
            // What it overdrew is paid here.
            let owed = share.bytes.min(0);
            *share = Share { wants: share.wants, ..Share::default() };
            self.events = self.events.saturating_add(left.events.into());
            self.bytes = self.bytes.saturating_add_unsigned(left.bytes).saturating_add(owed);
        }
    }

    /// A desk is gone, with what it had.
    pub(crate) fn lost(&mut self, desk: usize) {
        if let Some(share) = self.shares.get_mut(desk) {
            let gone = std::mem::take(share);
            self.events = self.events.saturating_add(gone.events);
            self.bytes = self.bytes.saturating_add(gone.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credit(events: u32, bytes: u64) -> v1::Credit {
        v1::Credit { events, bytes }
    }

    #[test]
    fn nobody_gets_credit_who_has_no_events() {
        let mut pool = Pool::new(2);
        pool.add(&credit(10, 1_000));

        assert_eq!((pool.next_grant(0), pool.next_grant(1)), (None, None));
        pool.offered(1);
        assert_eq!(pool.next_grant(0), None);
        assert_eq!(pool.next_grant(1), Some(credit(10, 1_000)));
        assert_eq!(pool.next_grant(1), None);
    }

    #[test]
    fn those_who_ask_share_alike() {
        let mut pool = Pool::new(3);
        pool.add(&credit(10, 999));
        (0..3).for_each(|desk| pool.offered(desk));

        let shares: Vec<_> = (0..3).filter_map(|desk| pool.next_grant(desk)).collect();

        assert_eq!(shares, [credit(4, 333), credit(3, 333), credit(3, 333)]);
    }

    #[test]
    fn a_single_event_of_credit_goes_where_events_are() {
        let mut pool = Pool::new(2);
        pool.add(&credit(1, 100));
        pool.offered(0);
        assert_eq!(pool.next_grant(0), Some(credit(1, 100)));
        pool.offered(1);
        assert_eq!(pool.next_grant(1), None);

        assert_eq!(pool.recalls(), [0]);
        assert_eq!(pool.recalls(), [] as [usize; 0]);
        pool.returned(0, &credit(1, 100));
        assert_eq!(pool.next_grant(1), Some(credit(1, 100)));
    }

    #[test]
    fn no_credit_is_made_or_lost() {
        let mut pool = Pool::new(2);
        pool.add(&credit(100, 1_000));
        pool.offered(0);
        let share = pool.next_grant(0).unwrap();
        // The last event exceeds the bytes.
        pool.spent(0, 40, share.bytes + 50);
        pool.returned(0, &credit(60, 0));
        assert_eq!((pool.events, pool.bytes), (60, -50));
        pool.offered(1);
        assert_eq!(pool.next_grant(1), None);
        pool.add(&credit(0, 100));
        assert_eq!(pool.next_grant(1), Some(credit(60, 50)));
        pool.spent(1, 10, 20);
        pool.lost(1);
        assert_eq!((pool.events, pool.bytes), (50, 30));
    }
}
