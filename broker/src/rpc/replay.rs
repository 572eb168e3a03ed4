//! What a replay job replays: places in time or by offset become offsets, once, when it is made.

use weft_proto::resource::{ReplayJobSpec, ReplayPartition, ReplayRange, Start};
use weft_proto::{Error, Offset, Result, Timestamp, v1};

use crate::ingest::Ingest;
use crate::read::{History, resolve};
use crate::resources::SubscriptionView;

/// Resolves the range of a new job in all partitions. What was acknowledged before the call is within
/// reach of it.
///
/// # Errors
///
/// `Unavailable` while a group has no leader.
pub(super) async fn range(
    ingest: &Ingest,
    history: &History,
    target: &SubscriptionView,
    spec: &ReplayJobSpec,
) -> Result<ReplayRange> {
    let (from, to) = (position(&spec.from, "spec.from")?, position(&spec.to, "spec.to")?);
    let mut partitions = Vec::new();
    for placement in target.stream.placements.iter().copied() {
        let group = ingest.group(placement.group)?;
        ingest.confirm(placement.group).await?;
        let bounds = group.bounds(placement.uid);
        let from = resolve(group, placement.uid, history, Some(&from)).await?;
        let to = resolve(group, placement.uid, history, Some(&to)).await?;
        let within =
            |offset: Option<Offset>| offset.unwrap_or_default().clamp(bounds.floor, bounds.end);
        let (from, to) = (within(from).get(), within(to).get());
        if from < to {
            partitions.push(ReplayPartition { partition: placement.partition.get(), from, to });
        }
    }
    Ok(ReplayRange { target_uid: target.uid.get(), partitions })
}

fn position(place: &Start, field: &str) -> Result<v1::Position> {
    use v1::position::At;
    let at = match place {
        Start::Earliest => At::Earliest(v1::Earliest {}),
        Start::Latest => At::Latest(v1::Latest {}),
        Start::Offset(offset) => At::Offset(*offset),
        Start::Time(text) => {
            let time = text.parse::<Timestamp>();
            let wrong = |error| Error::invalid(format!("{error}")).with_field(field);
            At::Time(time.map_err(wrong)?.into())
        }
    };
    Ok(v1::Position { at: Some(at) })
}
