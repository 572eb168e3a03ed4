//! The parsed document as the validator sees it, with a budget of steps.
//!
//! A validation cannot be cancelled from outside, but every way down into the document leads
//! through here: once the budget is spent, containers look empty, and what is left ends at once.

use super::{Document, Kind};
use jsonschema::JsonType;
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object, cmp, unique};
use serde_json::{Number, Value};
use std::borrow::Cow;
use std::cell::Cell;

static NOTHING: Value = Value::Null;

/// The representation that validators are compiled for.
pub(crate) struct Tape;

/// One walk of a validator over one document.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    document: &'a Document<'a>,
    left: Cell<u64>,
    charge: u64,
    shows_values: bool,
}

impl<'a> Walk<'a> {
    /// A walk of at most `steps` steps, where each step down or lookup costs `charge`.
    pub(crate) fn new(document: &'a Document<'a>, steps: u64, charge: u64) -> Self {
        Self { document, left: Cell::new(steps), charge, shows_values: false }
    }

    pub(crate) fn root(&'a self) -> TapeNode<'a> {
        TapeNode::At(self, 0)
    }

    /// Whether the budget ran out; what the validator then said means nothing.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.left.get() == 0
    }

    /// A walk that keeps the whole upstream contract, for its conformance test.
    #[cfg(test)]
    pub(super) fn showing_values(document: &'a Document<'a>) -> Self {
        Self { shows_values: true, ..Self::new(document, u64::MAX, 1) }
    }

    fn spend(&self) -> bool {
        let left = self.left.get().saturating_sub(self.charge);
        self.left.set(left);
        left > 0
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum TapeNode<'a> {
    At(&'a Walk<'a>, u32),
    /// A member's name, for `propertyNames`.
    Name(&'a str),
}

impl Json for Tape {
    type Node<'a> = TapeNode<'a>;
    type PreparedKey = Box<str>;
    type StringBuffer = ();

    const KEYS_PER_LOOKUP: usize = 4;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(TapeNode<'_>) -> T) -> T {
        f(TapeNode::Name(string))
    }
}

impl<'a> TapeNode<'a> {
    fn kind(self) -> Kind {
        match self {
            Self::At(walk, at) => walk.document.slot(at).kind,
            Self::Name(_) => Kind::String,
        }
    }

    fn str(self) -> Option<&'a str> {
        match self {
            Self::Name(name) => Some(name),
            Self::At(walk, at) => {
                let slot = walk.document.slot(at);
                (slot.kind == Kind::String).then(|| walk.document.str(slot.text))
            }
        }
    }

    fn value(self) -> Value {
        match self {
            Self::At(walk, at) => walk.document.value_at(at),
            Self::Name(name) => Value::String(name.to_owned()),
        }
    }

    fn container(self, kind: Kind) -> Option<Container<'a>> {
        match self {
            Self::At(walk, at) if walk.document.slot(at).kind == kind => {
                Some(Container { walk, at })
            }
            _ => None,
        }
    }
}

