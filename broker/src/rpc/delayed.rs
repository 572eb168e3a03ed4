//! Events that wait for their time: listed, and taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use weft_proto::event::EventView;
use weft_proto::filter::Candidate;
use weft_proto::resource::Verb;
use weft_proto::{Error, Offset, PartitionId, PartitionUid, Reason, Result, Timestamp, v1};

use super::find::{Budget, Finder, Found, Wanted, Which};
use super::{page, stream_name};
use crate::access::{Caller, Decision, authorize};
use crate::data::DataGroup;
use crate::delay;
use crate::read::Tape;
use crate::resources::{Placement, StreamView};
use crate::subscription::OffsetSet;

/// Events of one page.
const PAGE_MAX: u32 = 1_000;
const PAGE: u32 = 100;
/// Bytes that one page looks through, of whatever it shows in the end: it may show nothing, and go on.
const PAGE_BYTES: usize = 64 << 20;
/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;
/// Attempts while events change their place, or their leader.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// Clocks of leaders differ by less: an event is not delivered so long before it is due.
const EARLY: Duration = Duration::from_mins(1);

/// A page of what waits.
///
/// # Errors
///
/// What the caller may not, or what is not there; `Invalid`.
pub(super) async fn list(
    finder: Finder<'_>,
    caller: &Caller,
    request: v1::ListDelayedRequest,
) -> Result<v1::ListDelayedResponse> {
    let resources = finder.ingest.resources();
    resources.wait_for(request.min_generation).await?;
    let visible = authorize(caller, Verb::Read, &stream_name(&request.stream)?)?;
    let stream = resources.stream_named(&request.stream)?;
    let most = if request.max_events == 0 { PAGE } else { request.max_events };
    if most > PAGE_MAX {
        let message = format!("a page has at most {PAGE_MAX} events");
        return Err(Error::invalid(message).with_field("max_events"));
    }
    let (mut partition, mut from) = page(&request.page)?;
    finder.confirm(&stream).await?;
    let mut answer = v1::ListDelayedResponse::default();
    let mut bytes = 0_usize;
    while let Ok(placement) = stream.placement(PartitionId(partition)) {
        let mut walk = Walk::new(finder, &stream, placement, from)?;
        while let Some(stored) = walk.next().await? {
            bytes = bytes.saturating_add(walk.looked);
            for (offset, time, event) in stored {
                if answer.events.len() as u64 >= u64::from(most) {
                    answer.next_page = format!("{partition}.{offset}");
                    return Ok(answer);
                }
                let view = EventView::parse(&event);
                if let Some(view) = view.filter(|view| visible.passes(&Candidate::new(*view))) {
                    answer.events.push(out(placement.partition, time, &view));
                }
            }
            if bytes >= PAGE_BYTES {
                answer.next_page = format!("{partition}.{}", walk.tape.next());
                return Ok(answer);
            }
        }
        (partition, from) = (partition.saturating_add(1), Offset(0));
    }
    Ok(answer)
}

fn out(partition: PartitionId, time: Timestamp, view: &EventView<'_>) -> v1::DelayedEvent {
    v1::DelayedEvent {
        partition: partition.get(),
        id: view.id.to_owned(),
        source: view.source.to_owned(),
        r#type: view.ty.to_owned(),
        due_us: delay::due_of(view).as_micros(),
        append_time_us: time.as_micros(),
    }
}

/// What of a place is settled. Taken before the events are looked at: one that changes its place
/// meanwhile then seems to wait where it was, and is not missed.
struct Settled {
    watermark: Offset,
    above: OffsetSet,
}

impl Settled {
    fn of(group: &DataGroup, stream: &StreamView, placement: &Placement) -> Self {
        group.with_state(|state| {
            let cursor = state.cursors().get(stream.uid, placement.delayed);
            // Before a leader has looked at it, nothing is.
            cursor.map_or_else(
                || Self { watermark: Offset(0), above: OffsetSet::default() },
                |cursor| Self { watermark: cursor.watermark(), above: cursor.settled().clone() },
            )
        })
    }

    /// The first offset from here on that is not.
    fn after(&self, offset: Offset) -> Offset {
        let offset = offset.max(self.watermark);
        let range = self.above.range_at(offset);
        range.and_then(|range| range.last().checked_add(1)).unwrap_or(offset)
    }

    fn has(&self, offset: Offset) -> bool {
        offset < self.watermark || self.above.contains(offset)
    }
}

/// What waits in one partition, from an offset on.
struct Walk {
    tape: Tape,
    settled: Settled,
    end: Offset,
    /// Bytes of what was read last, settled or not.
    looked: usize,
}

type Stored = (Offset, Timestamp, bytes::Bytes);

