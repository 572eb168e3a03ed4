//! What retention is about to take from those who gave it back: dead letters, before a floor passes.
//!
//! Whoever gave an event back was promised that it comes again. It is still stored until the floor of
//! its partition rises, so the leader moves it to the dead letters just before. Nobody waits for a
//! subscription: there are at most as many such events as may be unsettled.

use std::collections::BTreeMap;

use bytes::Bytes;
use metrics::counter;
use weft_proto::resource::Kind;
use weft_proto::{Epoch, Offset, PartitionUid, QualifiedName, ResourceUid, Result, SchemaId};

use super::Lender;
use super::dead::{Origin, letter};
use super::replicate::{Letter, Writing};
use crate::catalog::Placement;
use crate::data::DataGroup;
use crate::entry::Settlement;
use crate::metrics as names;
use crate::read::Tape;
use crate::subscription::Parked;
use crate::subscription::desk::{Cause, DeadLetter};

/// Events that are moved before retention is told to go on up to there.
const MOVED_MAX: usize = 16_384;
/// Letters that are made before they are written.
const WRITTEN: usize = 256;
/// Bytes of events that are read at once.
const READ_BYTES: usize = 256 << 10;
/// Below this distance it is cheaper to read on than to look for the place.
const NEAR: u64 = 256;

/// A cursor, by whom it is, and its epoch.
type Holder = (ResourceUid, Epoch);

impl Lender {
    /// Makes dead letters of what was given back and lies below a floor of a partition that this node
    /// leads. Gives the floor up to which that is done: the same one, unless there is too much.
    ///
    /// An event that is lent just then becomes one, too: whether it will be settled is not known, and
    /// afterwards it would be gone.
    ///
    /// # Errors
    ///
    /// `Unavailable` and the like: what was moved is moved, the rest can be tried again.
    pub async fn part(
        &self,
        group: &DataGroup,
        partition: PartitionUid,
        floor: Offset,
    ) -> Result<Offset> {
        let mut parked = group.with_state(|state| state.cursors().parked_below(partition, floor));
        if parked.is_empty() {
            return Ok(floor);
        }
        // Dead letters that somebody wants again are dead letters still.
        let Some((stream, placement)) = self.placed(partition) else { return Ok(floor) };
        // The oldest first, whosever they are: up to there the floor may rise.
        parked.sort_by_key(|(_, offset, _)| *offset);
        let reached = parked.get(MOVED_MAX).map_or(floor, |(_, offset, _)| *offset);
        parked.truncate(MOVED_MAX);
        let owners = self.owners();
        let mut tape = Tape::new(group.clone(), partition, self.parts.history.clone(), Offset(0));
        let mut found: Option<(Offset, Option<(Bytes, SchemaId)>)> = None;
        let mut letters: BTreeMap<Holder, Vec<Letter>> = BTreeMap::new();
        let mut ready = 0;
        for (holder, offset, parked) in parked {
            let Some((subscription, replay_job)) = owners.get(&holder.0) else { continue };
            if found.as_ref().is_none_or(|(at, _)| *at != offset) {
                found = Some((offset, at(&mut tape, offset).await?));
            }
            let Some((event, schema)) = found.as_ref().and_then(|(_, found)| found.clone()) else {
                continue;
            };
            let origin = Origin {
                stream: stream.clone(),
                subscription: subscription.clone(),
                partition: placement.partition,
                replay_job: replay_job.clone(),
            };
            let event = letter(&event, &origin, &given_up(offset, parked));
            letters.entry(holder).or_default().push(Letter { offset, event, schema });
            ready += 1;
            if ready == WRITTEN {
                ready = 0;
                write(group, &placement, std::mem::take(&mut letters)).await?;
            }
        }
        write(group, &placement, letters).await?;
        Ok(reached)
    }

    /// The stream of a partition, and where its dead letters go.
    fn placed(&self, partition: PartitionUid) -> Option<(QualifiedName, Placement)> {
        let state = self.parts.ingest.resources().snapshot();
        let mut all = state.partitions();
        all.find(|(_, placed)| placed.uid == partition).map(|(name, placed)| (name.clone(), placed))
    }

    /// Whose the cursors are: of subscriptions, and of replay jobs for them.
    fn owners(&self) -> BTreeMap<ResourceUid, (QualifiedName, Option<QualifiedName>)> {
        let state = self.parts.ingest.resources().snapshot();
        let mut owners = BTreeMap::new();
        for (name, stored) in state.of_kind(Kind::Subscription) {
            let uid = ResourceUid(stored.uid);
            owners.insert(uid, (name.clone(), None));
            for job in state.replay_jobs(uid) {
                owners.insert(job.uid, (name.clone(), Some(job.name.clone())));
            }
        }
        owners
    }
}

fn given_up(offset: Offset, parked: Parked) -> DeadLetter {
    let Parked { attempts, first_failure, failure, .. } = parked;
    DeadLetter { offset, cause: Cause::Retention, attempts, first_failure, failure }
}

/// The event at an offset; nothing if it is not there any more.
async fn at(tape: &mut Tape, offset: Offset) -> Result<Option<(Bytes, SchemaId)>> {
    let next = tape.next();
    if next > offset || offset.get().saturating_sub(next.get()) > NEAR {
        tape.seek(offset);
    }
    let end = Offset(offset.get().saturating_add(1));
    while tape.next() < end {
        let runs = tape.read(end, READ_BYTES).await?;
        if runs.is_empty() {
            return Ok(None);
        }
        for run in runs {
            let place = offset.get().checked_sub(run.first.get());
            let place = place.and_then(|place| usize::try_from(place).ok());
            if let Some(event) = place.and_then(|place| run.events.get(place)) {
                return Ok(Some((event.clone(), run.schema)));
            }
        }
    }
    Ok(None)
}

async fn write(
    group: &DataGroup,
    placement: &Placement,
    letters: BTreeMap<Holder, Vec<Letter>>,
) -> Result<()> {
    for ((subscription, epoch), letters) in letters {
        let count = letters.len() as u64;
        let settlement = Settlement {
            subscription,
            partition: placement.uid,
            epoch,
            ranges: Vec::new(),
            parked: Vec::new(),
            lends: false,
        };
        let writing = Writing {
            group: group.clone(),
            settlement,
            settled: Vec::new(),
            parked: Vec::new(),
            letters,
            dead: placement.dead,
        };
        writing.write().await?;
        counter!(names::DEAD_LETTERS).increment(count);
    }
    Ok(())
}
