//! How much each may use.

use prost::Message as _;
use serde_json::json;
use tonic::Code;
use weft_client::Reason;
use weft_proto::resource::Kind;
use weft_proto::v1;

use super::Secured;
use super::wire::call;
use crate::harness::http;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rates_are_told_and_what_is_over_them_is_refused_with_the_time_to_wait() {
    let secured = Secured::start(1).await;
    secured.put(Kind::Stream, "shop/orders", json!({})).await;
    let key = secured.with_role("writer").await;
    let spec = json!({"principals": ["key:shop/writer"], "requests_per_second": 3,
        "publish_bytes_per_second": 1_500_000});
    secured.put(Kind::Limit, "weft-system/few", spec).await;
    let ask = |key: String| {
        let endpoint = secured.endpoint();
        let message = v1::WhoAmIRequest {}.encode_to_vec().into();
        async move { call(&endpoint, Some(&key), "/weft.v1.Access/WhoAmI", vec![message]).await }
    };

    let first = ask(key.clone()).await;
    assert_eq!(first.code, Code::Ok);
    assert_eq!(first.metadata.get("ratelimit-policy").unwrap(), "\"requests\";q=3;w=1");
    assert!(
        first.metadata.get("ratelimit").unwrap().to_str().unwrap().starts_with("\"requests\";r=")
    );
    let mut refused = None;
    for _ in 0..200 {
        let answer = ask(key.clone()).await;
        if answer.code != Code::Ok {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("200 calls within a second or two of 3 each");
    assert_eq!(refused.code, Code::ResourceExhausted);
    assert!(refused.text.contains("requests_per_second = 3"), "{}", refused.text);
    assert!(refused.retry_after.unwrap() <= std::time::Duration::from_secs(1));
    // What is refused for the rate says what is left of it, too.
    let told = |name: &str| refused.metadata.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(told("ratelimit-policy"), "\"requests\";q=3;w=1");
    assert_eq!(told("ratelimit"), "\"requests\";r=0;t=1");
    assert_eq!(told("retry-after"), "1");
    over_http(&secured, &key).await;
    // Nobody else is slowed down by it.
    for _ in 0..20 {
        assert_eq!(ask(secured.root.clone()).await.code, Code::Ok);
    }

    // Bytes, at the leader: a mebibyte and a half at once, and then no more of that size.
    let spec = json!({"principals": ["key:shop/writer"], "publish_bytes_per_second": 1_500_000});
    secured.put(Kind::Limit, "weft-system/few", spec).await;
    let publish = |id: &str| v1::PublishRequest {
        stream: "shop/orders".to_owned(),
        events: vec![super::event(&format!("{id}{}", "x".repeat(700_000)), "t")],
        ..v1::PublishRequest::default()
    };
    let mut codes = Vec::new();
    for id in ["1", "2", "3", "4", "5", "6"] {
        codes.push(secured.ask(&key, "/weft.v1.Publish/Publish", &publish(id)).await.code);
    }
    assert_eq!(codes[..2], [Code::Ok, Code::Ok]);
    assert!(codes[2..].contains(&Code::ResourceExhausted), "{codes:?}");
}

/// The same over HTTP, against the same rate.
async fn over_http(secured: &Secured, key: &str) {
    let port = secured.cluster.nodes[0].ports.http;
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str())];
    let mut refused = None;
    for _ in 0..200 {
        // Nothing of this is published: it is no event.
        let path = "/v1/streams/shop%2Forders/events";
        let answer = http::ask(port, "POST", path, &headers, b"{").await;
        assert_eq!(answer.header("ratelimit-policy"), Some("\"requests\";q=3;w=1"));
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("200 requests within a second or two of 3 each");
    assert_eq!(refused.header("ratelimit"), Some("\"requests\";r=0;t=1"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.text().contains("LIMIT_REACHED"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_open_are_counted_and_given_back() {
    let secured = Secured::start(1).await;
    secured.put(Kind::Stream, "shop/orders", json!({})).await;
    let key = secured.with_role("reader").await;
    let spec = json!({"principals": ["key:shop/reader"], "open_calls": 2});
    secured.put(Kind::Limit, "weft-system/two", spec).await;
    let read = v1::ReadRequest { stream: "shop/orders".to_owned(), ..v1::ReadRequest::default() };
    let message: bytes::Bytes = read.encode_to_vec().into();
    let path = "/weft.v1.Read/Read";
    let open = || {
        let (endpoint, key, message) = (secured.endpoint(), key.clone(), message.clone());
        async move { super::wire::until_end(&endpoint, &key, path, message).await }
    };

    let mut held = tokio::task::JoinSet::from_iter([open(), open()]);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let third = secured.ask(&key, path, &read).await;
    assert_eq!(third.code, Code::ResourceExhausted, "{third:?}");
    assert!(third.text.contains("open_calls = 2"), "{}", third.text);
    held.shutdown().await;

    let mut code = Code::ResourceExhausted;
    for _ in 0..100 {
        code = secured.ask(&key, path, &read).await.code;
        if code == Code::Ok {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(code, Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_holds_no_more_than_it_may() {
    let secured = Secured::start(1).await;
    let key = secured.with_role("admin").await;
    let spec = json!({"namespaces": ["shop"], "streams": 2, "subscriptions": 1,
        "stored_bytes": 3_000_000});
    secured.put(Kind::Limit, "weft-system/small", spec).await;
    let stream = |bytes: u64| json!({"partitions": 2, "retention": {"max_bytes": bytes}});
    let put = |name: &'static str, spec| secured.try_put(&key, Kind::Stream, name, spec);

    let open = put("shop/a", json!({})).await.unwrap_err();
    assert_eq!(open.reason(), Reason::QuotaExceeded);
    assert_eq!(open.field(), Some("spec.retention.max_bytes"));
    put("shop/a", stream(1_000_000)).await.unwrap();
    let big = put("shop/b", stream(600_000)).await.unwrap_err();
    assert!(big.message().contains("more than the 3000000 of Limit weft-system/small"), "{big}");
    put("shop/b", stream(500_000)).await.unwrap();
    assert_eq!(put("shop/c", stream(1)).await.unwrap_err().reason(), Reason::QuotaExceeded);
    assert_eq!(put("shop/a", stream(1_000_001)).await.unwrap_err().reason(), Reason::QuotaExceeded);
    // Less is always allowed, and other namespaces have limits of their own.
    put("shop/a", stream(900_000)).await.unwrap();
    secured.put(Kind::Stream, "other/a", json!({})).await;
    let subscription = || json!({"stream": "shop/a"});
    let join = |name: &'static str| secured.try_put(&key, Kind::Subscription, name, subscription());
    join("shop/one").await.unwrap();
    assert_eq!(join("shop/two").await.unwrap_err().reason(), Reason::QuotaExceeded);
    // Whoever is limited does not lift the limit.
    let spec = json!({"namespaces": ["shop"], "streams": 9});
    let lifted = secured.try_put(&key, Kind::Limit, "weft-system/small", spec).await.unwrap_err();
    assert_eq!(lifted.reason(), Reason::PermissionDenied);
}
