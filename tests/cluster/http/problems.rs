//! Whatever is wrong is told in one form, with its reason and its status.

use serde_json::{Value, json};
use weft_proto::resource::Kind;

use super::{BATCH, EVENTS, JSON, STREAM, event, port};
use crate::harness::http::ask;
use crate::harness::{Cluster, put};

const VERSION: &str = "?api-version=2024-06-01";

/// Method, target, headers, body; status and reason of the answer.
type Case<'a> = (&'a str, String, Vec<(&'a str, &'a str)>, &'a [u8], u16, &'a str);

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table")]
async fn what_is_wrong_is_told_as_a_problem() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    put(&client, Kind::Stream, STREAM, &json!({"event_bytes_max": 2_000})).await;
    put(&client, Kind::Subscription, "alone", &json!({"stream": STREAM})).await;
    put(&client, Kind::Subscription, "all", &json!({"stream": STREAM, "mode": "shared"})).await;
    let port = port(&cluster);
    let text = |change: &dyn Fn(&mut Value)| {
        let mut event = event(1);
        change(&mut event);
        event.to_string().into_bytes()
    };
    let good = text(&|_event| {});
    let without_id = text(&|event| _ = event.as_object_mut().unwrap().remove("id"));
    let large = text(&|event| event["data"] = json!("x".repeat(3_000)));
    let deep = text(&|event| event["data"] = json!("DEEP"));
    let deep =
        String::from_utf8(deep).unwrap().replace("\"DEEP\"", &("[".repeat(200) + &"]".repeat(200)));
    let grid = |rest: &str| format!("/topics/orders{rest}");
    let of = |subscription: &str, rest: &str| {
        format!("/topics/orders/eventsubscriptions/{subscription}:{rest}")
    };
    let (to, get) = ("POST", "GET");
    let huge = vec![b' '; 3 << 20];
    let xml = ("content-type", "application/cloudevents+xml");
    let zipped = ("content-encoding", "gzip");
    let plain = ("content-type", "text/plain");
    let cases: Vec<Case<'_>> = vec![
        (to, EVENTS.into(), vec![JSON], b"{", 400, "MALFORMED_EVENT"),
        (to, EVENTS.into(), vec![JSON], b"{\"id\":\"1\",\"id\":\"1\"}", 400, "MALFORMED_EVENT"),
        (to, EVENTS.into(), vec![JSON], &without_id, 400, "MALFORMED_EVENT"),
        (to, EVENTS.into(), vec![JSON], deep.as_bytes(), 400, "MALFORMED_EVENT"),
        (to, EVENTS.into(), vec![BATCH], b"{}", 400, "MALFORMED_EVENT"),
        (to, EVENTS.into(), vec![plain], b"x", 400, "MALFORMED_EVENT"),
        (to, EVENTS.into(), vec![], b"", 400, "MALFORMED_EVENT"),
        (to, EVENTS.into(), vec![JSON, plain], &good, 400, "INVALID_ARGUMENT"),
        (to, EVENTS.into(), vec![xml], b"<a/>", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (to, EVENTS.into(), vec![JSON, zipped], &good, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (to, EVENTS.into(), vec![JSON], &large, 413, "TOO_LARGE"),
        (to, EVENTS.into(), vec![JSON], &huge, 413, "TOO_LARGE"),
        (to, "/v1/streams/none/events".into(), vec![JSON], &good, 404, "UNKNOWN_STREAM"),
        (to, "/v1/streams/Bad/events".into(), vec![JSON], &good, 400, "INVALID_ARGUMENT"),
        ("PUT", EVENTS.into(), vec![JSON], &good, 405, "METHOD_NOT_ALLOWED"),
        (to, "/livez".into(), vec![], b"", 405, "METHOD_NOT_ALLOWED"),
        (get, "/nothing".into(), vec![], b"", 404, "UNKNOWN_ROUTE"),
        (get, "/v1/streams/none/events".into(), vec![], b"", 404, "UNKNOWN_STREAM"),
        (get, format!("{EVENTS}?from=noon"), vec![], b"", 400, "INVALID_ARGUMENT"),
        (get, format!("{EVENTS}?filter=)"), vec![], b"", 400, "INVALID_ARGUMENT"),
        (get, format!("{EVENTS}?from=99"), vec![], b"", 416, "OFFSET_OUT_OF_RANGE"),
        (get, format!("{EVENTS}?partitions=9"), vec![], b"", 400, "INVALID_ARGUMENT"),
        (get, EVENTS.into(), vec![("last-event-id", "x")], b"", 400, "INVALID_ARGUMENT"),
        (to, grid(":publish"), vec![JSON], &good, 400, "INVALID_ARGUMENT"),
        (to, grid(&format!(":publish{VERSION}")), vec![xml], b"", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (to, of("none", &format!("receive{VERSION}")), vec![], b"", 404, "UNKNOWN_RESOURCE"),
        (to, of("alone", &format!("receive{VERSION}")), vec![], b"", 400, "INVALID_ARGUMENT"),
        (
            to,
            of("all", &format!("receive{VERSION}&maxEvents=101")),
            vec![],
            b"",
            400,
            "INVALID_ARGUMENT",
        ),
        (
            to,
            of("all", &format!("receive{VERSION}&maxWaitTime=121")),
            vec![],
            b"",
            400,
            "INVALID_ARGUMENT",
        ),
        (to, of("all", &format!("acknowledge{VERSION}")), vec![], b"[]", 400, "INVALID_ARGUMENT"),
        (
            to,
            of("all", &format!("release{VERSION}&releaseDelayInSeconds=-1")),
            vec![],
            b"{}",
            400,
            "INVALID_ARGUMENT",
        ),
        (
            to,
            "/topics/other/eventsubscriptions/all:receive?api-version=1".into(),
            vec![],
            b"",
            404,
            "UNKNOWN_RESOURCE",
        ),
    ];
    for (method, target, headers, body, status, reason) in cases {
        let answer = ask(port, method, &target, &headers, body).await;

        let told = answer.json();
        let what = format!("{method} {target} {headers:?}: {told}");
        assert_eq!((answer.status, told["reason"].as_str()), (status, Some(reason)), "{what}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
        assert_eq!(told["status"], status, "{what}");
        assert_eq!(told["type"], format!("urn:weft:reason:{reason}"), "{what}");
        for text in ["title", "detail"] {
            assert!(told[text].as_str().is_some_and(|text| !text.is_empty()), "{what}");
        }
        assert_eq!(answer.header("allow").is_some(), status == 405, "{what}");
        let is_grid = target.starts_with("/topics/");
        assert_eq!(told["error"]["code"].as_str(), is_grid.then_some(reason), "{what}");
        assert_eq!(answer.header("x-ms-error-code"), is_grid.then_some(reason), "{what}");
    }
}

#[tokio::test]
async fn the_document_of_the_routes_is_served() {
    let cluster = Cluster::start(1).await;

    let answer = ask(port(&cluster), "GET", "/openapi.json", &[], b"").await;

    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    for route in weft_broker::http::Route::ALL {
        let method = route.method().to_lowercase();
        let operation = &document["paths"][route.template()][&method];
        assert_eq!(operation["operationId"], route.name());
    }
}
