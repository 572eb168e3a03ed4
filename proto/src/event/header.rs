//! Attribute values as headers of an HTTP message carry them.
//!
//! Source: CloudEvents HTTP protocol binding 1.0.2, section 3.1.3.2, and what SDKs really send: some
//! percent-encode, some put the value in quotes, some send Latin-1 as it is.

/// Decodes a value: one whole-value quoted string is undone, then percent-decoding, once.
///
/// A percent sign without two hex digits stands for itself. `None` when the decoded bytes are no
/// UTF-8.
pub fn from_header(raw: &[u8]) -> Option<String> {
    // Some SDKs send Latin-1 as it is: the raw bytes are then no UTF-8.
    let text = match String::from_utf8(unquoted(raw)) {
        Ok(text) => text,
        Err(error) => error.into_bytes().iter().copied().map(char::from).collect(),
    };
    if !text.contains('%') {
        return Some(text);
    }
    String::from_utf8(percent_decoded(text.as_bytes())).ok()
}

/// Undoes percent-encoding, once; what is none stands for itself.
pub fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let pair = match after {
            [high, low, after @ ..] if byte == b'%' => {
                let both = digit(*high).zip(digit(*low));
                both.map(|(high, low)| (high * 16 + low, after))
            }
            _ => None,
        };
        let (byte, after) = pair.unwrap_or((byte, after));
        decoded.push(byte);
        rest = after;
    }
    decoded
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn unquoted(raw: &[u8]) -> Vec<u8> {
    let Some(inner) = raw.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return raw.to_vec();
    };
    let mut unquoted = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => unquoted.extend(bytes.next()),
            // A bare quote inside: this is not one quoted string after all.
            b'"' => return raw.to_vec(),
            _ => unquoted.push(byte),
        }
    }
    unquoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quirks_of_senders_are_read() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (b"plain", Some("plain")),
            (b"a b", Some("a b")),
            (br#""quoted \"x\"""#, Some("quoted \"x\"")),
            (br#""a" and "b""#, Some(r#""a" and "b""#)),
            (b"\"", Some("\"")),
            (b"100%", Some("100%")),
            (b"100%zz%4", Some("100%zz%4")),
            (b"%2525", Some("%25")),
            (b"Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro \u{20ac} \u{1f600}")),
            (b"caf\xe9", Some("caf\u{e9}")),
            ("caf\u{e9}".as_bytes(), Some("caf\u{e9}")),
            (b"%C0%A0", None),
            (b"", Some("")),
        ];
        for (raw, expected) in cases {
            assert_eq!(from_header(raw).as_deref(), *expected, "{raw:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_sent_is_read_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            from_header(&raw);
        }

        #[test]
        fn a_text_that_is_encoded_wholly_survives(text in "\\PC{0,40}") {
            let encoded = text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
            prop_assert_eq!(from_header(encoded.as_bytes()), Some(text));
        }
    }
}
