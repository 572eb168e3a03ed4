//! Whether two encoded events say the same.
//!
//! Source of the rule: CloudEvents 1.0.2, "source" with "id": a repeat of both is a duplicate. A
//! gateway may encode a repeat anew, so bytes alone do not decide.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::view::{Data, EventView};

/// Attributes that a hop may add or change without making another event of it.
const OF_THE_WAY: &[&str] = &["traceparent", "tracestate"];

/// Whether two events with the same source and id say the same: the same attributes by value and
/// the same payload, JSON by value. Trace context does not count.
pub fn is_same(one: &EventView<'_>, other: &EventView<'_>) -> bool {
    if one.bytes() == other.bytes() {
        return true;
    }
    (one.source, one.id, one.ty, one.spec_version)
        == (other.source, other.id, other.ty, other.spec_version)
        && attributes(one) == attributes(other)
        && is_same_data(one, other)
}

fn attributes<'a>(event: &EventView<'a>) -> BTreeMap<&'a str, Cow<'a, str>> {
    let kept = event.attributes().filter(|attribute| !OF_THE_WAY.contains(&attribute.name));
    kept.map(|attribute| (attribute.name, attribute.value.to_text())).collect()
}

fn is_same_data(one: &EventView<'_>, other: &EventView<'_>) -> bool {
    match (one.data_bytes(), other.data_bytes()) {
        (None, None) => true,
        (Some(bytes), Some(others)) if is_proto(one) == is_proto(other) => {
            bytes == others || (is_json(one) && is_same_json(bytes, others))
        }
        _ => false,
    }
}

fn is_proto(event: &EventView<'_>) -> bool {
    matches!(event.data, Data::Proto(_))
}

/// By media type; both events have the same one, for it is an attribute.
fn is_json(event: &EventView<'_>) -> bool {
    let media = event.data_content_type().unwrap_or(Cow::Borrowed("application/json"));
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.ends_with("/json") || media.ends_with("+json")
}

fn is_same_json(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (serde_json::from_slice::<Json>(one), serde_json::from_slice::<Json>(other));
    one.is_ok_and(|one| other.is_ok_and(|other| one == other))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::cloudevents::CloudEvent;
    use crate::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
    use crate::cloudevents::cloud_event::{CloudEventAttributeValue, Data as Payload};

    fn event(attributes: &[(&str, Attr)], data: impl Into<Option<Payload>>) -> Vec<u8> {
        let attribute = |(name, attr): &(&str, Attr)| {
            ((*name).to_owned(), CloudEventAttributeValue { attr: Some(attr.clone()) })
        };
        CloudEvent {
            id: "1".to_owned(),
            source: "/s".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "t".to_owned(),
            attributes: attributes.iter().map(attribute).collect(),
            data: data.into(),
        }
        .encode_to_vec()
    }

    fn same(one: &[u8], other: &[u8]) -> bool {
        is_same(&EventView::parse(one).unwrap(), &EventView::parse(other).unwrap())
    }

    fn text(text: &str) -> Attr {
        Attr::CeString(text.to_owned())
    }

    fn json(text: &str) -> Payload {
        Payload::TextData(text.to_owned())
    }

    #[test]
    fn what_a_gateway_may_change_is_the_same() {
        let typed =
            event(&[("n", Attr::CeInteger(5)), ("traceparent", text("a"))], json("{\"a\":1}"));
        let from_header = event(
            &[("traceparent", text("b")), ("n", text("5"))],
            Payload::BinaryData(b"{ \"a\": 1 }".to_vec().into()),
        );
        assert!(same(&typed, &from_header));
    }

    #[test]
    fn other_content_is_another_event() {
        let base = event(&[("n", text("5"))], json("{\"a\":1}"));
        let others = [
            event(&[("n", text("6"))], json("{\"a\":1}")),
            event(&[], json("{\"a\":1}")),
            event(&[("n", text("5"))], json("{\"a\":2}")),
            event(&[("n", text("5"))], None),
            event(&[("n", text("5"))], Payload::ProtoData(prost_types::Any::default())),
        ];
        for other in &others {
            assert!(!same(&base, other));
        }
        // Bytes that are no JSON are compared as they are.
        let plain = |data: &str| event(&[("datacontenttype", text("text/plain"))], json(data));
        assert!(same(&plain("1"), &plain("1")));
        assert!(!same(&plain("1"), &plain("1.0")));
    }
}
