//! Many partitions as one sequence, by (append time, partition, offset).
//!
//! An event may go when nothing that is still to come can belong before it. Of a partition with
//! nothing left to read, that is known by its group's log time: it never goes back, and all
//! partitions of the group share it. So an idle partition holds up nobody while its group goes on.

use std::collections::VecDeque;
use std::time::Duration;

use futures::future::select_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weft_proto::{Error, GroupId, PartitionId, Result, Timestamp};

use super::part::{Batches, END, Part, Shared, Step, batch};
use crate::raft::machine::AppliedUpto;
use crate::read::Run;

/// Bytes that are read ahead for all partitions together, about.
const AHEAD_BYTES: usize = 4 << 20;
const CHUNK_BYTES_MIN: usize = 4 << 10;
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// How long an event of a followed read waits for groups that are silent or behind.
const HOLD: Duration = Duration::from_millis(100);
/// What is applied shows in the log within so long.
const SHOWN: Duration = Duration::from_millis(1);

/// One partition, and what was read of it and not sent.
struct Lane {
    part: Part,
    runs: VecDeque<Run>,
    since: Instant,
    /// Nothing is left to read, and what comes is not before this.
    mark: Option<Timestamp>,
    /// How far the group was applied when it was last looked at.
    looked: Option<AppliedUpto>,
}

impl Lane {
    fn is_done(&self) -> bool {
        self.runs.is_empty() && self.part.tape.next() >= self.part.to
    }

    fn key(&self) -> Option<(Timestamp, PartitionId)> {
        self.runs.front().map(|run| (run.time, self.part.partition))
    }

    /// Whether everything that was there when the read began has been sent.
    fn is_caught_up(&self) -> bool {
        let sent = self.runs.front().map_or_else(|| self.part.tape.next(), |run| run.first);
        sent >= self.part.caught_up
    }

    async fn refill(&mut self, upto: AppliedUpto, bytes_max: usize) -> Result<()> {
        if !self.runs.is_empty() || self.is_done() {
            return Ok(());
        }
        if self.mark.is_some() && self.looked == Some(upto) {
            return Ok(());
        }
        self.looked = Some(upto);
        // The time first: whatever is appended after it was read comes later.
        let time = self.part.group.with_state(crate::state::GroupState::time);
        self.runs = self.part.read(bytes_max).await?.into();
        self.since = Instant::now();
        let end = self.part.end();
        let exhausted = self.runs.is_empty() && self.part.tape.next() >= end;
        self.mark = exhausted.then(|| Timestamp::from_micros(time.as_micros() + 1));
        Ok(())
    }
}

/// A merged read.
#[expect(clippy::struct_excessive_bools, reason = "what is asked for, and what was told")]
pub(super) struct Merge {
    lanes: Vec<Lane>,
    groups: Vec<(GroupId, watch::Receiver<AppliedUpto>)>,
    shared: Shared,
    follows: bool,
    announced: bool,
    chunk: usize,
}

impl Merge {
    pub(super) fn new(parts: Vec<Part>, shared: Shared) -> Self {
        let follows = parts.iter().any(|part| part.to == END);
        let chunk = (AHEAD_BYTES / parts.len().max(1)).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let mut groups: Vec<(GroupId, watch::Receiver<AppliedUpto>)> = Vec::new();
        for part in &parts {
            if groups.iter().all(|(id, _)| *id != part.group.id) {
                groups.push((part.group.id, part.group.applied()));
            }
        }
        let lane = |part| {
            let since = Instant::now();
            Lane { part, runs: VecDeque::new(), since, mark: None, looked: None }
        };
        let lanes = parts.into_iter().map(lane).collect();
        Self { lanes, groups, shared, follows, announced: !follows, chunk }
    }

    /// What comes next, or nothing at the end of the range.
    pub(super) async fn step(&mut self) -> Result<Option<Step>> {
        loop {
            self.refill().await?;
            if !self.announced && self.lanes.iter().all(Lane::is_caught_up) {
                self.announced = true;
                return Ok(Some(Step::CaughtUp));
            }
            if self.lanes.iter().all(Lane::is_done) {
                return Ok(None);
            }
            let oldest = self.oldest();
            let until = oldest
                .filter(|_| self.follows)
                .and_then(|place| self.lanes.get(place))
                .map(|lane| lane.since + HOLD);
            let goes = |place: &usize| {
                self.may_go(*place) || until.is_some_and(|until| Instant::now() >= until)
            };
            match oldest.filter(goes) {
                Some(place) => {
                    if let Some(step) = self.take(place) {
                        return Ok(Some(step));
                    }
                }
                None => self.wait(until).await?,
            }
        }
    }

    async fn refill(&mut self) -> Result<()> {
        for lane in &mut self.lanes {
            let group = self.groups.iter_mut().find(|(id, _)| *id == lane.part.group.id);
            let upto = group.map(|(_, applied)| *applied.borrow_and_update());
            lane.refill(upto.unwrap_or_default(), self.chunk).await?;
        }
        Ok(())
    }

    fn oldest(&self) -> Option<usize> {
        let heads = self.lanes.iter().enumerate();
        let heads = heads.filter_map(|(place, lane)| Some((lane.key()?, place)));
        heads.min().map(|(_, place)| place)
    }

    /// Whether nothing that is still to come belongs before the head of this lane.
    fn may_go(&self, place: usize) -> bool {
        let Some(key) = self.lanes.get(place).and_then(Lane::key) else { return false };
        self.lanes
            .iter()
            .filter(|lane| lane.runs.is_empty() && !lane.is_done())
            .all(|lane| lane.mark.is_some_and(|mark| key < (mark, lane.part.partition)))
    }

    fn take(&mut self, place: usize) -> Option<Step> {
        let lane = self.lanes.get_mut(place)?;
        let (run, partition) = (lane.runs.pop_front()?, lane.part.partition);
        let batch = batch(partition, run, &self.shared)?;
        let (found, holes) = (vec![batch], lane.part.holes());
        Some(Step::Batches(Batches { partition, found, holes }))
    }

    /// Waits until a group applied more, or until it is time.
    async fn wait(&mut self, until: Option<Instant>) -> Result<()> {
        let unclear = |lane: &Lane| lane.runs.is_empty() && !lane.is_done() && lane.mark.is_none();
        let soon = self.lanes.iter().any(unclear).then(|| Instant::now() + SHOWN);
        let until = until.into_iter().chain(soon).min();
        let changes = self.groups.iter_mut().map(|(_, applied)| Box::pin(applied.changed()));
        let stopped = |_closed| Error::unavailable("a group stopped on this node");
        tokio::select! {
            first = select_all(changes) => first.0.map_err(stopped),
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => Ok(()),
        }
    }
}
