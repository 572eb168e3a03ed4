//! One place for delayed events, at the leader of its group.

use std::time::Duration;

use bytes::Bytes;
use weft_proto::event::EventView;
use weft_proto::{AckLevel, Epoch, Error, NodeId, Offset, Reason, Result, SchemaId, Timestamp};

use super::agenda::{Agenda, Most};
use super::{Waiting, due_of};
use crate::clock;
use crate::data::{DataGroup, NewAppend, SchemaIds};
use crate::entry::{Command, Lease, Member, OffsetRange, Settlement, Settles};
use crate::ingest::Gates;
use crate::read::{History, Tape};
use crate::state::Reply;
use crate::subjects::Expectations;
use crate::subscription::{LeaseReply, OffsetSet, RANGES_LEN, SettleReply};

/// What is moved at once.
const MOVE: Most = Most { events: 256, bytes: 512 << 10 };
/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Below this distance it is cheaper to read on than to look for the place.
const NEAR: u64 = 256;
/// Events that wait longer than this are appended once more, at the end of their place: nothing that
/// is younger has to be kept because of them.
const OLD: Duration = Duration::from_hours(6);
/// The same when more ranges of moved events lie between those that wait. It must be well below what a
/// cursor takes (`RANGES_LEN`): a move that finds no room there would deliver without settling.
const RANGES_MAX: usize = 1_024;
const _: () = assert!(RANGES_MAX + MOVE.events < RANGES_LEN);
/// Repeats are recognised for so long, at least.
const KEPT: Duration = Duration::from_mins(5);

/// An event as it is stored.
#[derive(Clone)]
struct Stored {
    offset: Offset,
    event: Bytes,
    schema: SchemaId,
    ingest: Option<NodeId>,
}

/// A place that has, or had, events.
pub(super) struct Place {
    waiting: Waiting,
    epoch: Epoch,
    agenda: Agenda,
    /// Moved above the first that waits.
    settled: OffsetSet,
    ahead: Tape,
    again: Tape,
    group: DataGroup,
}

impl Place {
    /// Takes the place over from an earlier leader.
    pub(super) async fn open(
        group: &DataGroup,
        history: &History,
        waiting: Waiting,
    ) -> Result<Self> {
        let partition = waiting.placement.delayed;
        let member = Member::new("delays").unwrap_or_default();
        let (subscription, start) = (waiting.stream, Offset(0));
        let lease = Lease { subscription, partition, start, member, lends: true };
        let reply = group.sequencer.command(Command::Lease(vec![lease])).await?;
        let Reply::Leases(replies) = reply else {
            return Err(Error::internal("the state machine answered something else"));
        };
        let Some(LeaseReply::Leased { epoch, watermark, settled, .. }) = replies.into_iter().next()
        else {
            return Err(Error::unavailable("the place for delayed events is not there yet"));
        };
        let tape = || Tape::new(group.clone(), partition, history.clone(), watermark);
        Ok(Self {
            waiting,
            epoch,
            agenda: Agenda::new(watermark, clock::now()),
            settled,
            ahead: tape(),
            again: tape(),
            group: group.clone(),
        })
    }

    pub(super) fn waiting(&self) -> usize {
        self.agenda.len()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.agenda.next_due()
    }

    /// Whether there are events that were not read.
    pub(super) fn has_more(&self) -> bool {
        self.group.bounds(self.waiting.placement.delayed).end > self.agenda.next()
    }

    /// Reads what was published for later, up to the end.
    pub(super) async fn read(&mut self) -> Result<()> {
        while self.has_more() {
            let end = self.group.bounds(self.waiting.placement.delayed).end;
            self.ahead.seek(self.agenda.next());
            let runs = self.ahead.read(end, READ_BYTES).await?;
            if runs.is_empty() {
                // Applied, but not shown as committed yet.
                return Ok(());
            }
            for run in runs {
                for (number, event) in (0_u64..).zip(&run.events) {
                    let offset = Offset(run.first.get().saturating_add(number));
                    let is_moved = self.settled.contains(offset);
                    let due = EventView::parse(event).map(|view| due_of(&view)).unwrap_or_default();
                    self.agenda.read(offset, run.time, event.len(), (!is_moved).then_some(due));
                }
            }
        }
        Ok(())
    }

    /// Moves some of what is due; says how many were delivered, and whether it did anything.
    pub(super) async fn deliver(&mut self, gates: &Gates, now: Timestamp) -> Result<(usize, bool)> {
        let due = self.agenda.due(now, MOVE);
        if due.is_empty() {
            return Ok((0, false));
        }
        if self.ranges() > RANGES_MAX {
            let oldest = self.agenda.oldest(MOVE);
            self.carry(gates, self.waiting.placement.delayed, oldest).await?;
            return Ok((0, true));
        }
        let moved = self.carry(gates, self.waiting.placement.uid, due).await?;
        Ok((moved, true))
    }

    /// Appends the oldest once more, if they have waited for long.
    pub(super) async fn roll(&mut self, gates: &Gates, now: Timestamp) -> Result<()> {
        let than = Timestamp::from_micros(
            now.as_micros().saturating_sub(u64::try_from(OLD.as_micros()).unwrap_or(u64::MAX)),
        );
        let old = self.agenda.older(than, MOVE);
        if !old.is_empty() {
            self.carry(gates, self.waiting.placement.delayed, old).await?;
        }
        Ok(())
    }

