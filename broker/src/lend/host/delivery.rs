//! What members are told: events, above all.

use std::time::Duration;

use tokio::time::Instant;
use weft_proto::{Offset, Result, internal, v1};

use super::{Attached, BEHIND, Host, POSITIONS, offsets};
use crate::lend::lane::Lane;
use crate::lend::shelf::Stored;
use crate::lend::{Frame, LaneKey};
use crate::subscription::desk::{Act, Grant, MemberId, Settle};

/// Events of one frame.
const FRAME_EVENTS: u64 = 1_024;
/// Bytes of one frame; the last event may exceed them.
const FRAME_BYTES: u64 = 256 << 10;
/// Until it is looked again whether a member took what was sent to it, at first and at most: thousands may
/// wait for one connection.
pub(super) const BLOCKED: Duration = Duration::from_millis(2);
const BLOCKED_MAX: Duration = Duration::from_millis(128);
/// Events of one turn, before anything else is looked at.
const TURN_EVENTS: u64 = 4_096;

impl Host {
    /// Lends what is wanted and there.
    pub(super) async fn lend(&mut self) -> Result<()> {
        if let Some(from) = self.lends_from {
            if Instant::now() < from {
                return Ok(());
            }
            self.lends_from = None;
        }
        let mut ranked: Vec<(u8, usize)> =
            (0..).zip(&self.lanes).map(|(number, lane)| (lane.rank(), number)).collect();
        ranked.sort_unstable();
        for (_, number) in ranked {
            if !self.lanes.get(number).is_some_and(Lane::lends) {
                continue;
            }
            self.announce(number);
            let mut left = TURN_EVENTS;
            while left > 0 {
                let member = self.lanes.get_mut(number).and_then(|lane| lane.desk.next_offer());
                let Some(member) = member else { break };
                left = left.saturating_sub(self.lend_to(number, member).await?.max(1));
            }
        }
        Ok(())
    }

    async fn lend_to(&mut self, number: usize, member: MemberId) -> Result<u64> {
        let now = self.now();
        let Some(lane) = self.lanes.get_mut(number) else { return Ok(0) };
        let Some(attached) = self.members.get_mut(&member) else {
            lane.desk.wants(member, false);
            return Ok(0);
        };
        let events = attached.credit.events().min(FRAME_EVENTS);
        if events == 0 {
            lane.desk.wants(member, false);
            if !attached.is_offered {
                attached.is_offered = true;
                tracing::trace!(partition = %self.placement.uid, ?member, "offered");
                self.answer(member, Frame::Offer(internal::Offer {}));
            }
            return Ok(0);
        }
        if !attached.answers.has_room() {
            lane.desk.wants(member, false);
            let pause = attached.blocked_for;
            attached.blocked_for = (pause * 2).min(BLOCKED_MAX);
            self.blocked.push(Box::pin(async move {
                tokio::time::sleep(pause).await;
                member
            }));
            return Ok(0);
        }
        attached.blocked_for = BLOCKED;
        let mut grants = Vec::new();
        lane.desk.take(member, events, FRAME_BYTES, now, &mut grants);
        if grants.is_empty() {
            // What there was had expired.
            self.is_urgent = true;
            return Ok(0);
        }
        tracing::trace!(partition = %self.placement.uid, ?member, events = grants.len(), "lent");
        if attached.answers.leaves_events_out() && lane.is_own() {
            for grant in &grants {
                lane.leave(grant.offset);
            }
            self.grant(number, member, &grants);
            return Ok(grants.len() as u64);
        }
        let loaded = lane.load(&offsets(&grants)).await?;
        self.deliver(number, member, &grants, &loaded);
        Ok(grants.len() as u64)
    }

