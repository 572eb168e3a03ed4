//! Reads an encoded `io.cloudevents.v1.CloudEvent` in place, without allocating.
//!
//! Field numbers: cloudevents/spec `cloudevents/formats/cloudevents.proto`.

use std::borrow::Cow;

use super::value::Value;

/// The parts of one encoded event, borrowed from its bytes.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    /// Attribute `id`; empty when missing.
    pub id: &'a str,
    /// Attribute `source`; empty when missing.
    pub source: &'a str,
    /// Attribute `specversion`; empty when missing.
    pub spec_version: &'a str,
    /// Attribute `type`; empty when missing.
    pub ty: &'a str,
    /// The payload.
    pub data: Data<'a>,
    bytes: &'a [u8],
    /// Of which so many are attributes that only the broker sets.
    broker_bytes: usize,
}

/// The payload of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// The event has no payload.
    None,
    /// Bytes.
    Binary(&'a [u8]),
    /// Text.
    Text(&'a str),
    /// A `google.protobuf.Any`, encoded.
    Proto(&'a [u8]),
}

/// An optional or extension attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attribute<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: Value<'a>,
}

impl Attribute<'_> {
    /// Whether only the broker sets it. Whoever publishes an event that they read may send it back;
    /// it does not count, and is not stored.
    pub fn is_brokers(&self) -> bool {
        self.name.starts_with("weft")
    }
}

impl<'a> EventView<'a> {
    /// Finds the parts of an encoded event; `None` when it is not one.
    ///
    /// Reads the whole message, attributes included, so that later accessors cannot fail. Unknown
    /// fields are skipped, as protobuf demands.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut view = Self {
            id: "",
            source: "",
            spec_version: "",
            ty: "",
            data: Data::None,
            bytes,
            broker_bytes: 0,
        };
        let mut reader = Reader(bytes);
        loop {
            let left = reader.0.len();
            let Some(field) = reader.next_field()? else { return Some(view) };
            match field {
                Field::Bytes(1, value) => view.id = text(value)?,
                Field::Bytes(2, value) => view.source = text(value)?,
                Field::Bytes(3, value) => view.spec_version = text(value)?,
                Field::Bytes(4, value) => view.ty = text(value)?,
                Field::Bytes(5, entry) => {
                    let is_brokers = attribute(entry)?.is_brokers();
                    view.broker_bytes += if is_brokers { left - reader.0.len() } else { 0 };
                }
                Field::Bytes(6, value) => view.data = Data::Binary(value),
                Field::Bytes(7, value) => view.data = Data::Text(text(value)?),
                // Two would have to be merged; nobody writes that.
                Field::Bytes(8, _) if matches!(view.data, Data::Proto(_)) => return None,
                Field::Bytes(8, value) => {
                    check_any(value)?;
                    view.data = Data::Proto(value);
                }
                // A known field of another wire type is damage, not an extension.
                Field::Number(1..=8, _) | Field::Fixed(1..=8) => return None,
                _ => {}
            }
        }
    }

    /// The encoded event.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How long the encoded event is without the attributes that only the broker sets.
    pub fn own_len(&self) -> usize {
        self.bytes.len() - self.broker_bytes
    }

    /// The encoded event without the attributes that only the broker sets; all other bytes stay as
    /// they are. `None` when it has none of these, which costs nothing to find out.
    pub fn without_broker_attributes(&self) -> Option<Vec<u8>> {
        if self.broker_bytes == 0 {
            return None;
        }
        let mut kept = Vec::with_capacity(self.own_len());
        let mut reader = Reader(self.bytes);
        loop {
            let rest = reader.0;
            let Some(field) = reader.next_field().flatten() else { return Some(kept) };
            let is_brokers = match field {
                Field::Bytes(5, entry) => attribute(entry).is_some_and(|one| one.is_brokers()),
                _ => false,
            };
            if !is_brokers {
                kept.extend_from_slice(rest.split_at(rest.len() - reader.0.len()).0);
            }
        }
    }

    /// Optional and extension attributes, in the order of the encoding.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        self.entries().map_while(attribute)
    }

    /// The encoded attributes.
    fn entries(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader(self.bytes);
        std::iter::from_fn(move || {
            loop {
                if let Field::Bytes(5, entry) = reader.next_field()?? {
                    return Some(entry);
                }
            }
        })
    }

    /// The value of an attribute by its CloudEvents name, as canonical text.
    pub fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        self.value(name).map(Value::to_text)
    }

    /// The value of an attribute by its CloudEvents name.
    pub fn value(&self, name: &str) -> Option<Value<'a>> {
        let required = match name {
            "id" => self.id,
            "source" => self.source,
            "specversion" => self.spec_version,
            "type" => self.ty,
            // The last one wins, as in any protobuf map.
            _ => {
                return self.entries().filter(|entry| !is_of_another(entry, name)).fold(
                    None,
                    |found, entry| match attribute(entry) {
                        Some(attribute) if attribute.name == name => Some(attribute.value),
                        _ => found,
                    },
                );
            }
        };
        (!required.is_empty()).then_some(Value::String(required))
    }

    /// The attribute `datacontenttype`.
    pub fn data_content_type(&self) -> Option<Cow<'a, str>> {
        self.attribute("datacontenttype")
    }

    /// The payload as bytes.
    pub fn data_bytes(&self) -> Option<&'a [u8]> {
        match self.data {
            Data::None => None,
            Data::Binary(bytes) | Data::Proto(bytes) => Some(bytes),
            Data::Text(text) => Some(text.as_bytes()),
        }
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Checks a `google.protobuf.Any`: whoever decodes the event decodes it, too.
fn check_any(bytes: &[u8]) -> Option<()> {
    let mut reader = Reader(bytes);
    while let Some(field) = reader.next_field()? {
        match field {
            Field::Bytes(1, url) => {
                text(url)?;
            }
            Field::Number(1 | 2, _) | Field::Fixed(1 | 2) => return None,
            _ => {}
        }
    }
    Some(())
}

