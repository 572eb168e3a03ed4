//! One event as bytes: `weft_proto::event::check`, which every publish meets first.
//!
//! What it accepts any protobuf library must be able to read, with the same meaning: else one
//! publisher could store what no subscriber can decode.

#![cfg_attr(fuzzing, no_main)]

use prost::Message as _;
use weft_fuzz::sample;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data as Payload};
use weft_proto::event::{self, Data, EVENT_BYTES_MAX, EventView, Value};
use weft_proto::filter::{Candidate, Compiled, Filter};

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

pub fn run(data: &[u8]) -> bool {
    let parsed = EventView::parse(data);
    let Ok(view) = event::check(data, EVENT_BYTES_MAX) else {
        // What is refused only by the rules must still be safe to look at.
        if let Some(view) = parsed {
            view.attributes().for_each(drop);
            _ = event::to_json(&view);
        }
        return false;
    };
    if let Some(own) = view.without_broker_attributes() {
        let names = |view: &EventView<'_>| -> Vec<String> {
            view.attributes().map(|attribute| attribute.name.to_owned()).collect()
        };
        let kept = event::check(&own, EVENT_BYTES_MAX).expect("the rest is an event");
        let mut wanted = names(&view);
        wanted.retain(|name| !name.starts_with("weft"));
        assert_eq!(names(&kept), wanted);
        assert_eq!(kept.bytes().len(), view.own_len());
        assert!(own.len() < data.len());
        return run(&own);
    }
    let message = CloudEvent::decode(data).expect("what is accepted can be decoded");
    agrees(&view, &message);
    assert!(event::is_same(&view, &view));
    for partitions in [0, 1, 3, u32::MAX] {
        let place = event::partition_of(&view, partitions).get();
        assert!(place < partitions.max(1));
    }
    let key = event::ordering_key(&view);
    if let Some(key) = &key {
        assert_eq!(event::partition_of(&view, 7), event::partition_of_key(key, 7));
    }
    let own = Filter::Exact([("id".to_owned(), view.id.to_owned())].into());
    let passes =
        |filter| Compiled::new(&[filter]).expect("it is good").passes(&Candidate::new(view));
    assert!(passes(own.clone()));
    assert!(!passes(Filter::Not(Box::new(own))));
    assert!(event::check(data, data.len().saturating_sub(1)).is_err());

    let text = event::to_json(&view);
    let again = event::from_json(text.as_bytes()).expect("what we write in JSON we read");
    assert_eq!(
        (&again.id, &again.source, &again.r#type),
        (&message.id, &message.source, &message.r#type)
    );
    if !matches!(message.data, Some(Payload::ProtoData(_))) {
        assert!(sample::same_data(message.data.as_ref(), again.data.as_ref()), "{text}");
    }
    if let Ok(sdk) = event::to_sdk(data) {
        let back = event::from_sdk(&sdk).expect("the SDK gives back what it took");
        assert_eq!(
            (back.id, back.source, back.r#type),
            (message.id, message.source, message.r#type)
        );
    }
    true
}

/// Both readers see the same event.
fn agrees(view: &EventView<'_>, message: &CloudEvent) {
    assert_eq!(
        (view.id, view.source, view.ty, view.spec_version),
        (&*message.id, &*message.source, &*message.r#type, &*message.spec_version)
    );
    match (&view.data, &message.data) {
        (Data::None, None) => {}
        (Data::Binary(view), Some(Payload::BinaryData(message))) => assert_eq!(view, message),
        (Data::Text(view), Some(Payload::TextData(message))) => assert_eq!(view, message),
        (Data::Proto(_), Some(Payload::ProtoData(_))) => {}
        (view, message) => panic!("{view:?} is read as {message:?}"),
    }
    let mut names: Vec<&str> = view.attributes().map(|attribute| attribute.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), message.attributes.len());
    for (name, value) in &message.attributes {
        let attr = value.attr.as_ref().expect("an attribute without a value is refused");
        let read = match attr {
            Attr::CeBoolean(value) => Value::Boolean(*value),
            Attr::CeInteger(value) => Value::Integer(*value),
            Attr::CeString(text) => Value::String(text),
            Attr::CeBytes(bytes) => Value::Bytes(bytes),
            Attr::CeUri(text) => Value::Uri(text),
            Attr::CeUriRef(text) => Value::UriRef(text),
            Attr::CeTimestamp(time) => {
                Value::Timestamp { seconds: time.seconds, nanos: time.nanos }
            }
        };
        let last = view.attributes().filter(|attribute| attribute.name == name).last();
        assert_eq!(last.map(|attribute| attribute.value), Some(read), "{name}");
        assert_eq!(view.attribute(name), Some(read.to_text()), "{name}");
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = sample::encoded();
    let mut marked = sample::event();
    let offset = CloudEventAttributeValue { attr: Some(Attr::CeInteger(7)) };
    marked.attributes.insert("weftoffset".to_owned(), offset);
    seeds.push(sample::encode(&marked));
    seeds.push(b"no event".to_vec());
    seeds
}
