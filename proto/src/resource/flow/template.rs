//! Texts with holes, and pointers into payloads.
//!
//! `{subject}` stands for an attribute, `{/order/id}` for a part of the payload, `{{` and `}}` for
//! braces.

/// Longest template and longest pointer, in bytes.
const BYTES_MAX: usize = 2_048;
/// Holes of one template.
const HOLES_MAX: usize = 32;
/// Steps of one pointer.
const POINTER_LEN_MAX: usize = 32;

/// A JSON pointer, RFC 6901.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// Reads a pointer; the empty one means the whole.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("a pointer has at most {BYTES_MAX} bytes"));
        }
        if !text.is_empty() && !text.starts_with('/') {
            return Err(format!(
                "{text:?} is no JSON pointer: write /{text}, or \"\" for the whole"
            ));
        }
        if text.matches('/').count() > POINTER_LEN_MAX {
            return Err(format!("a pointer goes at most {POINTER_LEN_MAX} steps"));
        }
        if text.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
            return Err(format!(
                "{text:?} is no JSON pointer: ~ is written ~0, and / in a name ~1"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names and numbers from the outside in.
    pub fn steps(&self) -> impl Iterator<Item = String> + '_ {
        self.0.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"))
    }
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Stands for itself.
    Text(String),
    /// An attribute of the event.
    Attribute(String),
    /// A part of the payload.
    Data(Pointer),
}

/// A text with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("a template has at most {BYTES_MAX} bytes"));
        }
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            plain.push_str(before);
            let (brace, after) = after.split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let hole = after.split_once('}').filter(|_| brace == "{");
            let Some((hole, after)) = hole else {
                return Err(format!(
                    "a brace is open in {text:?}; one for itself is written twice"
                ));
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(self::hole(hole)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        if parts.iter().filter(|part| !matches!(part, Part::Text(_))).count() > HOLES_MAX {
            return Err(format!("a template has at most {HOLES_MAX} holes"));
        }
        Ok(Self(parts))
    }

    /// Its pieces.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether it is the same for all events.
    pub fn is_plain(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }
}

fn hole(text: &str) -> Result<Part, String> {
    if text.starts_with('/') {
        return Pointer::parse(text).map(Part::Data);
    }
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if text.is_empty() || !text.bytes().all(is_name) {
        let message = "write {/path/in/data} for a part of the payload, {name} for an attribute";
        return Err(format!("{{{text}}} stands for nothing: {message}"));
    }
    Ok(Part::Attribute(text.to_owned()))
}
