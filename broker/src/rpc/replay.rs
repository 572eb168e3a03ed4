//! What a replay job replays: places in time, by offset or by event become offsets, once, when it is made.

use weft_proto::resource::{EventAt, Place, ReplayJobSpec, ReplayPartition, ReplayRange, Start};
use weft_proto::{Error, Offset, Result, Timestamp, v1};

use super::find::{Budget, Finder, Spot};
use crate::access::Decision;
use crate::read::resolve;
use crate::resources::{Placement, StreamView, SubscriptionView};

/// A place of a job, once it is known which event it means.
enum Known {
    Position(v1::Position),
    Event(Spot),
}

/// Resolves the range of a new job in all partitions. What was acknowledged before the call is within
/// reach of it. An event that is not `visible` is not there.
///
/// # Errors
///
/// `NotFound` and `Invalid` for an event; `Unavailable` while a group has no leader.
pub(super) async fn range(
    finder: Finder<'_>,
    target: &SubscriptionView,
    visible: &Decision,
    spec: &ReplayJobSpec,
) -> Result<ReplayRange> {
    let stream = &target.stream;
    let mut budget = Budget::aside();
    let from = known(finder, stream, visible, (&spec.from, "spec.from"), &mut budget).await?;
    let to = known(finder, stream, visible, (&spec.to, "spec.to"), &mut budget).await?;
    let mut partitions = Vec::new();
    for placement in stream.placements.iter().copied() {
        let group = finder.ingest.group(placement.group)?;
        finder.ingest.confirm(placement.group).await?;
        let bounds = group.bounds(placement.uid);
        let from = offset(finder, &placement, &from).await?;
        let to = offset(finder, &placement, &to).await?;
        let within = |offset: Offset| offset.clamp(bounds.floor, bounds.end).get();
        let (from, to) = (within(from), within(to));
        if from < to {
            partitions.push(ReplayPartition { partition: placement.partition.get(), from, to });
        }
    }
    Ok(ReplayRange { target_uid: target.uid.get(), partitions })
}

async fn known(
    finder: Finder<'_>,
    stream: &StreamView,
    visible: &Decision,
    (place, field): (&Place, &str),
    budget: &mut Budget,
) -> Result<Known> {
    let event = match place {
        Place::At(start) => return position(start, field).map(Known::Position),
        Place::Event(event) => place_of(event, field)?,
    };
    // In a spec, the field of the id is `event`.
    let renamed = |error: Error| {
        let is_id = error.field() == Some(&format!("{field}.id"));
        if is_id { error.with_field(format!("{field}.event")) } else { error }
    };
    let spot = finder.spot(stream, visible, (&event, field), budget).await;
    spot.map(Known::Event).map_err(renamed)
}

async fn offset(finder: Finder<'_>, placement: &Placement, known: &Known) -> Result<Offset> {
    match known {
        Known::Position(position) => {
            let group = finder.ingest.group(placement.group)?;
            let offset = resolve(group, placement.uid, finder.history, Some(position)).await?;
            Ok(offset.unwrap_or_default())
        }
        Known::Event(spot) => finder.offset_at(placement, spot).await,
    }
}

fn place_of(event: &EventAt, field: &str) -> Result<v1::EventPlace> {
    let since = event.since.as_deref().map(|text| time(text, &format!("{field}.since")));
    Ok(v1::EventPlace {
        id: event.id.clone(),
        source: event.source.clone().unwrap_or_default(),
        since: since.transpose()?.map(Into::into),
    })
}

fn time(text: &str, field: &str) -> Result<Timestamp> {
    text.parse().map_err(|error| Error::invalid(format!("{error}")).with_field(field))
}

fn position(place: &Start, field: &str) -> Result<v1::Position> {
    use v1::position::At;
    let at = match place {
        Start::Earliest => At::Earliest(v1::Earliest {}),
        Start::Latest => At::Latest(v1::Latest {}),
        Start::Offset(offset) => At::Offset(*offset),
        Start::Time(text) => At::Time(time(text, field)?.into()),
    };
    Ok(v1::Position { at: Some(at) })
}
