//! What was made through a node can be used through that node at once, whoever leads the catalog.

use serde_json::json;
use weft_client::Reason;
use weft_proto::resource::Kind;

use super::harness::process::run;
use super::harness::{Cluster, put};

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
const ROUNDS: usize = 30;

#[tokio::test]
async fn what_was_made_through_a_node_is_known_there_to_everybody() {
    let cluster = Cluster::start(3).await;

    for (number, node) in cluster.nodes.iter().enumerate() {
        // The second client has not seen what the first one did, and cannot ask for it.
        let (writer, reader) = (node.client(), node.client());
        for round in 0..ROUNDS {
            let stream = format!("orders-{number}-{round}");
            put(&writer, Kind::Stream, &stream, &json!({})).await;
            assert_eq!(reader.route(&stream).await.unwrap().len(), 1);

            writer.catalog().delete(Kind::Stream, &stream, None).await.unwrap();
            let gone = reader.route(&stream).await.unwrap_err();
            assert_eq!(gone.reason(), Reason::UnknownStream, "{gone}");
        }
    }
}

#[tokio::test]
async fn a_node_that_starts_denies_nothing_that_was_made_without_it() {
    let mut cluster = Cluster::start(3).await;

    for number in 0..cluster.nodes.len() {
        let other = cluster.nodes[(number + 1) % cluster.nodes.len()].client();
        let node = &mut cluster.nodes[number];
        node.kill();
        let stream = format!("orders-{number}");
        put(&other, Kind::Stream, &stream, &json!({})).await;

        node.start();
        // Asks from the first moment on, until there is an answer.
        let routes = node.client().route(&stream).await;

        assert_eq!(routes.map(|routes| routes.len()).map_err(|e| e.to_string()), Ok(1));
        node.ready().await;
    }
}

#[tokio::test]
async fn one_command_makes_a_stream_and_the_next_one_uses_it() {
    let cluster = Cluster::start(3).await;

    for (number, node) in cluster.nodes.iter().enumerate() {
        let (endpoint, stream) = (node.endpoint(), format!("orders-{number}"));
        let made = run(&["--endpoint", &endpoint, "stream", "create", &stream], "").await;
        let used = run(&["--endpoint", &endpoint, "publish", &stream], EVENT).await;
        assert_eq!((made.code, used.code), (Some(0), Some(0)), "{made:?}\n{used:?}");
    }
}
