//! The life of one membership: leases, frames, and when it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, select_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Streaming;
use weft_proto::{Epoch, Error, Offset, Result, v1};

use super::Answers;
use super::settle::SettleEnd;
use crate::access::{Caller, Decision};
use crate::data::DataGroup;
use crate::entry::{Command, Lease, Member, OffsetRange};
use crate::ingest::Ingest;
use crate::raft::machine::AppliedUpto;
use crate::read::{History, Tape, locate};
use crate::resources::{Placement, SubscriptionStart, SubscriptionView};
use crate::state::Reply;
use crate::subscription::{Credit, Cursor, LeaseReply, OffsetSet, UnsettledMax, Window};

/// Delivered and unsettled, per partition.
const UNSETTLED: UnsettledMax = UnsettledMax { events: 10_000, bytes: 32 << 20 };
/// A position frame is sent after this much silence.
const IDLE: Duration = Duration::from_secs(5);
/// Between two attempts to settle while the group has no leader.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// One partition that this member holds.
pub(super) struct Lane {
    pub(super) placement: Placement,
    pub(super) group: DataGroup,
    pub(super) tape: Tape,
    pub(super) window: Window,
    pub(super) epoch: Epoch,
    pub(super) watermark: Offset,
    pub(super) applied: watch::Receiver<AppliedUpto>,
    /// To be settled with the next command, and the tags that wait for it.
    pub(super) ranges: Vec<OffsetRange>,
    pub(super) tags: Vec<u64>,
    /// A command is under way; the next waits for it.
    pub(super) is_settling: bool,
}

/// Who takes part in what, from where.
pub(super) struct Parts {
    pub(super) ingest: Ingest,
    pub(super) history: History,
    pub(super) caller: Caller,
    pub(super) subscription: SubscriptionView,
    /// Which events the caller may see; the others are passed over, as those that a filter leaves
    /// out.
    pub(super) visible: Decision,
    pub(super) member: Member,
}

pub(super) struct Session {
    pub(super) parts: Parts,
    answers: Answers,
    pub(super) credit: Credit,
    pub(super) lanes: Vec<Lane>,
    pub(super) settling: FuturesUnordered<BoxFuture<'static, SettleEnd>>,
    /// Settle frames not answered yet: partitions to wait for, and those that were fenced.
    pub(super) tags: BTreeMap<u64, (usize, Vec<u32>)>,
}

