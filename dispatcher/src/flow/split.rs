//! Makes one event of each element of an array.

use bytes::Bytes;
use serde_json::Value;
use weft_proto::resource::flow::{Pointer, SplitStep};

use super::failure::Failure;
use super::parts::Parts;

/// What the parts of one event have in common, and which of how many each is.
pub(super) const SPLIT_ID: &str = "splitid";
pub(super) const SPLIT_INDEX: &str = "splitindex";
pub(super) const SPLIT_COUNT: &str = "splitcount";
/// Bytes of all parts of one event.
const BYTES_MAX: usize = 8 << 20;
/// Why it fails, in a word.
const REASON: &str = "split";

/// A split, ready for use.
#[derive(Debug)]
pub(super) struct Split {
    at: Pointer,
    max: usize,
    ty: Option<String>,
}

impl Split {
    pub(super) fn new(spec: &SplitStep) -> Result<Self, String> {
        let max = usize::try_from(spec.max).unwrap_or(usize::MAX);
        Ok(Self { at: Pointer::parse(&spec.at)?, max, ty: spec.ty.clone() })
    }

    /// The parts of an event, in the order of the array.
    pub(super) fn apply(
        &self,
        event: &Bytes,
        derive: impl FnOnce(&mut Parts),
    ) -> Result<Vec<Bytes>, Failure> {
        let mut whole = Parts::read(event)?;
        let data = whole.json()?;
        let Some(Value::Array(elements)) = data.pointer(self.at.as_str()) else {
            let message = format!("there is no array at {:?} in the payload", self.at.as_str());
            return Err(Failure::permanent(REASON, message));
        };
        if elements.len() > self.max {
            let message = format!("{} elements, more than {}", elements.len(), self.max);
            return Err(Failure::permanent(REASON, message));
        }
        derive(&mut whole);
        whole.data = None;
        if let Some(ty) = &self.ty {
            whole.ty.clone_from(ty);
        }
        let base = whole.id.clone();
        whole.set_text(SPLIT_ID, base.as_str());
        whole.set_number(SPLIT_COUNT, i32::try_from(elements.len()).unwrap_or(i32::MAX));
        let (mut parts, mut bytes) = (Vec::with_capacity(elements.len()), 0_usize);
        for (place, element) in elements.iter().enumerate() {
            let mut part = whole.clone();
            part.id = format!("{base}#{place}");
            part.set_number(SPLIT_INDEX, i32::try_from(place).unwrap_or(i32::MAX));
            part.set_json(element, REASON)?;
            let part = part.encode(REASON)?;
            bytes = bytes.saturating_add(part.len());
            if bytes > BYTES_MAX {
                let message = format!("the parts have more than {BYTES_MAX} bytes together");
                return Err(Failure::permanent(REASON, message));
            }
            parts.push(part);
        }
        Ok(parts)
    }
}
