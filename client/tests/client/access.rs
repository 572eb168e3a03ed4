//! Refusals reach the caller at once, unless there is another credential to show; limits are waited
//! for.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use weft_client::{
    Client, Options, Position, PublisherOptions, ReadItem, ReadOptions, Reader, Reason, Secret,
    SubscriptionItem, SubscriptionOptions,
};

use crate::fake::Fake;
use crate::publish::event;

/// Nodes that let one token in, and a client that has it in a file.
struct Rotation {
    fake: Fake,
    client: Client,
    path: PathBuf,
    _folder: TempDir,
}

impl Rotation {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "old").unwrap();
        let options = Options { token_file: Some(path.clone()), ..Options::default() };
        let (fake, client) = Fake::start_for(1, options).await;
        let rotation = Self { fake, client, path, _folder: folder };
        rotation.admit("old");
        rotation
    }

    /// From now on, this is the one that is let in.
    fn admit(&self, token: &str) {
        self.fake.state().tokens = Some(BTreeSet::from([token.to_owned()]));
    }

    /// The key is replaced, and streams that showed the old one end.
    fn rotate(&self) {
        std::fs::write(&self.path, "new").unwrap();
        self.admit("new");
        self.fake.state().lost.push(Reason::Unauthenticated);
    }

    /// The key is revoked and nothing takes its place.
    fn revoke(&self, reason: Reason) {
        self.admit("new");
        self.fake.state().lost.push(reason);
    }

    /// Waits until all streams ended that shall.
    async fn streams_ended(&self) {
        while !self.fake.state().lost.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn follow(&self) -> Reader {
        let options = ReadOptions { from: Position::Earliest, ..ReadOptions::follow("orders") };
        let mut reader = self.client.read(options).await.unwrap();
        assert!(matches!(reader.next().await.unwrap(), Some(ReadItem::Batch(_))));
        assert!(matches!(reader.next().await.unwrap(), Some(ReadItem::CaughtUp)));
        reader
    }

    fn store(&self, event: &'static str) {
        self.fake.state().partitions[0].log.push(Bytes::from_static(event.as_bytes()));
    }
}

#[tokio::test]
async fn a_refused_call_is_made_once() {
    let options = Options { token: Some(Secret::new("wrong")), ..Options::default() };
    let (fake, client) = Fake::start_for(1, options).await;
    fake.state().tokens = Some(BTreeSet::from(["right".to_owned()]));

    let error = client.access().who_am_i().await.unwrap_err();
    assert_eq!((error.reason(), fake.state().calls), (Reason::Unauthenticated, 1));

    fake.state().tokens = None;
    fake.state().refusals.push_back(Reason::PermissionDenied);
    let error = client.access().who_am_i().await.unwrap_err();
    assert_eq!((error.reason(), fake.state().calls), (Reason::PermissionDenied, 2));
}

#[tokio::test]
async fn a_limit_is_waited_for() {
    let (fake, client) = Fake::start(1).await;
    fake.state().refusals.extend([Reason::LimitReached, Reason::LimitReached]);

    assert!(client.access().who_am_i().await.unwrap().enforced);
    assert_eq!(fake.state().calls, 3);
}

#[tokio::test]
async fn a_key_of_unknown_fate_is_not_made_twice() {
    let (fake, client) = Fake::start(1).await;

    let error = client.access().create_key("a", None).await.unwrap_err();

    assert_eq!((error.reason(), fake.state().calls), (Reason::Unavailable, 1));
    let nothing = client.access().create_key("a", Some(Duration::ZERO)).await;
    assert_eq!(nothing.unwrap_err().field(), Some("expires_in_seconds"));
}

#[tokio::test]
async fn a_call_shows_the_new_token_of_a_file_once() {
    let rotation = Rotation::start().await;
    rotation.client.access().who_am_i().await.unwrap();

    rotation.rotate();
    rotation.client.access().who_am_i().await.unwrap();
    // The old one was refused, and the new one let in.
    assert_eq!(rotation.fake.state().calls, 3);

    rotation.admit("newer");
    let error = rotation.client.access().who_am_i().await.unwrap_err();
    assert_eq!((error.reason(), rotation.fake.state().calls), (Reason::Unauthenticated, 4));
}

#[tokio::test]
async fn a_followed_stream_goes_on_with_the_new_token() {
    let rotation = Rotation::start().await;
    rotation.store("one");
    let mut reader = rotation.follow().await;

    rotation.store("two");
    rotation.rotate();

    let Some(ReadItem::Batch(batch)) = reader.next().await.unwrap() else { panic!("no events") };
    assert_eq!(batch.events.len(), 1);
    assert_eq!(batch.events[0].1, "two");
}

#[tokio::test]
async fn a_followed_stream_gives_a_refusal_to_its_caller_and_resumes_after_a_change() {
    for reason in [Reason::Unauthenticated, Reason::PermissionDenied] {
        let rotation = Rotation::start().await;
        rotation.store("one");
        let mut reader = rotation.follow().await;

        rotation.store("two");
        // What the caller may do has changed, and it may still read.
        rotation.fake.state().lost.push(Reason::Unavailable);
        let Some(ReadItem::Batch(batch)) = reader.next().await.unwrap() else {
            panic!("no events")
        };
        assert_eq!(batch.events[0].1, "two");

        rotation.revoke(reason);
        assert_eq!(reader.next().await.unwrap_err().reason(), reason);
    }
}

#[tokio::test]
async fn a_member_goes_on_with_the_new_token_and_ends_without() {
    let rotation = Rotation::start().await;
    let mut member = rotation.client.subscribe("audit", SubscriptionOptions::default());
    assert!(matches!(member.next().await.unwrap(), SubscriptionItem::Assigned { .. }));

    rotation.rotate();
    assert!(matches!(member.next().await.unwrap(), SubscriptionItem::Revoked { .. }));
    assert!(matches!(member.next().await.unwrap(), SubscriptionItem::Assigned { .. }));

    rotation.fake.state().lost.push(Reason::Unavailable);
    assert!(matches!(member.next().await.unwrap(), SubscriptionItem::Revoked { .. }));
    assert!(matches!(member.next().await.unwrap(), SubscriptionItem::Assigned { .. }));

    rotation.revoke(Reason::PermissionDenied);
    let error = loop {
        match member.next().await {
            Ok(SubscriptionItem::Revoked { .. }) => {}
            Ok(item) => panic!("{item:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Reason::PermissionDenied);
}

#[tokio::test]
async fn a_publisher_goes_on_with_the_new_token_and_fails_without() {
    let rotation = Rotation::start().await;
    let publisher = rotation.client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let publish = async |number| publisher.publish(event(number)).await;
    publish(1).await.unwrap();

    rotation.rotate();
    rotation.streams_ended().await;
    publish(2).await.unwrap();
    assert_eq!(rotation.fake.state().partitions[0].log.len(), 2);

    rotation.admit("newer");
    rotation.fake.state().lost.push(Reason::Unauthenticated);
    rotation.streams_ended().await;
    // It may have been on its way when the stream ended: then nobody knows.
    let first = publish(3).await.unwrap_err();
    assert!(!first.not_applied() || first.reason() == Reason::Unauthenticated, "{first}");
    let second = publish(4).await.unwrap_err();
    assert_eq!(second.reason(), Reason::Unauthenticated);
    assert_eq!(rotation.fake.state().partitions[0].log.len(), 2);
}
