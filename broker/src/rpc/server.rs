//! The client port: its limits, TLS, and all services on it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use weft_proto::v1::access_server::AccessServer;
use weft_proto::v1::catalog_server::CatalogServer;
use weft_proto::v1::cluster_server::ClusterServer;
use weft_proto::v1::publish_server::PublishServer;
use weft_proto::v1::read_server::ReadServer;
use weft_proto::v1::subscribe_server::SubscribeServer;

use super::Services;
use crate::access::{Access, DoorLayer};
use crate::listen::{self, OnlyGrpc};

/// Largest message; requests have smaller limits of their own, which answer first.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Streams of one connection.
const STREAMS_MAX: u32 = 100;
const HEADER_BYTES_MAX: u32 = 16 << 10;
const FRAME_BYTES_MAX: u32 = 16 << 10;
const WINDOW_BYTES: u32 = 1 << 20;
/// Unary calls end after this; streams are bounded by what they hold.
const UNARY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connections may take to end once this node stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Then a connection takes no more calls, and the client makes another one: so that clients spread
/// over nodes that came back, and take up new certificates. tonic cuts the connection at the end of
/// a grace period and never says so before; without a grace period it sends GOAWAY, and streams that
/// are open go on, as subscriptions must.
const AGE_MAX: Duration = Duration::from_hours(1);
/// Calls of one connection that are worked on; the others wait for these. A call counts until its
/// response begins: open streams do not. Refusing (`load_shed`) would fail calls of clients that
/// keep within the streams they may open, and there are few enough of these to let them wait.
const CALLS_MAX: usize = 64;

/// The listener of the client port.
#[derive(Debug)]
pub struct Listener {
    /// The port.
    pub port: listen::Listener,
    /// Who may do what.
    pub access: Access,
}

/// Serves until `stop`.
pub async fn serve(
    listener: Listener,
    services: Services,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    // tonic removes hyper's own limits, so each one is set here (RUSTSEC-2024-0003).
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .max_connection_age(AGE_MAX)
        .concurrency_limit_per_connection(CALLS_MAX)
        .accept_http1(false)
        .timeout(UNARY_TIMEOUT)
        .layer(tower::layer::layer_fn(OnlyGrpc::new));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PublishServer<super::PublishService>>().await;
    health.set_serving::<ReadServer<super::ReadService>>().await;
    health.set_serving::<SubscribeServer<super::SubscribeService>>().await;
    health.set_serving::<CatalogServer<super::CatalogService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(weft_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let publish = PublishServer::new(services.publish).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let catalog = CatalogServer::new(services.catalog)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(16 << 20);
    let router = server
        .layer(DoorLayer(listener.access))
        .add_service(health_service)
        .add_service(publish)
        .add_service(ReadServer::new(services.read))
        .add_service(SubscribeServer::new(services.subscribe))
        .add_service(catalog)
        .add_service(ClusterServer::new(services.cluster))
        .add_service(AccessServer::new(services.access))
        .add_optional_service(reflection.ok());
    let incoming = listener.port.incoming();
    let serving = router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        result = serving => result,
        // A connection that does not end is left to the end of the process.
        () = late => Ok(()),
    }
}
