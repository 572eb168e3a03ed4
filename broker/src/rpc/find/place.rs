//! A place that is named by an event: what that is in each partition.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use weft_proto::event::EventView;
use weft_proto::filter::Candidate;
use weft_proto::{Error, Offset, PartitionId, Reason, Result, Timestamp, v1};

use super::{Budget, Finder, Found, Wanted, Which};
use crate::access::Decision;
use crate::read::locate;
use crate::resources::{Placement, StreamView};

/// Sources that are told of, where one has to be chosen.
const SOURCES_MAX: usize = 10;

/// Where an event is, and when it was appended there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) struct Spot {
    partition: PartitionId,
    offset: Offset,
    time: Timestamp,
}

/// Checks what needs no stream.
///
/// # Errors
///
/// `Invalid`, naming the field below `field`.
fn check_place(place: &v1::EventPlace, field: &str) -> Result<()> {
    if place.id.is_empty() {
        let error = Error::invalid("the id of an event is not empty");
        return Err(error.with_field(format!("{field}.id")));
    }
    since(place, field).map(drop)
}

fn since(place: &v1::EventPlace, field: &str) -> Result<Option<Timestamp>> {
    let read = place.since.map(Timestamp::try_from).transpose();
    read.map_err(|error| Error::invalid(error.to_string()).with_field(format!("{field}.since")))
}

/// The newest event of each source that has the id.
#[derive(Debug, Default)]
struct BySource(BTreeMap<String, Spot>);

impl BySource {
    /// Takes one; says whether more of them would tell anything.
    fn take(&mut self, source: &str, spot: Spot) -> bool {
        match self.0.get_mut(source) {
            Some(known)
                if (known.time, known.partition, known.offset)
                    >= (spot.time, spot.partition, spot.offset) => {}
            Some(known) => *known = spot,
            None => _ = self.0.insert(source.to_owned(), spot),
        }
        self.0.len() < SOURCES_MAX
    }

    /// The one that is meant.
    fn only(self, place: &v1::EventPlace, searched: &v1::Searched, field: &str) -> Result<Spot> {
        let (id, stream) = (&place.id, &searched.stream);
        if self.0.len() > 1 {
            let more = if self.0.len() < SOURCES_MAX { "" } else { ", and maybe more" };
            let sources: Vec<String> = self.0.into_keys().collect();
            let message = format!(
                "{stream} has events {id} of several sources; say which one is meant: {}{more}",
                sources.join(", ")
            );
            return Err(Error::invalid(message).with_field(format!("{field}.source")));
        }
        // Behind what was looked through there may be a newer one, or one of another source.
        if searched.cut {
            let message = format!(
                "{stream} holds more than can be looked through for event {id}: {} events were; say \
                 its source, or since when it is there",
                searched.events
            );
            return Err(Error::invalid(message).with_field(format!("{field}.since")));
        }
        self.0.into_values().next().ok_or_else(|| {
            let of = match place.source.as_str() {
                "" => String::new(),
                source => format!(" of {source}"),
            };
            let since = match searched.from_us {
                micros if place.since.is_some() => {
                    format!(" since {}", Timestamp::from_micros(micros))
                }
                _ => String::new(),
            };
            let message = format!("{stream} has no event {id}{of}{since}");
            Error::new(Reason::UnknownResource, message).with_field(format!("{field}.id"))
        })
    }
}

impl Finder<'_> {
    /// Finds the event that is meant: of several with one source and id, the newest. What was
    /// acknowledged before the call is found.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Invalid` for an id of several sources, and for one that cannot be looked for within
    /// bounds; `Unavailable` while a group has no leader.
    pub(in crate::rpc) async fn spot(
        &self,
        stream: &StreamView,
        visible: &Decision,
        (place, field): (&v1::EventPlace, &str),
        budget: &mut Budget,
    ) -> Result<Spot> {
        check_place(place, field)?;
        let since = since(place, field)?;
        self.confirm(stream).await?;
        let wanted = Wanted { id: &place.id, source: &place.source, from: None };
        let may_see = |view: &EventView<'_>| visible.passes(&Candidate::new(*view));
        let is_it = |view: &EventView<'_>| wanted.is(view) && may_see(view);
        let mut found = BySource::default();
        for known in self.remembered(stream, &wanted).await? {
            let is_young = since.is_none_or(|since| known.time >= since);
            if let Some(view) = EventView::parse(&known.event).filter(is_it)
                && is_young
            {
                found.take(view.source, Spot::of(&known));
            }
        }
        if !found.0.is_empty() {
            return found.only(place, &v1::Searched::default(), field);
        }
        let from = v1::Position {
            at: Some(match since {
                Some(since) => v1::position::At::Time(since.into()),
                None => v1::position::At::Earliest(v1::Earliest {}),
            }),
        };
        let look = |one: Found| {
            let view = EventView::parse(&one.event);
            let Some(view) = view.filter(may_see) else { return ControlFlow::Continue(false) };
            if !wanted.is(&view) || found.take(view.source, Spot::of(&one)) {
                return ControlFlow::Continue(true);
            }
            ControlFlow::Break(())
        };
        let searched = self.scan((stream, Which::Events), &from, budget, look).await?;
        found.only(place, &searched, field)
    }

    /// What the place of an event is in a partition: its own offset in its own, elsewhere the first
    /// event that was appended at its time or later.
    ///
    /// # Errors
    ///
    /// `Internal` for a store that cannot be read.
    pub(in crate::rpc) async fn offset_at(
        &self,
        placement: &Placement,
        spot: &Spot,
    ) -> Result<Offset> {
        if placement.partition == spot.partition {
            return Ok(spot.offset);
        }
        let group = self.ingest.group(placement.group)?;
        locate(group, placement.uid, self.history, spot.time).await
    }
}