impl Walk {
    fn new(
        finder: Finder<'_>,
        stream: &StreamView,
        placement: Placement,
        from: Offset,
    ) -> Result<Self> {
        let group = finder.ingest.group(placement.group)?.clone();
        let settled = Settled::of(&group, stream, &placement);
        let bounds = group.bounds(placement.delayed);
        let from = settled.after(from.max(bounds.floor));
        let tape = Tape::new(group, placement.delayed, finder.history.clone(), from);
        Ok(Self { tape, settled, end: bounds.end, looked: 0 })
    }

    /// Some of them; nothing at the end.
    async fn next(&mut self) -> Result<Option<Vec<Stored>>> {
        // One that waits for long may have very many behind it that were delivered.
        self.tape.seek(self.settled.after(self.tape.next()));
        let runs = self.tape.read(self.end, READ_BYTES).await?;
        if runs.is_empty() {
            return Ok(None);
        }
        self.looked = 0;
        let mut found = Vec::new();
        for run in runs {
            for (number, event) in (0_u64..).zip(run.events) {
                let offset = Offset(run.first.get().saturating_add(number));
                self.looked = self.looked.saturating_add(event.len());
                if !self.settled.has(offset) {
                    found.push((offset, run.time, event));
                }
            }
        }
        Ok(Some(found))
    }
}

/// An event as it is, or was, in a place for what waits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    place: PartitionUid,
    offset: Offset,
    appended: Timestamp,
    due: Timestamp,
    source: String,
    waits: bool,
}

/// Takes an event back.
///
/// # Errors
///
/// What the caller may not; `NotFound` for an event of which nothing is known; `Invalid` for an id of
/// several sources; `Unavailable`: asking again is harmless.
pub(super) async fn cancel(
    finder: Finder<'_>,
    caller: &Caller,
    request: v1::CancelDelayedRequest,
) -> Result<v1::CancelDelayedResponse> {
    let resources = finder.ingest.resources();
    resources.wait_for(request.min_generation).await?;
    let own = authorize(caller, Verb::Publish, &stream_name(&request.stream)?)?;
    let stream = resources.stream_named(&request.stream)?;
    if request.id.is_empty() {
        return Err(Error::invalid("the id of an event is not empty").with_field("id"));
    }
    let mut is_recorded = false;
    for _ in 0..TRIES {
        let mut budget = Budget::aside();
        let copies = copies(finder, &stream, &own, &request, &mut budget).await?;
        let Some(first) = the_one(&copies, &request)? else {
            return settled(finder, &stream, &own, (&request, &copies), &mut budget).await;
        };
        if !is_recorded {
            caller.act("cancel-delayed", format!("Stream {}", stream.name)).await?;
            is_recorded = true;
        }
        let mut is_done = false;
        for placement in stream.placements.iter().copied() {
            let waiting = copies.iter().filter(|one| one.waits && one.place == placement.delayed);
            let offsets: Vec<Offset> = waiting.map(|one| one.offset).collect();
            if !offsets.is_empty() {
                let ingest = finder.ingest;
                let done = ingest.cancel_delayed(caller.principal(), placement, offsets).await?;
                is_done |= !done.is_empty();
            }
        }
        if is_done {
            let mut answer = v1::CancelDelayedResponse {
                source: first.source.clone(),
                due_us: first.due.as_micros(),
                ..v1::CancelDelayedResponse::default()
            };
            answer.set_outcome(v1::CancelOutcome::Cancelled);
            return Ok(answer);
        }
        // Its time has come meanwhile, or it changed its place.
        tokio::time::sleep(PAUSE).await;
    }
    let message = "the event changes its place; try again";
    Err(Error::unavailable(message).with_not_applied().with_retry_after(PAUSE))
}

/// What is, or was, to be delivered later and has the id.
async fn copies(
    finder: Finder<'_>,
    stream: &StreamView,
    own: &Decision,
    request: &v1::CancelDelayedRequest,
    budget: &mut Budget,
) -> Result<Vec<Copy>> {
    finder.confirm(stream).await?;
    let mut settled = BTreeMap::new();
    for placement in stream.placements.iter() {
        let group = finder.ingest.group(placement.group)?;
        settled.insert(placement.delayed, Settled::of(group, stream, placement));
    }
    let mut copies = Vec::new();
    let look = |one: Found| {
        let view = EventView::parse(&one.event);
        let is_it = |view: &EventView<'_>| {
            view.id == request.id && (request.source.is_empty() || view.source == request.source)
        };
        if let Some(view) = view.filter(is_it).filter(|view| own.passes(&Candidate::new(*view))) {
            let place = one.placement.delayed;
            copies.push(Copy {
                place,
                offset: one.offset,
                appended: one.time,
                due: delay::due_of(&view),
                source: view.source.to_owned(),
                waits: settled.get(&place).is_some_and(|settled| !settled.has(one.offset)),
            });
        }
        ControlFlow::Continue(true)
    };
    let earliest = v1::Position { at: Some(v1::position::At::Earliest(v1::Earliest {})) };
    let searched = finder.scan((stream, Which::Delayed), &earliest, budget, look).await?;
    if searched.cut {
        let message = format!(
            "{} has more events that wait, or waited, than can be looked through",
            stream.name
        );
        return Err(Error::new(Reason::Overloaded, message).with_not_applied());
    }
    Ok(copies)
}

