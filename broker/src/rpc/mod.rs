//! gRPC services: they translate, and call one part.

mod access;
mod catalog;
mod cluster;
mod delayed;
mod find;
mod publish;
mod read;
mod replay;
mod server;
pub(crate) mod subscribe;

use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
pub use server::{Listener, serve};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use weft_proto::trace::TraceContext;
use weft_proto::{Error, Offset, QualifiedName, Result};

use crate::access::Caller;

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
    /// Keys.
    pub access: access::Service,
}

pub use access::Service as AccessService;
pub use catalog::Service as CatalogService;
pub use cluster::{Facts, Parts as ClusterParts, Service as ClusterService, cluster_name};
#[cfg(feature = "fuzzing")]
pub use publish::check_batch;
pub use publish::{Service as PublishService, Whole};
pub use read::Service as ReadService;
pub use subscribe::Service as SubscribeService;

/// Answers of a call that go on.
pub(crate) type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

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

/// The name of a stream, as a caller wrote it: asked for before it is looked up.
///
/// # Errors
///
/// `Invalid` for what is no name.
fn stream_name(text: &str) -> Result<QualifiedName> {
    text.parse().map_err(|error: weft_proto::NameError| {
        Error::invalid(error.to_string()).with_field("stream")
    })
}

/// Where a page of an answer begins: in which partition, at which offset.
///
/// # Errors
///
/// `Invalid` for what no answer said.
fn page(text: &str) -> Result<(u32, Offset)> {
    if text.is_empty() {
        return Ok((0, Offset(0)));
    }
    let place = text.split_once('.');
    let place = place.and_then(|(partition, offset)| {
        Some((partition.parse().ok()?, Offset(offset.parse().ok()?)))
    });
    place.ok_or_else(|| Error::invalid("this is no page of an answer").with_field("page"))
}

/// In which trace a call is made, if it says so.
fn trace_of<T>(request: &Request<T>) -> Option<TraceContext> {
    let headers: &http::HeaderMap = request.metadata().as_ref();
    let lines = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    TraceContext::of_headers(lines)
}

/// Who calls, as the door found out.
///
/// # Errors
///
/// `Internal` for a call that did not come through the door.
fn caller_of<T>(request: &Request<T>) -> Result<Caller> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Error::internal("the call came past the door"))
}
