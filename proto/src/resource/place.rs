//! A place in a stream, as a resource names it.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Start, problem};
use crate::{Result, Timestamp};

/// A place in all partitions of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// As where a subscription may start: `earliest`, `latest`, `{offset: N}`, `{time: T}`.
    At(Start),
    /// The place of an event: `{event: ID}`.
    Event(EventAt),
}

/// An event, as a place: in the partition in which it lies its own offset, in the others the first event
/// that was appended at its time or later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventAt {
    /// Its id.
    #[serde(rename = "event")]
    pub id: String,
    /// Its source; without it the id must be that of one source only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// An RFC 3339 time: it is looked for among what was appended from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// What a place may say when it is not one word.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    offset: Option<u64>,
    time: Option<String>,
    event: Option<String>,
    source: Option<String>,
    since: Option<String>,
}

impl Place {
    /// Checks the rules that need no other resource.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub(super) fn check(&self, field: &str) -> Result<()> {
        match self {
            Self::At(start) => start.check(field),
            Self::Event(event) => event.check(field),
        }
    }
}

impl EventAt {
    fn check(&self, field: &str) -> Result<()> {
        if self.id.is_empty() {
            return Err(problem(format!("{field}.event"), "the id of an event is not empty"));
        }
        if self.source.as_deref() == Some("") {
            return Err(problem(format!("{field}.source"), "the source of an event is not empty"));
        }
        let since = self.since.as_deref().map(str::parse::<Timestamp>).transpose();
        since.map(drop).map_err(|error| problem(format!("{field}.since"), error.to_string()))
    }
}

impl From<Start> for Place {
    fn from(start: Start) -> Self {
        Self::At(start)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::At(start) => start.serialize(to),
            Self::Event(event) => event.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Place;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("earliest, latest, {offset: N}, {time: T} or {event: ID}")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> std::result::Result<Place, E> {
                match word {
                    "earliest" => Ok(Start::Earliest.into()),
                    "latest" => Ok(Start::Latest.into()),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Place, A::Error> {
                let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
                let Fields { offset, time, event, source, since } = fields;
                let is_plain = source.is_none() && since.is_none();
                match (offset, time, event) {
                    (Some(offset), None, None) if is_plain => Ok(Start::Offset(offset).into()),
                    (None, Some(time), None) if is_plain => Ok(Start::Time(time).into()),
                    (None, None, Some(id)) => Ok(Place::Event(EventAt { id, source, since })),
                    _ => Err(de::Error::custom(
                        "a place is one of offset, time and event; source and since belong to event",
                    )),
                }
            }
        }

        from.deserialize_any(Read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> std::result::Result<Place, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn event(id: &str, source: Option<&str>, since: Option<&str>) -> Place {
        let (source, since) = (source.map(str::to_owned), since.map(str::to_owned));
        Place::Event(EventAt { id: id.to_owned(), source, since })
    }

    #[test]
    fn each_form_is_read() {
        let cases = [
            (r#""earliest""#, Start::Earliest.into()),
            (r#""latest""#, Start::Latest.into()),
            (r#"{"offset":7}"#, Start::Offset(7).into()),
            (r#"{"time":"noon"}"#, Start::Time("noon".to_owned()).into()),
            (r#"{"event":"1"}"#, event("1", None, None)),
            (
                r#"{"event":"1","source":"/s","since":"2026-03-01T00:00:00Z"}"#,
                event("1", Some("/s"), Some("2026-03-01T00:00:00Z")),
            ),
        ];
        for (json, place) in cases {
            assert_eq!(read(json).unwrap(), place, "{json}");
            assert_eq!(serde_json::to_string(&place).unwrap(), json);
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_is() {
        for json in [
            r#""first""#,
            "7",
            "{}",
            r#"{"offset":7,"event":"1"}"#,
            r#"{"offset":7,"source":"/s"}"#,
            r#"{"source":"/s"}"#,
            r#"{"event":"1","partition":0}"#,
            r#"{"event":1}"#,
        ] {
            let told = read(json).unwrap_err();
            assert!(["event", "string"].iter().any(|word| told.contains(word)), "{json}: {told}");
        }
    }

    #[test]
    fn a_wrong_event_names_its_field() {
        let field = |place: Place| place.check("spec.from").unwrap_err().field().map(str::to_owned);
        assert_eq!(field(event("", None, None)).as_deref(), Some("spec.from.event"));
        assert_eq!(field(event("1", Some(""), None)).as_deref(), Some("spec.from.source"));
        assert_eq!(field(event("1", None, Some("noon"))).as_deref(), Some("spec.from.since"));
        event("1", Some("/s"), Some("2026-03-01T00:00:00Z")).check("spec.from").unwrap();
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id in ".*", source in proptest::option::of(".*")) {
            let place = event(&id, source.as_deref(), None);
            let text = serde_json::to_string(&place).unwrap();
            prop_assert_eq!(read(&text).unwrap(), place);
        }
    }
}
