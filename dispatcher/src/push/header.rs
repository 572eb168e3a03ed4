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
    weft_proto::event::from_header(value.as_bytes())
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
