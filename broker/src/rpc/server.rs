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

/// A server with all limits but those of the listener.
fn limited(age_max: Duration) -> Server {
    // tonic removes hyper's own limits, so each one is set here (RUSTSEC-2024-0003).
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .max_connection_age(age_max)
        .concurrency_limit_per_connection(CALLS_MAX)
        .accept_http1(false)
        .timeout(UNARY_TIMEOUT)
}

/// Serves until `stop`.
pub async fn serve(
    listener: Listener,
    services: Services,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let server = limited(AGE_MAX).layer(tower::layer::layer_fn(OnlyGrpc::new));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PublishServer<super::PublishService>>().await;
    health.set_serving::<ReadServer<super::ReadService>>().await;
    health.set_serving::<SubscribeServer<super::SubscribeService>>().await;
    health.set_serving::<CatalogServer<super::CatalogService>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(weft_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
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
        .add_optional_service(reflection().build_v1().ok())
        // The libraries of gRPC itself still ask for this one.
        .add_optional_service(reflection().build_v1alpha().ok());
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::StreamExt as _;
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::Endpoint;
    use tonic_health::ServingStatus;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;

    /// Nothing here takes that long unless it hangs.
    const HANGS: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn an_old_connection_takes_no_more_calls_and_its_streams_go_on() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", tcp.local_addr().unwrap());
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        let incoming = TcpListenerStream::new(tcp).inspect(move |_stream| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let (health, service) = tonic_health::server::health_reporter();
        let mut server = limited(Duration::from_millis(50));
        let answering = server.add_service(service).serve_with_incoming(incoming);
        let calls = async {
            let channel = Endpoint::from_shared(endpoint).unwrap().connect_lazy();
            let mut client = HealthClient::new(channel);
            let all = || HealthCheckRequest { service: String::new() };
            let mut watch = client.watch(all()).await.unwrap().into_inner();
            watch.message().await.unwrap().unwrap();
            assert_eq!(accepted.load(Ordering::Relaxed), 1);

            // A call may meet the end of the connection; the one after it makes another one.
            while accepted.load(Ordering::Relaxed) < 2 {
                _ = client.check(all()).await;
                sleep(Duration::from_millis(5)).await;
            }

            health.set_service_status("", ServingStatus::NotServing).await;
            let told = watch.message().await.unwrap().unwrap();
            assert_eq!(told.status, ServingStatus::NotServing as i32);
        };
        let done = async {
            tokio::select! {
                ended = answering => unreachable!("the server ended: {ended:?}"),
                () = calls => {}
            }
        };
        timeout(HANGS, done).await.unwrap();
    }
}
