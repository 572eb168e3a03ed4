//! The chain of audit events: each names the hash of the one before. Pure.
//!
//! The hash is SHA-256 over the encoded event as it is delivered, byte for byte. Whoever changes an
//! event, takes one out, puts one in or swaps two must change all that follow; and whoever does
//! that cannot change what was written down elsewhere, which is what [`Chain::expecting`] is for.

use std::fmt;
use std::str::FromStr;

use weft_broker::audit::chain::{FIRST, Link, PREVIOUS};
use weft_proto::event::EventView;

/// The place and the hash of an event that was seen before, as in `17:9f86d0...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) offset: u64,
    pub(crate) hash: Link,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.offset, self.hash)
    }
}

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not OFFSET:HASH, with the 64 hexadecimal digits of weft audit verify"
            )
        };
        let (offset, hash) = text.split_once(':').ok_or_else(wrong)?;
        let hash = hash.parse().map_err(|_bad| wrong())?;
        let offset = offset.parse().map_err(|_digits| wrong())?;
        Ok(Self { offset, hash })
    }
}

/// Where the chain does not hold, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Break {
    pub(crate) offset: u64,
    pub(crate) problem: String,
}

impl Break {
    fn at(offset: u64, problem: impl Into<String>) -> Self {
        Self { offset, problem: problem.into() }
    }
}

/// What was seen of a chain until now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    count: u64,
    first: Option<u64>,
    last: Option<Kept>,
    /// Not met yet, by offset.
    expected: Vec<Kept>,
}

impl Chain {
    /// A chain in which these events must be found as they were.
    pub(crate) fn expecting(mut expected: Vec<Kept>) -> Self {
        expected.sort_by_key(|kept| kept.offset);
        Self { expected, ..Self::default() }
    }

    /// Number of events.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Offset of the first event.
    pub(crate) fn first(&self) -> Option<u64> {
        self.first
    }

    /// The last event: whoever keeps it elsewhere can tell later whether it is still the same.
    pub(crate) fn last(&self) -> Option<Kept> {
        self.last
    }

    /// The next event. After a break, the chain is of no more use.
    pub(crate) fn handle_event(&mut self, offset: u64, event: &[u8]) -> Result<(), Break> {
        let hash = Link::of(event);
        let after = self.last.map(|last| last.offset);
        while let Some(kept) = self.expected.first().copied().filter(|kept| kept.offset <= offset) {
            if kept.offset < offset {
                return Err(missing(kept, after));
            }
            if kept.hash != hash {
                let problem = format!("the event is another one than {}: it has {hash}", kept.hash);
                return Err(Break::at(offset, problem));
            }
            self.expected.remove(0);
        }
        let view =
            EventView::parse(event).ok_or_else(|| Break::at(offset, "the bytes are no event"))?;
        let named = view
            .attribute(PREVIOUS)
            .ok_or_else(|| Break::at(offset, format!("the event has no attribute {PREVIOUS}")))?;
        let before = match self.last {
            Some(last) if offset != last.offset + 1 => {
                let problem =
                    format!("the event before is missing: offset {} came last", last.offset);
                return Err(Break::at(offset, problem));
            }
            Some(last) => Some(last.hash),
            // What came before has gone with retention; only a start can be told.
            None => (offset == 0).then_some(FIRST),
        };
        if let Some(before) = before
            && *named != before.to_string()
        {
            let problem = if offset == 0 {
                format!("it is the first event and names one before it, {named}")
            } else {
                format!("it names {named} as the event before, and that has {before}")
            };
            return Err(Break::at(offset, problem));
        }
        self.count += 1;
        self.first.get_or_insert(offset);
        self.last = Some(Kept { offset, hash });
        Ok(())
    }

    /// There are no more events.
    pub(crate) fn handle_end(&self) -> Result<(), Break> {
        match self.expected.first() {
            Some(kept) => Err(missing(*kept, self.last.map(|last| last.offset))),
            None => Ok(()),
        }
    }
}

