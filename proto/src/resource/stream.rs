//! Streams: partitions, retention, limits, and which schema governs which events.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DurationText, problem};
use crate::event::EVENT_BYTES_MAX;
use crate::{QualifiedName, Result};

/// Most partitions of one stream.
pub const PARTITIONS_MAX: u32 = 256;
/// Most bindings of one stream.
const SCHEMAS_LEN_MAX: usize = 256;

/// What a stream shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own, as written")]
pub struct StreamSpec {
    /// 1 to 256; fixed at creation. Order holds within a partition.
    pub partitions: u32,
    /// How long events stay.
    pub retention: Retention,
    /// How long dead letters stay; as long as events, by age, if this is not given. They lie in the log
    /// of the same group, whose disk is freed up to the oldest event that stays: keeping dead letters
    /// for longer keeps everything for longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<Retention>,
    /// Largest event in bytes, at most 1,000,000.
    pub event_bytes_max: u32,
    /// Whether an event that is there already, by source and id, is recognised: it is answered with
    /// its original offset, or refused when it says something else. Within 2 minutes of log time, and
    /// at least among the last 1,000,000 events of the group.
    pub dedup: bool,
    /// Whether the offset of the last event of each subject is kept, so that a publish request may
    /// expect it; fixed at creation. Costs 37 bytes or more on each replica for each subject and
    /// partition, and 16 bytes in the log for each event.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub subject_index: bool,
    /// Which schema governs events of which type; the most specific type wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<BindingSpec>,
}

impl Default for StreamSpec {
    fn default() -> Self {
        Self {
            partitions: 1,
            retention: Retention::default(),
            dead_letters: None,
            event_bytes_max: EVENT_BYTES_LIMIT,
            dedup: true,
            subject_index: false,
            schemas: Vec::new(),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "1,000,000 fits")]
const EVENT_BYTES_LIMIT: u32 = EVENT_BYTES_MAX as u32;

/// How long events stay; what is reached first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Age by append time.
    pub max_age: MaxAge,
    /// Bytes of one partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Events of one partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_events: Option<u64>,
}

/// An age, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MaxAge {
    /// Events stay until another limit is reached.
    Forever,
    /// Events stay at least this long.
    For(DurationText),
}

impl Default for MaxAge {
    fn default() -> Self {
        Self::For(DurationText::from_secs(7 * 24 * 3_600))
    }
}

impl TryFrom<String> for MaxAge {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "forever" { Ok(Self::Forever) } else { text.parse().map(Self::For) }
    }
}

impl From<MaxAge> for String {
    fn from(age: MaxAge) -> Self {
        match age {
            MaxAge::Forever => "forever".to_owned(),
            MaxAge::For(duration) => duration.to_string(),
        }
    }
}

/// Which schema governs events of a type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingSpec {
    /// A type, a prefix that ends in `*`, or `*` for all.
    #[serde(rename = "type")]
    pub event_type: String,
    /// `name` or `namespace/name` of the schema.
    pub schema: String,
    /// `latest` or a number.
    #[serde(default)]
    pub version: BindingVersion,
    /// What happens to events that do not fit.
    #[serde(default)]
    pub mode: BindingMode,
}

/// Which version of a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindingVersion {
    /// This one.
    Number(u32),
    /// Whichever is the newest when the event is checked.
    #[default]
    Latest,
}

impl Serialize for BindingVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u32(*number),
            Self::Latest => serializer.serialize_str("latest"),
        }
    }
}

// Written by hand for the errors: an untagged enum says only that no variant fitted.
impl<'de> Deserialize<'de> for BindingVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VersionVisitor)
    }
}

struct VersionVisitor;

impl Visitor<'_> for VersionVisitor {
    type Value = BindingVersion;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number of a version, or latest")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<BindingVersion, E> {
        let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(number), &self);
        u32::try_from(number).map(BindingVersion::Number).map_err(wrong)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<BindingVersion, E> {
        let wrong = |_| E::invalid_value(de::Unexpected::Signed(number), &self);
        u32::try_from(number).map(BindingVersion::Number).map_err(wrong)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<BindingVersion, E> {
        match text {
            "latest" => Ok(BindingVersion::Latest),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }
}

/// What happens to events that do not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindingMode {
    /// Nothing is checked.
    Off,
    /// They are refused.
    #[default]
    Enforce,
}

impl StreamSpec {
    /// How long its dead letters stay.
    pub fn dead_letter_retention(&self) -> Retention {
        let like_events = || Retention { max_age: self.retention.max_age, ..Retention::default() };
        self.dead_letters.clone().unwrap_or_else(like_events)
    }

