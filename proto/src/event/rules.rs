//! The rules every event keeps, checked once at the door.
//!
//! Source: CloudEvents 1.0.2, sections "Context Attributes" and "Type System".

use super::value::Value;
use super::view::{Attribute, EventView};
use crate::{Error, Reason, Result};

/// Longest name by which an attribute can be asked for.
const ATTRIBUTE_NAME_LEN_MAX: usize = 64;
/// Largest encoded event, in bytes. The specification demands at least 64 KiB.
pub const EVENT_BYTES_MAX: usize = 1_000_000;

/// Checks an encoded event against the rules and returns its parts.
///
/// Attributes that only the broker sets are not looked at and take no room: they are taken out before
/// anything is stored, see [`EventView::without_broker_attributes`].
///
/// # Errors
///
/// `Invalid`, naming the attribute in the error's field.
pub fn check(bytes: &[u8], bytes_max: usize) -> Result<EventView<'_>> {
    let view = EventView::parse(bytes);
    let len = view.as_ref().map_or(bytes.len(), EventView::own_len);
    if len > bytes_max {
        let message = format!("the event has {len} bytes, more than the {bytes_max} allowed");
        return Err(Error::new(Reason::TooLarge, message));
    }
    let Some(view) = view else {
        return Err(malformed("", "the bytes are no io.cloudevents.v1.CloudEvent message"));
    };
    if view.spec_version != "1.0" {
        let message = match view.spec_version {
            "" => "the attribute specversion is missing or empty".to_owned(),
            other => format!("specversion is {other:?}; this broker takes \"1.0\""),
        };
        return Err(malformed("specversion", message));
    }
    for (name, text) in [("id", view.id), ("source", view.source), ("type", view.ty)] {
        if text.is_empty() {
            return Err(malformed(name, format!("the attribute {name} is missing or empty")));
        }
        check_text(name, text)?;
    }
    for attribute in view.attributes().filter(|attribute| !attribute.is_brokers()) {
        check_attribute(&attribute)?;
    }
    Ok(view)
}

/// Whether an attribute may be called so.
pub fn is_attribute_name(name: &str) -> bool {
    has_name_characters(name) && name.len() <= ATTRIBUTE_NAME_LEN_MAX && name != "data"
}

fn has_name_characters(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.bytes().all(allowed)
}

fn check_attribute(attribute: &Attribute<'_>) -> Result<()> {
    let name = attribute.name;
    if !has_name_characters(name) {
        let message = format!("attribute name {name:?} has characters outside a-z and 0-9");
        return Err(malformed(name, message));
    }
    if matches!(name, "data" | "id" | "source" | "type" | "specversion") {
        let message = format!("{name} must not be given as an optional attribute");
        return Err(malformed(name, message));
    }
    match attribute.value {
        // It has a type of its own, which other encodings cannot do without.
        Value::String(text) if name == "time" => super::json::time(text).map(drop),
        Value::Uri(_)
        | Value::UriRef(_)
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::Bytes(_)
            if name == "time" =>
        {
            Err(malformed(name, "the attribute time is no timestamp"))
        }
        Value::Unset => Err(malformed(name, format!("the attribute {name} has no value"))),
        Value::String("") if matches!(name, "subject" | "datacontenttype" | "partitionkey") => {
            Err(malformed(name, format!("the attribute {name} is empty")))
        }
        Value::String(text) | Value::Uri(text) | Value::UriRef(text) => check_text(name, text),
        Value::Timestamp { seconds, nanos } => {
            let instant = jiff::Timestamp::new(seconds, nanos).ok().filter(|_| nanos >= 0);
            instant.map(drop).ok_or_else(|| {
                malformed(name, format!("the attribute {name} is no instant before year 10000"))
            })
        }
        Value::Boolean(_) | Value::Integer(_) | Value::Bytes(_) => Ok(()),
    }
}

