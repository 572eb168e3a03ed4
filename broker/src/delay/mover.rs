//! The task of one group that delivers its delayed events while this node leads it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_proto::{Error, PartitionUid, Result, Timestamp};

use super::place::Place;
use super::{Delays, Waiting};
use crate::data::DataGroup;
use crate::entry::{Command, Trim};
use crate::ingest::Gates;
use crate::raft::group::Leadership;
use crate::read::History;
use crate::resources::Resources;
use crate::{clock, metrics as names};

/// Places are looked at this often, besides when somebody publishes.
const TICK: Duration = Duration::from_secs(1);
/// After a failure.
const PAUSE: Duration = Duration::from_millis(200);
/// Floors are raised this often.
const TRIM: Duration = Duration::from_secs(30);

/// Delivers the delayed events of one group.
pub struct Mover {
    group: DataGroup,
    resources: Resources,
    history: History,
    gates: Gates,
    delays: Delays,
    wakes: Arc<Notify>,
}

impl std::fmt::Debug for Mover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mover").field("group", &self.group.id).finish_non_exhaustive()
    }
}

impl Mover {
    /// The task of a group.
    pub fn new(
        group: DataGroup,
        resources: Resources,
        history: History,
        gates: Gates,
        delays: Delays,
    ) -> Self {
        let wakes = delays.wakes(group.id);
        Self { group, resources, history, gates, delays, wakes }
    }

    /// Runs until the node stops.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut leadership = self.group.raft.leader_watch();
        loop {
            let leads = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                leads = leadership.wait_for(|now| now.is_self_ready) => leads.map(|now| *now),
            };
            // The group has ended.
            let Ok(leads) = leads else { return Ok(()) };
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                ended = self.lead(leads) => ended,
            };
            // Who asked this leader asks the next one.
            drop(self.delays.cancels(self.group.id));
            let group = self.group.id.get();
            if let Err(error) = ended {
                if error.is_retryable() {
                    tracing::debug!(group, %error, "delayed events wait for a moment");
                } else {
                    tracing::warn!(group, %error, "delayed events could not be delivered");
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Delivers until the leadership changes.
    async fn lead(&self, term: Leadership) -> Result<()> {
        let mut leadership = self.group.raft.leader_watch();
        let mut places: BTreeMap<PartitionUid, Place> = BTreeMap::new();
        let mut generation = self.resources.changes();
        let mut known = self.resources.delays_of(self.group.id);
        let (mut rolls_at, mut trims_at) = (Instant::now(), Instant::now() + TRIM);
        loop {
            let now = *leadership.borrow_and_update();
            if now.term != term.term || !now.is_self_ready {
                return Ok(());
            }
            if generation.has_changed().unwrap_or(false) {
                generation.borrow_and_update();
                known = self.resources.delays_of(self.group.id);
                let stays =
                    |uid: &PartitionUid| known.iter().any(|one| one.placement.delayed == *uid);
                places.retain(|uid, _| stays(uid));
            }
            self.read(&known, &mut places).await?;
            self.cancel(&mut places).await?;
            let mut is_busy = false;
            for place in places.values_mut() {
                let (moved, did) = place.deliver(&self.gates, clock::now()).await?;
                metrics::counter!(names::DELAYED_DELIVERED).increment(moved as u64);
                is_busy |= did;
            }
            self.tell(&places);
            // However much there is to deliver: the log must not grow because of it.
            if rolls_at <= Instant::now() {
                rolls_at = Instant::now() + TICK;
                for place in places.values_mut() {
                    place.roll(&self.gates, clock::now()).await?;
                }
            }
            if trims_at <= Instant::now() {
                trims_at = Instant::now() + TRIM;
                self.trim(&mut places).await?;
            }
            if is_busy {
                continue;
            }
            let wait = wait(&places);
            tokio::select! {
                biased;
                changed = leadership.changed() => {
                    let closed = |_closed| Error::unavailable("the group has ended");
                    changed.map_err(closed)?;
                }
                () = self.wakes.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reads what was published for later since.
    async fn read(
        &self,
        known: &[Waiting],
        places: &mut BTreeMap<PartitionUid, Place>,
    ) -> Result<()> {
        for one in known {
            let partition = one.placement.delayed;
            if let Some(place) = places.get_mut(&partition) {
                place.read().await?;
                continue;
            }
            let bounds = self.group.bounds(partition);
            if bounds.end > bounds.floor {
                let mut place = Place::open(&self.group, &self.history, *one).await?;
                place.read().await?;
                places.insert(partition, place);
            }
        }
        Ok(())
    }

    /// Takes back what is to be taken back.
    async fn cancel(&self, places: &mut BTreeMap<PartitionUid, Place>) -> Result<()> {
        for wish in self.delays.cancels(self.group.id) {
            let done = match places.get_mut(&wish.place) {
                Some(place) => place.cancel(&self.gates, &wish.offsets).await,
                None => Ok(Vec::new()),
            };
            let is_sure = done.is_ok();
            _ = wish.answer.send(done);
            if !is_sure {
                // What this leader knows of the place may not be so any more.
                return Err(Error::unavailable("it is not known whether events were taken back"));
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    fn tell(&self, places: &BTreeMap<PartitionUid, Place>) {
        let mut all = 0;
        for (&partition, place) in places {
            self.delays.waits(partition, place.waiting());
            all += place.waiting();
        }
        let group = self.group.id.to_string();
        metrics::gauge!(names::DELAYED_WAITING, "group" => group).set(all as f64);
    }

    async fn trim(&self, places: &mut BTreeMap<PartitionUid, Place>) -> Result<()> {
        let now = clock::now();
        let floors: Vec<_> = places
            .iter_mut()
            .filter_map(|(&partition, place)| Some((partition, place.floor(now)?)))
            .collect();
        if !floors.is_empty() {
            let trim = Command::Trim(Trim { floor_index: 0, floors });
            self.group.sequencer.command(trim).await?;
        }
        Ok(())
    }
}

/// Until the next event is due.
fn wait(places: &BTreeMap<PartitionUid, Place>) -> Duration {
    let now = clock::now();
    let next = places.values().filter_map(Place::next_due).min();
    let until =
        |due: Timestamp| Duration::from_micros(due.as_micros().saturating_sub(now.as_micros()));
    next.map_or(TICK, |due| until(due).min(TICK))
}
