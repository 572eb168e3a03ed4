//! Conversions to and from the `cloudevents-sdk` event.

use super::value::Value;
use super::view::Data;
use crate::cloudevents::CloudEvent;
use crate::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use crate::cloudevents::cloud_event::{CloudEventAttributeValue, Data as Payload};
use crate::{Error, Reason, Result};
use cloudevents::event::{AttributeValue, ExtensionValue};
use cloudevents::{AttributesReader as _, AttributesWriter as _, Event, EventBuilder as _};
use cloudevents::{Data as SdkData, EventBuilderV10};

/// An SDK event as the protobuf message.
///
/// # Errors
///
/// `Invalid` for an integer extension beyond 32 bits and for events of version 0.3.
pub fn from_sdk(event: &Event) -> Result<CloudEvent> {
    let mut message = CloudEvent {
        id: event.id().to_owned(),
        source: event.source().clone(),
        spec_version: event.specversion().to_string(),
        r#type: event.ty().to_owned(),
        ..CloudEvent::default()
    };
    for (name, value) in event.iter() {
        if matches!(name, "id" | "source" | "type" | "specversion") {
            continue;
        }
        let attr = match value {
            AttributeValue::Boolean(&value) => Attr::CeBoolean(value),
            AttributeValue::Integer(&value) => {
                Attr::CeInteger(i32::try_from(value).map_err(|source| {
                    let message = format!("the attribute {name} is no 32-bit integer: {value}");
                    malformed(message).with_field(name).with_source(source)
                })?)
            }
            AttributeValue::String(value) => Attr::CeString(value.to_owned()),
            AttributeValue::Binary(value) => Attr::CeBytes(value.to_vec().into()),
            AttributeValue::URI(value) => Attr::CeUri(value.to_string()),
            AttributeValue::URIRef(value) => Attr::CeUriRef(value.clone()),
            AttributeValue::Time(value) => Attr::CeTimestamp(prost_types::Timestamp {
                seconds: value.timestamp(),
                nanos: i32::try_from(value.timestamp_subsec_nanos()).unwrap_or(0),
            }),
            AttributeValue::SpecVersion(_) => continue,
        };
        message.attributes.insert(name.to_owned(), CloudEventAttributeValue { attr: Some(attr) });
    }
    message.data = event.data().map(|data| match data {
        SdkData::Binary(bytes) => Payload::BinaryData(bytes.clone().into()),
        SdkData::String(text) => Payload::TextData(text.clone()),
        SdkData::Json(value) => Payload::TextData(value.to_string()),
    });
    Ok(message)
}

/// An encoded event as the SDK's type.
///
/// The SDK has no binary, URI or timestamp extensions: such values become their canonical text.
///
/// # Errors
///
/// `Invalid` when the bytes are no event or the SDK refuses an attribute.
pub fn to_sdk(bytes: &[u8]) -> Result<Event> {
    let view = super::check(bytes, usize::MAX)?;
    let mut builder = EventBuilderV10::new().id(view.id).source(view.source).ty(view.ty);
    for attribute in view.attributes() {
        let text = attribute.value.to_text().into_owned();
        builder = match (attribute.name, attribute.value) {
            ("subject", _) => builder.subject(text),
            ("time", _) => builder.time(text),
            ("datacontenttype" | "dataschema", _) => builder,
            (name, Value::Boolean(value)) => builder.extension(name, value),
            (name, Value::Integer(value)) => builder.extension(name, i64::from(value)),
            (name, _) => builder.extension(name, ExtensionValue::String(text)),
        };
    }
    let mut event = builder.build().map_err(|source| {
        malformed("the SDK does not take the event").with_source(source.to_string())
    })?;
    let content_type = view.data_content_type().map(std::borrow::Cow::into_owned);
    let data = match view.data {
        Data::None => None,
        Data::Text(text) => Some(SdkData::String(text.to_owned())),
        Data::Binary(bytes) | Data::Proto(bytes) => Some(SdkData::Binary(bytes.to_vec())),
    };
    let schema = view.attribute("dataschema").and_then(|text| url::Url::parse(&text).ok());
    event.set_datacontenttype(content_type);
    event.set_dataschema(schema);
    event.set_data_unchecked_opt(data);
    Ok(event)
}

/// The SDK sets data and content type together; here the type was set before.
trait SetData {
    fn set_data_unchecked_opt(&mut self, data: Option<SdkData>);
}

impl SetData for Event {
    fn set_data_unchecked_opt(&mut self, data: Option<SdkData>) {
        if let Some(data) = data {
            self.set_data_unchecked(data);
        }
    }
}

/// An SDK event, encoded.
impl TryFrom<&Event> for CloudEvent {
    type Error = Error;

    fn try_from(event: &Event) -> Result<Self> {
        from_sdk(event)
    }
}

fn malformed(message: impl Into<String>) -> Error {
    Error::new(Reason::MalformedEvent, message)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn an_event_survives_both_ways() {
        let event = EventBuilderV10::new()
            .id("1")
            .source("/shop")
            .ty("com.example.order.placed")
            .subject("order-1")
            .time("2026-01-02T03:04:05Z")
            .extension("flag", true)
            .extension("count", 7_i64)
            .extension("partitionkey", "k")
            .data("application/json", "{\"a\":1}".to_owned())
            .build()
            .unwrap();

        let bytes = from_sdk(&event).unwrap().encode_to_vec();

        assert_eq!(to_sdk(&bytes).unwrap(), event);
    }

    #[test]
    fn an_integer_beyond_32_bits_is_refused() {
        let event = EventBuilderV10::new().id("1").source("/s").ty("t");
        let event = event.extension("n", i64::MAX).build().unwrap();

        assert_eq!(from_sdk(&event).unwrap_err().field(), Some("n"));
    }
}
