//! What the replicas of a group have in memory, told before it is on their disks: for publishers
//! who ask for no more than that.
//!
//! *Owns* what each peer said. *Never* counts for commitment: that is openraft's, and of the disk.
//!
//! Entries are named by their time, which rises with every entry that a leader proposes: a proposer
//! knows it before it knows an index.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::pipeline::lock;
use super::point::LogPoint;

/// Entries of this log whose times are kept: more than a proposer has in flight.
const OWN_LEN: usize = 128;

/// A log has all entries of this term up to this time, in memory at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Receipt {
    /// The term of the last entry. What an older leader wrote says nothing about this one's.
    pub term: u64,
    /// Its time in microseconds.
    pub time: u64,
}

/// The receipts of one group on one node, whether it leads or follows. Costs nothing while nobody
/// wants any.
#[derive(Debug, Default)]
pub struct Receipts {
    /// This node leads, and somebody waits for the memory of a majority.
    wanted: AtomicBool,
    /// The leader asks this node to tell what it takes.
    asked: AtomicBool,
    /// Times of the entries that the own log took lately.
    own: Mutex<VecDeque<u64>>,
    newest: watch::Sender<Receipt>,
    peers: Mutex<BTreeMap<u64, Receipt>>,
    news: watch::Sender<()>,
}

impl Receipts {
    /// Asks the followers to tell, or no longer. Set it before the entry is proposed.
    pub fn want(&self, wanted: bool) {
        let before = self.wanted.swap(wanted, Ordering::AcqRel);
        if before && !wanted {
            lock(&self.own).clear();
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// The leader asks, or no longer does.
    pub(super) fn ask(&self, asked: bool) {
        self.asked.store(asked, Ordering::Release);
    }

    /// The own log took an entry into memory.
    pub(super) fn took(&self, point: &LogPoint) {
        if self.is_wanted() {
            let mut own = lock(&self.own);
            if own.len() == OWN_LEN {
                own.pop_front();
            }
            own.push_back(point.time);
        }
        if self.asked.load(Ordering::Acquire) {
            self.newest.send_replace(Receipt { term: point.term, time: point.time });
        }
    }

    /// Follows what the own log takes while the leader asks.
    pub(super) fn newest(&self) -> watch::Receiver<Receipt> {
        self.newest.subscribe()
    }

    /// A follower told.
    pub(super) fn told(&self, peer: u64, receipt: Receipt) {
        let mut peers = lock(&self.peers);
        let known = peers.entry(peer).or_default();
        if receipt > *known {
            *known = receipt;
            drop(peers);
            self.news.send_replace(());
        }
    }

    /// Changes whenever a follower told something new.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Whether the own log took the entry with this time lately. Not to be known of entries that
    /// were proposed before anybody wanted receipts.
    pub fn has_own(&self, time: u64) -> bool {
        lock(&self.own).binary_search(&time).is_ok()
    }

    /// Up to which time a majority of each of these sets of voters has the entries of a term, with
    /// this node as its leader; 0 = nothing is known.
    pub(super) fn upto<'v>(
        &self,
        term: u64,
        node: u64,
        voters: impl IntoIterator<Item = &'v BTreeSet<u64>>,
    ) -> u64 {
        let peers = lock(&self.peers);
        let time = |voter: &u64| match peers.get(voter) {
            _ if *voter == node => u64::MAX,
            Some(receipt) if receipt.term == term => receipt.time,
            _ => 0,
        };
        let of = |set: &BTreeSet<u64>| {
            let mut times: Vec<u64> = set.iter().map(time).collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            times.get(set.len() / 2).copied().unwrap_or_default()
        };
        voters.into_iter().map(of).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(term: u64, time: u64) -> LogPoint {
        LogPoint { term, time, ..LogPoint::default() }
    }

    #[test]
    fn nothing_is_kept_or_told_while_nobody_asks() {
        let receipts = Receipts::default();
        let mut newest = receipts.newest();

        receipts.took(&point(1, 5));
        assert!(!receipts.has_own(5) && !newest.has_changed().unwrap());

        receipts.want(true);
        receipts.ask(true);
        receipts.took(&point(1, 6));
        assert!(receipts.has_own(6) && !receipts.has_own(5));
        assert_eq!(*newest.borrow_and_update(), Receipt { term: 1, time: 6 });

        receipts.want(false);
        assert!(!receipts.has_own(6));
    }

    #[test]
    fn what_is_kept_of_the_own_log_is_bounded() {
        let receipts = Receipts::default();
        receipts.want(true);

        (1..=200).for_each(|time| receipts.took(&point(1, time)));

        assert!(receipts.has_own(200) && receipts.has_own(73) && !receipts.has_own(72));
    }

    #[test]
    fn a_late_or_older_word_changes_nothing() {
        let receipts = Receipts::default();
        let voters = [BTreeSet::from([1, 2, 3])];
        receipts.told(2, Receipt { term: 4, time: 9 });
        let mut news = receipts.news();
        news.borrow_and_update();

        receipts.told(2, Receipt { term: 4, time: 8 });
        receipts.told(2, Receipt { term: 3, time: 99 });

        assert!(!news.has_changed().unwrap());
        assert_eq!(receipts.upto(4, 1, &voters), 9);
        assert_eq!(receipts.upto(5, 1, &voters), 0, "another term");
    }

    #[test]
    fn a_leader_that_votes_no_more_does_not_count_itself() {
        let receipts = Receipts::default();
        receipts.told(2, Receipt { term: 1, time: 7 });

        assert_eq!(receipts.upto(1, 1, [&BTreeSet::from([2, 3])]), 0);
        assert_eq!(receipts.upto(1, 1, [&BTreeSet::from([1])]), u64::MAX, "alone");
    }

    proptest! {
        /// By counting, as one would explain it.
        #[test]
        fn a_majority_of_every_set_of_voters_has_what_is_said(
            told in prop::collection::btree_map(1..7_u64, (1..3_u64, 1..50_u64), 0..7),
            sets in prop::collection::vec(prop::collection::btree_set(1..7_u64, 1..6), 1..3),
        ) {
            let receipts = Receipts::default();
            for (&peer, &(term, time)) in &told {
                receipts.told(peer, Receipt { term, time });
            }

            let upto = receipts.upto(2, 1, &sets);

            let has = |voter: &u64, time: u64| {
                *voter == 1 || told.get(voter).is_some_and(|(term, at)| *term == 2 && *at >= time)
            };
            let agreed = |time: u64| {
                sets.iter().all(|set| {
                    set.iter().filter(|voter| has(voter, time)).count() * 2 > set.len()
                })
            };
            prop_assert!(upto == 0 || agreed(upto));
            prop_assert!(upto == u64::MAX || !agreed(upto + 1));
        }
    }
}
