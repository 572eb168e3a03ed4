//! What is wrong is refused, with what to do about it, and changes nothing.

mod config;
mod disk;
mod events;
mod folder;
mod mount;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use weft_client::{Client, Position};
use weft_proto::v1::publish_result::Outcome;
use weft_proto::v1::{PublishRequest, PublishResult};

use super::harness::node::{Node, broker};
use super::harness::process::{Ended, finished, weft};

/// Publishes encoded events in one call.
async fn publish(client: &Client, stream: &str, events: Vec<Bytes>) -> Vec<PublishResult> {
    let request = PublishRequest { stream: stream.to_owned(), events, ..PublishRequest::default() };
    client.publish_once(request).await.unwrap()
}

/// What is wrong with an event: the reason, the part that is wrong, and the sentence.
fn refusal_of(result: &PublishResult) -> (String, String, String) {
    match &result.outcome {
        Some(Outcome::Refusal(refusal)) => {
            (refusal.reason.clone(), refusal.field.clone(), refusal.message.clone())
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// How many events are stored.
async fn stored(client: &Client, stream: &str) -> u64 {
    let ends = client.locate(stream, Position::Latest).await.unwrap();
    ends.iter().map(|end| end.latest - end.earliest).sum()
}

/// Runs a broker that is not supposed to start.
async fn refused_start(node: &Node) -> Ended {
    let ended = finished(broker(weft(), &node.config_file()), "").await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended
}

/// Each file below a folder with its contents.
fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    files
}
