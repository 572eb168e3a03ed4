//! The events of one partition, of its dead letters that are delivered again, or of a replay job in it,
//! at one desk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_proto::event::EventView;
use weft_proto::filter::{Candidate, Compiled};
use weft_proto::resource::{OrderKey, ReplayState};
use weft_proto::{Epoch, Offset, PartitionUid, Reason, ResourceUid, Result, Timestamp};

use super::dead::replayed;
use super::pace::Pacer;
use super::replicate::Writing;
use super::shelf::{Budget, Shelf, Stored};
use super::{LaneKey, is_of, original};
use crate::catalog::ReplayJob;
use crate::data::DataGroup;
use crate::entry::{OffsetRange, Settlement};
use crate::planted::{self, Bug};
use crate::read::{History, Run, Tape};
use crate::resources::Placement;
use crate::subscription::desk::{Desk, Grant, Mode, Offered, Policy};
use crate::subscription::{OffsetSet, Parked};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Read ahead while so much is there already.
const AHEAD_BYTES: usize = 512 << 10;
/// Events that wait; with more nothing is read ahead.
const AHEAD_EVENTS: usize = 4_096;
/// Below this distance it is cheaper to read on than to look for the place.
const NEAR: u64 = 256;
/// For planted bugs.
const BEHIND: u64 = 5;

/// A desk, and where its events come from.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Lane {
    pub(super) desk: Desk,
    /// Where the events are: the partition, or its dead letters.
    pub(super) partition: PartitionUid,
    /// Whose cursor it has: that of the subscription, or of the replay job.
    pub(super) cursor: ResourceUid,
    pub(super) kind: LaneKind,
    /// What keeps events in order; nothing in modes without keys.
    key: Option<OrderKey>,
    /// Dead letters that are delivered again; the desk takes all others for settled.
    redriven: BTreeSet<Offset>,
    tape: Tape,
    /// For events that are read a second time.
    again: Tape,
    group: DataGroup,
    shelf: Shelf,
    filters: Compiled,
    subscription: weft_proto::QualifiedName,
    /// The last read found nothing more.
    is_dry: bool,
    /// Nothing but its time keeps the next event back.
    is_early: bool,
    /// It is being written that it lends, or it is written.
    is_announced: bool,
}

/// Which events a lane has.
pub(super) enum LaneKind {
    /// Those of the partition.
    Own,
    /// Dead letters that are delivered again: those that were asked for by then.
    Redriven,
    /// Those of a replay job.
    Replay(Replay),
}

/// A replay job in one partition.
pub(super) struct Replay {
    pub(super) job: Arc<ReplayJob>,
    /// Of the job alone.
    filters: Compiled,
    /// One past the last event.
    to: Offset,
    pacer: Pacer,
    /// It was deleted, or cancelled.
    is_over: bool,
}

/// What a cursor says.
pub(super) struct Opened {
    pub(super) previous: Epoch,
    pub(super) epoch: Epoch,
    pub(super) watermark: Offset,
    pub(super) settled: OffsetSet,
    pub(super) parked: BTreeMap<Offset, Parked>,
}

impl Opened {
    /// A planted bug.
    fn damaged(mut self) -> Self {
        if planted::is(Bug::CursorBehind) {
            self.watermark = Offset(self.watermark.get().saturating_sub(BEHIND));
        }
        self
    }
}

/// What a lane is made of.
pub(super) struct Source {
    pub(super) group: DataGroup,
    pub(super) history: History,
    pub(super) budget: Budget,
    pub(super) partition: PartitionUid,
    pub(super) cursor: ResourceUid,
    pub(super) filters: Compiled,
    pub(super) key: OrderKey,
    pub(super) subscription: weft_proto::QualifiedName,
    pub(super) kind: LaneKind,
}

impl Replay {
    /// The part of a job in one partition, and where it begins; nothing if it has none there, or is
    /// cancelled.
    ///
    /// # Errors
    ///
    /// For filters that this release does not know.
    pub(super) fn of(job: Arc<ReplayJob>, placement: Placement) -> Result<Option<(Self, Offset)>> {
        let range = job.spec.range(placement.partition.get());
        let Some(range) = range.filter(|_| job.spec.state != ReplayState::Cancelled) else {
            return Ok(None);
        };
        let partitions = job.spec.resolved.iter().flat_map(|range| &range.partitions).count();
        let filters = Compiled::new(&job.spec.filters)?;
        let pacer = Pacer::new(job.spec.pace, partitions);
        let to = Offset(range.to);
        Ok(Some((Self { job, filters, to, pacer, is_over: false }, Offset(range.from))))
    }

    /// One past the last event.
    pub(super) fn end(&self) -> Offset {
        self.to
    }