    fn deliver(
        &mut self,
        number: usize,
        member: MemberId,
        grants: &[Grant],
        loaded: &[Option<Stored>],
    ) {
        let now = self.now();
        let Some(lane) = self.lanes.get_mut(number) else { return };
        let Some(attached) = self.members.get_mut(&member) else { return };
        let (epoch, key) = (lane.desk.epoch(), lane.key());
        let resources = self.lender.parts.ingest.resources();
        let mut frames: Vec<v1::Delivery> = Vec::new();
        let mut last: Option<(&Grant, &Stored)> = None;
        for (grant, stored) in grants.iter().zip(loaded) {
            let Some(stored) = stored else {
                // Retention took it meanwhile: nothing is left to deliver.
                let settle = Settle {
                    member: attached.name.as_str(),
                    epoch,
                    first: grant.lease,
                    last: grant.lease,
                    act: &Act::Ack,
                };
                lane.desk.settle(&settle, now, &mut Vec::new());
                self.is_urgent = true;
                last = None;
                continue;
            };
            attached.credit.spend(stored.event.len() as u64);
            let follows = last.is_some_and(|(before, of)| {
                (of.time, of.schema) == (stored.time, stored.schema) && before.offset < grant.offset
            });
            let open = frames.last_mut().filter(|_| follows).and_then(|frame| frame.batch.as_mut());
            let delta = open.as_ref().map_or(0, |batch| grant.offset.get() - batch.first_offset);
            match (open, u32::try_from(delta)) {
                (Some(batch), Ok(delta)) => {
                    batch.events.push(stored.event.clone());
                    batch.offset_deltas.push(delta);
                }
                _ => frames.push(v1::Delivery {
                    epoch: epoch.get(),
                    batch: Some(v1::EventBatch {
                        partition: self.placement.partition.get(),
                        first_offset: grant.offset.get(),
                        append_time_us: stored.time.as_micros(),
                        schema: resources.schema_ref(stored.schema),
                        events: vec![stored.event.clone()],
                        offset_deltas: vec![0],
                        ..v1::EventBatch::default()
                    }),
                    first_lease: Some(grant.lease.0),
                    attempts: Vec::new(),
                    redriven: key.redriven,
                    replay_job: key.replay_job,
                }),
            }
            if let Some(frame) = frames.last_mut() {
                frame.attempts.push(grant.attempt);
            }
            last = Some((grant, stored));
        }
        for mut frame in frames {
            crate::lend::tidy(&mut frame);
            self.answer(member, Frame::Delivery(frame));
        }
    }

    /// Tells a member of another node what it is lent; that node has the events itself.
    fn grant(&mut self, number: usize, member: MemberId, grants: &[Grant]) {
        let Some(lane) = self.lanes.get(number) else { return };
        let Some(attached) = self.members.get_mut(&member) else { return };
        let epoch = lane.desk.epoch();
        let mut frames: Vec<internal::Granted> = Vec::new();
        let mut last: Option<Offset> = None;
        for grant in grants {
            attached.credit.spend(grant.bytes.into());
            let follows = last.is_some_and(|last| last < grant.offset);
            last = Some(grant.offset);
            let open = frames.last_mut().filter(|_| follows);
            let delta = open.as_ref().and_then(|frame| {
                let first = frame.delivery.as_ref()?.batch.as_ref()?.first_offset;
                u32::try_from(grant.offset.get().checked_sub(first)?).ok()
            });
            if let (Some(frame), Some(delta)) = (open, delta) {
                frame.bytes = frame.bytes.saturating_add(grant.bytes.into());
                if let Some(delivery) = &mut frame.delivery {
                    delivery.attempts.push(grant.attempt);
                    if let Some(batch) = &mut delivery.batch {
                        batch.offset_deltas.push(delta);
                    }
                }
                continue;
            }
            let batch = v1::EventBatch {
                partition: self.placement.partition.get(),
                first_offset: grant.offset.get(),
                offset_deltas: vec![0],
                ..v1::EventBatch::default()
            };
            let delivery = v1::Delivery {
                epoch: epoch.get(),
                batch: Some(batch),
                first_lease: Some(grant.lease.0),
                attempts: vec![grant.attempt],
                redriven: false,
                replay_job: 0,
            };
            frames.push(internal::Granted { delivery: Some(delivery), bytes: grant.bytes.into() });
        }
        for mut frame in frames {
            if let Some(delivery) = &mut frame.delivery
                && delivery.attempts.iter().all(|&attempt| attempt == 1)
            {
                delivery.attempts = Vec::new();
            }
            self.answer(member, Frame::Granted(frame));
        }
    }

