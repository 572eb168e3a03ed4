//! `weft.v1.Subscribe`: one member of a durable subscription.
//!
//! The session reads from this node's own replica; leases and settlements go to the leader of each
//! partition's group. What may be sent is decided in [`Window`]; this file carries it out.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{BoxFuture, select_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::event::EventView;
use weft_proto::filter;
use weft_proto::v1::subscribe_server::Subscribe;
use weft_proto::{Epoch, Error, Offset, Principal, Reason, Result, v1};

use super::caller_of;
use crate::access::{Action, authorize};
use crate::data::DataGroup;
use crate::entry::{Command, Lease, Member, OffsetRange, Settlement};
use crate::ingest::Ingest;
use crate::raft::machine::AppliedUpto;
use crate::read::{History, Run, Tape, locate};
use crate::resources::{Placement, SubscriptionStart, SubscriptionView};
use crate::state::Reply;
use crate::subscription::{Credit, LeaseReply, OffsetSet, SettleReply, UnsettledMax, Window};
use crate::tasks::Tasks;

/// Frames that wait for a slow member.
const ANSWERS_LEN: usize = 16;
/// Bytes read at once for one partition.
const READ_BYTES: usize = 128 << 10;
/// Delivered and unsettled, per partition.
const UNSETTLED: UnsettledMax = UnsettledMax { events: 10_000, bytes: 32 << 20 };
/// A position frame is sent after this much silence.
const IDLE: Duration = Duration::from_secs(5);
/// Between two attempts to settle while the group has no leader.
const RETRY: Duration = Duration::from_millis(200);
/// A member whose acknowledgements find no leader for so long is told to connect again.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);

/// The service.
#[derive(Clone, Debug)]
pub struct Service {
    ingest: Ingest,
    history: History,
    tasks: Tasks,
}

type Answers = mpsc::Sender<Result<v1::SubscribeResponse, Status>>;

impl Service {
    /// The service over this node's groups.
    pub fn new(ingest: Ingest, history: History, tasks: Tasks) -> Self {
        Self { ingest, history, tasks }
    }
}

#[tonic::async_trait]
impl Subscribe for Service {
    type SubscribeStream = ReceiverStream<Result<v1::SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = caller_of(&request);
        let mut frames = request.into_inner();
        let first = frames.message().await?.and_then(|first| first.frame);
        let Some(v1::subscribe_request::Frame::Open(open)) = first else {
            return Err(Error::invalid("the first frame must be open").into());
        };
        let resources = self.ingest.resources();
        resources.wait_for(open.min_generation).await?;
        let subscription = resources.subscription_named(&open.subscription)?;
        authorize(&caller, Action::Subscribe, &subscription.name)?;
        let Some(member) = Member::new(open.member) else {
            let error = Error::invalid("the member's name is longer than 256 bytes");
            return Err(error.with_field("member").into());
        };
        let (answers, receiver) = mpsc::channel(ANSWERS_LEN);
        let session = Session {
            ingest: self.ingest.clone(),
            history: self.history.clone(),
            caller,
            subscription,
            member,
            answers,
            credit: Credit::default(),
            lanes: Vec::new(),
            settling: FuturesUnordered::new(),
            tags: BTreeMap::new(),
        };
        self.tasks.spawn_short(session.run(frames));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// One partition that this member holds.
struct Lane {
    placement: Placement,
    group: DataGroup,
    tape: Tape,
    window: Window,
    epoch: Epoch,
    watermark: Offset,
    applied: watch::Receiver<AppliedUpto>,
    /// To be settled with the next command, and the tags that wait for it.
    ranges: Vec<OffsetRange>,
    tags: Vec<u64>,
    /// A command is under way; the next waits for it.
    is_settling: bool,
}

/// The end of one settle command of a lane.
struct SettleEnd {
    partition: u32,
    tags: Vec<u64>,
    result: Result<SettleReply>,
}

struct Session {
    ingest: Ingest,
    history: History,
    caller: Principal,
    subscription: SubscriptionView,
    member: Member,
    answers: Answers,
    credit: Credit,
    lanes: Vec<Lane>,
    settling: FuturesUnordered<BoxFuture<'static, SettleEnd>>,
    /// Settle frames not answered yet: partitions to wait for, and those that were fenced.
    tags: BTreeMap<u64, (usize, Vec<u32>)>,
}

impl Session {
    async fn run(mut self, frames: Streaming<v1::SubscribeRequest>) {
        if let Err(error) = self.serve(frames).await {
            // The member may be gone; then nobody needs to know.
            _ = self.answers.send(Err(error.into())).await;
        }
    }

