//! The story of an event tells nothing that its caller may not see.

use serde_json::{Value, json};
use tonic::Code;
use weft_proto::resource::Kind;
use weft_proto::v1;

use super::wire::call;
use super::{SOON, Secured, event};
use crate::harness::eventually;

const PATH: &str = "/weft.v1.Read/TraceEvent";

fn request(id: &str) -> v1::TraceEventRequest {
    v1::TraceEventRequest {
        stream: "shop/orders".to_owned(),
        id: id.to_owned(),
        ..v1::TraceEventRequest::default()
    }
}

/// A key of this name that may do these things with resources of these names, and nothing else.
async fn key(secured: &Secured, name: &str, grants: &[Value]) -> String {
    for (number, grant) in grants.iter().enumerate() {
        let mut spec = json!({"principals": [format!("key:shop/{name}")]});
        spec.as_object_mut().unwrap().extend(grant.as_object().unwrap().clone());
        secured.put(Kind::Grant, &format!("shop/{name}-{number}"), spec).await;
    }
    secured.key(&format!("shop/{name}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_subscriptions_that_may_not_be_seen_are_left_out() {
    let secured = Secured::start(1).await;
    secured.put(Kind::Stream, "shop/orders", json!({})).await;
    for name in ["shop/open", "shop/hidden"] {
        let spec = json!({"stream": "shop/orders", "mode": "shared", "start": "earliest"});
        secured.put(Kind::Subscription, name, spec).await;
    }
    let publish = v1::PublishRequest {
        stream: "shop/orders".to_owned(),
        events: vec![event("1", "order.placed"), event("2", "order.secret")],
        ..v1::PublishRequest::default()
    };
    let _: v1::PublishResponse =
        secured.ask(&secured.root, "/weft.v1.Publish/Publish", &publish).await.one();
    let read = json!({"verbs": ["read"], "names": ["orders"], "types": ["order.placed"]});
    let view = json!({"verbs": ["view"], "names": ["open"]});
    let some = key(&secured, "some", &[read, view]).await;
    let publisher = json!({"verbs": ["publish", "view"], "names": ["*"]});
    let none = key(&secured, "none", &[publisher]).await;

    let all: v1::TraceEventResponse = secured.ask(&secured.root, PATH, &request("2")).await.one();
    let names = |answer: &v1::TraceEventResponse| {
        let of = |event: &v1::EventTrace| event.subscriptions.clone().into_iter();
        answer.events.iter().flat_map(of).map(|one| one.subscription).collect::<Vec<_>>()
    };
    assert_eq!(names(&all), ["shop/hidden", "shop/open"]);
    let seen = eventually(SOON, "the key to work", async || {
        let answer = secured.ask(&some, PATH, &request("1")).await;
        (answer.code == Code::Ok).then(|| answer.one::<v1::TraceEventResponse>())
    })
    .await;
    assert_eq!((seen.events.len(), names(&seen)), (1, vec!["shop/open".to_owned()]));
    let unseen: v1::TraceEventResponse = secured.ask(&some, PATH, &request("2")).await.one();
    assert_eq!(unseen.events, []);

    let message = || vec![prost::Message::encode_to_vec(&request("1")).into()];
    let refused = call(&secured.endpoint(), Some(&none), PATH, message()).await;
    assert_eq!(refused.code, Code::PermissionDenied, "{refused:?}");
    let nobody = call(&secured.endpoint(), None, PATH, message()).await;
    assert_eq!(nobody.code, Code::Unauthenticated, "{nobody:?}");
}