    pub(super) fn tell_opened(&mut self, member: MemberId, void: Vec<internal::HeldLeases>) {
        let Some(own) = self.lanes.first() else { return };
        let assigned = v1::Assigned {
            partition: self.placement.partition.get(),
            epoch: own.desk.epoch().get(),
            watermark: own.desk.watermark().get(),
        };
        let beside = self.lanes.iter().filter(|lane| !lane.is_own()).map(|lane| {
            let (LaneKey { redriven, replay_job }, epoch) = (lane.key(), lane.desk.epoch().get());
            internal::BesideLane { redriven, replay_job, epoch }
        });
        let opened = internal::Opened { assigned: Some(assigned), beside: beside.collect(), void };
        self.answer(member, Frame::Opened(opened));
    }

    /// Tells a member that attached whether it is its turn: it may have been at an earlier desk.
    pub(super) fn tell_stand(&mut self, member: MemberId) {
        if let Some(serves) = self.lanes.first().and_then(|own| own.desk.serves()) {
            let own = serves == member;
            let turn = v1::Turn { partition: self.placement.partition.get(), own };
            self.answer(member, Frame::Turn(turn));
        }
    }

    /// Tells members whose turn it is, where one is served at a time.
    pub(super) fn tell_turn(&mut self) {
        let serves = self.lanes.first().and_then(|own| own.desk.serves());
        if serves == self.served {
            return;
        }
        let before = std::mem::replace(&mut self.served, serves);
        for (member, own) in
            before.map(|id| (id, false)).into_iter().chain(serves.map(|id| (id, true)))
        {
            let turn = v1::Turn { partition: self.placement.partition.get(), own };
            self.answer(member, Frame::Turn(turn));
        }
    }

    /// Tells positions, if there is news, and not too often: an idle desk sleeps.
    pub(super) fn tell_positions(&mut self) {
        let Some(own) = self.lanes.first() else { return };
        let position = v1::SubscriptionPosition {
            partition: self.placement.partition.get(),
            watermark: own.desk.watermark().get(),
            end: own.end().get(),
            next: own.desk.reads_from().get(),
        };
        if self.position == Some(position) || self.members.is_empty() {
            self.positions_at = None;
            return;
        }
        let now = Instant::now();
        if now < *self.positions_at.get_or_insert(now + POSITIONS) {
            return;
        }
        self.positions_at = None;
        let has_room = |(_, attached): &(&MemberId, &Attached)| attached.answers.has_room();
        let told: Vec<MemberId> =
            self.members.iter().filter(has_room).map(|(&member, _)| member).collect();
        // Who has much before it hears of it the next time, with what is true then.
        self.position = (told.len() == self.members.len()).then_some(position);
        for member in told {
            self.answer(member, Frame::Position(position));
        }
    }

    /// Tells where stored events end and new ones begin, and when members fall behind.
    pub(super) fn tell_seam(&mut self) {
        let Some(own) = self.lanes.first() else { return };
        let (end, next) = (own.end(), own.desk.reads_from());
        let handed_out = own.is_at_end() && own.desk.waiting() == 0;
        let is_behind = end.get().saturating_sub(next.get()) > BEHIND;
        let caught_up = match self.caught_up {
            Some(true) if is_behind => false,
            None | Some(false) if handed_out => true,
            _ => return,
        };
        self.caught_up = Some(caught_up);
        let partition = self.placement.partition.get();
        self.tell_all(&Frame::Seam(v1::Seam { partition, caught_up, end: end.get() }));
    }

    fn tell_all(&mut self, frame: &Frame) {
        let members: Vec<MemberId> = self.members.keys().copied().collect();
        for member in members {
            self.answer(member, frame.clone());
        }
    }
}