impl Spot {
    fn of(found: &Found) -> Self {
        let Found { placement, offset, time, .. } = found;
        Self { partition: placement.partition, offset: *offset, time: *time }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spot(partition: u32, offset: u64, time: u64) -> Spot {
        let time = Timestamp::from_micros(time);
        Spot { partition: PartitionId(partition), offset: Offset(offset), time }
    }

    fn place(source: &str) -> v1::EventPlace {
        v1::EventPlace { id: "7".to_owned(), source: source.to_owned(), since: None }
    }

    fn searched(cut: bool) -> v1::Searched {
        v1::Searched { stream: "default/orders".to_owned(), cut, events: 9, from_us: 1_000_000 }
    }

    #[test]
    fn a_place_names_an_event() {
        let field = |place: &v1::EventPlace| {
            let error = check_place(place, "to_event").unwrap_err();
            error.field().unwrap().to_owned()
        };
        check_place(&place(""), "to_event").unwrap();
        assert_eq!(field(&v1::EventPlace::default()), "to_event.id");
        let mut early = v1::EventPlace { since: Some(Timestamp::default().into()), ..place("") };
        early.since.as_mut().unwrap().seconds = -1;
        assert_eq!(field(&early), "to_event.since");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let told = |place: &v1::EventPlace| {
            let error = BySource::default().only(place, &searched(false), "to_event").unwrap_err();
            assert_eq!(
                (error.reason(), error.field()),
                (Reason::UnknownResource, Some("to_event.id"))
            );
            error.message().to_owned()
        };
        assert_eq!(told(&place("")), "default/orders has no event 7");
        assert_eq!(told(&place("/s")), "default/orders has no event 7 of /s");
        let since = Some(Timestamp::from_micros(1_000_000).into());
        let told = told(&v1::EventPlace { since, ..place("") });
        assert_eq!(told, "default/orders has no event 7 since 1970-01-01T00:00:01.000000Z");
    }

    #[test]
    fn of_several_sources_one_has_to_be_chosen() {
        let mut found = BySource::default();
        assert!(found.take("/b", spot(0, 1, 5)) && found.take("/a", spot(1, 0, 9)));
        // Also when there may be still more of them.
        let error = found.only(&place(""), &searched(true), "to_event").unwrap_err();
        assert_eq!(
            (error.reason(), error.field()),
            (Reason::InvalidArgument, Some("to_event.source"))
        );
        assert!(error.message().ends_with("is meant: /a, /b"), "{error}");

        let mut many = BySource::default();
        let more: Vec<bool> =
            (0..SOURCES_MAX).map(|n| many.take(&n.to_string(), spot(0, 0, 0))).collect();
        assert_eq!(more.iter().filter(|more| !**more).count(), 1);
        let error = many.only(&place(""), &searched(false), "to_event").unwrap_err();
        assert!(error.message().ends_with("9, and maybe more"), "{error}");
    }

    #[test]
    fn a_search_that_was_cut_decides_nothing() {
        let mut found = BySource::default();
        found.take("/a", spot(0, 1, 5));
        for found in [found, BySource::default()] {
            let error = found.only(&place(""), &searched(true), "from").unwrap_err();
            assert_eq!(
                (error.reason(), error.field()),
                (Reason::InvalidArgument, Some("from.since"))
            );
        }
    }

    proptest! {
        /// In whichever order they come.
        #[test]
        fn the_newest_of_one_source_is_meant(
            spots in proptest::collection::vec((0..4_u32, 0..9_u64, 0..9_u64), 1..20),
        ) {
            let newest = spots.iter().max_by_key(|(partition, offset, time)| (time, partition, offset));
            let &(partition, offset, time) = newest.unwrap();
            let mut found = BySource::default();
            for &(partition, offset, time) in &spots {
                prop_assert!(found.take("/a", spot(partition, offset, time)));
            }
            let only = found.only(&place("/a"), &searched(false), "to_event").unwrap();
            prop_assert_eq!(only, spot(partition, offset, time));
        }
    }
}
