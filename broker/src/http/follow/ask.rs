//! What a reader of server-sent events asks for, as a request of `Read`. Pure.

use weft_proto::filter::{Filter, to_wire};
use weft_proto::{Error, QualifiedName, Result, Timestamp, v1};
use xxhash_rust::xxh3::xxh3_64;

use super::cursor::Cursor;
use crate::http::problem::invalid;
use crate::http::route::Query;
use crate::resources::StreamView;

/// Parameters that there are: one that is misspelt must not be passed over in silence.
pub(in crate::http) const PARAMETERS: [&str; 7] =
    ["filter", "from", "to", "limit", "partitions", "lastEventId", "rebind"];

/// What is asked for.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) request: v1::ReadRequest,
    pub(super) cursor: Cursor,
}

/// Reads a query, and the cursor in the header `last-event-id`, which counts more than that of the
/// query: a browser sends both when it comes back.
///
/// # Errors
///
/// `Invalid`, with the name of the parameter as the field.
pub(super) fn read(stream: &StreamView, query: &Query, header: Option<&str>) -> Result<Ask> {
    if let Some(unknown) = query.names().find(|name| !PARAMETERS.contains(name)) {
        let message =
            format!("there is no parameter {unknown:?}; there are {}", PARAMETERS.join(", "));
        return invalid(unknown, message);
    }
    let filters: Vec<Filter> =
        query.all("filter").map(|text| Filter::Sql(text.to_owned())).collect();
    let hash = hash(&filters);
    let resumed = header.or(query.one("lastEventId")?).filter(|text| !text.is_empty());
    let resumed = resumed.map(Cursor::decode).transpose()?;
    let rebinds = flag(query, "rebind")?;
    if let Some(cursor) = &resumed {
        check(stream, cursor, hash, rebinds)?;
    }
    let mut request = v1::ReadRequest {
        stream: stream.name.to_string(),
        partitions: numbers(query, "partitions")?,
        filters: to_wire(&filters),
        events_max: number(query, "limit")?,
        ..v1::ReadRequest::default()
    };
    let ends = match query.one("to")? {
        None => false,
        Some("latest") => true,
        Some(_) => return invalid("to", "`to` is `latest`, or is not there"),
    };
    request.to = ends.then_some(latest());
    let places = match &resumed {
        // A partition that the cursor does not know was not there when it was given.
        Some(cursor) => {
            let all = cursor.next.iter().map(|(&partition, &from)| (partition, from));
            (earliest(), all.collect())
        }
        None => places(query.one("from")?.unwrap_or("latest"))?,
    };
    request.from = Some(places.0);
    // The end of what is stored, wherever that is.
    let to = ends.then_some(u64::MAX);
    let range = |(partition, from)| v1::PartitionRange { partition, from, to };
    request.resume = places.1.into_iter().map(range).collect();
    let next = std::collections::BTreeMap::new();
    let cursor = Cursor { stream: stream.uid, filters: hash, next };
    Ok(Ask { request, cursor })
}

/// A name in a path.
///
/// # Errors
///
/// `Invalid`.
pub(in crate::http) fn name(text: &str, field: &'static str) -> Result<QualifiedName> {
    text.parse()
        .map_err(|error: weft_proto::NameError| Error::invalid(error.to_string()).with_field(field))
}

fn check(stream: &StreamView, cursor: &Cursor, hash: u32, rebinds: bool) -> Result<()> {
    if cursor.stream != stream.uid {
        let message = format!("the cursor is of another stream than {}", stream.name);
        return invalid("lastEventId", message);
    }
    if cursor.filters != hash && !rebinds {
        let message = "the cursor was given under another filter; add `rebind=true` to use it \
                       all the same";
        return invalid("lastEventId", message);
    }
    Ok(())
}

/// A position for all partitions, and offsets of some.
fn places(text: &str) -> Result<(v1::Position, Vec<(u32, u64)>)> {
    if text == "earliest" {
        return Ok((earliest(), Vec::new()));
    }
    if text == "latest" {
        return Ok((latest(), Vec::new()));
    }
    if let Ok(offset) = text.parse() {
        return Ok((at(v1::position::At::Offset(offset)), Vec::new()));
    }
    // Of `+01:00` in a query, the sign is a space.
    if let Ok(time) = text.replace(' ', "+").parse::<Timestamp>() {
        return Ok((at(v1::position::At::Time(time.into())), Vec::new()));
    }
    let one = |part: &str| {
        let (partition, offset) = part.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    match text.split(',').map(one).collect() {
        Some(offsets) => Ok((earliest(), offsets)),
        None => invalid(
            "from",
            "`from` is `earliest`, `latest`, an offset, offsets by partition as in `0:17,1:4`, or \
             a time as in `2026-03-01T12:00:00Z`",
        ),
    }
}

fn at(at: v1::position::At) -> v1::Position {
    v1::Position { at: Some(at) }
}

fn earliest() -> v1::Position {
    at(v1::position::At::Earliest(v1::Earliest {}))
}

fn latest() -> v1::Position {
    at(v1::position::At::Latest(v1::Latest {}))
}

fn number(query: &Query, name: &'static str) -> Result<u64> {
    let Some(text) = query.one(name)? else { return Ok(0) };
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => invalid(name, format!("`{name}` is a number from 1 on")),
    }
}

