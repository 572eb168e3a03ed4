//! Fills the holes of templates from an event.

use std::cell::OnceCell;
use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::Value;
use weft_proto::event::EventView;
use weft_proto::resource::flow::{Part, Pointer, Template};

use super::failure::Failure;
use super::parts::{Parts, weight};

/// Longest text of a template.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Longest JSON of a template.
const JSON_BYTES_MAX: usize = 1 << 20;

/// What templates see: an event, and its payload once one asks for it.
#[derive(Debug)]
pub(super) struct Scope<'e> {
    bytes: &'e Bytes,
    view: EventView<'e>,
    data: OnceCell<Result<Value, Failure>>,
}

/// How values are written into a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// As they are.
    Nothing,
    /// For path and query of an address.
    Address,
}

impl<'e> Scope<'e> {
    pub(super) fn new(bytes: &'e Bytes) -> Result<Self, Failure> {
        let view = EventView::parse(bytes);
        let view = view.ok_or_else(|| {
            Failure::permanent("undecodable", "the stored bytes are no CloudEvent")
        })?;
        Ok(Self { bytes, view, data: OnceCell::new() })
    }

    pub(super) fn view(&self) -> &EventView<'e> {
        &self.view
    }

    pub(super) fn data(&self) -> Result<&Value, Failure> {
        let data = self.data.get_or_init(|| Parts::read(self.bytes)?.json());
        data.as_ref().map_err(Clone::clone)
    }

    /// A part of the payload.
    pub(super) fn at(&self, pointer: &Pointer) -> Result<&Value, Failure> {
        let found = self.data()?.pointer(pointer.as_str());
        found.ok_or_else(|| {
            let message = format!("the payload has nothing at {:?}", pointer.as_str());
            Failure::permanent("template", message)
        })
    }

    /// The text of a template.
    pub(super) fn text(&self, template: &Template, escape: Escape) -> Result<String, Failure> {
        let mut text = String::new();
        for part in template.parts() {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Attribute(name) => {
                    let value = self.view.attribute(name).ok_or_else(|| {
                        let message = format!("the event has no attribute {name}");
                        Failure::permanent("template", message)
                    })?;
                    push(&mut text, &value, escape);
                }
                Part::Data(pointer) => match self.at(pointer)? {
                    Value::String(value) => push(&mut text, value, escape),
                    value @ (Value::Bool(_) | Value::Number(_)) => {
                        push(&mut text, &value.to_string(), escape);
                    }
                    _ => {
                        let at = pointer.as_str();
                        let message = format!("what is at {at:?} is no text, number or boolean");
                        return Err(Failure::permanent("template", message));
                    }
                },
            }
            if text.len() > TEXT_BYTES_MAX {
                let message = format!("the text has more than {TEXT_BYTES_MAX} bytes");
                return Err(Failure::permanent("template", message));
            }
        }
        Ok(text)
    }

    /// The JSON of a template.
    pub(super) fn json(&self, template: &JsonTemplate) -> Result<Value, Failure> {
        let mut left = JSON_BYTES_MAX;
        self.fill(template, &mut left)
    }

    fn fill(&self, template: &JsonTemplate, left: &mut usize) -> Result<Value, Failure> {
        let mut spend = |bytes: usize| {
            *left = left.checked_sub(bytes).ok_or_else(|| {
                let message = format!("the JSON has more than {JSON_BYTES_MAX} bytes");
                Failure::permanent("template", message)
            })?;
            Ok(())
        };
        match template {
            JsonTemplate::Fixed(value) => {
                spend(weight(value))?;
                Ok(value.clone())
            }
            JsonTemplate::Whole(pointer) => {
                let value = self.at(pointer)?;
                spend(weight(value))?;
                Ok(value.clone())
            }
            JsonTemplate::Text(template) => {
                let text = self.text(template, Escape::Nothing)?;
                spend(text.len() + 2)?;
                Ok(Value::String(text))
            }
            JsonTemplate::List(list) => list
                .iter()
                .map(|one| self.fill(one, left))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            JsonTemplate::Object(map) => {
                let members = map.iter();
                let members = members.map(|(name, one)| Ok((name.clone(), self.fill(one, left)?)));
                members.collect::<Result<_, _>>().map(Value::Object)
            }
        }
    }
}

/// JSON whose texts are templates. A text that is nothing but `{/a/b}` stands for what is there,
/// whatever that is.
#[derive(Clone, Debug)]
pub(super) enum JsonTemplate {
    Fixed(Value),
    Whole(Pointer),
    Text(Template),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl JsonTemplate {
    pub(super) fn new(json: &Value) -> Result<Self, String> {
        Ok(match json {
            Value::String(text) => {
                let template = Template::parse(text)?;
                match template.parts() {
                    [Part::Data(pointer)] => Self::Whole(pointer.clone()),
                    _ => Self::Text(template),
                }
            }
            Value::Array(list) => Self::List(list.iter().map(Self::new).collect::<Result<_, _>>()?),
            Value::Object(map) => {
                let members = map.iter();
                let members = members.map(|(name, one)| Ok((name.clone(), Self::new(one)?)));
                Self::Object(members.collect::<Result<_, String>>()?)
            }
            other => Self::Fixed(other.clone()),
        })
    }
}

fn push(text: &mut String, value: &str, escape: Escape) {
    if escape == Escape::Nothing {
        text.push_str(value);
        return;
    }
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            // Writing to a `String` does not fail.
            _ = write!(text, "%{byte:02X}");
        }
    }
}