fn missing(kept: Kept, after: Option<u64>) -> Break {
    let Kept { offset, hash } = kept;
    Break::at(
        offset,
        match after {
            Some(last) => format!("the event {hash} is missing; offset {last} came last"),
            None => format!("the event {hash} is not among those that were read"),
        },
    )
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use weft_proto::cloudevents::CloudEvent;
    use weft_proto::cloudevents::cloud_event::CloudEventAttributeValue;
    use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;

    use super::*;

    fn event(id: u64, previous: &str) -> Vec<u8> {
        let value = CloudEventAttributeValue { attr: Some(Attr::CeString(previous.to_owned())) };
        CloudEvent {
            id: id.to_string(),
            source: "/weft/c/nodes/1".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "io.weft.audit.put".to_owned(),
            attributes: [(PREVIOUS.to_owned(), value)].into(),
            ..CloudEvent::default()
        }
        .encode_to_vec()
    }

    /// A chain of so many events, by offset from 0.
    fn events(count: u64) -> Vec<(u64, Vec<u8>)> {
        let mut last = FIRST;
        let one = |offset| {
            let event = event(offset, &last.to_string());
            last = Link::of(&event);
            (offset, event)
        };
        (0..count).map(one).collect()
    }

    fn check(events: &[(u64, Vec<u8>)], expected: Vec<Kept>) -> Result<Chain, Break> {
        let mut chain = Chain::expecting(expected);
        for (offset, event) in events {
            chain.handle_event(*offset, event)?;
        }
        chain.handle_end().map(|()| chain)
    }

    fn broken_at(events: &[(u64, Vec<u8>)]) -> u64 {
        check(events, Vec::new()).unwrap_err().offset
    }

    fn kept(events: &[(u64, Vec<u8>)], place: usize) -> Kept {
        let (offset, event) = &events[place];
        Kept { offset: *offset, hash: Link::of(event) }
    }

    #[test]
    fn a_whole_chain_holds() {
        let events = events(5);
        let chain = check(&events, vec![kept(&events, 4), kept(&events, 0)]).unwrap();

        assert_eq!((chain.count(), chain.first()), (5, Some(0)));
        assert_eq!(chain.last(), Some(kept(&events, 4)));
        assert_eq!(check(&[], Vec::new()).unwrap().count(), 0);
    }

    #[test]
    fn any_changed_byte_breaks_it() {
        let good = events(4);
        for place in 0..3 {
            for at in 0..good[place].1.len() {
                let mut events = good.clone();
                events[place].1[at] ^= 1;
                let found = broken_at(&events);
                assert!(found == place as u64 || found == place as u64 + 1, "{place} {at} {found}");
            }
        }
    }

    #[test]
    fn a_changed_last_event_is_found_by_what_was_kept_of_it() {
        let good = events(3);
        let mut changed = good.clone();
        changed[2].1 = event(99, &Link::of(&good[1].1).to_string());

        assert!(check(&changed, Vec::new()).is_ok());
        let error = check(&changed, vec![kept(&good, 2)]).unwrap_err();
        assert_eq!(error.offset, 2, "{error:?}");
    }

    #[test]
    fn a_chain_that_was_written_anew_is_found_by_what_was_kept_of_it() {
        let good = events(3);
        let mut last = FIRST;
        let forge = |offset: u64| {
            let event = event(100 + offset, &last.to_string());
            last = Link::of(&event);
            (offset, event)
        };
        let forged: Vec<_> = (0..5).map(forge).collect();

        assert!(check(&forged, Vec::new()).is_ok());
        assert_eq!(check(&forged, vec![kept(&good, 1)]).unwrap_err().offset, 1);
    }

    #[test]
    fn a_missing_event_breaks_it_whether_offsets_close_the_gap_or_not() {
        let good = events(5);
        let mut gap = good.clone();
        gap.remove(2);
        assert_eq!(broken_at(&gap), 3);

        let moved: Vec<_> = (0..).zip(gap.into_iter().map(|(_, event)| event)).collect();
        assert_eq!(broken_at(&moved), 2);
    }

    #[test]
    fn swapped_and_added_events_break_it() {
        let good = events(5);
        let mut swapped = good.clone();
        let (one, other) = (swapped[1].1.clone(), swapped[2].1.clone());
        (swapped[1].1, swapped[2].1) = (other, one);
        assert_eq!(broken_at(&swapped), 1);

        let mut added = good;
        added.insert(2, (2, event(77, &Link::of(&added[1].1).to_string())));
        for (offset, (place, _)) in (0..).zip(&mut added) {
            *place = offset;
        }
        assert_eq!(broken_at(&added), 3);
    }

    #[test]
    fn a_front_that_has_gone_is_no_break_unless_it_is_expected() {
        let good = events(6);
        let chain = check(&good[3..], vec![kept(&good, 3), kept(&good, 5)]).unwrap();
        assert_eq!((chain.first(), chain.count()), (Some(3), 3));

        assert_eq!(check(&good[3..], vec![kept(&good, 1)]).unwrap_err().offset, 1);
        assert_eq!(check(&good[..3], vec![kept(&good, 4)]).unwrap_err().offset, 4);
        // A front that was cut off and whose rest was moved to the start.
        let moved: Vec<_> = (0..).zip(good[3..].iter().map(|(_, event)| event.clone())).collect();
        assert_eq!(broken_at(&moved), 0);
    }

    #[test]
    fn what_is_no_audit_event_breaks_it() {
        let plain = CloudEvent {
            id: "1".to_owned(),
            source: "s".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "t".to_owned(),
            ..CloudEvent::default()
        };
        assert_eq!(broken_at(&[(7, plain.encode_to_vec())]), 7);
        assert_eq!(broken_at(&[(7, b"\xff\xff".to_vec())]), 7);
    }

    #[test]
    fn what_was_kept_is_read_as_it_was_written() {
        let one = kept(&events(1), 0);
        assert_eq!(one.to_string().parse(), Ok(one));
        let zeros = "0".repeat(64);
        for wrong in [
            String::new(),
            zeros.clone(),
            format!("x:{zeros}"),
            format!("1:{}", &zeros[1..]),
            format!("1:{zeros}0"),
            format!("1:+{}", &zeros[1..]),
            format!("1:g{}", &zeros[1..]),
            format!("1:\u{e4}{}", &zeros[2..]),
        ] {
            assert!(wrong.parse::<Kept>().is_err(), "{wrong}");
        }
    }
}