impl Session {
    pub(super) fn new(parts: Parts, answers: Answers) -> Self {
        Self {
            parts,
            answers,
            credit: Credit::default(),
            lanes: Vec::new(),
            settling: FuturesUnordered::new(),
            tags: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self, frames: Streaming<v1::SubscribeRequest>) {
        if let Err(error) = self.serve(frames).await {
            // The member may be gone; then nobody needs to know.
            _ = self.answers.send(Err(error.into())).await;
        }
    }

    pub(super) async fn serve(
        &mut self,
        mut frames: Streaming<v1::SubscribeRequest>,
    ) -> Result<()> {
        self.lease().await?;
        let mut catalog = self.parts.ingest.resources().changes();
        let mut idle = Instant::now() + IDLE;
        loop {
            let sent = self.deliver().await?;
            self.launch_settles();
            if sent {
                idle = Instant::now() + IDLE;
                // Acknowledgements come before more deliveries.
                while let Some(frame) = frames.message().now_or_never() {
                    match frame {
                        Ok(Some(frame)) => self.handle(frame).await?,
                        Ok(None) | Err(_) => return Ok(()),
                    }
                }
                while let Some(Some(end)) = self.settling.next().now_or_never() {
                    self.settled(end).await?;
                }
                continue;
            }
            let changed = self.lanes.iter_mut().map(|lane| Box::pin(lane.applied.changed()));
            let changed: Vec<_> = changed.collect();
            tokio::select! {
                biased;
                Some(end) = self.settling.next(), if !self.settling.is_empty() => {
                    self.settled(end).await?;
                }
                frame = frames.message() => {
                    match frame {
                        Ok(Some(frame)) => self.handle(frame).await?,
                        // Leases stay until another member takes them: nothing is settled for it.
                        Ok(None) | Err(_) => return Ok(()),
                    }
                }
                changed = catalog.changed() => {
                    changed.map_err(|_closed| Error::unavailable("this node is stopping"))?;
                    // A deleted subscription ends its sessions.
                    self.parts.ingest.resources().subscription_by_uid(self.parts.subscription.uid)?;
                }
                () = any(changed) => self.revoke().await?,
                () = tokio::time::sleep_until(idle) => {
                    self.send_idle().await?;
                    idle = Instant::now() + IDLE;
                }
            }
        }
    }

    /// Takes all partitions over from whoever held them.
    pub(super) async fn lease(&mut self) -> Result<()> {
        for placement in Arc::clone(&self.parts.subscription.stream.placements).iter() {
            let group = self.parts.ingest.group(placement.group)?.clone();
            let start = self.start(&group, placement).await?;
            let lease = Lease {
                subscription: self.parts.subscription.uid,
                partition: placement.uid,
                start,
                member: self.parts.member.clone(),
                lends: true,
            };
            let command = Command::Lease(vec![lease]);
            let reply = self
                .parts
                .ingest
                .command(self.parts.caller.principal(), placement.group, command)
                .await?;
            let Reply::Leases(leases) = reply else { return Err(unexpected()) };
            let Some(LeaseReply::Leased { epoch, watermark, settled, .. }) =
                leases.into_iter().next()
            else {
                let message = "the partition is not open yet";
                return Err(Error::unavailable(message).with_retry_after(RETRY));
            };
            self.assign(*placement, group, epoch, watermark, settled).await?;
        }
        Ok(())
    }

    pub(super) async fn start(
        &mut self,
        group: &DataGroup,
        placement: &Placement,
    ) -> Result<Offset> {
        match self.parts.subscription.start {
            SubscriptionStart::Earliest => Ok(Offset(0)),
            SubscriptionStart::Offset(offset) => Ok(offset),
            SubscriptionStart::Time(time) => {
                locate(group, placement.uid, &self.parts.history, time).await
            }
        }
    }

    pub(super) async fn assign(
        &mut self,
        placement: Placement,
        group: DataGroup,
        epoch: Epoch,
        watermark: Offset,
        settled: OffsetSet,
    ) -> Result<()> {
        let window = Window::new(watermark, settled, UNSETTLED);
        let tape =
            Tape::new(group.clone(), placement.uid, self.parts.history.clone(), window.next());
        let applied = group.applied();
        self.lanes.push(Lane {
            placement,
            group,
            tape,
            window,
            epoch,
            watermark,
            applied,
            ranges: Vec::new(),
            tags: Vec::new(),
            is_settling: false,
        });
        let assigned = v1::Assigned {
            partition: placement.partition.get(),
            epoch: epoch.get(),
            watermark: watermark.get(),
        };
        self.send(v1::subscribe_response::Frame::Assigned(assigned)).await
    }

    pub(super) async fn handle(&mut self, frame: v1::SubscribeRequest) -> Result<()> {
        match frame.frame {
            Some(v1::subscribe_request::Frame::Credit(credit)) => {
                self.credit.add(credit.events, credit.bytes);
                Ok(())
            }
            Some(v1::subscribe_request::Frame::Settle(settle)) => {
                let others = [settle.nacks.len(), settle.rejects.len(), settle.extends.len()];
                if others != [0; 3] {
                    let message = "nack, reject and extend need leases: join with them, or use mode shared or key-shared";
                    return Err(Error::invalid(message));
                }
                self.settle(settle).await
            }
            Some(v1::subscribe_request::Frame::Open(_)) => {
                Err(Error::invalid("open comes once, as the first frame"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn lane(&mut self, partition: u32) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.placement.partition.get() == partition)
    }

    /// Gives up lanes that a newer member took, as this node's replica shows.
    pub(super) async fn revoke(&mut self) -> Result<()> {
        let uid = self.parts.subscription.uid;
        let taken: Vec<u32> = self
            .lanes
            .iter()
            .filter(|lane| {
                let epoch = lane.group.with_state(|state| {
                    state.cursors().get(uid, lane.placement.uid).map(Cursor::epoch)
                });
                epoch.is_some_and(|epoch| epoch > lane.epoch)
            })
            .map(|lane| lane.placement.partition.get())
            .collect();
        for partition in taken {
            self.give_up(partition).await?;
        }
        Ok(())
    }

    pub(super) async fn give_up(&mut self, partition: u32) -> Result<()> {
        let Some(place) =
            self.lanes.iter().position(|lane| lane.placement.partition.get() == partition)
        else {
            return Ok(());
        };
        let lane = self.lanes.swap_remove(place);
        for tag in lane.tags {
            self.answer(tag, partition, true).await?;
        }
        let revoked = v1::Revoked { partition, epoch: lane.epoch.get() };
        self.send(v1::subscribe_response::Frame::Revoked(revoked)).await
    }

    pub(super) async fn send_idle(&mut self) -> Result<()> {
        let positions = self.lanes.iter().map(|lane| v1::SubscriptionPosition {
            partition: lane.placement.partition.get(),
            watermark: lane.watermark.get(),
            end: lane.group.bounds(lane.placement.uid).end.get(),
            next: lane.window.next().get(),
        });
        let idle = v1::Idle { positions: positions.collect() };
        self.send(v1::subscribe_response::Frame::Idle(idle)).await
    }

    pub(super) async fn send(&mut self, frame: v1::subscribe_response::Frame) -> Result<()> {
        let response = v1::SubscribeResponse { frame: Some(frame) };
        self.answers
            .send(Ok(response))
            .await
            .map_err(|_gone| Error::unavailable("the member is gone"))
    }
}

pub(super) fn unexpected() -> Error {
    Error::internal("the state machine answered something else")
}

/// Waits for the first of several watches; for ever when there is none.
async fn any<F: Future + Unpin>(changed: Vec<F>) {
    if changed.is_empty() {
        std::future::pending::<()>().await;
    }
    select_all(changed).await;
}
