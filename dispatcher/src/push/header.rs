//! Attribute values in HTTP headers, both ways.
//!
//! Source: CloudEvents HTTP protocol binding 1.0.2, section 3.1.3.2, and what SDKs really send.

use std::fmt::Write as _;

use http::HeaderValue;

/// Encodes a value: everything that is not printable ASCII, and space, `"` and `%`, is
/// percent-encoded.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => _ = write!(encoded, "%{byte:02X}"),
            0x21..=0x7e => encoded.push(char::from(byte)),
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

/// Decodes a value: one whole-value quoted string is undone, then percent-decoding, once.
///
/// `None` when the decoded bytes are no UTF-8.
pub(super) fn decode(value: &HeaderValue) -> Option<String> {
    let unquoted = unquote(value.as_bytes());
    // Some SDKs send Latin-1 as it is: the raw bytes are then no UTF-8.
    let text = match String::from_utf8(unquoted) {
        Ok(text) => text,
        Err(error) => error.into_bytes().iter().copied().map(char::from).collect(),
    };
    percent_decode(&text)
}

fn unquote(raw: &[u8]) -> Vec<u8> {
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

fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = bytes.get(at + 1).zip(bytes.get(at + 2));
        let hex = pair.and_then(|(&high, &low)| Some((digit(high)?, digit(low)?)));
        if let (b'%', Some((high, low))) = (byte, hex) {
            decoded.push(high * 16 + low);
            at += 3;
        } else {
            // A percent sign without two hex digits stands for itself.
            decoded.push(byte);
            at += 1;
        }
    }
    String::from_utf8(decoded).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(raw: &[u8]) -> Option<String> {
        decode(&HeaderValue::from_bytes(raw).unwrap())
    }

    #[test]
    fn the_binding_s_example_is_encoded_as_given() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode(r#"a"b%c"#), "a%22b%25c");
        assert_eq!(encode("/plain?x=1&y=,;"), "/plain?x=1&y=,;");
    }

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
            (b"caf\xe9", Some("café")),
            ("café".as_bytes(), Some("café")),
            (b"%C0%A0", None),
        ];
        for (raw, expected) in cases {
            assert_eq!(decoded(raw).as_deref(), *expected, "{raw:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        #[test]
        fn every_text_survives(text in "\\PC{0,40}") {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
            prop_assert_eq!(decoded(encoded.as_bytes()), Some(text));
        }

        #[test]
        fn hostile_headers_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&raw) {
                decode(&value);
            }
        }
    }
}
