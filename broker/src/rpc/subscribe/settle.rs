//! Acknowledgements on their way to the leader of their group.

use std::time::Duration;

use tokio::time::Instant;
use weft_proto::{Error, Offset, Principal, Reason, Result, v1};

use super::session::{RETRY, Session, unexpected};
use crate::entry::{Command, OffsetRange, Settlement};
use crate::ingest::Ingest;
use crate::resources::Placement;
use crate::state::Reply;
use crate::subscription::SettleReply;

/// A member whose acknowledgements find no leader for so long is told to connect again.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);

/// The end of one settle command of a lane.
pub(super) struct SettleEnd {
    pub(super) partition: u32,
    pub(super) tags: Vec<u64>,
    pub(super) result: Result<SettleReply>,
}

impl Session {
    pub(super) async fn settle(&mut self, settle: v1::Settle) -> Result<()> {
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
            let settled = v1::Settled { tag: settle.tag, fenced, ..v1::Settled::default() };
            return self.send(v1::subscribe_response::Frame::Settled(settled)).await;
        }
        self.tags.insert(settle.tag, (waits.len(), fenced));
        Ok(())
    }

    /// Sends settlements of lanes that have some; what comes meanwhile goes into the next command.
    pub(super) fn launch_settles(&mut self) {
        for lane in &mut self.lanes {
            if lane.is_settling || lane.ranges.is_empty() {
                continue;
            }
            lane.is_settling = true;
            let settlement = Settlement {
                subscription: self.parts.subscription.uid,
                partition: lane.placement.uid,
                epoch: lane.epoch,
                ranges: join(std::mem::take(&mut lane.ranges)),
                parked: Vec::new(),
                lends: false,
            };
            let tags = std::mem::take(&mut lane.tags);
            let ingest = self.parts.ingest.clone();
            let caller = self.parts.caller.principal().clone();
            let placement = lane.placement;
            self.settling.push(Box::pin(async move {
                let partition = placement.partition.get();
                let result = settle_until_known(&ingest, &caller, &placement, settlement).await;
                SettleEnd { partition, tags, result }
            }));
        }
    }

    pub(super) async fn settled(&mut self, end: SettleEnd) -> Result<()> {
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

    pub(super) async fn answer(&mut self, tag: u64, partition: u32, fenced: bool) -> Result<()> {
        let Some((waits, list)) = self.tags.get_mut(&tag) else { return Ok(()) };
        *waits = waits.saturating_sub(1);
        if fenced {
            list.push(partition);
        }
        if *waits > 0 {
            return Ok(());
        }
        let (_, fenced) = self.tags.remove(&tag).unwrap_or_default();
        self.send(v1::subscribe_response::Frame::Settled(v1::Settled {
            tag,
            fenced,
            ..v1::Settled::default()
        }))
        .await
    }
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
