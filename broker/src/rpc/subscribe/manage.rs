//! Moving cursors; looking at dead letters, delivering them again, discarding them.

use std::time::Duration;

use weft_proto::event::EventView;
use weft_proto::filter::Candidate;
use weft_proto::resource::Verb;
use weft_proto::{
    Epoch, Error, Offset, PartitionId, QualifiedName, Reason, ResourceUid, Result, Timestamp, v1,
};

use super::Service;
use crate::access::{Caller, authorize};
use crate::clock;
use crate::data::DataGroup;
use crate::entry::{Command, Lease, Member, OffsetRange, Seek, Settlement};
use crate::lend;
use crate::read::{Tape, resolve};
use crate::resources::{Placement, SubscriptionView};
use crate::rpc::find::{Budget, Finder, Spot};
use crate::rpc::page;
use crate::state::Reply;
use crate::subscription::{Cursor, LeaseReply, Parked, SettleReply};

/// Dead letters of one page.
const PAGE_MAX: u32 = 1_000;
const PAGE: u32 = 100;
/// Bytes of one page.
const PAGE_BYTES: usize = 2 << 20;
/// Dead letters of one partition that are taken on at once.
const REDRIVE_MAX: usize = 8_192;
/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;
/// Attempts to settle while the cursor changes hands.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Where a seek goes.
enum Goal {
    Position(v1::Position),
    Event(Spot),
}

/// A dead letter as it is stored.
struct Letter {
    offset: Offset,
    time: Timestamp,
    event: bytes::Bytes,
}

impl Service {
    async fn subscription(
        &self,
        caller: &Caller,
        verb: Verb,
        (name, generation): (&str, u64),
    ) -> Result<SubscriptionView> {
        let resources = self.ingest.resources();
        resources.wait_for(generation).await?;
        let qualified: QualifiedName = name.parse().map_err(|error: weft_proto::NameError| {
            Error::invalid(error.to_string()).with_field("subscription")
        })?;
        authorize(caller, verb, &qualified)?;
        resources.subscription_named(name)
    }

    pub(super) async fn seek_to(
        &self,
        caller: &Caller,
        request: v1::SeekRequest,
    ) -> Result<v1::SeekResponse> {
        let name = (request.subscription.as_str(), request.min_generation);
        let view = self.subscription(caller, Verb::Edit, name).await?;
        let chosen = chosen(&view, request.partition.map(PartitionId))?;
        let to = self.goal(caller, &view, &request).await?;
        caller.act("seek", format!("Subscription {}", view.name)).await?;
        let mut cursors = Vec::with_capacity(chosen.len());
        for placement in chosen {
            let group = self.ingest.group(placement.group)?;
            // What was acknowledged before the call is within reach of it.
            self.ingest.confirm(placement.group).await?;
            let to = match &to {
                Goal::Position(to) => resolve(group, placement.uid, &self.history, Some(to))
                    .await?
                    .unwrap_or_default(),
                Goal::Event(spot) => self.finder().offset_at(&placement, spot).await?,
            };
            let seek = Seek { subscription: view.uid, partition: placement.uid, to };
            let (epoch, offset) = self.leased(caller, placement, Command::Seek(vec![seek])).await?;
            let partition = placement.partition.get();
            cursors.push(v1::SeekResult { partition, offset: offset.get(), epoch: epoch.get() });
        }
        Ok(v1::SeekResponse { cursors })
    }

