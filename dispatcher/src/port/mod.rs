//! What the dispatcher needs of the mesh: catalog, subscriptions, publishing.
//!
//! One real implementation over gRPC, one in memory for tests. Nothing here is more than
//! any other client may do.

pub mod memory;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use weft_client::{Held, Nack};
use weft_proto::v1::Resource;
use weft_proto::{Error, QualifiedName, ResourceUid, Result, Timestamp};

pub use wire::WireMesh;
pub(crate) use wire::options;

/// The kind of functions in the catalog.
pub const FUNCTION: &str = "Function";
/// The kind of webhooks in the catalog.
pub const WEBHOOK: &str = "Webhook";
/// The kind of subscriptions in the catalog.
pub const SUBSCRIPTION: &str = "Subscription";
/// The kind of replay jobs in the catalog.
pub const REPLAY_JOB: &str = "ReplayJob";

/// The kind of policies in the catalog.
pub const CONTAINER_POLICY: &str = "ContainerPolicy";

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
    /// Takes part in a subscription whose events are lent. Errors come with the first
    /// [`Membership::next`].
    fn join(&self, subscription: &QualifiedName, joining: Joining) -> Box<dyn Membership>;
    /// Publishes encoded events; one result for each.
    fn publish(
        &self,
        stream: &QualifiedName,
        events: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), Error>>>>;
}

/// How to take part in a subscription.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Name among its members.
    pub member: String,
    /// Events that may be in hand.
    pub events_max: u32,
    /// Bytes that may be in hand.
    pub bytes_max: u64,
}

/// What a subscription says.
#[derive(Clone, Debug)]
pub enum Item {
    /// Events that are lent from now on.
    Lent(Vec<Lent>),
    /// Whether events of this partition come to us, and not to another member.
    Turn {
        /// The partition.
        partition: u32,
        /// It is ours.
        is_own: bool,
    },
    /// How many events of each partition are not settled.
    Lags(Vec<(u32, u64)>),
}

/// An event that is lent.
#[derive(Clone, Debug)]
pub struct Lent {
    /// Names the lease.
    pub held: Held,
    /// The partition.
    pub partition: u32,
    /// The offset; among the dead letters for one that is delivered again.
    pub offset: u64,
    /// When it was appended.
    pub appended: Timestamp,
    /// The event, encoded.
    pub event: Bytes,
    /// Which delivery it is, from 1.
    pub attempt: u32,
    /// It is a dead letter that is delivered again.
    pub is_redriven: bool,
    /// The uid of the replay job for which it comes.
    pub replay_job: Option<u64>,
}

/// What is done with an event.
#[derive(Clone, Debug)]
pub enum Act {
    /// Done for good.
    Ack,
    /// Given back.
    Nack(Nack),
    /// Given up, and why: a dead letter.
    Reject(String),
    /// Kept for as long as a new lease.
    Extend,
}

/// Settles what is lent.
pub trait Settler: Send + Sync + std::fmt::Debug {
    /// Resolves when it is stored.
    ///
    /// # Errors
    ///
    /// `Conflict` with [`weft_proto::Reason::Fenced`] when the lease has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the act back.
    fn settle(&self, held: Held, act: Act) -> BoxFuture<'static, Result<()>>;
}

/// Taking part in a subscription.
pub trait Membership: Send {
    /// What comes next.
    ///
    /// # Errors
    ///
    /// The membership is over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<Item>>;
    /// Settles what is lent.
    fn settler(&self) -> Arc<dyn Settler>;
    /// Leaves, when all settlers are dropped and what they were asked for is answered.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}
