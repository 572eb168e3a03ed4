//! The chain of audit events: each has the hash of the one before it among its attributes, so that
//! none can be changed, left out or put in between without breaking the next.
//!
//! Pure. The hash is SHA-256 over the encoded event as it is stored and read, byte for byte.

use prost::Message as _;
use ring::digest;
use weft_proto::Timestamp;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};

use super::Record;

/// The attribute with the hash of the event before, in hexadecimal.
pub const PREVIOUS: &str = "auditprev";
/// What the first event of a chain has there.
pub const FIRST: Link = Link([0; 32]);
const TYPE_PREFIX: &str = "io.weft.audit.";

/// The hash of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link([u8; 32]);

impl Link {
    /// The hash of an encoded event.
    pub fn of(event: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, event).as_ref());
        Self(hash)
    }
}

/// Reads 64 hexadecimal digits.
impl std::str::FromStr for Link {
    type Err = BadLink;

    fn from_str(text: &str) -> Result<Self, BadLink> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadLink);
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_not_ascii| BadLink)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_not_hex| BadLink)?;
        }
        Ok(Self(hash))
    }
}

/// A text that is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash has 64 hexadecimal digits")]
pub struct BadLink;

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Who writes.
#[derive(Clone, Debug)]
pub struct Writer {
    /// `source` of its events.
    pub source: String,
    /// Different with each start, so that ids are never used again.
    pub run: String,
    /// Number of the next event.
    pub next: u64,
}

impl Writer {
    /// The id of the next event, which keeps it however often it is tried to be stored.
    pub fn id(&mut self) -> String {
        self.next += 1;
        format!("{}-{}", self.run, self.next)
    }
}

/// Writes a record as the event after another.
pub fn event(source: &str, id: &str, record: &Record, previous: Link) -> Vec<u8> {
    let data = serde_json::json!({
        "principal": record.principal,
        "outcome": record.outcome.as_str(),
        "verb": record.verb,
        "resource": record.resource,
        "reason": record.reason,
        "remote": record.remote.map(|remote| remote.to_string()).unwrap_or_default(),
        "count": record.count,
    });
    let text = |text: String| CloudEventAttributeValue { attr: Some(Attr::CeString(text)) };
    let time =
        |time: Timestamp| CloudEventAttributeValue { attr: Some(Attr::CeTimestamp(time.into())) };
    // One event is written in one order: its hash depends on it.
    let attributes = [
        (PREVIOUS, text(previous.to_string())),
        ("datacontenttype", text("application/json".to_owned())),
        ("time", time(record.time)),
    ];
    let mut bytes = CloudEvent {
        id: id.to_owned(),
        source: source.to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: format!("{TYPE_PREFIX}{}", record.act),
        data: Some(Data::TextData(data.to_string())),
        ..CloudEvent::default()
    }
    .encode_to_vec();
    for (name, value) in attributes {
        let one =
            CloudEvent { attributes: [(name.to_owned(), value)].into(), ..CloudEvent::default() };
        // Fields of a message may come in pieces; a map takes them all.
        bytes.extend(one.encode_to_vec());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use weft_proto::event::{self as rules, EventView};
    use weft_proto::{Principal, resource};

    use super::super::Outcome;
    use super::*;

    #[test]
    fn an_event_is_a_good_one_and_names_the_one_before() {
        let who = Principal::new("key:shop/a");
        let record = Record::new("put", &who, Outcome::Allowed).on("put", "Stream shop/orders");
        let first = event("/weft/c/nodes/1", "r-1", &record, FIRST);
        let second = event("/weft/c/nodes/1", "r-2", &record, Link::of(&first));

        let view = rules::check(&second, rules::EVENT_BYTES_MAX).unwrap();

        assert_eq!(view.ty, "io.weft.audit.put");
        assert_eq!(view.attribute(PREVIOUS).unwrap(), Link::of(&first).to_string());
        let data = String::from_utf8(view.data_bytes().unwrap().to_vec()).unwrap();
        let data: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!(data["resource"], "Stream shop/orders");
        assert_eq!(data["principal"], "key:shop/a");
        assert!(EventView::parse(&first).unwrap().attribute("time").is_some());
        assert_eq!(event("/weft/c/nodes/1", "r-1", &record, FIRST), first);
        assert!(resource::check_principal(who.name()).is_ok());
    }
}