    fn runs(&self) -> bool {
        !self.is_over && self.job.spec.state == ReplayState::Running
    }
}

impl Lane {
    pub(super) fn open(source: Source, policy: Policy, opened: Opened, seed: u64) -> Self {
        let Source { group, history, budget, partition, cursor, filters, key, subscription, kind } =
            source;
        let is_own = matches!(kind, LaneKind::Own);
        let Opened { previous, epoch, watermark, settled, parked } =
            if is_own { opened.damaged() } else { opened };
        let key = (policy.mode == Mode::KeyShared).then_some(key);
        // Dead letters are lent only where somebody asked for it: all others count as settled.
        let is_redriven = matches!(kind, LaneKind::Redriven);
        let redriven = if is_redriven { parked.keys().copied().collect() } else { BTreeSet::new() };
        let settled = if is_redriven {
            all_but(&parked, watermark, group.bounds(partition).end)
        } else {
            settled
        };
        let mut desk = Desk::open(policy, (previous, epoch), watermark, settled, parked, seed);
        if let LaneKind::Replay(replay) = &kind
            && planted::is(Bug::ReplaySkips)
            && let Some(range) = before(watermark, Offset(watermark.get() + BEHIND).min(replay.to))
        {
            desk.pass(range);
        }
        let tape = |from| Tape::new(group.clone(), partition, history.clone(), from);
        Self {
            tape: tape(watermark),
            again: tape(watermark),
            desk,
            partition,
            cursor,
            kind,
            key,
            redriven,
            group,
            shelf: Shelf::new(budget),
            filters,
            subscription,
            is_dry: false,
            is_early: false,
            is_announced: false,
        }
    }

    /// Whether it is to be written that this lane lends; told once.
    pub(super) fn announces(&mut self) -> bool {
        let asks = !self.is_announced && self.desk.asks_to_lend();
        self.is_announced |= asks;
        asks
    }

    /// A write for its cursor, of nothing so far.
    pub(super) fn writing(&self, dead: PartitionUid) -> Writing {
        Writing {
            group: self.group.clone(),
            settlement: Settlement {
                subscription: self.cursor,
                partition: self.partition,
                epoch: self.desk.epoch(),
                ranges: Vec::new(),
                parked: Vec::new(),
                lends: false,
            },
            settled: Vec::new(),
            parked: Vec::new(),
            letters: Vec::new(),
            dead,
        }
    }

    /// What members and desks call it.
    pub(super) fn key(&self) -> LaneKey {
        match &self.kind {
            LaneKind::Own => LaneKey::default(),
            LaneKind::Redriven => LaneKey { redriven: true, replay_job: 0 },
            LaneKind::Replay(replay) => {
                LaneKey { redriven: false, replay_job: replay.job.uid.get() }
            }
        }
    }

    pub(super) fn is_own(&self) -> bool {
        matches!(self.kind, LaneKind::Own)
    }

    pub(super) fn is_redriven(&self) -> bool {
        matches!(self.kind, LaneKind::Redriven)
    }

    /// Whether somebody asked for more dead letters since the lane was opened.
    pub(super) fn lacks(&self, parked: &BTreeMap<Offset, Parked>) -> bool {
        self.is_redriven() && parked.keys().any(|offset| !self.redriven.contains(offset))
    }

    /// Who is served first, from 0: dead letters that somebody asked for, then what is new; the past can
    /// wait.
    pub(super) fn rank(&self) -> u8 {
        match self.kind {
            LaneKind::Redriven => 0,
            LaneKind::Own => 1,
            LaneKind::Replay(_) => 2,
        }
    }

    /// Whether events are lent at present.
    pub(super) fn lends(&self) -> bool {
        match &self.kind {
            LaneKind::Own | LaneKind::Redriven => true,
            LaneKind::Replay(replay) => replay.runs(),
        }
    }

    /// The job that it is for.
    pub(super) fn replays(&self) -> Option<&ReplayJob> {
        match &self.kind {
            LaneKind::Replay(replay) => Some(&replay.job),
            LaneKind::Own | LaneKind::Redriven => None,
        }
    }