    async fn serve(&mut self, mut frames: Streaming<v1::SubscribeRequest>) -> Result<()> {
        self.lease().await?;
        let mut catalog = self.ingest.resources().changes();
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
                    self.ingest.resources().subscription_by_uid(self.subscription.uid)?;
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
    async fn lease(&mut self) -> Result<()> {
        for placement in std::sync::Arc::clone(&self.subscription.stream.placements).iter() {
            let group = self.ingest.group(placement.group)?.clone();
            let start = self.start(&group, placement).await?;
            let lease = Lease {
                subscription: self.subscription.uid,
                partition: placement.uid,
                start,
                member: self.member.clone(),
            };
            let command = Command::Lease(vec![lease]);
            let reply = self.ingest.command(&self.caller, placement.group, command).await?;
            let Reply::Leases(leases) = reply else { return Err(unexpected()) };
            let Some(LeaseReply::Leased { epoch, watermark, settled }) = leases.into_iter().next()
            else {
                let message = "the partition is not open yet";
                return Err(Error::unavailable(message).with_retry_after(RETRY));
            };
            self.assign(*placement, group, epoch, watermark, settled).await?;
        }
        Ok(())
    }

    async fn start(&mut self, group: &DataGroup, placement: &Placement) -> Result<Offset> {
        match self.subscription.start {
            SubscriptionStart::Earliest => Ok(Offset(0)),
            SubscriptionStart::Offset(offset) => Ok(offset),
            SubscriptionStart::Time(time) => {
                locate(group, placement.uid, &self.history, time).await
            }
        }
    }

    async fn assign(
        &mut self,
        placement: Placement,
        group: DataGroup,
        epoch: Epoch,
        watermark: Offset,
        settled: OffsetSet,
    ) -> Result<()> {
        let window = Window::new(watermark, settled, UNSETTLED);
        let tape = Tape::new(group.clone(), placement.uid, self.history.clone(), window.next());
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

    async fn handle(&mut self, frame: v1::SubscribeRequest) -> Result<()> {
        match frame.frame {
            Some(v1::subscribe_request::Frame::Credit(credit)) => {
                self.credit.add(credit.events, credit.bytes);
                Ok(())
            }
            Some(v1::subscribe_request::Frame::Settle(settle)) => self.settle(settle).await,
            Some(v1::subscribe_request::Frame::Open(_)) => {
                Err(Error::invalid("open comes once, as the first frame"))
            }
            None => Ok(()),
        }
    }

    async fn settle(&mut self, settle: v1::Settle) -> Result<()> {
        let mut fenced = Vec::new();
        let mut waits = Vec::new();
        for range in settle.acks {
            let Some(settled) = OffsetRange::new(Offset(range.first), Offset(range.last)) else {
                return Err(
                    Error::invalid("an acked range ends before it starts").with_field("acks")
                );
            };
            let lane = self
                .lanes
                .iter_mut()
                .find(|lane| lane.placement.partition.get() == range.partition);
            match lane.filter(|lane| lane.epoch.get() == range.epoch) {
                Some(lane) if settled.last() < lane.window.next() => {
                    lane.window.settle(settled);
                    lane.ranges.push(settled);
                    if !waits.contains(&range.partition) {
                        waits.push(range.partition);
                        lane.tags.push(settle.tag);
                    }
                }
                Some(_) => {
                    let message = format!("offset {} was not delivered", range.last);
                    return Err(Error::invalid(message).with_field("acks"));
                }
                None if !fenced.contains(&range.partition) => fenced.push(range.partition),
                None => {}
            }
        }
        if waits.is_empty() {
            let settled = v1::Settled { tag: settle.tag, fenced };
            return self.send(v1::subscribe_response::Frame::Settled(settled)).await;
        }
        self.tags.insert(settle.tag, (waits.len(), fenced));
        Ok(())
    }

    /// Sends settlements of lanes that have some; what comes meanwhile goes into the next command.
    fn launch_settles(&mut self) {
        for lane in &mut self.lanes {
            if lane.is_settling || lane.ranges.is_empty() {
                continue;
            }
            lane.is_settling = true;
            let settlement = Settlement {
                subscription: self.subscription.uid,
                partition: lane.placement.uid,
                epoch: lane.epoch,
                ranges: join(std::mem::take(&mut lane.ranges)),
            };
            let tags = std::mem::take(&mut lane.tags);
            let (ingest, caller) = (self.ingest.clone(), self.caller.clone());
            let placement = lane.placement;
            self.settling.push(Box::pin(async move {
                let partition = placement.partition.get();
                let result = settle_until_known(&ingest, &caller, &placement, settlement).await;
                SettleEnd { partition, tags, result }
            }));
        }
    }

    async fn settled(&mut self, end: SettleEnd) -> Result<()> {
        let mut fenced = false;
        match end.result? {
            SettleReply::Settled { watermark } => {
                if let Some(lane) = self.lane(end.partition) {
                    lane.is_settling = false;
                    lane.watermark = watermark;
                }
            }
            SettleReply::Fenced { .. } | SettleReply::UnknownCursor => {
                fenced = true;
                self.give_up(end.partition).await?;
            }
            SettleReply::TooFragmented => {
                let message = "too many events in between are not settled; settle the oldest first";
                return Err(Error::new(Reason::Overloaded, message));
            }
            SettleReply::BeyondEnd { end } => {
                return Err(Error::invalid(format!("events from {end} on do not exist")));
            }
        }
        for tag in end.tags {
            self.answer(tag, end.partition, fenced).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, tag: u64, partition: u32, fenced: bool) -> Result<()> {
        let Some((waits, list)) = self.tags.get_mut(&tag) else { return Ok(()) };
        *waits = waits.saturating_sub(1);
        if fenced {
            list.push(partition);
        }
        if *waits > 0 {
            return Ok(());
        }
        let (_, fenced) = self.tags.remove(&tag).unwrap_or_default();
        self.send(v1::subscribe_response::Frame::Settled(v1::Settled { tag, fenced })).await
    }

    fn lane(&mut self, partition: u32) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.placement.partition.get() == partition)
    }

    /// Sends what windows and credit allow; says whether anything was sent or passed over.
    async fn deliver(&mut self) -> Result<bool> {
        let mut sent = false;
        for place in 0..self.lanes.len() {
            let (runs, lane_sent) = self.read_lane(place).await?;
            sent |= lane_sent;
            for run in runs {
                sent |= self.deliver_run(place, run).await?;
            }
        }
        Ok(sent)
    }

    async fn read_lane(&mut self, place: usize) -> Result<(Vec<Run>, bool)> {
        let Some(lane) = self.lanes.get_mut(place) else { return Ok((Vec::new(), false)) };
        let bounds = lane.group.bounds(lane.placement.uid);
        let mut passed = false;
        if lane.window.next() < bounds.floor {
            // Trimmed away before it was delivered: nothing is left to deliver.
            if let Some(range) = before(lane.window.next(), bounds.floor) {
                lane.ranges.push(range);
            }
            lane.window.skip_to(bounds.floor);
            passed = true;
        }
        let Some(wanted) = lane.window.wanted(bounds.end, &self.credit) else {
            return Ok((Vec::new(), passed));
        };
        lane.tape.seek(wanted.first());
        let end = Offset(wanted.last().0.saturating_add(1));
        Ok((lane.tape.read(end, READ_BYTES).await?, passed))
    }

    async fn deliver_run(&mut self, place: usize, run: Run) -> Result<bool> {
        let resources = self.ingest.resources().clone();
        let Some(lane) = self.lanes.get_mut(place) else { return Ok(false) };
        let mut batch = v1::EventBatch {
            partition: lane.placement.partition.get(),
            append_time_us: run.time.as_micros(),
            schema: resources.schema_ref(run.schema),
            ..v1::EventBatch::default()
        };
        let mut offsets = Vec::new();
        let mut skipped = false;
        for (number, event) in (0_u64..).zip(run.events) {
            let offset = Offset(run.first.0.saturating_add(number));
            let passes = self.subscription.filters.is_empty()
                || EventView::parse(&event)
                    .is_some_and(|view| filter::passes_all(&self.subscription.filters, &view));
            if !passes {
                lane.window.skip_to(Offset(offset.0.saturating_add(1)));
                lane.ranges.extend(OffsetRange::new(offset, offset));
                skipped = true;
            } else if lane.window.delivered(offset, event.len() as u64, &mut self.credit) {
                offsets.push(offset.0);
                batch.events.push(event);
            } else {
                break;
            }
        }
        let Some(&first) = offsets.first() else { return Ok(skipped) };
        batch.first_offset = first;
        if offsets.last().is_some_and(|last| last - first + 1 != offsets.len() as u64) {
            batch.offset_deltas = offsets
                .iter()
                .map(|offset| u32::try_from(offset - first).unwrap_or(u32::MAX))
                .collect();
        }
        let delivery = v1::Delivery { epoch: lane.epoch.get(), batch: Some(batch) };
        self.send(v1::subscribe_response::Frame::Delivery(delivery)).await?;
        Ok(true)
    }

    /// Gives up lanes that a newer member took, as this node's replica shows.
    async fn revoke(&mut self) -> Result<()> {
        let uid = self.subscription.uid;
        let taken: Vec<u32> = self
            .lanes
            .iter()
            .filter(|lane| {
                let epoch = lane.group.with_state(|state| {
                    state
                        .cursors()
                        .get(uid, lane.placement.uid)
                        .map(crate::subscription::Cursor::epoch)
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

    async fn give_up(&mut self, partition: u32) -> Result<()> {
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

    async fn send_idle(&mut self) -> Result<()> {
        let positions = self.lanes.iter().map(|lane| v1::SubscriptionPosition {
            partition: lane.placement.partition.get(),
            watermark: lane.watermark.get(),
            end: lane.group.bounds(lane.placement.uid).end.get(),
        });
        let idle = v1::Idle { positions: positions.collect() };
        self.send(v1::subscribe_response::Frame::Idle(idle)).await
    }

    async fn send(&mut self, frame: v1::subscribe_response::Frame) -> Result<()> {
        let response = v1::SubscribeResponse { frame: Some(frame) };
        self.answers
            .send(Ok(response))
            .await
            .map_err(|_gone| Error::unavailable("the member is gone"))
    }
}

fn before(from: Offset, to: Offset) -> Option<OffsetRange> {
    OffsetRange::new(from, Offset(to.0.checked_sub(1)?))
}

fn unexpected() -> Error {
    Error::internal("the state machine answered something else")
}

/// Waits for the first of several watches; for ever when there is none.
async fn any<F: Future + Unpin>(changed: Vec<F>) {
    if changed.is_empty() {
        std::future::pending::<()>().await;
    }
    select_all(changed).await;
}

/// Ranges in order, joined where they touch.
fn join(mut ranges: Vec<OffsetRange>) -> Vec<OffsetRange> {
    ranges.sort_unstable();
    let mut joined: Vec<OffsetRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.first().0 <= last.last().0.saturating_add(1) => {
                *last = last.join(range);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Settling is idempotent, so an unknown fate is answered by trying again.
async fn settle_until_known(
    ingest: &Ingest,
    caller: &Principal,
    placement: &Placement,
    settlement: Settlement,
) -> Result<SettleReply> {
    let until = Instant::now() + SETTLE_PATIENCE;
    loop {
        let command = Command::Settle(vec![settlement.clone()]);
        match ingest.command(caller, placement.group, command).await {
            Ok(Reply::Settlements(replies)) => {
                return replies.into_iter().next().ok_or_else(unexpected);
            }
            Ok(_) => return Err(unexpected()),
            Err(error) if error.is_retryable() && Instant::now() < until => {
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> OffsetRange {
        OffsetRange::new(Offset(first), Offset(last)).unwrap()
    }

    #[test]
    fn touching_ranges_are_joined() {
        let joined = join(vec![range(5, 6), range(0, 1), range(2, 2), range(9, 9), range(6, 8)]);

        assert_eq!(joined, [range(0, 2), range(5, 9)]);
    }
}
