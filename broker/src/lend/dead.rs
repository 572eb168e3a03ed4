//! Dead letters: the event as it was, and why it was given up; and events of replay jobs, which say so.
//!
//! The attributes follow the event's own bytes, which stay as they were published: protobuf reads a
//! map that comes in pieces as one.

use bytes::Bytes;
use prost::Message as _;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::CloudEventAttributeValue;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::event::EventView;
use weft_proto::{Offset, PartitionId, QualifiedName, Timestamp};

use crate::subscription::desk::{Cause, DeadLetter};

/// Names of the attributes.
mod name {
    /// Why: `attempts`, `rejected`, `too-old`, `held`, `retention`.
    pub(super) const REASON: &str = "weftreason";
    /// Deliveries that failed.
    pub(super) const ATTEMPTS: &str = "weftattempts";
    /// What the last one said.
    pub(super) const LAST_ERROR: &str = "weftlasterror";
    /// The stream of the event.
    pub(super) const STREAM: &str = "weftstream";
    /// The subscription that gave it up.
    pub(super) const SUBSCRIPTION: &str = "weftsubscription";
    /// Its partition.
    pub(super) const PARTITION: &str = "weftpartition";
    /// Its offset there.
    pub(super) const OFFSET: &str = "weftoffset";
    /// The replay job for which it was delivered.
    pub(super) const REPLAY_JOB: &str = "weftreplayjob";
    /// When its first delivery failed.
    pub(super) const FIRST_FAILURE: &str = "weftfirstfailure";
}

/// Where an event was that is a dead letter now.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) stream: QualifiedName,
    pub(super) subscription: QualifiedName,
    pub(super) partition: PartitionId,
    /// For which it was delivered, if for any.
    pub(super) replay_job: Option<QualifiedName>,
}

/// The dead letter of an event.
pub(super) fn letter(event: &[u8], origin: &Origin, letter: &DeadLetter) -> Bytes {
    // A dead letter that fails again says where the event was in the first place.
    let known = EventView::parse(event);
    let was = |attribute: &str| known.as_ref().and_then(|view| view.attribute(attribute));
    let partition = was(name::PARTITION).map_or_else(|| origin.partition.to_string(), Into::into);
    let offset = was(name::OFFSET).map_or_else(|| letter.offset.to_string(), Into::into);
    let job = origin.replay_job.as_ref().map(ToString::to_string);
    let replay_job = job.or_else(|| was(name::REPLAY_JOB).map(Into::into)).unwrap_or_default();
    let plain = known.as_ref().and_then(EventView::without_broker_attributes);
    let event = plain.as_deref().unwrap_or(event);
    let attributes = [
        (name::REASON, reason(letter.cause).to_owned()),
        (name::ATTEMPTS, letter.attempts.to_string()),
        (name::LAST_ERROR, printable(letter.failure.as_str())),
        (name::STREAM, origin.stream.to_string()),
        (name::SUBSCRIPTION, origin.subscription.to_string()),
        (name::PARTITION, partition),
        (name::OFFSET, offset),
        (name::FIRST_FAILURE, first_failure(letter)),
        (name::REPLAY_JOB, replay_job),
    ];
    with(event, attributes.into_iter().filter(|(_, text)| !text.is_empty()))
}

/// An event as a replay job delivers it.
pub(super) fn replayed(event: &[u8], job: &QualifiedName, offset: Offset) -> Bytes {
    with(event, [(name::REPLAY_JOB, job.to_string()), (name::OFFSET, offset.to_string())])
}

/// An event with attributes beside its own.
fn with(event: &[u8], attributes: impl IntoIterator<Item = (&'static str, String)>) -> Bytes {
    let value = |text| CloudEventAttributeValue { attr: Some(Attr::CeString(text)) };
    let added = attributes.into_iter().map(|(name, text)| (name.to_owned(), value(text)));
    let added = CloudEvent { attributes: added.collect(), ..CloudEvent::default() };
    let mut bytes = Vec::with_capacity(event.len() + added.encoded_len());
    bytes.extend_from_slice(event);
    bytes.extend_from_slice(&added.encode_to_vec());
    bytes.into()
}

const fn reason(cause: Cause) -> &'static str {
    match cause {
        Cause::Attempts => "attempts",
        Cause::Rejected => "rejected",
        Cause::TooOld => "too-old",
        Cause::Held => "held",
        Cause::Retention => "retention",
    }
}

fn first_failure(letter: &DeadLetter) -> String {
    let never = Timestamp::default();
    Some(letter.first_failure)
        .filter(|&time| time != never)
        .map_or_else(String::new, |time| time.to_string())
}