/// Whether an attribute has another name, as far as that is seen at once: it is a name and a value.
/// Filters ask for one of many, and decoding the others takes most of their time.
#[inline]
fn is_of_another(entry: &[u8], name: &str) -> bool {
    let mut reader = Reader(entry);
    let Some(Some(Field::Bytes(1, found))) = reader.next_field() else { return false };
    found != name.as_bytes()
        && matches!(reader.next_field(), Some(Some(Field::Bytes(2, _))))
        && reader.0.is_empty()
}

fn attribute(entry: &[u8]) -> Option<Attribute<'_>> {
    let mut attribute = Attribute { name: "", value: Value::Unset };
    let mut reader = Reader(entry);
    while let Some(field) = reader.next_field()? {
        match field {
            Field::Bytes(1, name) => attribute.name = text(name)?,
            Field::Bytes(2, value) => attribute.value = self::value(attribute.value, value)?,
            Field::Number(1 | 2, _) | Field::Fixed(1 | 2) => return None,
            _ => {}
        }
    }
    Some(attribute)
}

/// Reads a value over one that was there already: protobuf merges messages that come twice.
fn value<'a>(mut value: Value<'a>, bytes: &'a [u8]) -> Option<Value<'a>> {
    let mut reader = Reader(bytes);
    while let Some(field) = reader.next_field()? {
        value = match field {
            Field::Number(1, number) => Value::Boolean(number != 0),
            // int32 travels as a sign-extended 64-bit varint.
            #[expect(clippy::cast_possible_truncation, reason = "the wire form of int32")]
            Field::Number(2, number) => Value::Integer(number as i32),
            Field::Bytes(3, bytes) => Value::String(text(bytes)?),
            Field::Bytes(4, bytes) => Value::Bytes(bytes),
            Field::Bytes(5, bytes) => Value::Uri(text(bytes)?),
            Field::Bytes(6, bytes) => Value::UriRef(text(bytes)?),
            Field::Bytes(7, bytes) => timestamp(value, bytes)?,
            Field::Number(3..=7, _) | Field::Bytes(1 | 2, _) | Field::Fixed(1..=7) => return None,
            _ => value,
        };
    }
    Some(value)
}

fn timestamp<'a>(value: Value<'a>, bytes: &'a [u8]) -> Option<Value<'a>> {
    let (mut seconds, mut nanos) = match value {
        Value::Timestamp { seconds, nanos } => (seconds, nanos),
        _ => (0, 0),
    };
    let mut reader = Reader(bytes);
    while let Some(field) = reader.next_field()? {
        match field {
            Field::Number(1, number) => seconds = number.cast_signed(),
            #[expect(clippy::cast_possible_truncation, reason = "the wire form of int32")]
            Field::Number(2, number) => nanos = number as i32,
            Field::Bytes(1 | 2, _) | Field::Fixed(1 | 2) => return None,
            _ => {}
        }
    }
    Some(Value::Timestamp { seconds, nanos })
}

/// One field of a message: its number and value.
enum Field<'a> {
    Number(u32, u64),
    Bytes(u32, &'a [u8]),
    Fixed(u32),
}

