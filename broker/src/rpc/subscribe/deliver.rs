//! Events on their way to the member, as far as its window and its credit allow.

use weft_proto::event::EventView;
use weft_proto::filter::Candidate;
use weft_proto::{Offset, Result, v1};

use super::session::Session;
use crate::entry::OffsetRange;
use crate::read::Run;

/// Bytes read at once for one partition.
const READ_BYTES: usize = 128 << 10;

impl Session {
    /// Sends what windows and credit allow; says whether anything was sent or passed over.
    pub(super) async fn deliver(&mut self) -> Result<bool> {
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

    pub(super) async fn read_lane(&mut self, place: usize) -> Result<(Vec<Run>, bool)> {
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

    pub(super) async fn deliver_run(&mut self, place: usize, run: Run) -> Result<bool> {
        let resources = self.parts.ingest.resources().clone();
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
            let passes = (self.parts.subscription.filters.is_empty()
                && !self.parts.visible.is_by_event())
                || EventView::parse(&event).map(Candidate::new).is_some_and(|event| {
                    self.parts.subscription.filters.passes(&event)
                        && self.parts.visible.passes(&event)
                });
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
        let delivery =
            v1::Delivery { epoch: lane.epoch.get(), batch: Some(batch), ..v1::Delivery::default() };
        self.send(v1::subscribe_response::Frame::Delivery(delivery)).await?;
        Ok(true)
    }
}

fn before(from: Offset, to: Offset) -> Option<OffsetRange> {
    OffsetRange::new(from, Offset(to.0.checked_sub(1)?))
}
