//! gRPC services: they translate, and call one part.

mod auth;
mod catalog;
mod cluster;
mod publish;
mod read;
mod server;
mod subscribe;

pub use auth::Credential;
pub use server::{Listener, serve};
use tonic::Request;
use weft_proto::Principal;

/// All services of the client port.
#[derive(Clone, Debug)]
pub struct Services {
    /// Appending.
    pub publish: publish::Service,
    /// Reading.
    pub read: read::Service,
    /// Durable subscriptions.
    pub subscribe: subscribe::Service,
    /// Resources.
    pub catalog: catalog::Service,
    /// What the cluster looks like.
    pub cluster: cluster::Service,
}

pub use catalog::Service as CatalogService;
pub use cluster::{Facts, Service as ClusterService};
pub use publish::Service as PublishService;
pub use read::Service as ReadService;
pub use subscribe::Service as SubscribeService;

/// Who calls, as the credential check found out.
fn caller_of<T>(request: &Request<T>) -> Principal {
    request.extensions().get::<Principal>().cloned().unwrap_or_else(Principal::anonymous)
}