    /// Whether nothing comes of it any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(&self.kind, LaneKind::Replay(replay) if replay.is_over)
    }

    /// The job as it is now; nothing if it is gone.
    pub(super) fn update(&mut self, job: Option<&Arc<ReplayJob>>) {
        let LaneKind::Replay(replay) = &mut self.kind else { return };
        let job = job.filter(|job| job.spec.state != ReplayState::Cancelled);
        let Some(job) = job else {
            replay.is_over = true;
            return;
        };
        if job.spec.pace != replay.job.spec.pace || job.spec.state != replay.job.spec.state {
            replay.pacer.change(job.spec.pace);
        }
        replay.job = Arc::clone(job);
    }

    /// When to read on, if nothing else is waited for: not while members take nothing, for instance.
    pub(super) fn reads_at(&self) -> Option<Timestamp> {
        self.next_time().filter(|_| self.is_early)
    }

    /// Nobody wants anything: there is no need to look at the time.
    pub(super) fn rest(&mut self) {
        self.is_early = false;
    }

    fn next_time(&self) -> Option<Timestamp> {
        match &self.kind {
            LaneKind::Replay(replay) if replay.runs() => replay.pacer.next(),
            _ => None,
        }
    }

    /// There may be more to read.
    pub(super) fn wet(&mut self) {
        self.is_dry = false;
    }

    /// One past the last event that is there.
    pub(super) fn end(&self) -> Offset {
        self.group.bounds(self.partition).end
    }

    /// Whether everything that is there was looked at.
    pub(super) fn is_at_end(&self) -> bool {
        self.desk.reads_from() >= self.end()
    }

    fn wants_more(&mut self, is_wanted: bool) -> bool {
        let room = self.desk.room();
        if self.is_dry || !self.lends() || room.events == 0 || room.bytes == 0 {
            return false;
        }
        let is_ahead = self.shelf.bytes() >= AHEAD_BYTES || self.desk.waiting() >= AHEAD_EVENTS;
        // Behind keys that are held, others may be free.
        !is_ahead || (is_wanted && self.desk.next_offer().is_none())
    }

    /// Reads on if there is room; says whether there may be more.
    pub(super) async fn read(&mut self, is_wanted: bool, now: Timestamp) -> Result<bool> {
        self.is_early = false;
        if !self.wants_more(is_wanted) {
            return Ok(false);
        }
        if self.next_time().is_some_and(|at| at > now) {
            self.is_early = true;
            return Ok(false);
        }
        let from = self.desk.reads_from();
        let bounds = self.group.bounds(self.partition);
        if from < bounds.floor {
            // Retention took them; there is nothing to lend any more.
            if let Some(gone) = before(from, bounds.floor) {
                self.desk.pass(gone);
            }
            return Ok(true);
        }
        self.tape.seek(from);
        let end = match &self.kind {
            LaneKind::Own => bounds.end,
            // Redriven letters lie apart: what is between them is not read.
            LaneKind::Redriven => Offset(from.0.saturating_add(1)).min(bounds.end),
            LaneKind::Replay(replay) => replay.to.min(bounds.end),
        };
        let runs = match self.tape.read(end, READ_BYTES).await {
            Ok(runs) => runs,
            Err(error) if error.reason() == Reason::OffsetOutOfRange => return Ok(true),
            Err(error) => return Err(error),
        };
        self.is_dry = runs.is_empty();
        tracing::trace!(partition = %self.partition, %from, end = %bounds.end, runs = runs.len(), "read");
        for run in runs {
            if !self.offer(run, now) {
                // The rest is read again when it has its time.
                self.is_early = true;
                return Ok(false);
            }
        }
        Ok(!self.is_dry)
    }

    /// Offers what the subscription wants of a run; false if it is too early for some of it.
    fn offer(&mut self, run: Run, now: Timestamp) -> bool {
        let mut passed: Option<OffsetRange> = None;
        for (number, event) in (0_u64..).zip(run.events) {
            let offset = Offset(run.first.0.saturating_add(number));
            let candidate = EventView::parse(&event).map(Candidate::new);
            let offered = candidate.and_then(|event| self.look(&event, offset));
            let is_early = offered.is_some() && !self.has_time(run.time, now);
            if is_early {
                if let Some(range) = passed {
                    self.desk.pass(range);
                }
                return false;
            }
            let Some(offered) = offered else {
                passed = match (passed, OffsetRange::new(offset, offset)) {
                    (Some(range), Some(one)) => Some(range.join(one)),
                    (range, one) => range.or(one),
                };
                continue;
            };
            if let Some(range) = passed.take() {
                self.desk.pass(range);
            }
            self.desk.offer(offered);
            self.shelf.put(offset, Stored { event, time: run.time, schema: run.schema });
        }
        if let Some(range) = passed {
            self.desk.pass(range);
        }
        true
    }

    /// Whether an event of this append time may be offered now.
    fn has_time(&mut self, event: Timestamp, now: Timestamp) -> bool {
        match &mut self.kind {
            LaneKind::Own | LaneKind::Redriven => true,
            LaneKind::Replay(replay) => replay.pacer.may(event, now),
        }
    }

    /// What the desk must know of an event that the subscription wants.
    fn look(&self, event: &Candidate<'_>, offset: Offset) -> Option<Offered> {
        let view = event.event();
        let is_wanted = match &self.kind {
            LaneKind::Own => self.filters.passes(event),
            LaneKind::Redriven => is_of(view, &self.subscription),
            LaneKind::Replay(replay) => self.filters.passes(event) && replay.filters.passes(event),
        };
        let key = match &self.key {
            Some(_) if planted::is(Bug::KeysNotHeld) => offset.get(),
            Some(key) => key.hash_of(view),
            None => 0,
        };
        is_wanted.then(|| Offered {
            offset,
            key,
            bytes: u32::try_from(view.bytes().len()).unwrap_or(u32::MAX),
            expires: view.attribute("expirytime").and_then(|text| text.parse::<Timestamp>().ok()),
        })
    }

    /// The events of grants, in their order and as they were published, but for the mark of a replay;
    /// nothing for those that retention took meanwhile.
    pub(super) async fn load(&mut self, offsets: &[Offset]) -> Result<Vec<Option<Stored>>> {
        let mut found = self.stored(offsets).await?;
        for (stored, &offset) in found.iter_mut().zip(offsets) {
            let Some(stored) = stored else { continue };
            match &self.kind {
                LaneKind::Own => {}
                LaneKind::Redriven => stored.event = original(&stored.event),
                LaneKind::Replay(replay) => {
                    stored.event = replayed(&stored.event, &replay.job.name, offset);
                }
            }
        }
        Ok(found)
    }

    /// An event that was read is not needed here.
    pub(super) fn leave(&mut self, offset: Offset) {
        self.shelf.take(offset);
    }

    /// The same as they are stored.
    pub(super) async fn stored(&mut self, offsets: &[Offset]) -> Result<Vec<Option<Stored>>> {
        let mut found: Vec<Option<Stored>> =
            offsets.iter().map(|&offset| self.shelf.take(offset)).collect();
        let mut missing: Vec<(Offset, usize)> = offsets
            .iter()
            .enumerate()
            .filter(|(place, _)| found.get(*place).is_some_and(Option::is_none))
            .map(|(place, &offset)| (offset, place))
            .collect();
        missing.sort_unstable();
        let mut read: BTreeMap<Offset, Stored> = BTreeMap::new();
        for (offset, place) in missing {
            if !read.contains_key(&offset) {
                read.clear();
                self.read_again(offset, &mut read).await?;
            }
            if let Some(slot) = found.get_mut(place) {
                *slot = read.get(&offset).cloned();
            }
        }
        Ok(found)
    }

    async fn read_again(
        &mut self,
        offset: Offset,
        into: &mut BTreeMap<Offset, Stored>,
    ) -> Result<()> {
        let next = self.again.next();
        if next > offset || offset.0.saturating_sub(next.0) > NEAR {
            self.again.seek(offset);
        }
        let end = Offset(offset.0.saturating_add(1));
        while self.again.next() <= offset {
            let runs = match self.again.read(end, READ_BYTES).await {
                Ok(runs) => runs,
                Err(error) if error.reason() == Reason::OffsetOutOfRange => {
                    self.again.seek(offset);
                    if self.group.bounds(self.partition).floor > offset {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if runs.is_empty() {
                return Ok(());
            }
            for run in runs {
                for (number, event) in (0_u64..).zip(run.events) {
                    let stored = Stored { event, time: run.time, schema: run.schema };
                    into.insert(Offset(run.first.0.saturating_add(number)), stored);
                }
            }
        }
        Ok(())
    }
}

/// Offsets of grants.
pub(super) fn offsets(grants: &[Grant]) -> Vec<Offset> {
    grants.iter().map(|grant| grant.offset).collect()
}

fn before(from: Offset, to: Offset) -> Option<OffsetRange> {
    OffsetRange::new(from, Offset(to.0.checked_sub(1)?))
}

/// All offsets from `from` up to `to` that are not parked.
fn all_but(parked: &BTreeMap<Offset, Parked>, from: Offset, to: Offset) -> OffsetSet {
    let mut gaps = Vec::new();
    let mut next = from;
    for &offset in parked.keys().filter(|&&offset| offset >= from) {
        gaps.extend(before(next, offset));
        next = Offset(offset.0.saturating_add(1));
    }
    gaps.extend(before(next, to));
    gaps.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_parked_counts_as_settled() {
        let parked = [3, 4, 7].map(|offset| (Offset(offset), Parked::default())).into();
        let ranges = |from, to| -> Vec<(u64, u64)> {
            let set = all_but(&parked, Offset(from), Offset(to));
            set.iter().map(|range| (range.first().0, range.last().0)).collect()
        };

        assert_eq!(ranges(0, 10), [(0, 2), (5, 6), (8, 9)]);
        assert_eq!(ranges(3, 8), [(5, 6)]);
        assert_eq!(ranges(8, 8), []);
    }
}
