//! What the dispatcher needs of the mesh: catalog, subscriptions, publishing.
//!
//! One real implementation over gRPC, one in memory for tests. Nothing here is more than
//! any other client may do.

pub mod memory;
mod wire;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use weft_proto::v1::subscribe_response::Frame;
use weft_proto::v1::{Resource, SettledRange};
use weft_proto::{Error, QualifiedName, ResourceUid, Result};

pub use wire::WireMesh;

/// The kind of functions in the catalog.
pub const FUNCTION: &str = "Function";
/// The kind of webhooks in the catalog.
pub const WEBHOOK: &str = "Webhook";
/// The kind of subscriptions in the catalog.
pub const SUBSCRIPTION: &str = "Subscription";

/// A change of the catalog.
#[derive(Clone, Debug)]
pub enum Change {
    /// A resource is there, or has changed.
    Put(Box<Resource>),
    /// A resource is gone.
    Deleted {
        /// Its name.
        name: QualifiedName,
        /// Its identity.
        uid: ResourceUid,
    },
    /// All that existed when the watch began has been told.
    Synced,
}

/// The mesh, as a client sees it.
pub trait Mesh: Send + Sync + std::fmt::Debug {
    /// Follows the resources of a kind. Ends when the connection does.
    fn watch(
        &self,
        kind: &'static str,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Change>>>>;
    /// A resource, if it exists.
    fn get(
        &self,
        kind: &'static str,
        name: &QualifiedName,
    ) -> BoxFuture<'_, Result<Option<Resource>>>;
    /// All resources of a kind.
    fn list(&self, kind: &'static str) -> BoxFuture<'_, Result<Vec<Resource>>>;
    /// Creates or replaces a resource.
    fn put(&self, resource: Resource) -> BoxFuture<'_, Result<()>>;
    /// Deletes a resource; one that is gone already is fine.
    fn delete(&self, kind: &'static str, name: &QualifiedName) -> BoxFuture<'_, Result<()>>;
    /// Replaces the status of a resource.
    fn set_status(
        &self,
        kind: &'static str,
        name: &QualifiedName,
        uid: ResourceUid,
        status: Vec<u8>,
    ) -> BoxFuture<'_, Result<()>>;
    /// Joins a subscription.
    fn open(
        &self,
        subscription: &QualifiedName,
        member: &str,
    ) -> BoxFuture<'_, Result<Box<dyn Member>>>;
    /// Publishes encoded events; one result for each.
    fn publish(
        &self,
        stream: &QualifiedName,
        events: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), Error>>>>;
}

/// Membership in a subscription.
pub trait Member: Send {
    /// The next frame; `None` when the server has ended the stream.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no frame.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Frame>>>;
    /// Allows the server to send more.
    fn credit(&mut self, events: u32, bytes: u64) -> BoxFuture<'_, Result<()>>;
    /// Settles events; the answer comes as a frame with the same tag.
    fn settle(&mut self, tag: u64, acks: Vec<SettledRange>) -> BoxFuture<'_, Result<()>>;
}
