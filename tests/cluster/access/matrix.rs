//! Every method, every kind of caller: the table below is the promise, and a method that is not in it
//! does not compile.

use bytes::Bytes;
use serde_json::json;
use tonic::Code;
use weft_proto::resource::{Kind, Verb};
use weft_proto::{Method, v1};

use super::wire::call;
use super::{Secured, event};

/// The callers: somebody of another namespace, who may do everything there; the four roles; whoever
/// may do everything everywhere.
const CALLERS: [&str; 6] = ["other", "reader", "writer", "operator", "admin", "root"];

/// A request of a method, and who may make it: `y` may, `n` is refused, `h` is told that there is no
/// such thing.
struct Case {
    what: &'static str,
    message: Bytes,
    may: &'static str,
}

fn case(what: &'static str, may: &'static str, message: &impl prost::Message) -> Case {
    Case { what, message: message.encode_to_vec().into(), may }
}

fn put(kind: Kind, name: &str, spec: &serde_json::Value, dry_run: bool) -> v1::PutRequest {
    let (namespace, name) = name.split_once('/').unwrap();
    let resource = v1::Resource {
        kind: kind.as_str().to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        spec: spec.to_string().into(),
        ..v1::Resource::default()
    };
    v1::PutRequest { resource: Some(resource), dry_run, ..v1::PutRequest::default() }
}