    fn finder(&self) -> Finder<'_> {
        Finder { ingest: &self.ingest, history: &self.history }
    }

    /// Where a seek goes.
    async fn goal(
        &self,
        caller: &Caller,
        view: &SubscriptionView,
        request: &v1::SeekRequest,
    ) -> Result<Goal> {
        match (&request.to, &request.to_event) {
            (Some(to), None) => Ok(Goal::Position(*to)),
            (None, Some(event)) => {
                // Who may not read events is not told which ones there are.
                let visible = authorize(caller, Verb::Read, &view.stream.name)?;
                let (place, mut budget) = ((event, "to_event"), Budget::aside());
                let spot = self.finder().spot(&view.stream, &visible, place, &mut budget).await?;
                Ok(Goal::Event(spot))
            }
            (None, None) => Err(Error::invalid("where to is missing").with_field("to")),
            (Some(_), Some(_)) => {
                let message = "a cursor goes to a position or to an event, not to both";
                Err(Error::invalid(message).with_field("to_event"))
            }
        }
    }

    /// A command that gives a cursor a new epoch.
    async fn leased(
        &self,
        caller: &Caller,
        placement: Placement,
        command: Command,
    ) -> Result<(Epoch, Offset)> {
        let reply = self.ingest.command(caller.principal(), placement.group, command).await?;
        let Reply::Leases(replies) = reply else { return Err(super::session::unexpected()) };
        match replies.into_iter().next() {
            Some(LeaseReply::Leased { epoch, watermark, .. }) => Ok((epoch, watermark)),
            _ => Err(Error::unavailable("the partition is not open yet").with_retry_after(PAUSE)),
        }
    }

    pub(super) async fn dead_letters(
        &self,
        caller: &Caller,
        request: v1::ListDeadLettersRequest,
    ) -> Result<v1::ListDeadLettersResponse> {
        let view = self.subscription(caller, Verb::Subscribe, (&request.subscription, 0)).await?;
        let visible = authorize(caller, Verb::Read, &view.stream.name)?;
        let most = if request.max_events == 0 { PAGE } else { request.max_events };
        if most > PAGE_MAX {
            let message = format!("a page has at most {PAGE_MAX} dead letters");
            return Err(Error::invalid(message).with_field("max_events"));
        }
        let (mut partition, mut from) = page(&request.page)?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while let Ok(placement) = view.stream.placement(PartitionId(partition)) {
            let group = self.ingest.group(placement.group)?.clone();
            self.ingest.confirm(placement.group).await?;
            let mut walk = Walk::new(self, &view, group, placement, from);
            while let Some(letter) = walk.next().await? {
                if letters.len() as u64 >= u64::from(most) || bytes >= PAGE_BYTES {
                    let next_page = format!("{partition}.{}", letter.offset);
                    return Ok(v1::ListDeadLettersResponse { letters, next_page });
                }
                let is_visible = EventView::parse(&letter.event)
                    .is_some_and(|view| visible.passes(&Candidate::new(view)));
                if !is_visible {
                    continue;
                }
                bytes += letter.event.len();
                letters.push(out(partition, &letter));
            }
            (partition, from) = (partition.saturating_add(1), Offset(0));
        }
        Ok(v1::ListDeadLettersResponse { letters, next_page: String::new() })
    }

    pub(super) async fn redrive_some(
        &self,
        caller: &Caller,
        request: v1::RedriveRequest,
    ) -> Result<v1::RedriveResponse> {
        let view = self.subscription(caller, Verb::Edit, (&request.subscription, 0)).await?;
        for range in &request.letters {
            view.stream.placement(PartitionId(range.partition))?;
            if range.first > range.last {
                let message = "a range of dead letters ends before it starts";
                return Err(Error::invalid(message).with_field("letters"));
            }
        }
        if !request.dry_run {
            let act = if request.discard { "discard" } else { "redrive" };
            caller.act(act, format!("Subscription {}", view.name)).await?;
        }
        let mut answer = v1::RedriveResponse::default();
        for placement in view.stream.placements.iter().copied() {
            let wanted = |offset: Offset| {
                request.letters.is_empty()
                    || request.letters.iter().any(|range| {
                        range.partition == placement.partition.get()
                            && (range.first..=range.last).contains(&offset.get())
                    })
            };
            let group = self.ingest.group(placement.group)?.clone();
            self.ingest.confirm(placement.group).await?;
            let mut walk = Walk::new(self, &view, group.clone(), placement, Offset(0));
            let mut chosen = Vec::new();
            while let Some(letter) = walk.next().await? {
                if !wanted(letter.offset) {
                    continue;
                }
                if chosen.len() >= REDRIVE_MAX && !request.dry_run {
                    answer.more = true;
                    break;
                }
                answer.events += 1;
                answer.bytes += letter.event.len() as u64;
                chosen.push(letter.offset);
            }
            if !request.dry_run && !chosen.is_empty() {
                self.take_on(caller, &view, placement, chosen, &request).await?;
            }
        }
        Ok(answer)
    }

    /// Gives dead letters back to the subscription, or settles them.
    async fn take_on(
        &self,
        caller: &Caller,
        view: &SubscriptionView,
        placement: Placement,
        letters: Vec<Offset>,
        request: &v1::RedriveRequest,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let (subscription, partition) = (view.uid, placement.dead);
            let epoch = self.epoch(caller, subscription, placement).await?;
            let settlement = Settlement {
                subscription,
                partition,
                epoch,
                ranges: if request.discard { ranges(&letters) } else { Vec::new() },
                parked: if request.discard { Vec::new() } else { paced(&letters, request) },
                lends: false,
            };
            let command = Command::Settle(vec![settlement]);
            let reply = self.ingest.command(caller.principal(), placement.group, command).await?;
            let Reply::Settlements(replies) = reply else {
                return Err(super::session::unexpected());
            };
            match replies.first() {
                Some(SettleReply::Settled { .. }) => return Ok(()),
                // A desk was opened meanwhile.
                Some(SettleReply::Fenced { .. } | SettleReply::UnknownCursor) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Some(SettleReply::TooFragmented) => {
                    let message = "too many dead letters are on their way already; try again when \
                                   they are settled, or take neighbours";
                    return Err(Error::new(Reason::Overloaded, message));
                }
                Some(SettleReply::BeyondEnd { .. }) | None => {
                    return Err(super::session::unexpected());
                }
            }
        }
        Err(Error::unavailable("the subscription changes hands; try again").with_retry_after(PAUSE))
    }

    /// The epoch of the cursor on the dead letters; there is one after this.
    async fn epoch(
        &self,
        caller: &Caller,
        subscription: ResourceUid,
        placement: Placement,
    ) -> Result<Epoch> {
        self.ingest.confirm(placement.group).await?;
        let group = self.ingest.group(placement.group)?;
        let known = group.with_state(|state| {
            state.cursors().get(subscription, placement.dead).map(Cursor::epoch)
        });
        if let Some(epoch) = known {
            return Ok(epoch);
        }
        let member = Member::default();
        let (partition, start) = (placement.dead, Offset(0));
        let lease = Lease { subscription, partition, start, member, lends: false };
        let (epoch, _) = self.leased(caller, placement, Command::Lease(vec![lease])).await?;
        Ok(epoch)
    }
}

