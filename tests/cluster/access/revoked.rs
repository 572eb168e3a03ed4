//! Open calls end when their caller may not make them any more.

use std::time::Duration;

use futures::StreamExt as _;
use prost::Message as _;
use serde_json::json;
use tokio::time::{Instant, timeout};
use weft_client::{ReadOptions, Reason};
use weft_proto::resource::Kind;
use weft_proto::v1;

use super::{SOON, Secured, call, event};

/// Revocation is promised within a second; the test leaves a busy machine more.
const SLACK: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_cut_off_whichever_node_it_reads_from() {
    let secured = Secured::start(3).await;
    secured.put(Kind::Stream, "shop/orders", json!({})).await;
    let key = secured.with_role("reader").await;
    let created = v1::ListKeysRequest { namespace: "shop".to_owned() };
    let keys: v1::ListKeysResponse =
        secured.ask(&secured.root, "/weft.v1.Access/ListKeys", &created).await.one();
    let id = keys.keys[0].id.clone();
    let mut reads = Vec::new();
    for node in &secured.cluster.nodes {
        let client = super::client_of(&node.endpoint(), &key);
        let mut records = loop {
            // The node may not know the stream, the grant or the key yet.
            match client.read(ReadOptions::follow("shop/orders")).await {
                Ok(read) => break Box::pin(read.into_records()),
                Err(error) => assert!(!error.message().is_empty()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        reads.push(tokio::task::JoinSet::from_iter([async move {
            loop {
                match records.next().await {
                    Some(Err(error)) => return error.reason(),
                    Some(Ok(_)) => {}
                    None => return Reason::Internal,
                }
            }
        }]));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(reads.iter_mut().all(|read| read.try_join_next().is_none()));

    let began = Instant::now();
    let revoke = v1::RevokeKeyRequest { id };
    let _: v1::RevokeKeyResponse =
        secured.ask(&secured.root, "/weft.v1.Access/RevokeKey", &revoke).await.one();

    for mut read in reads {
        let ended = timeout(SOON, read.join_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(ended, Reason::Unauthenticated);
    }
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_that_goes_on_ends_with_its_grant_or_its_key() {
    let secured = Secured::start(1).await;
    secured.put(Kind::Stream, "shop/orders", json!({})).await;
    secured.put(Kind::Subscription, "shop/sub", json!({"stream": "shop/orders"})).await;
    let key = secured.with_role("admin").await;
    let brief = secured.created("shop/admin", 4).await.secret;
    let open = v1::PublishOpen { stream: "shop/orders".to_owned(), ..v1::PublishOpen::default() };
    let frame = Some(v1::publish_stream_request::Frame::Open(open));
    let publish = v1::PublishStreamRequest { frame };
    let open =
        v1::SubscribeOpen { subscription: "shop/sub".to_owned(), ..v1::SubscribeOpen::default() };
    let frame = Some(v1::subscribe_request::Frame::Open(open));
    let subscribe = v1::SubscribeRequest { frame };
    let read = v1::ReadRequest { stream: "shop/orders".to_owned(), ..v1::ReadRequest::default() };
    let bytes = |message: &dyn Fn() -> Vec<u8>| bytes::Bytes::from(message());
    let calls = [
        ("/weft.v1.Read/Read", bytes(&|| read.encode_to_vec())),
        ("/weft.v1.Catalog/Watch", bytes(&|| v1::WatchRequest::default().encode_to_vec())),
        ("/weft.v1.Publish/PublishStream", bytes(&|| publish.encode_to_vec())),
        ("/weft.v1.Subscribe/Subscribe", bytes(&|| subscribe.encode_to_vec())),
    ];
    let start = |key: &str| {
        let endpoint = secured.endpoint();
        let open = calls.iter().cloned().map(|(path, message)| {
            let (endpoint, key) = (endpoint.clone(), key.to_owned());
            async move {
                let answer = super::wire::until_end(&endpoint, &key, path, message).await;
                (path, answer.code)
            }
        });
        open.collect::<tokio::task::JoinSet<_>>()
    };

    let open = start(&key);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let delete = v1::DeleteRequest {
        kind: "Grant".to_owned(),
        name: "shop/admin".to_owned(),
        expected_generation: None,
    };
    let _: v1::DeleteResponse =
        secured.ask(&secured.root, "/weft.v1.Catalog/Delete", &delete).await.one();
    for (path, code) in timeout(SOON, open.join_all()).await.unwrap() {
        // What a watch shows has changed: it is told to begin anew, and then sees nothing.
        let wanted = if path.ends_with("Watch") {
            tonic::Code::Unavailable
        } else {
            tonic::Code::PermissionDenied
        };
        assert_eq!(code, wanted, "{path}");
    }

    let spec = json!({"principals": ["key:shop/admin"], "role": "admin"});
    secured.put(Kind::Grant, "shop/admin", spec).await;
    for (path, code) in timeout(SOON, start(&brief).join_all()).await.unwrap() {
        assert_eq!(code, tonic::Code::Unauthenticated, "{path}");
    }
    // Nothing else was lost by it.
    let publish = v1::PublishRequest {
        stream: "shop/orders".to_owned(),
        events: vec![event("1", "t")],
        ..v1::PublishRequest::default()
    };
    let message = vec![publish.encode_to_vec().into()];
    let path = "/weft.v1.Publish/Publish";
    let answer = call(&secured.endpoint(), Some(&key), path, message).await;
    assert_eq!(answer.code, tonic::Code::Ok, "{answer:?}");
}
