//! What one namespace finds out about another: nothing, not even what is there.

use bytes::Bytes;
use serde_json::json;
use tonic::Code;
use weft_proto::resource::Kind;
use weft_proto::v1;

use super::wire::Answer;
use super::{Secured, event};

/// The same question about something that is there and something that is not.
async fn both(
    secured: &Secured,
    key: &str,
    path: &str,
    ask: impl Fn(&str) -> Bytes,
) -> [Answer; 2] {
    let endpoint = secured.endpoint();
    let call = |name: &str| super::call(&endpoint, Some(key), path, vec![ask(name)]);
    [call("shop/orders").await, call("shop/absent").await]
}

fn bytes(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

#[expect(clippy::too_many_lines, reason = "one question after the other")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_does_not_tell_whether_something_of_others_is_there() {
    let secured = Secured::start(1).await;
    for kind in
        [Kind::Stream, Kind::Schema, Kind::Subscription, Kind::Function, Kind::Webhook, Kind::Grant]
    {
        let spec = match kind {
            Kind::Schema => json!({"document": {"type": "object"}}),
            Kind::Subscription => json!({"stream": "shop/orders"}),
            Kind::Function => json!({"command": ["true"], "triggers": [{"stream": "shop/orders"}]}),
            Kind::Webhook => json!({"stream": "shop/orders", "url": "https://h.example/"}),
            Kind::Grant => json!({"principals": ["key:shop/x"], "role": "reader"}),
            _ => json!({}),
        };
        secured.put(kind, "shop/orders", spec).await;
    }
    let abroad = json!({"principals": ["key:other/admin"], "role": "admin"});
    secured.put(Kind::Grant, "other/admin", abroad).await;
    let key = secured.key("other/admin").await;
    let victim = secured.created("shop/victim", 0).await.key.unwrap().id;

    let name = |text: &str| text.to_owned();
    let mut answers = vec![
        both(&secured, &key, "/weft.v1.Publish/Publish", |stream| {
            let (stream, events) = (name(stream), vec![event("1", "t")]);
            bytes(&v1::PublishRequest { stream, events, ..v1::PublishRequest::default() })
        })
        .await,
        both(&secured, &key, "/weft.v1.Publish/PublishStream", |stream| {
            let open = v1::PublishOpen { stream: name(stream), ..v1::PublishOpen::default() };
            let frame = Some(v1::publish_stream_request::Frame::Open(open));
            bytes(&v1::PublishStreamRequest { frame })
        })
        .await,
        both(&secured, &key, "/weft.v1.Read/Read", |stream| {
            bytes(&v1::ReadRequest { stream: name(stream), ..v1::ReadRequest::default() })
        })
        .await,
        both(&secured, &key, "/weft.v1.Read/Locate", |stream| {
            bytes(&v1::LocateRequest { stream: name(stream), ..v1::LocateRequest::default() })
        })
        .await,
        both(&secured, &key, "/weft.v1.Cluster/Route", |stream| {
            bytes(&v1::RouteRequest { stream: name(stream), min_generation: 0 })
        })
        .await,
        both(&secured, &key, "/weft.v1.Subscribe/Subscribe", |subscription| {
            let open = v1::SubscribeOpen {
                subscription: name(subscription),
                ..v1::SubscribeOpen::default()
            };
            let frame = Some(v1::subscribe_request::Frame::Open(open));
            bytes(&v1::SubscribeRequest { frame })
        })
        .await,
        both(&secured, &key, "/weft.v1.Access/Explain", |resource| {
            bytes(&v1::ExplainRequest {
                principal: name("key:shop/x"),
                verb: name("read"),
                resource: name(resource),
                ..v1::ExplainRequest::default()
            })
        })
        .await,
        both(&secured, &key, "/weft.v1.Access/CreateKey", |of| {
            bytes(&v1::CreateKeyRequest { name: name(of), expires_in_seconds: 0 })
        })
        .await,
    ];
    for kind in Kind::ALL.map(Kind::as_str) {
        let path = "/weft.v1.Catalog/Get";
        answers.push(
            both(&secured, &key, path, |of| {
                let (kind, name) = (name(kind), name(of));
                bytes(&v1::GetRequest { kind, name, min_generation: 0 })
            })
            .await,
        );
        let path = "/weft.v1.Catalog/Delete";
        answers.push(
            both(&secured, &key, path, |of| {
                let (kind, name) = (name(kind), name(of));
                bytes(&v1::DeleteRequest { kind, name, expected_generation: None })
            })
            .await,
        );
        // Resources of their own that name something of others.
        let path = "/weft.v1.Catalog/Put";
        answers.push(
            both(&secured, &key, path, |of| {
                let spec = match kind {
                    "Subscription" => json!({"stream": of}),
                    "Function" => json!({"command": ["true"], "triggers": [{"stream": of}]}),
                    "Webhook" => json!({"stream": of, "url": "https://h.example/"}),
                    _ => json!({"schemas": [{"type": "*", "schema": of}]}),
                };
                let has_stream = matches!(kind, "Subscription" | "Function" | "Webhook");
                let kind = if has_stream { kind } else { "Stream" };
                let resource = Some(v1::Resource {
                    kind: name(kind),
                    namespace: name("other"),
                    name: name("mine"),
                    spec: spec.to_string().into(),
                    ..v1::Resource::default()
                });
                bytes(&v1::PutRequest { resource, ..v1::PutRequest::default() })
            })
            .await,
        );
    }
    for [there, absent] in answers {
        assert_eq!(there.code, Code::PermissionDenied, "{there:?}");
        assert_eq!(absent.code, there.code, "{absent:?}");
        assert_eq!(absent.text.replace("absent", "orders"), there.text);
        assert!(there.messages.is_empty() && absent.messages.is_empty());
    }
    // A key has no name in the question.
    let revoke = |id: &str| v1::RevokeKeyRequest { id: id.to_owned() };
    let there = secured.ask(&key, "/weft.v1.Access/RevokeKey", &revoke(&victim)).await;
    let absent = secured.ask(&key, "/weft.v1.Access/RevokeKey", &revoke("absent")).await;
    assert_eq!((there.code, absent.code), (Code::NotFound, Code::NotFound));
    assert_eq!(absent.text.replace("absent", &victim), there.text);
}