    /// Takes those of these events back that wait here, and says which did. After an error of which the
    /// fate is not known the place must be opened anew: it may wait here for what is settled.
    pub(super) async fn cancel(
        &mut self,
        gates: &Gates,
        offsets: &[Offset],
    ) -> Result<Vec<Offset>> {
        if self.ranges() > RANGES_MAX {
            // Room first. Whoever asks looks again where they are now.
            let oldest = self.agenda.oldest(MOVE);
            self.carry(gates, self.waiting.placement.delayed, oldest).await?;
        }
        let waiting: Vec<Offset> =
            offsets.iter().copied().filter(|offset| self.agenda.waits(*offset)).collect();
        if waiting.is_empty() {
            return Ok(waiting);
        }
        let settlement = Settlement {
            subscription: self.waiting.stream,
            partition: self.waiting.placement.delayed,
            epoch: self.epoch,
            ranges: waiting.iter().filter_map(|&one| OffsetRange::new(one, one)).collect(),
            parked: Vec::new(),
            lends: false,
        };
        let reply = self.group.sequencer.command(Command::Settle(vec![settlement])).await?;
        let Reply::Settlements(replies) = reply else {
            return Err(Error::internal("the state machine answered something else"));
        };
        match replies.first() {
            Some(SettleReply::Settled { .. }) => {
                self.agenda.moved(&waiting);
                Ok(waiting)
            }
            Some(SettleReply::TooFragmented) => {
                let message = "too many delayed events were taken back at once; try again";
                Err(Error::new(Reason::Overloaded, message).with_not_applied())
            }
            _ => Err(Error::unavailable("another node leads the group now").with_not_applied()),
        }
    }

    /// Ranges of moved events between those that wait.
    fn ranges(&self) -> usize {
        let (stream, delayed) = (self.waiting.stream, self.waiting.placement.delayed);
        self.group.with_state(|state| {
            state.cursors().get(stream, delayed).map_or(0, |cursor| cursor.settled().len())
        })
    }

    /// The first offset that must stay.
    pub(super) fn floor(&mut self, now: Timestamp) -> Option<Offset> {
        let bounds = self.group.bounds(self.waiting.placement.delayed);
        let floor = self.agenda.floor(now, KEPT);
        (floor > bounds.floor).then_some(floor)
    }

    /// Appends events elsewhere and settles them here, in one step.
    async fn carry(
        &mut self,
        gates: &Gates,
        to: weft_proto::PartitionUid,
        offsets: Vec<Offset>,
    ) -> Result<usize> {
        let stored = self.stored(&offsets).await?;
        // In the order asked for; what is not there any more is nothing to carry.
        let at = |offset: &Offset| stored.binary_search_by_key(offset, |one| one.offset).ok();
        let carried: Vec<Stored> =
            offsets.iter().filter_map(|offset| stored.get(at(offset)?).cloned()).collect();
        if carried.is_empty() {
            self.agenda.moved(&offsets);
            return Ok(0);
        }
        let moved: Vec<Offset> = carried.iter().map(|one| one.offset).collect();
        let is_delivery = to == self.waiting.placement.uid;
        let subjects = if is_delivery && self.waiting.subject_index {
            carried.iter().map(|one| gates.subject_of(&one.event)).collect()
        } else {
            Vec::new()
        };
        let ingest = carried.first().and_then(|one| one.ingest);
        let is_of_one = carried.iter().all(|one| one.ingest == ingest);
        let append = NewAppend {
            partition: to,
            schemas: SchemaIds::Each(carried.iter().map(|one| one.schema).collect()),
            events: carried.into_iter().map(|one| one.event).collect(),
            packed: None,
            // They were looked for when they came.
            ids: Vec::new(),
            subjects,
            producer: None,
            expected: Expectations::default(),
            atomic: false,
            ack: AckLevel::Durable,
            settles: Some(Settles {
                subscription: self.waiting.stream,
                partition: self.waiting.placement.delayed,
                epoch: self.epoch,
                offsets: moved.clone(),
            }),
            // A batch names one node.
            ingest: ingest.filter(|_| is_of_one),
        };
        let answer = self.group.sequencer.append(append).await?;
        let lost = |_closed| Error::unavailable("this node is stopping; the fate is unknown");
        answer.await.map_err(lost)??;
        self.agenda.moved(&offsets);
        Ok(moved.len())
    }

    /// The events at these offsets that are still stored, by rising offset.
    async fn stored(&mut self, offsets: &[Offset]) -> Result<Vec<Stored>> {
        let mut wanted = offsets.to_vec();
        wanted.sort_unstable();
        let floor = self.group.bounds(self.waiting.placement.delayed).floor;
        let mut found: Vec<Stored> = Vec::with_capacity(wanted.len());
        for &offset in wanted.iter().filter(|offset| **offset >= floor) {
            if found.last().is_some_and(|last| last.offset >= offset) {
                continue;
            }
            let next = self.again.next();
            if next > offset || offset.get().saturating_sub(next.get()) > NEAR {
                self.again.seek(offset);
            }
            let end = Offset(offset.get().saturating_add(1));
            while self.again.next() < end {
                let runs = self.again.read(end, READ_BYTES).await?;
                if runs.is_empty() {
                    return Err(Error::unavailable("stored events cannot be read at present"));
                }
                for run in runs {
                    for (number, event) in (0_u64..).zip(run.events) {
                        let offset = Offset(run.first.get().saturating_add(number));
                        if wanted.binary_search(&offset).is_ok() {
                            found.push(Stored {
                                offset,
                                event,
                                schema: run.schema,
                                ingest: run.ingest,
                            });
                        }
                    }
                }
            }
        }
        Ok(found)
    }
}
