//! Grants for some events: the others are refused one by one, and not shown, whichever node is asked.

use prost::Message as _;
use serde_json::json;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::resource::Kind;
use weft_proto::v1;

use super::wire::call;
use super::{Secured, event};

fn types(answer: &super::Answer) -> Vec<String> {
    let frames =
        answer.messages.iter().map(|bytes| v1::ReadResponse::decode(bytes.clone()).unwrap());
    let batches = frames.filter_map(|frame| match frame.frame {
        Some(v1::read_response::Frame::Batch(batch)) => Some(batch),
        _ => None,
    });
    let events = batches.flat_map(|batch| batch.events);
    let mut types: Vec<_> = events.map(|event| CloudEvent::decode(event).unwrap().r#type).collect();
    types.sort();
    types
}

#[expect(clippy::too_many_lines, reason = "one story")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_events_are_let_through_and_the_others_are_not() {
    let secured = Secured::start(3).await;
    secured.put(Kind::Stream, "shop/orders", json!({"partitions": 6})).await;
    for (who, role) in [("w", "writer"), ("r", "reader")] {
        let spec = json!({"principals": [format!("key:shop/{who}")], "role": role,
            "types": ["order.*"], "filters": [{"not": {"exact": {"type": "order.secret"}}}]});
        secured.put(Kind::Grant, &format!("shop/{who}"), spec).await;
    }
    let (writer, reader) = (secured.key("shop/w").await, secured.key("shop/r").await);
    let mut expected = Vec::new();

    for (number, node) in secured.cluster.nodes.iter().enumerate() {
        for partition in 0..6 {
            let kinds = ["order.placed", "cart.filled", "order.secret", "order.paid"];
            let id = |ty: &str| format!("{number}-{partition}-{ty}");
            let request = v1::PublishRequest {
                stream: "shop/orders".to_owned(),
                events: kinds.iter().map(|ty| event(&id(ty), ty)).collect(),
                partition: Some(partition),
                ..v1::PublishRequest::default()
            };
            let results = loop {
                let message = vec![request.encode_to_vec().into()];
                let path = "/weft.v1.Publish/Publish";
                let answer = call(&node.endpoint(), Some(&writer), path, message).await;
                // The node may not know the key yet.
                if answer.code == tonic::Code::Ok {
                    break answer.one::<v1::PublishResponse>().results;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            };
            for (ty, result) in kinds.iter().zip(results) {
                match result.outcome.unwrap() {
                    v1::publish_result::Outcome::Receipt(_) => expected.push((*ty).to_owned()),
                    v1::publish_result::Outcome::Refusal(refusal) => {
                        assert_eq!(refusal.reason, "PERMISSION_DENIED", "{refusal:?}");
                        assert_eq!(refusal.field, "type");
                    }
                }
            }
        }
    }
    expected.sort();
    assert_eq!(expected.iter().filter(|ty| *ty == "order.paid").count(), 18);
    assert_eq!(expected.len(), 36);

    // Everything else is there, but not for this reader.
    let root = secured.root.clone();
    let all = ["order.secret", "cart.filled"].map(|ty| event(ty, ty));
    let request = v1::PublishRequest {
        stream: "shop/orders".to_owned(),
        events: all.to_vec(),
        ..v1::PublishRequest::default()
    };
    let _: v1::PublishResponse =
        secured.ask(&root, "/weft.v1.Publish/Publish", &request).await.one();
    let latest = v1::Position { at: Some(v1::position::At::Latest(v1::Latest {})) };
    for merged in [false, true] {
        let read = v1::ReadRequest {
            stream: "shop/orders".to_owned(),
            to: Some(latest),
            linearizable: true,
            merged,
            ..v1::ReadRequest::default()
        };
        for node in &secured.cluster.nodes {
            let message = vec![read.encode_to_vec().into()];
            let path = "/weft.v1.Read/Read";
            let seen = call(&node.endpoint(), Some(&reader), path, message.clone()).await;
            let whole = call(&node.endpoint(), Some(&root), path, message).await;
            assert_eq!(types(&seen), expected);
            assert_eq!(types(&whole).len(), 38);
        }
    }
    // A subscription settles unseen what its member may not see.
    let spec = json!({"stream": "shop/orders", "start": "earliest"});
    secured.put(Kind::Subscription, "shop/sub", spec).await;
    let open =
        v1::SubscribeOpen { subscription: "shop/sub".to_owned(), ..v1::SubscribeOpen::default() };
    let credit = v1::Credit { events: 1_000, bytes: 1 << 20 };
    let frames =
        [v1::subscribe_request::Frame::Open(open), v1::subscribe_request::Frame::Credit(credit)];
    let frames =
        frames.map(|frame| v1::SubscribeRequest { frame: Some(frame) }.encode_to_vec().into());
    let path = "/weft.v1.Subscribe/Subscribe";
    let answer = call(&secured.endpoint(), Some(&reader), path, frames.to_vec()).await;
    let mut delivered: Vec<String> = answer
        .messages
        .into_iter()
        .filter_map(|bytes| match v1::SubscribeResponse::decode(bytes).unwrap().frame {
            Some(v1::subscribe_response::Frame::Delivery(delivery)) => delivery.batch,
            _ => None,
        })
        .flat_map(|batch| batch.events)
        .map(|event| CloudEvent::decode(event).unwrap().r#type)
        .collect();
    delivered.sort();
    assert_eq!(delivered, expected);
}

/// What somebody may not read is no place for them: as if it were not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_may_not_be_read_is_no_place() {
    let secured = Secured::start(1).await;
    secured.put(Kind::Stream, "shop/orders", json!({})).await;
    let spec = json!({"stream": "shop/orders", "mode": "shared", "start": "earliest"});
    secured.put(Kind::Subscription, "shop/sub", spec).await;
    let operator = secured.with_role("operator").await;
    let publish = v1::PublishRequest {
        stream: "shop/orders".to_owned(),
        events: ["order.placed", "order.secret"].map(|ty| event(ty, ty)).to_vec(),
        ..v1::PublishRequest::default()
    };
    let root = &secured.root;
    let _: v1::PublishResponse =
        secured.ask(root, "/weft.v1.Publish/Publish", &publish).await.one();
    let seek = async |id: &str| {
        let place = v1::EventPlace { id: id.to_owned(), ..v1::EventPlace::default() };
        let request = v1::SeekRequest {
            subscription: "shop/sub".to_owned(),
            to_event: Some(place),
            ..v1::SeekRequest::default()
        };
        secured.ask(&operator, "/weft.v1.Subscribe/Seek", &request).await
    };

    // Whether it is there or not.
    for id in ["order.placed", "order.none"] {
        assert_eq!(seek(id).await.code, tonic::Code::PermissionDenied, "{id}");
    }
    let some = json!({"principals": ["key:shop/operator"], "role": "reader",
        "filters": [{"not": {"exact": {"type": "order.secret"}}}]});
    secured.put(Kind::Grant, "shop/some", some).await;
    let (secret, none) = (seek("order.secret").await, seek("order.none").await);
    assert_eq!((secret.code, none.code), (tonic::Code::NotFound, tonic::Code::NotFound));
    assert_eq!(secret.text, "shop/orders has no event order.secret");
    assert_eq!(none.text, "shop/orders has no event order.none");
    let moved: v1::SeekResponse = seek("order.placed").await.one();
    assert_eq!((moved.cursors.len(), moved.cursors[0].offset), (1, 0));
}
