//! Opening the lanes of a desk from what is stored.

use tokio::time::Instant;
use weft_proto::{Error, Offset, PartitionUid, Result};

use super::{ADOPTION, Host, LATELY};
use crate::entry::{Command, Lease, Member};
use crate::lend::elsewhere;
use crate::lend::lane::{Lane, Opened, Source};
use crate::lend::policy;
use crate::read::locate;
use crate::resources::SubscriptionStart;
use crate::state::Reply;
use crate::subscription::LeaseReply;

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
        let mut own = self.open_lane(partition, start, false).await?;
        own.desk.tick(self.now());
        self.lanes = vec![own];
        let is_redriven = self.group.with_state(|state| {
            let cursor = state.cursors().get(subscription, self.placement.dead);
            cursor.is_some_and(|cursor| !cursor.parked().is_empty())
        });
        if is_redriven {
            let dead = self.open_lane(self.placement.dead, Offset(0), true).await?;
            self.lanes.push(dead);
        }
        let (key, term) = ((subscription, partition), self.term);
        if had_desk && self.lender.had_members(key, (self.placement.group, term), LATELY) {
            self.lends_from = Some(Instant::now() + ADOPTION);
        }
        Ok(())
    }

    async fn open_lane(
        &mut self,
        partition: PartitionUid,
        start: Offset,
        is_redriven: bool,
    ) -> Result<Lane> {
        let parts = &self.lender.parts;
        let lease = Lease {
            subscription: self.subscription.uid,
            partition,
            start,
            member: Member::new(format!("node {}", parts.node)).unwrap_or_default(),
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
            filters: self.subscription.filters.clone(),
            subscription: self.subscription.name.clone(),
            is_redriven,
        };
        let opened = Opened { previous, epoch, watermark, settled, parked };
        Ok(Lane::open(source, policy(&self.known.spec), opened, rand::random()))
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