impl<'a> Node<'a, Tape> for TapeNode<'a> {
    type Object = Container<'a>;
    type Array = Container<'a>;
    type Number = TapeNumber;

    fn as_object(&self) -> Option<Container<'a>> {
        self.container(Kind::Object)
    }

    fn as_array(&self) -> Option<Container<'a>> {
        self.container(Kind::Array)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        self.str().map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<TapeNumber> {
        let Self::At(walk, at) = *self else { return None };
        let slot = walk.document.slot(at);
        match slot.kind {
            Kind::Unsigned => Some(TapeNumber::Unsigned(slot.bits)),
            Kind::Negative => Some(TapeNumber::Negative(slot.bits.cast_signed())),
            Kind::Float => Some(TapeNumber::Float(f64::from_bits(slot.bits))),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.kind() {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        self.kind() == Kind::Null
    }

    fn is_number(&self) -> bool {
        matches!(self.kind(), Kind::Unsigned | Kind::Negative | Kind::Float)
    }

    fn is_string(&self) -> bool {
        self.kind() == Kind::String
    }

    fn json_type(&self) -> JsonType {
        match self.kind() {
            Kind::Null => JsonType::Null,
            Kind::False | Kind::True => JsonType::Boolean,
            Kind::Unsigned | Kind::Negative | Kind::Float => JsonType::Number,
            Kind::String => JsonType::String,
            Kind::Array => JsonType::Array,
            Kind::Object => JsonType::Object,
        }
    }

    fn string_length_within(&self, min: u64, max: u64) -> Option<bool> {
        let text = self.str()?;
        // A code point takes one to four bytes, so most lengths need no count.
        let most = text.len() as u64;
        let fewest = most.div_ceil(4);
        if most < min || fewest > max {
            return Some(false);
        }
        if min <= fewest && most <= max {
            return Some(true);
        }
        Some((min..=max).contains(&(text.chars().count() as u64)))
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match expected {
            Value::String(expected) => self.str() == Some(expected),
            Value::Bool(expected) => self.as_boolean() == Some(*expected),
            Value::Null => self.is_null(),
            _ => cmp::equal(&self.value(), expected),
        }
    }

    /// The validator asks for this only to put it into errors. It gets nothing: the instance may
    /// be large, hundreds of errors may repeat it, and a violation says where, never what.
    fn to_value(&self) -> Cow<'a, Value> {
        match *self {
            Self::At(walk, _) if !walk.shows_values => Cow::Borrowed(&NOTHING),
            _ => Cow::Owned(self.value()),
        }
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(match *self {
            Self::At(walk, at) => {
                NodeIdentity::new(std::ptr::from_ref(walk.document.slot(at)).addr())
            }
            Self::Name(name) => NodeIdentity::tagged(name.as_ptr().addr(), 1),
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Container<'a> {
    walk: &'a Walk<'a>,
    at: u32,
}

impl<'a> Container<'a> {
    fn children(self) -> Children<'a> {
        Children { walk: self.walk, at: self.at + 1, end: self.walk.document.slot(self.at).next }
    }

    fn count(self) -> usize {
        self.walk.document.slot(self.at).count() as usize
    }
}

pub(crate) struct Children<'a> {
    walk: &'a Walk<'a>,
    at: u32,
    end: u32,
}

impl<'a> Iterator for Children<'a> {
    type Item = TapeNode<'a>;

    fn next(&mut self) -> Option<TapeNode<'a>> {
        if self.at == self.end || !self.walk.spend() {
            return None;
        }
        let child = self.at;
        self.at = self.walk.document.slot(child).next;
        Some(TapeNode::At(self.walk, child))
    }
}

pub(crate) struct Members<'a>(Children<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, TapeNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.0.at;
        let node = self.0.next()?;
        Some((self.0.walk.document.key(at), node))
    }
}

impl<'a> Object<'a, Tape> for Container<'a> {
    type Node = TapeNode<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        self.count()
    }

    fn get(&self, key: &Box<str>) -> Option<TapeNode<'a>> {
        if !self.walk.spend() {
            return None;
        }
        self.walk.document.member(self.at, key).map(|at| TapeNode::At(self.walk, at))
    }

    fn members(&self) -> Members<'a> {
        Members(self.children())
    }
}

impl<'a> Array<'a, Tape> for Container<'a> {
    type Node = TapeNode<'a>;
    type ElementsIter = Children<'a>;

    fn len(&self) -> usize {
        self.count()
    }

    fn elements(&self) -> Children<'a> {
        self.children()
    }

    fn is_unique(&self) -> bool {
        // Tags and the like: few strings, compared where they lie.
        if self.count() <= 16 && self.children().all(|item| item.is_string()) {
            let mut items = self.children();
            while let Some(item) = items.next() {
                let mut rest = Children { at: items.at, ..self.children() };
                if rest.any(|other| other.str() == item.str()) {
                    return false;
                }
            }
            return true;
        }
        let values: Vec<Value> = self.children().map(TapeNode::value).collect();
        unique::is_unique(&values)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum TapeNumber {
    Unsigned(u64),
    /// Below zero.
    Negative(i64),
    Float(f64),
}

impl JsonNumber for TapeNumber {
    fn as_u64(&self) -> Option<u64> {
        if let Self::Unsigned(number) = *self { Some(number) } else { None }
    }

    fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Unsigned(number) => number.try_into().ok(),
            Self::Negative(number) => Some(number),
            Self::Float(_) => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the nearest double is what is asked for")]
    fn as_f64(&self) -> Option<f64> {
        Some(match *self {
            Self::Unsigned(number) => number as f64,
            Self::Negative(number) => number as f64,
            Self::Float(number) => number,
        })
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Owned(self.to_number().to_string())
    }

    fn to_number(&self) -> Cow<'_, Number> {
        Cow::Owned(match *self {
            Self::Unsigned(number) => Number::from(number),
            Self::Negative(number) => Number::from(number),
            // The parser lets no infinity through.
            Self::Float(number) => Number::from_f64(number).unwrap_or_else(|| Number::from(0)),
        })
    }

    fn is_integer(&self) -> bool {
        if let Self::Float(number) = *self { number.fract() == 0.0 } else { true }
    }

    fn is_written_as_integer(&self) -> bool {
        self.to_number().is_written_as_integer()
    }
}