fn numbers(query: &Query, name: &'static str) -> Result<Vec<u32>> {
    let Some(text) = query.one(name)? else { return Ok(Vec::new()) };
    let numbers: std::result::Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    numbers.or_else(|_wrong| invalid(name, format!("`{name}` are numbers, as in `0,2`")))
}

fn flag(query: &Query, name: &'static str) -> Result<bool> {
    match query.one(name)? {
        None | Some("false") => Ok(false),
        Some("true" | "") => Ok(true),
        Some(_) => invalid(name, format!("`{name}` is `true` or `false`")),
    }
}

fn hash(filters: &[Filter]) -> u32 {
    let text = serde_json::to_string(filters).unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "a part of a hash is one")]
    let hash = xxh3_64(text.as_bytes()) as u32;
    hash
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use weft_proto::ResourceUid;

    fn stream() -> StreamView {
        StreamView {
            name: "orders".parse().unwrap(),
            uid: ResourceUid(7),
            generation: 1,
            event_bytes_max: 1_000,
            dedup: true,
            subject_index: false,
            placements: Arc::new([]),
            bindings: Arc::new([]),
        }
    }

    fn ask(query: &str, header: Option<&str>) -> Result<Ask> {
        read(&stream(), &Query::of(Some(query)), header)
    }

    fn cursor(filters: u32) -> String {
        let cursor = Cursor { stream: ResourceUid(7), filters, next: [(0, 5), (2, 9)].into() };
        let mut text = String::new();
        cursor.encode(&mut text);
        text
    }

    #[test]
    fn a_place_is_written_in_several_ways() {
        let from = |text: &str| ask(&format!("from={text}"), None).unwrap().request;

        assert_eq!(ask("", None).unwrap().request.from, Some(latest()));
        assert_eq!(from("earliest").from, Some(earliest()));
        assert_eq!(from("17").from, Some(at(v1::position::At::Offset(17))));
        for text in ["2026-03-01T12:00:00%2B01:00", "2026-03-01T12:00:00+01:00"] {
            let time: Timestamp = "2026-03-01T11:00:00Z".parse().unwrap();
            assert_eq!(from(text).from, Some(at(v1::position::At::Time(time.into()))));
        }
        let some = from("0:17,3:4");
        let offsets: Vec<_> = some.resume.iter().map(|one| (one.partition, one.from)).collect();
        assert_eq!((some.from, offsets), (Some(earliest()), vec![(0, 17), (3, 4)]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_name() {
        for (query, field) in [
            ("from=noon", "from"),
            ("from=", "from"),
            ("from=1:2,3", "from"),
            ("from=1&from=2", "from"),
            ("to=1", "to"),
            ("limit=0", "limit"),
            ("partitions=a", "partitions"),
            ("lastEventId=x", "lastEventId"),
            ("rebind=maybe", "rebind"),
            ("form=earliest", "form"),
        ] {
            assert_eq!(ask(query, None).unwrap_err().field(), Some(field), "{query}");
        }
    }

    #[test]
    fn a_cursor_goes_on_where_it_was_given_and_nowhere_else() {
        let none = hash(&[]);
        let request = ask("from=earliest&to=latest", Some(&cursor(none))).unwrap().request;
        let resume: Vec<_> =
            request.resume.iter().map(|one| (one.partition, one.from, one.to)).collect();
        assert_eq!(resume, [(0, 5, Some(u64::MAX)), (2, 9, Some(u64::MAX))]);
        assert_eq!(request.from, Some(earliest()));
        // A browser that comes back sends its first query again, and the newer place as a header.
        let old = format!("lastEventId={}", cursor(none ^ 1));
        assert_eq!(ask(&old, Some(&cursor(none))).unwrap().request.resume.len(), 2);

        let other = ask("filter=TRUE", Some(&cursor(none))).unwrap_err();
        assert!(other.message().contains("rebind"), "{other}");
        assert!(ask("filter=TRUE&rebind=true", Some(&cursor(none))).is_ok());
        let mut elsewhere = stream();
        elsewhere.uid = ResourceUid(8);
        assert!(read(&elsewhere, &Query::default(), Some(&cursor(none))).is_err());
    }
}