/// What is left to read of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next field, `Some(None)` at the end, `None` when the bytes are no message.
    #[inline]
    #[expect(clippy::option_option, reason = "end and damage are different answers")]
    fn next_field(&mut self) -> Option<Option<Field<'a>>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let key = u32::try_from(self.varint()?).ok()?;
        let number = Some(key >> 3).filter(|&number| number != 0)?;
        Some(Some(match key & 7 {
            0 => Field::Number(number, self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed(number)
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(number, self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Field::Fixed(number)
            }
            // Groups were never part of proto3.
            _ => return None,
        }))
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            if shift == 63 && byte > 1 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::cloudevents::CloudEvent;
    use crate::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
    use crate::cloudevents::cloud_event::{CloudEventAttributeValue, Data as Payload};

    fn event(attr: Attr, data: Option<Payload>) -> CloudEvent {
        CloudEvent {
            id: "1".to_owned(),
            source: "/source".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "type".to_owned(),
            attributes: [("ext".to_owned(), CloudEventAttributeValue { attr: Some(attr) })].into(),
            data,
        }
    }

    #[test]
    fn all_attribute_types_are_read() {
        let time = prost_types::Timestamp { seconds: 1, nanos: 5_000_000 };
        let cases = [
            (Attr::CeBoolean(true), "true"),
            (Attr::CeInteger(-7), "-7"),
            (Attr::CeString("a".to_owned()), "a"),
            (Attr::CeBytes(vec![1, 2].into()), "AQI="),
            (Attr::CeUri("http://a/b".to_owned()), "http://a/b"),
            (Attr::CeUriRef("/b".to_owned()), "/b"),
            (Attr::CeTimestamp(time), "1970-01-01T00:00:01.005Z"),
        ];
        for (attr, text) in cases {
            let bytes = event(attr, None).encode_to_vec();

            let view = EventView::parse(&bytes).unwrap();

            assert_eq!(view.attribute("ext").as_deref(), Some(text));
            assert_eq!(view.attribute("id").as_deref(), Some("1"));
            assert_eq!(view.attribute("other"), None);
        }
    }

    /// Bytes that another reader of the format refuses must not be stored: nobody could decode them.
    #[test]
    fn what_the_generated_decoder_refuses_is_refused() {
        let whole = event(Attr::CeBoolean(true), None).encode_to_vec();
        let tails: [(&str, &[u8]); 12] = [
            ("an attribute whose name is a number", &[0x2a, 2, 0x08, 1]),
            ("an attribute whose value is a number", &[0x2a, 5, 0x0a, 1, b'a', 0x10, 1]),
            ("a boolean that is text", &[0x2a, 7, 0x0a, 1, b'a', 0x12, 2, 0x0a, 0]),
            ("a string that is a number", &[0x2a, 7, 0x0a, 1, b'a', 0x12, 2, 0x18, 1]),
            ("a URI of fixed length", &[0x2a, 10, 0x0a, 1, b'a', 0x12, 5, 0x2d, 1, 2, 3, 4]),
            ("a time whose seconds are text", &[0x2a, 9, 0x0a, 1, b'a', 0x12, 4, 0x3a, 2, 0x0a, 0]),
            ("an Any that is none", &[0x42, 1, 0xff]),
            ("an Any whose type is not text", &[0x42, 3, 0x0a, 1, 0xff]),
            ("an Any whose value is a number", &[0x42, 2, 0x10, 1]),
            ("a field number beyond 29 bits", &[0x80, 0x80, 0x80, 0x80, 0x10, 1]),
            ("no field number", &[0x00, 1]),
            ("an end without a group", &[0x7c]),
        ];
        for (what, tail) in tails {
            let bytes = [&whole, tail].concat();
            assert!(CloudEvent::decode(bytes.as_slice()).is_err(), "{what}");
            assert!(EventView::parse(&bytes).is_none(), "{what}");
        }
    }

    /// Whatever is around them: order, unknown fields, and numbers written in more digits than needed.
    #[test]
    fn only_attributes_of_the_broker_are_taken_out() {
        let named = |name: &str, value: &[u8]| {
            let len = u8::try_from(name.len()).unwrap();
            let entry =
                [&[0x0a, len], name.as_bytes(), &[0x12, value.len().try_into().unwrap()], value];
            let entry = entry.concat();
            [&[0x2a, entry.len().try_into().unwrap()], entry.as_slice()].concat()
        };
        let whole = event(Attr::CeBoolean(true), Some(Payload::TextData("weft".to_owned())));
        let pieces: [(&[u8], bool); 9] = [
            (&named("weftoffset", &[0x10, 7]), false),
            (&whole.encode_to_vec(), true),
            (&named("weft", &[]), false),
            (&named("wef", &[0x08, 1]), true),
            // Fields that nobody knows.
            (&[0x98, 0x06, 0x01, 0x9a, 0x06, 0x04, b'w', b'e', b'f', b't'], true),
            (&named("weftreason", &[0x1a, 3, b'a', b'\n', b'b']), false),
            // A length of two digits where one would do, and a name that another one follows.
            (&[0x2a, 0x86, 0x00, 0x0a, 4, b'w', b'e', b'f', b't'], false),
            (&[0x2a, 9, 0x0a, 4, b'w', b'e', b'f', b't', 0x0a, 1, b'x'], true),
            (&[0x2a, 9, 0x0a, 1, b'x', 0x0a, 4, b'w', b'e', b'f', b't'], false),
        ];
        let sent: Vec<u8> = pieces.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
        let stays = pieces.iter().filter(|(_, stays)| *stays);
        let wanted: Vec<u8> = stays.flat_map(|(bytes, _)| bytes.to_vec()).collect();

        let view = EventView::parse(&sent).unwrap();
        let kept = view.without_broker_attributes().unwrap();

        assert_eq!(kept, wanted);
        assert_eq!(view.own_len(), kept.len());
        let kept = EventView::parse(&kept).unwrap();
        assert!(!kept.attributes().any(|attribute| attribute.name.starts_with("weft")));
        assert_eq!(kept.without_broker_attributes(), None);
        assert_eq!(kept.own_len(), wanted.len());
    }

    #[test]
    fn an_attribute_that_comes_in_pieces_is_put_together() {
        // {name: "t", value: {time: {seconds: 1}}, value: {time: {nanos: 5000000}}}
        let entry =
            [0x0a, 1, b't', 0x12, 4, 0x3a, 2, 0x08, 1, 0x12, 7, 0x3a, 5, 0x10, 0xc0, 0x96, 0xb1, 2];
        let mut bytes = event(Attr::CeBoolean(true), None).encode_to_vec();
        bytes.extend([0x2a, 18]);
        bytes.extend(entry);

        let view = EventView::parse(&bytes).unwrap();

        let message = CloudEvent::decode(bytes.as_slice()).unwrap();
        let time = prost_types::Timestamp { seconds: 1, nanos: 5_000_000 };
        assert_eq!(message.attributes["t"].attr, Some(Attr::CeTimestamp(time)));
        assert_eq!(view.attribute("t").as_deref(), Some("1970-01-01T00:00:01.005Z"));
    }

    #[test]
    fn the_last_of_two_names_and_of_two_attributes_counts() {
        let named = |bytes: &[u8], name: &str| {
            EventView::parse(bytes).unwrap().attribute(name).map(Cow::into_owned)
        };
        let mut bytes = event(Attr::CeString("first".to_owned()), None).encode_to_vec();
        // {name: "a", value: {string: "x"}, name: "b"}
        bytes.extend([0x2a, 11, 0x0a, 1, b'a', 0x12, 3, 0x1a, 1, b'x', 0x0a, 1, b'b']);
        // {name: "ext", value: {string: "y"}}
        bytes.extend([0x2a, 10, 0x0a, 3, b'e', b'x', b't', 0x12, 3, 0x1a, 1, b'y']);

        assert_eq!(named(&bytes, "a"), None);
        assert_eq!(named(&bytes, "b").as_deref(), Some("x"));
        assert_eq!(named(&bytes, "ext").as_deref(), Some("y"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(view) = EventView::parse(&bytes) {
                view.attributes().for_each(drop);
            }
        }

        #[test]
        fn agrees_with_the_generated_decoder(
            id in ".{0,20}", data in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..400_usize,
        ) {
            let message = CloudEvent {
                id,
                ..event(Attr::CeString("x".to_owned()), Some(Payload::BinaryData(data.into())))
            };
            let bytes = message.encode_to_vec();
            let view = EventView::parse(&bytes).unwrap();
            prop_assert_eq!(view.id, &message.id);
            let Some(Payload::BinaryData(data)) = &message.data else { unreachable!() };
            prop_assert_eq!(view.data, Data::Binary(data));

            let cut = &bytes[..cut.min(bytes.len())];
            prop_assert_eq!(EventView::parse(cut).is_some(), CloudEvent::decode(cut).is_ok());
        }
    }
}