fn chosen(view: &SubscriptionView, partition: Option<PartitionId>) -> Result<Vec<Placement>> {
    match partition {
        Some(partition) => Ok(vec![view.stream.placement(partition)?]),
        None => Ok(view.stream.placements.to_vec()),
    }
}

fn out(partition: u32, letter: &Letter) -> v1::DeadLetter {
    v1::DeadLetter {
        partition,
        offset: letter.offset.get(),
        time: Some(letter.time.into()),
        event: letter.event.clone(),
    }
}

fn ranges(offsets: &[Offset]) -> Vec<OffsetRange> {
    let mut ranges: Vec<OffsetRange> = Vec::new();
    for one in offsets.iter().filter_map(|&offset| OffsetRange::new(offset, offset)) {
        match ranges.last_mut() {
            Some(last) if last.last().get().saturating_add(1) == one.first().get() => {
                *last = last.join(one);
            }
            _ => ranges.push(one),
        }
    }
    ranges
}

/// When each of them is delivered again.
fn paced(offsets: &[Offset], request: &v1::RedriveRequest) -> Vec<(Offset, Parked)> {
    let now = clock::now();
    let pause = match request.per_second {
        0 => Duration::ZERO,
        rate => Duration::from_secs(1) / rate,
    };
    let due = |place: u32| now.saturating_add(pause.saturating_mul(place));
    let parked = (0..).zip(offsets).map(|(place, &offset)| {
        (offset, Parked { due: due(place), first_failure: now, ..Parked::default() })
    });
    parked.collect()
}

/// The dead letters of one subscription in one partition that are neither settled nor on their way.
struct Walk {
    tape: Tape,
    group: DataGroup,
    subscription: (ResourceUid, QualifiedName),
    placement: Placement,
    found: std::collections::VecDeque<Letter>,
}

impl Walk {
    fn new(
        service: &Service,
        view: &SubscriptionView,
        group: DataGroup,
        placement: Placement,
        from: Offset,
    ) -> Self {
        let from = from.max(group.bounds(placement.dead).floor);
        let tape = Tape::new(group.clone(), placement.dead, service.history.clone(), from);
        let subscription = (view.uid, view.name.clone());
        Self { tape, group, subscription, placement, found: std::collections::VecDeque::new() }
    }

    async fn next(&mut self) -> Result<Option<Letter>> {
        while self.found.is_empty() {
            let end = self.group.bounds(self.placement.dead).end;
            let runs = self.tape.read(end, READ_BYTES).await?;
            if runs.is_empty() {
                return Ok(None);
            }
            for run in runs {
                for (number, event) in (0_u64..).zip(run.events) {
                    let offset = Offset(run.first.get().saturating_add(number));
                    let letter = Letter { offset, time: run.time, event };
                    if self.is_open(&letter) {
                        self.found.push_back(letter);
                    }
                }
            }
        }
        Ok(self.found.pop_front())
    }

    fn is_open(&self, letter: &Letter) -> bool {
        let (uid, name) = &self.subscription;
        let is_own = EventView::parse(&letter.event).is_some_and(|view| lend::is_of(&view, name));
        is_own
            && self.group.with_state(|state| {
                let cursor = state.cursors().get(*uid, self.placement.dead);
                cursor.is_none_or(|cursor| {
                    letter.offset >= cursor.watermark()
                        && !cursor.settled().contains(letter.offset)
                        && !cursor.parked().contains_key(&letter.offset)
                })
            })
    }
}
