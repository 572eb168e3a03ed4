//! The header `authorization`, as `access::authenticate` reads it: only the one good key, behind the
//! one scheme, is somebody.
//!
//! First byte even: the header follows. Odd: a change of the good header, since nobody guesses a key.

#![cfg_attr(fuzzing, no_main)]

use weft_broker::access::{Shown, key};
use weft_fuzz::door::{KEY, LATE, WRITER, access, wait};
use weft_fuzz::{Input, chosen};
use weft_proto::Reason;

weft_fuzz::target!();

pub const MAX_LEN: usize = 512;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let header = if input.u8() & 1 == 0 {
        input.rest().to_vec()
    } else {
        let mut header = format!("Bearer {KEY}").into_bytes();
        let at = usize::from(input.u8()) % (header.len() + 1);
        let until = (at + usize::from(input.u8() % 8)).min(header.len());
        header.splice(at..until, input.rest().iter().copied());
        header
    };
    let Ok(header) = std::str::from_utf8(&header) else { return false };
    let token = header.split_once(' ').map_or(header, |(_scheme, token)| token);
    assert_eq!(key::id_of(token), id_by_hand(token));
    assert!(key::id_of(token).is_none() || key::looks_like_key(token));

    let access = access();
    let shown = Shown { authorization: Some(header), ..Shown::default() };
    let first = wait(access.authenticate(shown));
    let is_good = header.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "))
        && &header[7..] == KEY;
    assert_eq!(first.is_ok(), is_good);
    let again = wait(access.authenticate(shown));
    assert_eq!(again.is_ok(), is_good, "what is remembered is what was found");
    for found in [first, again] {
        match found {
            Ok(caller) => {
                assert_eq!(caller.principal().name(), WRITER);
                assert!(caller.groups().is_empty() && caller.expires().is_none());
            }
            Err(error) => {
                assert_eq!(error.reason(), Reason::Unauthenticated);
                assert_eq!(error.message(), "the credential is not valid");
            }
        }
    }
    is_good
}

/// The form of a key, said in another way.
fn id_by_hand(text: &str) -> Option<&str> {
    let mut parts = text.split('_');
    let (Some("weft"), Some(id), Some(secret), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let is_id = id.chars().all(|c| matches!(c, 'a'..='k' | 'm' | 'n' | 'p'..='z' | '2'..='9'));
    let is_secret = secret.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    (id.len() == 12 && secret.len() == 64 && is_id && is_secret).then_some(id)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        format!("Bearer {KEY}"),
        format!("bEARER {KEY}"),
        format!("Bearer {LATE}"),
        format!("Bearer  {KEY}"),
        format!("Bearer {KEY} "),
        format!("Basic {KEY}"),
        format!("Bearer {}", KEY.to_uppercase()),
        KEY.to_owned(),
        "Bearer weft_".to_owned(),
        "Bearer eyJhbGciOiJub25lIn0.e30.".to_owned(),
        String::new(),
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| chosen(0, text)).collect();
    seeds.extend([
        vec![1],
        vec![1, 0, 6, b'B', b'E', b'A', b'R', b'E', b'R'],
        vec![1, 30, 1, b'0'],
    ]);
    seeds.push(vec![0, 0xff]);
    seeds
}