#[expect(clippy::too_many_lines, reason = "one table")]
fn cases(method: Method, victim: &str) -> Vec<Case> {
    let stream = || "shop/orders".to_owned();
    match method {
        Method::PublishPublish => {
            let publish = |events, atomic| v1::PublishRequest {
                stream: stream(),
                events,
                atomic,
                ..v1::PublishRequest::default()
            };
            vec![
                case("one", "nnynyy", &publish(vec![event("1", "t")], false)),
                case("batch", "nnynyy", &publish(vec![event("2", "t"), event("3", "t")], false)),
                case("atomic", "nnynyy", &publish(vec![event("4", "t"), event("5", "t")], true)),
                case("nothing", "nnynyy", &publish(Vec::new(), false)),
            ]
        }
        Method::PublishPublishStream => {
            let open = v1::PublishOpen { stream: stream(), ..v1::PublishOpen::default() };
            let frame = Some(v1::publish_stream_request::Frame::Open(open));
            vec![case("open", "nnynyy", &v1::PublishStreamRequest { frame })]
        }
        Method::ReadRead => {
            let read = |to| v1::ReadRequest { stream: stream(), to, ..v1::ReadRequest::default() };
            let latest = v1::Position { at: Some(v1::position::At::Latest(v1::Latest {})) };
            let deeply = v1::ReadRequest { merged: true, linearizable: true, ..read(Some(latest)) };
            vec![
                case("follow", "nynnyy", &read(None)),
                case("range", "nynnyy", &read(Some(latest))),
                case("merged", "nynnyy", &deeply),
            ]
        }
        Method::ReadLocate => {
            let request = v1::LocateRequest { stream: stream(), ..v1::LocateRequest::default() };
            vec![case("all", "nynnyy", &request)]
        }
        Method::ReadTestFilter => {
            let test = |subscription: &str| v1::TestFilterRequest {
                stream: stream(),
                subscription: subscription.to_owned(),
                ..v1::TestFilterRequest::default()
            };
            vec![
                case("range", "nynnyy", &test("")),
                case("subscription", "nynnyy", &test("shop/sub")),
            ]
        }
        Method::PublishCancelDelayed => {
            let request = v1::CancelDelayedRequest {
                stream: stream(),
                id: "none".to_owned(),
                ..v1::CancelDelayedRequest::default()
            };
            vec![case("nothing", "nnynyy", &request)]
        }
        Method::ReadListDelayed => {
            let request =
                v1::ListDelayedRequest { stream: stream(), ..v1::ListDelayedRequest::default() };
            vec![case("all", "nynnyy", &request)]
        }
        Method::ReadTraceEvent => {
            let request = v1::TraceEventRequest {
                stream: stream(),
                id: "1".to_owned(),
                ..v1::TraceEventRequest::default()
            };
            vec![case("any source", "nynnyy", &request)]
        }
        Method::SubscribeSubscribe => {
            let open = v1::SubscribeOpen {
                subscription: "shop/sub".to_owned(),
                ..v1::SubscribeOpen::default()
            };
            let frame = Some(v1::subscribe_request::Frame::Open(open));
            vec![case("open", "nynnyy", &v1::SubscribeRequest { frame })]
        }
        Method::SubscribeSeek => {
            let earliest = v1::Position { at: Some(v1::position::At::Earliest(v1::Earliest {})) };
            let request = || v1::SeekRequest {
                subscription: "shop/sub".to_owned(),
                ..v1::SeekRequest::default()
            };
            let event = || v1::EventPlace { id: "1".to_owned(), ..v1::EventPlace::default() };
            let earliest = v1::SeekRequest { to: Some(earliest), ..request() };
            // Who finds an event learns that it is there.
            let event = v1::SeekRequest { to_event: Some(event()), ..request() };
            vec![case("earliest", "nnnyyy", &earliest), case("event", "nnnnyy", &event)]
        }
        Method::SubscribeListDeadLetters => {
            let subscription = "shop/sub".to_owned();
            let request = v1::ListDeadLettersRequest {
                subscription,
                ..v1::ListDeadLettersRequest::default()
            };
            vec![case("all", "nynnyy", &request)]
        }
        Method::SubscribeRedrive => {
            let redrive = |dry_run: bool| v1::RedriveRequest {
                subscription: "shop/sub".to_owned(),
                dry_run,
                ..v1::RedriveRequest::default()
            };
            vec![case("all", "nnnyyy", &redrive(false)), case("dry run", "nnnyyy", &redrive(true))]
        }
        Method::SubscribeGetProgress => {
            use v1::get_progress_request::Of;
            let of = |of| v1::GetProgressRequest { of: Some(of), min_generation: 0 };
            vec![
                case("subscription", "nyyyyy", &of(Of::Subscription("shop/sub".to_owned()))),
                case("no replay job", "nyyyyy", &of(Of::ReplayJob("shop/nothing".to_owned()))),
            ]
        }
        Method::CatalogPut => {
            let stream = json!({"partitions": 1});
            let subscription = json!({"stream": "shop/orders"});
            let function = json!({"command": ["true"], "triggers": [{"stream": "shop/orders"}]});
            let replies = json!({"command": ["true"], "reply": {"stream": "shop/orders"},
                "triggers": [{"stream": "shop/orders"}]});
            let grant = json!({"principals": ["key:shop/x"], "role": "reader"});
            let limit = json!({"principals": ["key:shop/x"], "open_calls": 9});
            let policy = json!({"require_digest": true});
            let abroad = json!({"stream": "other/orders"});
            let job = |target: &str| json!({"target": {"subscription": target}});
            let from_event =
                json!({"target": {"subscription": "shop/sub"}, "from": {"event": "none"}});
            let webhook = json!({"stream": "shop/orders", "url": "https://h.example/"});
            let leak = json!({"stream": "other/orders", "url": "https://h.example/"});
            vec![
                case("stream", "nnnyyy", &put(Kind::Stream, "shop/new", &stream, false)),
                case("dry run", "nnnyyy", &put(Kind::Stream, "shop/newer", &stream, true)),
                case(
                    "subscription",
                    "nnnyyy",
                    &put(Kind::Subscription, "shop/s2", &subscription, false),
                ),
                // A stream of another namespace is not theirs to read.
                case("abroad", "nnnnny", &put(Kind::Subscription, "shop/s3", &abroad, false)),
                // A function reads and publishes: whoever may not, may not by it.
                case("function", "nnnnyy", &put(Kind::Function, "shop/f", &function, true)),
                case("replies", "nnnnyy", &put(Kind::Function, "shop/f", &replies, true)),
                case(
                    "schema",
                    "nnnyyy",
                    &put(Kind::Schema, "shop/s", &json!({"document": {}}), false),
                ),
                // Its members get what whoever makes it must be allowed to read.
                case(
                    "replay job",
                    "nnnnyy",
                    &put(Kind::ReplayJob, "shop/j", &job("shop/sub"), true),
                ),
                case(
                    "job from an event",
                    "nnnnyy",
                    &put(Kind::ReplayJob, "shop/j", &from_event, true),
                ),
                case(
                    "job abroad",
                    "nnnnny",
                    &put(Kind::ReplayJob, "shop/j", &job("other/sub"), true),
                ),
                // A webhook carries events out: not everybody who may edit may have one.
                case("webhook", "nnnnyy", &put(Kind::Webhook, "shop/w", &webhook, true)),
                case("leak", "nnnnny", &put(Kind::Webhook, "shop/w", &leak, true)),
                case("grant", "nnnnyy", &put(Kind::Grant, "shop/g", &grant, false)),
                case("grant to all", "nnnnny", &put(Kind::Grant, "weft-system/g", &grant, false)),
                case("limit", "nnnnny", &put(Kind::Limit, "weft-system/l", &limit, false)),
                case("policy", "nnnnyy", &put(Kind::ContainerPolicy, "shop/p", &policy, false)),
                case(
                    "policy of all",
                    "nnnnny",
                    &put(Kind::ContainerPolicy, "weft-system/p", &policy, false),
                ),
            ]
        }
        Method::CatalogGet => {
            let get = |kind: &str, name: &str| v1::GetRequest {
                kind: kind.to_owned(),
                name: name.to_owned(),
                min_generation: 0,
            };
            vec![
                case("stream", "nyyyyy", &get("Stream", "shop/orders")),
                case("nothing", "nyyyyy", &get("Stream", "shop/nothing")),
                case("subscription", "nyyyyy", &get("Subscription", "shop/sub")),
                case("replay job", "nyyyyy", &get("ReplayJob", "shop/job")),
                case("grant", "nnnnyy", &get("Grant", "shop/reader")),
                case("policy", "nyyyyy", &get("ContainerPolicy", "shop/none")),
                case("policy of all", "yyyyyy", &get("ContainerPolicy", "weft-system/none")),
                case("audit", "nnnnny", &get("Stream", "_weft.audit")),
            ]
        }
        Method::CatalogList => {
            let list = |kind: &str| v1::ListRequest {
                kind: kind.to_owned(),
                ..v1::ListRequest::default()
            };
            vec![
                case("streams", "yyyyyy", &list("Stream")),
                case("grants", "yyyyyy", &list("Grant")),
            ]
        }
        Method::CatalogWatch => vec![case("all", "yyyyyy", &v1::WatchRequest::default())],
        Method::CatalogDelete => {
            let delete = |kind: &str, name: &str| v1::DeleteRequest {
                kind: kind.to_owned(),
                name: name.to_owned(),
                expected_generation: None,
            };
            vec![
                case("stream", "nnnyyy", &delete("Stream", "shop/nothing")),
                case("grant", "nnnnyy", &delete("Grant", "shop/nothing")),
            ]
        }
        Method::CatalogSetStatus => {
            let request = v1::SetStatusRequest {
                kind: "Function".to_owned(),
                name: "shop/f".to_owned(),
                uid: 1,
                status: Bytes::from_static(b"{}"),
            };
            vec![case("function", "nnnnyy", &request)]
        }
        Method::ClusterStatus => vec![case("all", "nnnnny", &v1::StatusRequest {})],
        Method::ClusterRoute => {
            let request = v1::RouteRequest { stream: stream(), min_generation: 0 };
            vec![case("stream", "nyyyyy", &request)]
        }
        Method::ClusterRemoveNode => {
            vec![case("node", "nnnnny", &v1::RemoveNodeRequest { node_id: 99 })]
        }
        Method::ClusterDrain => {
            vec![case("node", "nnnnny", &v1::DrainRequest { node_id: 99, undo: false })]
        }
        Method::AccessWhoAmI => vec![case("self", "yyyyyy", &v1::WhoAmIRequest {})],
        Method::AccessCreateKey => {
            let create =
                |name: &str| v1::CreateKeyRequest { name: name.to_owned(), expires_in_seconds: 60 };
            vec![
                case("key", "nnnnyy", &create("shop/new")),
                case("first", "nnnnny", &create("weft-system/bootstrap")),
            ]
        }
        Method::AccessListKeys => vec![case("all", "yyyyyy", &v1::ListKeysRequest::default())],
        Method::AccessRevokeKey => {
            let revoke = |id: &str| v1::RevokeKeyRequest { id: id.to_owned() };
            // The last one finds that it was done before.
            vec![case("key", "hhhhyh", &revoke(victim)), case("none", "hhhhhh", &revoke("none"))]
        }
        Method::AccessExplain => {
            let explain = |principal: &str| v1::ExplainRequest {
                principal: principal.to_owned(),
                groups: Vec::new(),
                verb: Verb::Read.as_str().to_owned(),
                resource: stream(),
            };
            vec![
                case("self", "yyyyyy", &explain("")),
                case("somebody", "nnnnyy", &explain("key:shop/somebody")),
            ]
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_lets_in_whom_it_should_and_nobody_else() {
    let secured = Secured::start(1).await;
    let stream = json!({"partitions": 1});
    secured.put(Kind::Stream, "shop/orders", stream.clone()).await;
    secured.put(Kind::Stream, "other/orders", stream).await;
    secured.put(Kind::Subscription, "shop/sub", json!({"stream": "shop/orders"})).await;
    let abroad = json!({"principals": ["key:other/admin"], "role": "admin"});
    secured.put(Kind::Grant, "other/admin", abroad).await;
    let mut keys = vec![secured.key("other/admin").await];
    for role in ["reader", "writer", "operator", "admin"] {
        keys.push(secured.with_role(role).await);
    }
    keys.push(secured.root.clone());
    let victim = secured.created("shop/victim", 0).await.key.unwrap().id;
    let endpoint = secured.endpoint();
    let mut wrong = Vec::new();
    let mut calls = 0;

    for &method in Method::ALL {
        let cases = cases(method, &victim);
        assert!(!cases.is_empty(), "{method:?} has no case");
        for Case { what, message, may } in cases {
            for key in [None, Some("x"), Some(&secured.root[..81])] {
                let answer = call(&endpoint, key, method.path(), vec![message.clone()]).await;
                calls += 1;
                // Too many of them, and nothing is looked at any more.
                let refused = [Code::Unauthenticated, Code::ResourceExhausted];
                if !refused.contains(&answer.code) || !answer.messages.is_empty() {
                    wrong.push(format!("{method:?} {what} {key:?}: {answer:?}"));
                }
            }
            for ((caller, key), may) in CALLERS.iter().zip(&keys).zip(may.chars()) {
                let answer = call(&endpoint, Some(key), method.path(), vec![message.clone()]).await;
                calls += 1;
                let is_right = match (may, answer.code) {
                    ('n', code) => code == Code::PermissionDenied && answer.messages.is_empty(),
                    ('h', code) => code == Code::NotFound && answer.messages.is_empty(),
                    (
                        _,
                        Code::PermissionDenied
                        | Code::Unauthenticated
                        | Code::Unimplemented
                        | Code::Internal
                        | Code::Unknown,
                    ) => false,
                    _ => true,
                };
                // Nothing of one namespace is shown to the other, whatever was asked.
                let leaks = *caller == "other" && may == 'y' && {
                    let own = method == Method::AccessExplain;
                    !own && answer.contains("shop")
                };
                if !is_right || leaks {
                    wrong.push(format!("{method:?} {what} as {caller}: {may}, {answer:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {calls} calls:\n{}", wrong.join("\n"));
    assert!(calls > 300, "{calls}");
}
