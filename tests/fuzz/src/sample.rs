//! Things to start from: events and the like, always the same ones.

use prost::Message as _;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};

/// An event with attributes of all types.
pub fn event() -> CloudEvent {
    let time = prost_types::Timestamp { seconds: 1_767_000_000, nanos: 5_000_000 };
    let attributes = [
        ("subject", Attr::CeString("cart/7".to_owned())),
        ("time", Attr::CeTimestamp(time)),
        ("datacontenttype", Attr::CeString("application/json".to_owned())),
        ("dataschema", Attr::CeUri("https://example.com/cart".to_owned())),
        ("partitionkey", Attr::CeString("7".to_owned())),
        ("ref", Attr::CeUriRef("/a".to_owned())),
        ("flag", Attr::CeBoolean(true)),
        ("count", Attr::CeInteger(-7)),
        ("blob", Attr::CeBytes(vec![1, 2, 3].into())),
    ];
    let attribute = |(name, attr): (&str, Attr)| {
        (name.to_owned(), CloudEventAttributeValue { attr: Some(attr) })
    };
    CloudEvent {
        id: "1".to_owned(),
        source: "/shop".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "com.example.cart.paid".to_owned(),
        attributes: attributes.into_iter().map(attribute).collect(),
        data: Some(Data::TextData(r#"{"total":3,"items":[1.5,"a",null,true]}"#.to_owned())),
    }
}

/// The same with other data, or with less around it.
pub fn events() -> Vec<CloudEvent> {
    let any = prost_types::Any { type_url: "type.example/a".to_owned(), value: vec![8, 1] };
    let plain = CloudEvent { attributes: Default::default(), ..event() };
    vec![
        event(),
        CloudEvent { data: None, ..plain.clone() },
        CloudEvent { data: Some(Data::BinaryData(vec![0, 0xff, 7].into())), ..plain.clone() },
        CloudEvent { data: Some(Data::ProtoData(any)), ..plain.clone() },
        CloudEvent { data: Some(Data::TextData("plain".to_owned())), ..plain },
    ]
}

/// All of them, encoded.
///
/// Attributes are a map without an order; one after another, they are encoded in that of names.
pub fn encoded() -> Vec<Vec<u8>> {
    events().iter().map(encode).collect()
}

/// Encodes an event, always to the same bytes.
pub fn encode(event: &CloudEvent) -> Vec<u8> {
    let mut names: Vec<_> = event.attributes.keys().cloned().collect();
    names.sort_unstable();
    let mut bytes = CloudEvent { attributes: Default::default(), ..event.clone() }.encode_to_vec();
    for name in names {
        let value = event.attributes[&name].clone();
        let one = CloudEvent { attributes: [(name, value)].into(), ..CloudEvent::default() };
        bytes.extend(one.encode_to_vec());
    }
    bytes
}

/// The payload, as it must survive every form: JSON may lose its line breaks, and text that is said to
/// be JSON and is not may become a JSON string.
pub fn same_data(one: Option<&Data>, other: Option<&Data>) -> bool {
    let bytes = |data: &Data| match data {
        Data::BinaryData(bytes) => bytes.to_vec(),
        Data::TextData(text) => text.clone().into_bytes(),
        Data::ProtoData(any) => any.encode_to_vec(),
    };
    let flat = |bytes: &[u8]| {
        let space = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
        bytes.trim_ascii().iter().map(space).collect::<Vec<u8>>()
    };
    let (Some(one), Some(other)) = (one.map(bytes), other.map(bytes)) else {
        return one.is_none() && other.is_none();
    };
    let quoted = serde_json::from_slice::<String>(&other);
    flat(&one) == flat(&other) || quoted.is_ok_and(|text| text.into_bytes() == one)
}
