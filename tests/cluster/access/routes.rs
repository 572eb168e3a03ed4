//! Every route of the HTTP port, every kind of caller: the table below is the promise, and a route
//! that is not in it does not compile.

use serde_json::json;
use weft_broker::http::Route;
use weft_proto::resource::Kind;
use weft_proto::v1;

use super::{SOON, Secured};
use crate::harness::http::{ask, begin};
use crate::http::{BATCH, JSON, event};

/// The callers: nobody; somebody of another namespace, who may do everything there; the four roles;
/// whoever may do everything everywhere.
const CALLERS: [&str; 7] = ["nobody", "other", "reader", "writer", "operator", "admin", "root"];
const VERSION: &str = "api-version=2024-06-01";

/// A request of a route, and who may make it: `y` may, `n` is refused.
struct Case {
    what: &'static str,
    target: String,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    may: &'static str,
}

fn cases(route: Route) -> Vec<Case> {
    let plain = |what, target: &str, may| Case {
        what,
        target: target.to_owned(),
        headers: Vec::new(),
        body: String::new(),
        may,
    };
    let one = event(1).to_string();
    let posted = |what, target: String, content, body: &str, may| Case {
        what,
        target,
        headers: vec![content],
        body: body.to_owned(),
        may,
    };
    let subscription =
        |rest: &str| format!("/topics/shop%2Forders/eventsubscriptions/shop%2Fsub:{rest}{VERSION}");
    let settled = |verb: &str| {
        posted(
            "no lock",
            subscription(verb),
            JSON,
            &json!({"lockTokens": ["x"]}).to_string(),
            "nnynnyy",
        )
    };
    match route {
        Route::Live => vec![plain("live", "/livez", "yyyyyyy")],
        Route::Ready => vec![plain("ready", "/readyz", "yyyyyyy")],
        Route::OpenApi => vec![plain("document", "/openapi.json", "yyyyyyy")],
        Route::Metrics => vec![plain("metrics", "/metrics", "nnnnnny")],
        Route::PublishEvents => {
            let path = || "/v1/streams/shop%2Forders/events".to_owned();
            let none = || "/v1/streams/shop/none/events".to_owned();
            vec![
                posted("one", path(), JSON, &one, "nnnynyy"),
                posted("batch", path(), BATCH, &format!("[{one}]"), "nnnynyy"),
                posted("nothing", path(), BATCH, "[]", "nnnynyy"),
                posted("no event", path(), JSON, "{", "nnnynyy"),
                posted("no stream", none(), JSON, &one, "nnnynyy"),
            ]
        }
        Route::FollowEvents => vec![
            plain("all", "/v1/streams/shop/orders/events?from=earliest&to=latest", "nnynnyy"),
            plain("wrong", "/v1/streams/shop/orders/events?from=noon", "nnynnyy"),
            plain("no stream", "/v1/streams/shop/none/events?to=latest", "nnynnyy"),
        ],
        Route::PullPublish => {
            let topic = format!("/topics/shop%2Forders:publish?{VERSION}");
            vec![posted("one", topic, JSON, &one, "nnnynyy")]
        }
        Route::PullReceive => {
            let none =
                format!("/topics/shop%2Forders/eventsubscriptions/shop%2Fx:receive?{VERSION}");
            vec![
                plain("what is there", &subscription("receive?maxWaitTime=0&"), "nnynnyy"),
                plain("no subscription", &none, "nnynnyy"),
            ]
        }
        Route::PullAcknowledge => vec![settled("acknowledge?")],
        Route::PullRelease => vec![settled("release?")],
        Route::PullReject => vec![settled("reject?")],
        Route::PullRenewLock => vec![settled("renewLock?")],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let secured = Secured::start(1).await;
    secured.put(Kind::Stream, "shop/orders", json!({"partitions": 1})).await;
    secured.put(Kind::Stream, "other/orders", json!({"partitions": 1})).await;
    let shared = json!({"stream": "shop/orders", "mode": "shared"});
    secured.put(Kind::Subscription, "shop/sub", shared).await;
    let abroad = json!({"principals": ["key:other/admin"], "role": "admin"});
    secured.put(Kind::Grant, "other/admin", abroad).await;
    let mut keys = vec![None, Some(secured.key("other/admin").await)];
    for role in ["reader", "writer", "operator", "admin"] {
        keys.push(Some(secured.with_role(role).await));
    }
    keys.push(Some(secured.root.clone()));
    let port = secured.cluster.nodes[0].ports.http;
    let mut wrong = Vec::new();
    let mut calls = 0;

    for &route in Route::ALL {
        let cases = cases(route);
        assert!(!cases.is_empty(), "{route:?} has no case");
        for Case { what, target, headers, body, may } in cases {
            for ((caller, key), may) in CALLERS.iter().zip(&keys).zip(may.chars()) {
                // Clients of Event Grid say it in their own way, which is the same door.
                let schemes = if route.is_pull() {
                    vec!["Bearer", "SharedAccessKey"]
                } else {
                    vec!["Bearer"]
                };
                for scheme in schemes {
                    let shown = key.as_ref().map(|key| format!("{scheme} {key}"));
                    let mut headers = headers.clone();
                    headers.extend(shown.as_deref().map(|shown| ("authorization", shown)));
                    let answer =
                        ask(port, route.method(), &target, &headers, body.as_bytes()).await;
                    calls += 1;
                    let refused = if key.is_none() { 401 } else { 403 };
                    let is_right = match (may, answer.status) {
                        ('n', status) => status == refused,
                        (_, status) => ![401, 403, 405, 408, 415].contains(&status) && status < 500,
                    };
                    // Whoever may not is not told whether there is such a thing.
                    let leaks = may == 'n' && answer.text().contains("there is no");
                    let is_told = answer.status < 400
                        || answer.header("content-type") == Some("application/problem+json");
                    let asks = answer.status == 401 && answer.header("www-authenticate").is_none();
                    if !is_right || leaks || !is_told || asks {
                        let text = answer.text();
                        wrong.push(format!(
                            "{route:?} {what} as {caller}: {may}, {}: {text}",
                            answer.status
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {calls} calls:\n{}", wrong.join("\n"));
    assert!(calls > 150, "{calls}");
}

/// A name without namespace is one of the key's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_looked_for_among_those_of_its_caller() {
    let secured = Secured::start(1).await;
    secured.put(Kind::Stream, "shop/orders", json!({})).await;
    let key = secured.with_role("writer").await;
    let shown = format!("SharedAccessKey {key}");
    let target = format!("/topics/orders:publish?{VERSION}");
    let headers = [JSON, ("authorization", shown.as_str())];

    let port = secured.cluster.nodes[0].ports.http;
    let answer = ask(port, "POST", &target, &headers, event(1).to_string().as_bytes()).await;

    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_events_ends_with_the_key_of_its_reader() {
    let secured = Secured::start(1).await;
    secured.put(Kind::Stream, "shop/orders", json!({})).await;
    let key = secured.with_role("reader").await;
    let listed = v1::ListKeysRequest { namespace: "shop".to_owned() };
    let keys: v1::ListKeysResponse =
        secured.ask(&secured.root, "/weft.v1.Access/ListKeys", &listed).await.one();
    let shown = format!("Bearer {key}");
    let headers = [("authorization", shown.as_str())];
    let port = secured.cluster.nodes[0].ports.http;
    let path = "/v1/streams/shop/orders/events";
    let mut open = begin(port, "GET", path, &headers, b"").await;
    assert_eq!(open.head.status, 200);

    let revoke = v1::RevokeKeyRequest { id: keys.keys[0].id.clone() };
    let _: v1::RevokeKeyResponse =
        secured.ask(&secured.root, "/weft.v1.Access/RevokeKey", &revoke).await.one();

    let last = tokio::time::timeout(SOON, open.next()).await.unwrap().unwrap();
    assert_eq!(last.event, "weft-error");
    assert_eq!(last.json()["reason"], "UNAUTHENTICATED");
    assert_eq!(open.next().await, None);
    assert_eq!(ask(port, "GET", path, &headers, b"").await.status, 401);
}