    /// Checks the rules that need no other resource.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn check(&self) -> Result<()> {
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            let message =
                format!("{} partitions; 1 to {PARTITIONS_MAX} are possible", self.partitions);
            return Err(problem("spec.partitions", message));
        }
        if !(1..=EVENT_BYTES_LIMIT).contains(&self.event_bytes_max) {
            let message = format!("{} is not in 1..={EVENT_BYTES_LIMIT}", self.event_bytes_max);
            return Err(problem("spec.event_bytes_max", message));
        }
        for (field, value) in [
            ("spec.retention.max_bytes", self.retention.max_bytes),
            ("spec.retention.max_events", self.retention.max_events),
        ] {
            if value == Some(0) {
                return Err(problem(field, "a limit of 0 would keep nothing"));
            }
        }
        if self.retention.max_age == MaxAge::For(DurationText::from_millis(0)) {
            return Err(problem("spec.retention.max_age", "an age of 0 would keep nothing"));
        }
        self.check_bindings()
    }

    fn check_bindings(&self) -> Result<()> {
        if self.schemas.len() > SCHEMAS_LEN_MAX {
            let message = format!("{} bindings, more than {SCHEMAS_LEN_MAX}", self.schemas.len());
            return Err(problem("spec.schemas", message));
        }
        for (place, binding) in self.schemas.iter().enumerate() {
            let field = |name: &str| format!("spec.schemas[{place}].{name}");
            if binding.event_type.is_empty() {
                return Err(problem(field("type"), "the type is empty; * stands for all types"));
            }
            let star = binding.event_type.find('*');
            if star.is_some_and(|at| at + 1 != binding.event_type.len()) {
                return Err(problem(field("type"), "* may only be the last character"));
            }
            if self.schemas[..place].iter().any(|other| other.event_type == binding.event_type) {
                let message = format!("the type {:?} is there twice", binding.event_type);
                return Err(problem(field("type"), message));
            }
            binding
                .schema
                .parse::<QualifiedName>()
                .map_err(|error| problem(field("schema"), error.to_string()))?;
            if binding.version == BindingVersion::Number(0) {
                return Err(problem(field("version"), "versions start at 1"));
            }
        }
        Ok(())
    }
}

/// Where the partitions of a stream are; kept by the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamStatus {
    /// One for each partition.
    pub placements: Vec<PlacementStatus>,
}

/// Where one partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementStatus {
    /// Its number within the stream.
    pub partition: u32,
    /// Its identity in the cluster.
    pub uid: u64,
    /// Where its dead letters are, in the same group.
    pub dead: u64,
    /// Where its events wait whose time has not come, in the same group.
    pub delayed: u64,
    /// The group that carries it.
    pub group: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(json: &str) -> Option<String> {
        let spec: StreamSpec = serde_json::from_str(json).unwrap();
        spec.check().err().and_then(|error| error.field().map(str::to_owned))
    }

    #[test]
    fn defaults_hold_and_survive_the_text() {
        let spec: StreamSpec = serde_json::from_str("{}").unwrap();

        assert_eq!(spec, StreamSpec::default());
        assert!(spec.check().is_ok());
        // What does not have it reads as it did before there was one.
        assert!(!serde_json::to_string(&spec).unwrap().contains("subject_index"));
        let indexed: StreamSpec = serde_json::from_str(r#"{"subject_index":true}"#).unwrap();
        let again = serde_json::to_string(&indexed).unwrap();
        assert!(indexed.subject_index && again.contains(r#""subject_index":true"#), "{again}");
        let text = r#"{"type":"a","schema":"s","version":"latest","mode":"enforce"}"#;
        let binding: BindingSpec = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&binding).unwrap(), text);
        let text = text.replace("\"latest\"", "3");
        let binding: BindingSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(binding.version, BindingVersion::Number(3));
        assert_eq!(serde_json::to_string(&binding).unwrap(), text);
        assert!(serde_json::from_str::<StreamSpec>(r#"{"partitons":2}"#).is_err());
    }

    #[test]
    fn a_wrong_version_says_what_is_right() {
        for version in ["\"newest\"", "-1", "1.5", "4294967296", "null"] {
            let text = format!(r#"{{"type":"a","schema":"s","version":{version}}}"#);
            let refused = serde_json::from_str::<BindingSpec>(&text).unwrap_err().to_string();
            assert!(refused.contains("the number of a version, or latest"), "{refused}");
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        let cases = [
            (r#"{"partitions":0}"#, "spec.partitions"),
            (r#"{"partitions":257}"#, "spec.partitions"),
            (r#"{"event_bytes_max":1000001}"#, "spec.event_bytes_max"),
            (r#"{"retention":{"max_bytes":0}}"#, "spec.retention.max_bytes"),
            (r#"{"retention":{"max_age":"0s"}}"#, "spec.retention.max_age"),
            (r#"{"schemas":[{"type":"","schema":"s"}]}"#, "spec.schemas[0].type"),
            (r#"{"schemas":[{"type":"a*b","schema":"s"}]}"#, "spec.schemas[0].type"),
            (r#"{"schemas":[{"type":"a","schema":"S"}]}"#, "spec.schemas[0].schema"),
            (r#"{"schemas":[{"type":"a","schema":"s","version":0}]}"#, "spec.schemas[0].version"),
            (
                r#"{"schemas":[{"type":"a","schema":"s"},{"type":"a","schema":"t"}]}"#,
                "spec.schemas[1].type",
            ),
        ];
        for (json, field) in cases {
            assert_eq!(field_of(json).as_deref(), Some(field), "{json}");
        }
    }
}
