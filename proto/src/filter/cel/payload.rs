//! The payload of an event as values of the language, made once per event.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use ::cel::common::value::{CowVal, Val};
use ::cel::context::VariableResolver;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::event::{Data, EventView};

/// A value that owns all it has.
type Owned = Box<dyn Val>;

/// What a map of the language is made of.
type Members = <CelMap<'static> as Deref>::Target;

/// `data` and `ce`.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(super) bytes: usize,
    data: Owned,
    ce: Owned,
}

impl Payload {
    /// Reads the payload of an event.
    ///
    /// # Errors
    ///
    /// Why there is none, as a sentence.
    pub(crate) fn of(event: &EventView<'_>) -> Result<Self, String> {
        let bytes = match event.data {
            Data::None => return Err("the event has no data".to_owned()),
            Data::Proto(_) => return Err("the data of the event is protobuf, no JSON".to_owned()),
            Data::Binary(bytes) => bytes,
            Data::Text(text) => text.as_bytes(),
        };
        if let Some(ty) = event.data_content_type()
            && !is_json(&ty)
        {
            return Err(format!("the data of the event is {ty}, no JSON"));
        }
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let data = Json.deserialize(&mut reader).and_then(|data| reader.end().map(|()| data));
        let data = data.map_err(|error| format!("the data of the event is no JSON: {error}"))?;
        let required = [
            ("id", event.id),
            ("source", event.source),
            ("specversion", event.spec_version),
            ("type", event.ty),
        ];
        let required = required.into_iter().map(|(name, value)| (key(name), text(value)));
        let others = event.attributes().map(|one| (key(one.name), text(&one.value.to_text())));
        let ce: Members = required.chain(others).collect();
        let ce: Owned = Box::new(CelMap::from(ce));
        Ok(Self { bytes: bytes.len(), data, ce })
    }

    pub(super) fn resolver(&self, lookups: usize) -> Resolver<'_> {
        Resolver { payload: self, left: AtomicUsize::new(lookups) }
    }
}

/// Counts how often `data` is looked up: in a loop, it may be large each time.
pub(super) struct Resolver<'p> {
    payload: &'p Payload,
    left: AtomicUsize,
}

impl Resolver<'_> {
    pub(super) fn is_used_up(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match variable {
            "data" => {
                let left = self.left.load(Ordering::Relaxed).checked_sub(1)?;
                self.left.store(left, Ordering::Relaxed);
                Some(CowVal::Borrowed(&*self.payload.data))
            }
            "ce" => Some(CowVal::Borrowed(&*self.payload.ce)),
            _ => None,
        }
    }
}

/// `application/json`, `text/json` and whatever ends in `+json`, whatever the parameters.
fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.ends_with("/json") || media.ends_with("+json")
}

fn key(name: &str) -> CelMapKey<'static> {
    name.to_owned().into()
}

fn text(value: &str) -> Owned {
    Box::new(CelString::from(value.to_owned()))
}

/// Reads JSON. Whole numbers are `int` where they fit; of two members of one name none wins.
struct Json;

impl<'de> DeserializeSeed<'de> for Json {
    type Value = Owned;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Owned, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json {
    type Value = Owned;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Owned, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Owned, E> {
        Ok(Box::new(CelBool::from(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Owned, E> {
        Ok(Box::new(CelInt::from(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Owned, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Box::new(CelInt::from(value)),
            Err(_) => Box::new(CelUInt::from(value)),
        })
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Owned, E> {
        Ok(Box::new(CelDouble::from(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Owned, E> {
        Ok(text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Owned, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(Box::new(CelList::from(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Owned, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            members.push((key(&name), map.next_value_seed(Self)?));
        }
        let count = members.len();
        let members: Members = members.into_iter().collect();
        if members.len() < count {
            return Err(A::Error::custom("a member is there twice"));
        }
        Ok(Box::new(CelMap::from(members)))
    }
}

/// The byte at a line, from 1, and a character, from 1.
pub(super) fn offset_of(source: &str, (line, column): (isize, isize)) -> usize {
    let skipped = usize::try_from(line - 1).unwrap_or_default();
    let before: usize = source.split_inclusive('\n').take(skipped).map(str::len).sum();
    let rest = source.get(before..).unwrap_or_default();
    before + byte_of(rest, u32::try_from(column - 1).unwrap_or_default())
}

/// The byte before a character.
pub(super) fn byte_of(source: &str, characters: u32) -> usize {
    let at = usize::try_from(characters).unwrap_or(usize::MAX);
    source.char_indices().nth(at).map_or(source.len(), |(at, _)| at)
}
