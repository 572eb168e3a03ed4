//! The events of the workload: each tells which it is, and all its bytes follow from that.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use prost::Message as _;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use weft_proto::event::EventView;

use crate::check::history::{Process, Seen, Sent, Value};

/// Keys of one publisher; they spread over the partitions.
const KEYS: u64 = 32;
/// Replay jobs are called so, and a number from 1.
pub(crate) const JOB_PREFIX: &str = "again-";
/// What cannot be read as an event of ours.
pub(crate) const STRANGE: Value = Value::MAX;

/// The events of one process, numbered.
#[derive(Debug)]
pub(crate) struct Events {
    process: Process,
    next: u64,
}

impl Events {
    pub(crate) fn new(process: Process) -> Self {
        Self { process, next: 0 }
    }

    pub(crate) fn next(&mut self) -> (Sent, Bytes) {
        let value = (u64::from(self.process) << 32) | self.next;
        self.next += 1;
        let event = encode(value);
        (Sent { value, digest: digest(&event) }, event)
    }
}

fn encode(value: Value) -> Bytes {
    let subject = Attr::CeString(format!("key-{}", value % KEYS));
    let attribute = CloudEventAttributeValue { attr: Some(subject) };
    let repeats = 20 + usize::try_from(value % 7).unwrap_or_default() * 10;
    let event = CloudEvent {
        id: format!("{value:x}"),
        source: format!("/faults/{}", value >> 32),
        spec_version: "1.0".to_owned(),
        r#type: "com.example.faults".to_owned(),
        attributes: [("subject".to_owned(), attribute)].into(),
        data: Some(Data::TextData(format!("{value:x} ").repeat(repeats))),
    };
    event.encode_to_vec().into()
}

/// Tells events apart that are not the same, byte for byte.
fn digest(event: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    hasher.finish()
}

/// What a reader saw.
pub(crate) fn seen(offset: u64, event: &[u8]) -> Seen {
    let id = EventView::parse(event).map(|view| view.id.to_owned());
    let value = id.and_then(|id| Value::from_str_radix(&id, 16).ok()).unwrap_or(STRANGE);
    Seen { offset, value, digest: digest(event) }
}

/// The number of the replay job for which an event comes, and its offset, as the event says.
pub(crate) fn replayed(event: &[u8]) -> Option<(u64, u64)> {
    let view = EventView::parse(event)?;
    let job = view.attribute("weftreplayjob")?;
    let number = job.strip_prefix("default/")?.strip_prefix(JOB_PREFIX)?.parse().ok()?;
    Some((number, view.attribute("weftoffset")?.parse().ok()?))
}

/// Names the ordering key of an event.
pub(crate) fn name(event: &[u8]) -> u64 {
    let view = EventView::parse(event);
    let subject = view.as_ref().and_then(|view| view.attribute("subject"));
    let name = subject.as_deref().and_then(|subject| subject.strip_prefix("key-")?.parse().ok());
    name.unwrap_or(STRANGE)
}
