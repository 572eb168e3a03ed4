//! Short texts and numbers that name or place things: names, durations, times, kinds, reasons, ids.
//! What is read is written back the same.

#![cfg_attr(fuzzing, no_main)]

use std::fmt::Display;
use std::str::FromStr;

use weft_fuzz::{Input, chosen};
use weft_proto::resource::{DurationText, Kind, MaxAge};
use weft_proto::{AckLevel, ErrorKind, Name, Offset, ProducerId, QualifiedName, Reason, Timestamp};

weft_fuzz::target!();

pub const MAX_LEN: usize = 256;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let choice = input.u8() % 10;
    let rest = input.rest();
    if choice >= 8 {
        let mut input = Input::new(rest);
        let wire = prost_types::Timestamp {
            seconds: input.number().cast_signed(),
            nanos: input.number() as i32,
        };
        let (level, start, count) = (input.number() as i32, input.number(), input.number());
        if let Ok(level) = AckLevel::from_wire(level) {
            assert_eq!(AckLevel::from_wire(level.to_wire().into()).ok(), Some(level));
        }
        assert_eq!(Offset(start).checked_add(count).map(Offset::get), start.checked_add(count));
        if let Some(id) = ProducerId::from_bytes(rest) {
            assert_eq!(ProducerId::from_bytes(&id.to_bytes()), Some(id));
        }
        let Ok(time) = Timestamp::try_from(wire) else { return false };
        assert_eq!(Timestamp::try_from(prost_types::Timestamp::from(time)), Ok(time));
        assert!(!time.to_string().is_empty());
        return true;
    }
    let Ok(text) = std::str::from_utf8(rest) else { return false };
    match choice {
        0 => {
            let Ok(name) = text.parse::<Name>() else { return false };
            assert_eq!(name.as_str(), text);
            assert!(!text.is_empty() && text.len() <= 63);
            let is_path = text.contains(['/', '.', '_', '\\', ' ', '\0']);
            assert!(text == "_weft.audit" || !is_path, "a name is no path");
            survives::<Name>(text)
        }
        1 => survives::<QualifiedName>(text),
        2 => survives::<DurationText>(text),
        3 => survives::<Timestamp>(text),
        4 => survives::<Kind>(text),
        5 => {
            let Ok(age) = MaxAge::try_from(text.to_owned()) else { return false };
            assert_eq!(MaxAge::try_from(String::from(age)), Ok(age));
            true
        }
        6 => {
            let Some(reason) = Reason::from_wire(text) else { return false };
            assert_eq!(reason.as_str(), text);
            true
        }
        _ => {
            let Some(kind) = ErrorKind::from_wire(text) else { return false };
            assert_eq!(kind.as_str(), text);
            true
        }
    }
}

fn survives<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str) -> bool {
    let Ok(read) = text.parse::<T>() else { return false };
    let written = read.to_string();
    assert_eq!(
        written.parse::<T>().ok().as_ref(),
        Some(&read),
        "{text:?} is written as {written:?}"
    );
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        (0, "orders-7"),
        (0, "../x"),
        (1, "shop/orders"),
        (1, "orders"),
        (2, "90s"),
        (2, "18446744073709551615ms"),
        (3, "2026-03-01T12:00:00.123456+01:00"),
        (3, "1969-12-31T23:59:59Z"),
        (4, "Stream"),
        (5, "forever"),
        (6, "UNKNOWN_STREAM"),
        (7, "invalid"),
        (8, "\u{1}\u{2}\u{3}\u{4}\u{5}"),
        (9, "0123456789abcdef"),
    ]
    .iter()
    .map(|(choice, text)| chosen(*choice, text))
    .collect()
}
