//! gRPC services: they translate, and call one part.

mod auth;
mod catalog;
mod cluster;
mod publish;
mod read;
mod server;
mod subscribe;

use std::pin::Pin;

pub use auth::Credential;
use futures::{Stream, StreamExt as _, stream};
pub use server::{Listener, serve};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use weft_proto::{Error, Principal};

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
pub use cluster::{Facts, Parts as ClusterParts, Service as ClusterService};
pub use publish::Service as PublishService;
pub use read::Service as ReadService;
pub use subscribe::Service as SubscribeService;

/// Answers of a call that go on.
type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Ends a stream when this node stops, and says so: a connection ends only when its streams did.
fn until_stop<T: Send + 'static>(
    frames: impl Stream<Item = Result<T, Status>> + Send + 'static,
    stop: CancellationToken,
) -> Frames<T> {
    let asked = stop.clone();
    let end = stream::once(async move {
        let stopping = || Err(Error::unavailable("this node is stopping").into());
        asked.is_cancelled().then(stopping)
    });
    let end = end.filter_map(std::future::ready);
    Box::pin(frames.take_until(stop.cancelled_owned()).chain(end))
}

/// Who calls, as the credential check found out.
fn caller_of<T>(request: &Request<T>) -> Principal {
    request.extensions().get::<Principal>().cloned().unwrap_or_else(Principal::anonymous)
}