/// Attributes have no control characters. Source: CloudEvents 1.0.2, section "Type System".
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Why and where from a dead letter is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// The subscription that gave the event up.
    pub subscription: String,
    /// The partition of the event.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: Offset,
    /// A word: `attempts`, `rejected`, `too-old`, `held`, `retention`.
    pub reason: String,
    /// Deliveries that failed.
    pub attempts: u32,
    /// What the last one said.
    pub last_error: String,
    /// When the first one failed, if one did.
    pub first_failure: Option<Timestamp>,
    /// The replay job for which it was delivered; empty for none.
    pub replay_job: String,
}

/// What a dead letter says of itself; nothing if it is none.
pub fn story_of(letter: &EventView<'_>) -> Option<Story> {
    let said = |attribute: &str| letter.attribute(attribute).map(std::borrow::Cow::into_owned);
    Some(Story {
        subscription: said(name::SUBSCRIPTION)?,
        partition: PartitionId(said(name::PARTITION)?.parse().ok()?),
        offset: Offset(said(name::OFFSET)?.parse().ok()?),
        reason: said(name::REASON)?,
        attempts: said(name::ATTEMPTS).and_then(|text| text.parse().ok()).unwrap_or_default(),
        last_error: said(name::LAST_ERROR).unwrap_or_default(),
        first_failure: said(name::FIRST_FAILURE).and_then(|text| text.parse().ok()),
        replay_job: said(name::REPLAY_JOB).unwrap_or_default(),
    })
}

/// Whether a dead letter is one of this subscription.
pub fn is_of(view: &EventView<'_>, subscription: &QualifiedName) -> bool {
    view.attribute(name::SUBSCRIPTION).is_some_and(|own| *own == subscription.to_string())
}

/// The event of a dead letter, byte for byte as it was published.
pub fn original(letter: &Bytes) -> Bytes {
    let view = EventView::parse(letter);
    let plain = view.and_then(|view| view.without_broker_attributes());
    plain.map_or_else(|| letter.clone(), Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::Failure;

    fn origin() -> Origin {
        Origin {
            stream: "shop/orders".parse().unwrap(),
            subscription: "shop/billing".parse().unwrap(),
            partition: PartitionId(3),
            replay_job: None,
        }
    }

    fn event() -> Bytes {
        let event = CloudEvent {
            id: "1".to_owned(),
            source: "/s".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "t".to_owned(),
            ..CloudEvent::default()
        };
        event.encode_to_vec().into()
    }

    fn dead(offset: u64, attempts: u32, failure: &str) -> DeadLetter {
        DeadLetter {
            offset: Offset(offset),
            cause: Cause::Attempts,
            attempts,
            first_failure: Timestamp::from_micros(1_000_000),
            failure: Failure::new(failure),
        }
    }

    #[test]
    fn a_letter_says_why_and_where_and_gives_the_event_back() {
        let letter = letter(&event(), &origin(), &dead(7, 5, "line\nbreak"));

        let view = EventView::parse(&letter).unwrap();
        let said = |name: &str| view.attribute(name).unwrap().into_owned();
        assert_eq!(said(name::REASON), "attempts");
        assert_eq!(said(name::ATTEMPTS), "5");
        assert_eq!(said(name::LAST_ERROR), "line break");
        assert_eq!(said(name::STREAM), "shop/orders");
        assert_eq!(said(name::FIRST_FAILURE), "1970-01-01T00:00:01.000000Z");
        assert_eq!((said(name::PARTITION), said(name::OFFSET)), ("3".into(), "7".into()));
        let story = story_of(&view).unwrap();
        assert_eq!((story.partition, story.offset), (PartitionId(3), Offset(7)));
        assert_eq!((story.reason.as_str(), story.attempts), ("attempts", 5));
        assert_eq!(story.first_failure, Some(Timestamp::from_micros(1_000_000)));
        assert_eq!(story_of(&EventView::parse(&event()).unwrap()), None);
        assert!(is_of(&view, &origin().subscription));
        assert!(!is_of(&view, &origin().stream));
        assert_eq!(original(&letter), event());
    }

    #[test]
    fn a_letter_that_fails_again_keeps_its_first_place() {
        let first = letter(&event(), &origin(), &dead(7, 5, ""));

        let second = letter(&first, &origin(), &dead(99, 2, "again"));

        let view = EventView::parse(&second).unwrap();
        assert_eq!(view.attribute(name::OFFSET).unwrap(), "7");
        assert_eq!(view.attribute(name::ATTEMPTS).unwrap(), "2");
        assert_eq!(view.attributes().filter(|one| one.name == name::ATTEMPTS).count(), 1);
        assert_eq!(original(&second), event());
    }
}