/// One that waits, if any does.
fn the_one<'a>(copies: &'a [Copy], request: &v1::CancelDelayedRequest) -> Result<Option<&'a Copy>> {
    let waiting = || copies.iter().filter(|one| one.waits);
    let sources: BTreeSet<&str> = waiting().map(|one| one.source.as_str()).collect();
    if sources.len() > 1 {
        let sources: Vec<&str> = sources.into_iter().collect();
        let message = format!(
            "events {} of several sources wait; say which one is meant: {}",
            request.id,
            sources.join(", ")
        );
        return Err(Error::invalid(message).with_field("source"));
    }
    Ok(waiting().next())
}

/// What became of an event that does not wait.
async fn settled(
    finder: Finder<'_>,
    stream: &StreamView,
    own: &Decision,
    (request, copies): (&v1::CancelDelayedRequest, &[Copy]),
    budget: &mut Budget,
) -> Result<v1::CancelDelayedResponse> {
    let last = copies.iter().max_by_key(|one| (one.appended, one.offset));
    let from = last.map(|last| {
        let early = u64::try_from(EARLY.as_micros()).unwrap_or(u64::MAX);
        let due = Timestamp::from_micros(last.due.as_micros().saturating_sub(early));
        v1::Position { at: Some(v1::position::At::Time(due.max(last.appended).into())) }
    });
    let source = last.map_or(&request.source, |last| &last.source);
    let wanted = Wanted { id: &request.id, source, from };
    let (found, searched) = finder.find(stream, own, &wanted, budget).await?;
    let newest = found.iter().max_by_key(|one| (one.time, one.placement.partition, one.offset));
    let mut answer = v1::CancelDelayedResponse {
        due_us: last.map_or(0, |last| last.due.as_micros()),
        source: last.map(|last| last.source.clone()).unwrap_or_default(),
        ..v1::CancelDelayedResponse::default()
    };
    match (newest, last) {
        (Some(newest), _) => {
            let source = EventView::parse(&newest.event).map(|view| view.source.to_owned());
            answer.source = source.unwrap_or_default();
            answer.partition = Some(newest.placement.partition.get());
            answer.offset = Some(newest.offset.get());
            answer.set_outcome(v1::CancelOutcome::TooLate);
        }
        (None, Some(_)) if !searched.cut => answer.set_outcome(v1::CancelOutcome::Gone),
        _ => {
            let message = format!("no event {} waits in {}", request.id, stream.name);
            return Err(Error::new(Reason::UnknownResource, message).with_field("id"));
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::OffsetRange;

    fn copy(source: &str, waits: bool) -> Copy {
        Copy {
            place: PartitionUid(1),
            offset: Offset(2),
            appended: Timestamp::from_micros(3),
            due: Timestamp::from_micros(4),
            source: source.to_owned(),
            waits,
        }
    }

    #[test]
    fn what_is_settled_is_below_the_watermark_or_in_the_set() {
        let range = OffsetRange::new(Offset(7), Offset(8)).unwrap();
        let settled = Settled { watermark: Offset(5), above: [range].into_iter().collect() };
        let has: Vec<u64> = (0..12).filter(|offset| settled.has(Offset(*offset))).collect();
        assert_eq!(has, [0, 1, 2, 3, 4, 7, 8]);
        let after = [0, 4, 5, 6, 7, 8, 9].map(|offset| settled.after(Offset(offset)).get());
        assert_eq!(after, [5, 5, 5, 6, 9, 9, 9]);
    }

    #[test]
    fn only_what_waits_has_to_be_told_apart() {
        let request = v1::CancelDelayedRequest { id: "7".to_owned(), ..Default::default() };
        let one = |copies: &[Copy]| the_one(copies, &request).map(Option::<&Copy>::cloned);

        assert_eq!(one(&[]).unwrap(), None);
        assert_eq!(one(&[copy("/a", false)]).unwrap(), None);
        let mixed = [copy("/a", false), copy("/b", true), copy("/b", true)];
        assert_eq!(one(&mixed).unwrap(), Some(copy("/b", true)));
        let error = one(&[copy("/b", true), copy("/a", true)]).unwrap_err();
        assert_eq!((error.reason(), error.field()), (Reason::InvalidArgument, Some("source")));
        assert!(error.message().ends_with("is meant: /a, /b"), "{error}");
    }
}
