//! Opening the lanes of a desk from what is stored.

use tokio::time::Instant;
use weft_proto::{Error, Offset, Result};

use super::{ADOPTION, Host, LATELY};
use crate::entry::{Command, Lease, Member};
use crate::lend::lane::{Lane, LaneKind, Opened, Replay, Source};
use crate::lend::{LaneKey, elsewhere, policy};
use crate::read::locate;
use crate::resources::SubscriptionStart;
use crate::state::Reply;
use crate::subscription::{Cursor, LeaseReply};

impl Host {
    /// Takes the cursors over.
    pub(super) async fn open(&mut self) -> Result<()> {
        let (subscription, partition) = (self.subscription.uid, self.placement.uid);
        let had_desk = self.group.with_state(|state| {
            state
                .cursors()
                .get(subscription, partition)
                .is_some_and(|cursor| cursor.epoch().get() > 0)
        });
        let start = self.start().await?;
        let own = self.open_lane(LaneKind::Own, start).await?;
        self.lanes = vec![own];
        let is_redriven = self.group.with_state(|state| {
            let cursor = state.cursors().get(subscription, self.placement.dead);
            cursor.is_some_and(|cursor| !cursor.parked().is_empty())
        });
        if is_redriven {
            let dead = self.open_lane(LaneKind::Redriven, Offset(0)).await?;
            self.lanes.push(dead);
        }
        self.update_replays().await?;
        let (key, term) = ((subscription, partition), self.term);
        if had_desk && self.lender.had_members(key, (self.placement.group, term), LATELY) {
            self.lends_from = Some(Instant::now() + ADOPTION);
        }
        Ok(())
    }

    /// Takes up replay jobs that are new, and lets go of those that are gone.
    pub(super) async fn update_replays(&mut self) -> Result<()> {
        let jobs = self.lender.parts.ingest.resources().replay_jobs(self.subscription.uid);
        for lane in &mut self.lanes {
            let uid = lane.key().replay_job;
            lane.update(jobs.iter().find(|job| job.uid.get() == uid));
        }
        for job in jobs {
            let key = LaneKey { redriven: false, replay_job: job.uid.get() };
            if self.lane(key).is_some() {
                continue;
            }
            let uid = job.uid;
            let Some((replay, from)) = Replay::of(job, self.placement)? else { continue };
            let watermark = self.group.with_state(|state| {
                state.cursors().get(uid, self.placement.uid).map(Cursor::watermark)
            });
            if watermark.is_some_and(|watermark| watermark >= replay.end()) {
                continue;
            }
            let mut lane = self.open_lane(LaneKind::Replay(replay), from).await?;
            let now = self.now();
            for (&member, attached) in &self.members {
                lane.desk.attach(member, attached.name.as_str(), now);
                lane.desk.wants(member, true);
                if attached.lingers {
                    lane.desk.linger(member);
                }
            }
            self.lanes.push(lane);
        }
        Ok(())
    }

    async fn open_lane(&mut self, kind: LaneKind, start: Offset) -> Result<Lane> {
        let parts = &self.lender.parts;
        let (cursor, partition) = match &kind {
            LaneKind::Own => (self.subscription.uid, self.placement.uid),
            LaneKind::Redriven => (self.subscription.uid, self.placement.dead),
            LaneKind::Replay(replay) => (replay.job.uid, self.placement.uid),
        };
        let lease = Lease {
            subscription: cursor,
            partition,
            start,
            member: Member::new(format!("node {}", parts.node)).unwrap_or_default(),
            // That is written when it does.
            lends: false,
        };
        let reply = self.group.sequencer.command(Command::Lease(vec![lease])).await?;
        let Reply::Leases(replies) = reply else {
            return Err(Error::internal("the state machine answered something else"));
        };
        let Some(LeaseReply::Leased { epoch, previous, watermark, settled, parked }) =
            replies.into_iter().next()
        else {
            return Err(elsewhere());
        };
        let source = Source {
            group: self.group.clone(),
            history: parts.history.clone(),
            budget: parts.budget.clone(),
            partition,
            cursor,
            filters: self.subscription.filters.clone(),
            key: self.known.spec.key.clone(),
            subscription: self.subscription.name.clone(),
            kind,
        };
        let opened = Opened { previous, epoch, watermark, settled, parked };
        let mut lane = Lane::open(source, policy(&self.known.spec), opened, rand::random());
        lane.desk.tick(self.now());
        Ok(lane)
    }

    async fn start(&mut self) -> Result<Offset> {
        match self.subscription.start {
            SubscriptionStart::Earliest => Ok(Offset(0)),
            SubscriptionStart::Offset(offset) => Ok(offset),
            SubscriptionStart::Time(time) => {
                locate(&self.group, self.placement.uid, &self.lender.parts.history, time).await
            }
        }
    }
}
