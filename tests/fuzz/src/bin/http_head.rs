//! The head of a request, as the door of both ports reads it: of all headers only `authorization`
//! counts, and two of them are none, since whoever stands in front may have looked at the other.

#![cfg_attr(fuzzing, no_main)]

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use weft_fuzz::door::{KEY, LATE, WRITER, access, wait};
use weft_proto::Reason;

weft_fuzz::target!();

pub const MAX_LEN: usize = 2_048;

pub fn run(data: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    let mut credentials = Vec::new();
    for line in data.split(|&byte| byte == b'\n').take(64) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        let (Ok(name), Ok(value)) = (name, value) else { continue };
        if line[..colon].eq_ignore_ascii_case(b"authorization") {
            credentials.push(value.as_bytes().to_vec());
        }
        headers.append(name, value);
    }
    let is_good = match credentials.as_slice() {
        [one] => ["bearer ", "sharedaccesskey "].iter().any(|known| {
            one.split_at_checked(known.len()).is_some_and(|(scheme, token)| {
                scheme.eq_ignore_ascii_case(known.as_bytes()) && token == KEY.as_bytes()
            })
        }),
        _ => false,
    };
    let access = access();
    match wait(access.admit(&headers, &Extensions::new())) {
        Ok(admitted) => {
            assert!(is_good, "{headers:?}");
            assert_eq!(admitted.caller.principal().name(), WRITER);
        }
        Err(refused) => {
            assert!(!is_good, "{headers:?}");
            assert_eq!(refused.error.reason(), Reason::Unauthenticated);
        }
    }
    is_good
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        format!("authorization: Bearer {KEY}\r\n"),
        format!("host: a\r\nAuthorization:bearer {KEY}\r\nce-id: 1\r\n"),
        format!("authorization: Bearer {KEY}\r\nauthorization: Bearer {LATE}\r\n"),
        format!("authorization: Bearer {LATE}\r\nauthorization: Bearer {KEY}\r\n"),
        format!("authorization: SharedAccessKey {KEY}\r\n"),
        format!("authorization: SharedAccessKey {LATE}\r\n"),
        format!("authorization : Bearer {KEY}\r\n"),
        format!("proxy-authorization: Bearer {KEY}\r\n"),
        format!("authorization: Bearer {KEY}, Bearer {KEY}\r\n"),
        "authorization: \u{e9}\r\nx\r\n:\r\n".to_owned(),
        String::new(),
    ]
    .map(String::into_bytes)
    .to_vec()
}
