//! Strict JSON, parsed once into a flat list that borrows the payload.
//!
//! Owns: what counts as JSON here. Never: a value that differs from what another reader of the
//! same bytes would see, which is why duplicate keys are refused.

mod canonical;
mod node;
mod parse;
mod problem;

#[cfg(test)]
mod tests;

pub(crate) use canonical::canonical;
pub(crate) use node::{Tape, Walk};
pub use problem::{Problem, ProblemKind};

use serde_json::{Map, Number, Value};

/// Deepest nesting of arrays and objects; the limit of `serde_json` and of many other readers.
pub const DEPTH_MAX: usize = 128;

/// Above this many members an object gets a sorted index.
const SCANNED_MEMBERS_MAX: u32 = 16;

/// Marks a span that lies in the buffer of unescaped text.
const UNESCAPED: u32 = 1 << 31;

/// A piece of text, in the payload or in the buffer of unescaped text.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    False,
    True,
    Unsigned,
    Negative,
    Float,
    String,
    Array,
    Object,
}

/// One value; values lie in document order, so a container is followed by what it holds.
#[derive(Debug, Clone, Copy)]
struct Slot {
    kind: Kind,
    /// The slot after this value and all that it holds.
    next: u32,
    /// Name of this member, if the parent is an object.
    key: Span,
    /// Text of a string or number; from the first to the last byte of anything else.
    text: Span,
    /// A number's value; a container's count of children, and its place in the index above it.
    bits: u64,
}

impl Slot {
    fn count(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the count")]
        let count = self.bits as u32;
        count
    }

    fn indexed_at(&self) -> usize {
        usize::try_from(self.bits >> 32).unwrap_or(usize::MAX)
    }
}

/// A JSON text that was parsed strictly: UTF-8, no duplicate keys, bounded depth, finite numbers.
///
/// Borrows the bytes; nothing of them is copied but strings with escapes.
#[derive(Debug)]
pub struct Document<'a> {
    text: &'a str,
    unescaped: String,
    slots: Vec<Slot>,
    /// Members of large objects, sorted by name.
    index: Vec<u32>,
}

impl Document<'_> {
    /// Number of values: every null, boolean, number, string, array and object counts one.
    #[must_use]
    pub fn values(&self) -> usize {
        self.slots.len()
    }

    /// The whole document as a value of `serde_json`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        self.value_at(0)
    }

    /// The text itself.
    pub(crate) fn text(&self) -> &str {
        self.text
    }

    fn slot(&self, at: u32) -> &Slot {
        &self.slots[at as usize]
    }

    fn str(&self, span: Span) -> &str {
        let source = if span.start & UNESCAPED == 0 { self.text } else { &self.unescaped };
        let start = (span.start & !UNESCAPED) as usize;
        &source[start..start + span.len as usize]
    }

    fn key(&self, at: u32) -> &str {
        self.str(self.slot(at).key)
    }

    /// Slots of a container's children, in document order.
    fn children(&self, at: u32) -> impl Iterator<Item = u32> {
        let end = self.slot(at).next;
        let mut child = at + 1;
        std::iter::from_fn(move || {
            (child < end).then(|| {
                let this = child;
                child = self.slot(this).next;
                this
            })
        })
    }

    fn member(&self, object: u32, name: &str) -> Option<u32> {
        let slot = self.slot(object);
        if slot.count() > SCANNED_MEMBERS_MAX {
            let start = slot.indexed_at();
            let index = &self.index[start..start + slot.count() as usize];
            let found = index.binary_search_by(|member| self.key(*member).cmp(name)).ok()?;
            return Some(index[found]);
        }
        let mut child = object + 1;
        while child < slot.next {
            let member = self.slot(child);
            if member.key.len as usize == name.len() && self.str(member.key) == name {
                return Some(child);
            }
            child = member.next;
        }
        None
    }

    /// The slot a JSON pointer names.
    pub(crate) fn find(&self, pointer: &str) -> Option<u32> {
        let mut at = 0;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            at = match self.slot(at).kind {
                Kind::Object => self.member(at, &token)?,
                Kind::Array => self.children(at).nth(token.parse().ok()?)?,
                _ => return None,
            };
        }
        Some(at)
    }

    /// What kind of value a JSON pointer names, in the words of JSON Schema.
    pub(crate) fn kind_at(&self, pointer: &str) -> Option<&'static str> {
        self.find(pointer).map(|at| match self.slot(at).kind {
            Kind::Null => "null",
            Kind::False | Kind::True => "boolean",
            Kind::Unsigned | Kind::Negative => "integer",
            Kind::Float => "number",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::Object => "object",
        })
    }

    fn number(&self, at: u32) -> Option<Number> {
        let slot = self.slot(at);
        match slot.kind {
            Kind::Unsigned => Some(Number::from(slot.bits)),
            Kind::Negative => Some(Number::from(slot.bits.cast_signed())),
            Kind::Float => Number::from_f64(f64::from_bits(slot.bits)),
            _ => None,
        }
    }

    fn value_at(&self, at: u32) -> Value {
        let slot = self.slot(at);
        match slot.kind {
            Kind::Null => Value::Null,
            Kind::False => Value::Bool(false),
            Kind::True => Value::Bool(true),
            Kind::Unsigned | Kind::Negative | Kind::Float => {
                self.number(at).map_or(Value::Null, Value::Number)
            }
            Kind::String => Value::String(self.str(slot.text).to_owned()),
            Kind::Array => self.children(at).map(|child| self.value_at(child)).collect(),
            Kind::Object => {
                let members = self
                    .children(at)
                    .map(|child| (self.key(child).to_owned(), self.value_at(child)));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}
