//! Values of attributes, and the canonical text that filters and comparisons use.
//!
//! Source: CloudEvents 1.0.2, section "Type System".

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// An attribute's value in its CloudEvents type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// The attribute has a name and no value.
    Unset,
    /// Boolean.
    Boolean(bool),
    /// Integer: always 32 bits.
    Integer(i32),
    /// String.
    String(&'a str),
    /// Binary.
    Bytes(&'a [u8]),
    /// Absolute URI.
    Uri(&'a str),
    /// URI reference.
    UriRef(&'a str),
    /// Instant. The wire keeps no offset, so it is always UTC.
    Timestamp {
        /// Seconds since 1970.
        seconds: i64,
        /// Nanoseconds of the second.
        nanos: i32,
    },
}

impl<'a> Value<'a> {
    /// The canonical text of the value.
    pub fn to_text(self) -> Cow<'a, str> {
        match self {
            Self::Unset => Cow::Borrowed(""),
            Self::Boolean(true) => Cow::Borrowed("true"),
            Self::Boolean(false) => Cow::Borrowed("false"),
            Self::Integer(number) => Cow::Owned(number.to_string()),
            Self::String(text) | Self::Uri(text) | Self::UriRef(text) => Cow::Borrowed(text),
            Self::Bytes(bytes) => Cow::Owned(BASE64_STANDARD.encode(bytes)),
            Self::Timestamp { seconds, nanos } => {
                // What is no instant never passed the checks at the door; show it all the same.
                let instant = jiff::Timestamp::new(seconds, nanos);
                instant.map_or(Cow::Borrowed(""), |instant| Cow::Owned(instant.to_string()))
            }
        }
    }
}
