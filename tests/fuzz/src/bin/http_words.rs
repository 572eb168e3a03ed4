//! What clients of the HTTP port write into a request: its target (route, names, query), and the words
//! that the port gave them, cursors and locks.

#![cfg_attr(fuzzing, no_main)]

use weft_broker::fuzzing::{cursor_again, lock_again};
use weft_broker::http::{Query, Route};

weft_fuzz::target!();

pub const MAX_LEN: usize = 512;

pub fn run(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let mut is_known = false;
    for again in [cursor_again, lock_again] {
        // There may be more ways to write a number, but only one in which we do.
        if let Some(written) = again(text) {
            is_known = true;
            assert_eq!(again(&written).as_deref(), Some(written.as_str()));
        }
    }
    for method in ["GET", "POST"] {
        if let Ok(found) = Route::find(method, path) {
            is_known = true;
            assert_eq!(found.names.len(), found.route.parameters().count());
            assert!(found.names.iter().all(|name| !name.is_empty()), "{found:?}");
        }
    }
    let query = Query::of(Some(query));
    for name in query.names() {
        assert!(query.all(name).next().is_some());
    }
    is_known
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        "/livez",
        "/v1/streams/orders/events?from=0:17,1:4&filter=id%20%3D%20%271%27",
        "/v1/streams/shop%2Forders/events",
        "/v1/streams/shop/orders/events?a&=b&&c=%ff+",
        "/topics/orders:publish?api-version=2024-06-01",
        "/topics/shop/a/eventsubscriptions/shop%2Fb:receive",
        "/topics/a/b/c:publish",
        "AQeFv0oABQIJAAAAAA",
        "AgABAgMEBQYHCAkKCwwNDg8QBwADBAUBCQ",
        "AgEBAgMEBQYHCAkKCwwNDg8QBwADBAUBAA",
        "",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