/// Strings hold no control characters and no non-characters.
fn check_text(name: &str, text: &str) -> Result<()> {
    let wrong = |c: char| c.is_control() || (u32::from(c) & 0xfffe) == 0xfffe;
    // Plain ASCII without control characters is by far the most common case.
    let plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if plain || !text.contains(wrong) {
        return Ok(());
    }
    Err(malformed(name, format!("the attribute {name} has a control character")))
}

fn malformed(field: &str, message: impl Into<String>) -> Error {
    let error = Error::new(Reason::MalformedEvent, message);
    if field.is_empty() { error } else { error.with_field(field) }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::cloudevents::CloudEvent;
    use crate::cloudevents::cloud_event::CloudEventAttributeValue;
    use crate::cloudevents::cloud_event::cloud_event_attribute_value::Attr;

    fn good() -> CloudEvent {
        CloudEvent {
            id: "1".to_owned(),
            source: "/s".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "t".to_owned(),
            ..CloudEvent::default()
        }
    }

    fn field_of(event: &CloudEvent) -> Option<String> {
        let bytes = event.encode_to_vec();
        check(&bytes, EVENT_BYTES_MAX).err().map(|error| error.field().unwrap_or("").to_owned())
    }

    #[test]
    fn each_required_attribute_is_demanded() {
        assert_eq!(field_of(&good()), None);
        let cases = [
            ("id", CloudEvent { id: String::new(), ..good() }),
            ("source", CloudEvent { source: String::new(), ..good() }),
            ("specversion", CloudEvent { spec_version: String::new(), ..good() }),
            ("specversion", CloudEvent { spec_version: "0.3".to_owned(), ..good() }),
            ("type", CloudEvent { r#type: String::new(), ..good() }),
            ("id", CloudEvent { id: "a\u{7}".to_owned(), ..good() }),
        ];
        for (field, event) in cases {
            assert_eq!(field_of(&event).as_deref(), Some(field));
        }
    }

    #[test]
    fn attribute_names_and_values_keep_the_rules() {
        let string = |text: &str| Some(Attr::CeString(text.to_owned()));
        let late = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        let cases = [
            ("Upper", string("x")),
            ("under_score", string("x")),
            ("data", string("x")),
            ("subject", string("")),
            ("ext", None),
            ("ext", string("line\nbreak")),
            ("time", Some(Attr::CeTimestamp(late))),
            ("time", string("noon")),
            ("time", Some(Attr::CeBytes(vec![1].into()))),
            ("time", Some(Attr::CeBoolean(true))),
        ];
        for (name, attr) in cases {
            let mut event = good();
            event.attributes.insert(name.to_owned(), CloudEventAttributeValue { attr });
            assert_eq!(field_of(&event).as_deref(), Some(name));
        }
        let mut event = good();
        let attr = string("2026-03-01T12:00:00+01:00");
        event.attributes.insert("time".to_owned(), CloudEventAttributeValue { attr });
        assert_eq!(field_of(&event), None);
    }

    #[test]
    fn attributes_of_the_broker_are_not_looked_at_and_take_no_room() {
        let plain = good();
        let mut marked = plain.clone();
        let value = Some(Attr::CeString("line\nbreak".to_owned()));
        marked.attributes.insert("weftreason".to_owned(), CloudEventAttributeValue { attr: value });
        let (plain, marked) = (plain.encode_to_vec(), marked.encode_to_vec());

        assert!(check(&marked, plain.len()).is_ok());
        let error = check(&marked, plain.len() - 1).unwrap_err();
        assert_eq!(error.reason(), Reason::TooLarge);
    }

    #[test]
    fn oversize_and_garbage_are_refused() {
        let event = good().encode_to_vec();

        let error = check(&event, 5).unwrap_err();
        assert_eq!(error.reason(), Reason::TooLarge);
        let error = check(&[0xff; 10], EVENT_BYTES_MAX).unwrap_err();
        assert_eq!(error.reason(), Reason::MalformedEvent);
    }
}
