//! What any gRPC tool and any monitoring finds on a broker: health, reflection, metrics.

use std::time::Duration;

use futures::StreamExt as _;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::harness::{Cluster, within};

const LIMIT: Duration = Duration::from_secs(10);

async fn channel(cluster: &Cluster) -> Channel {
    Channel::from_shared(cluster.nodes[0].endpoint()).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn health_is_told_for_each_service_and_unknown_ones_are_refused() {
    let cluster = Cluster::start(1).await;
    let mut health = HealthClient::new(channel(&cluster).await);
    let mut check = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.map(|answer| answer.into_inner().status())
    };

    for service in ["Publish", "Read", "Subscribe", "Catalog"] {
        let status = check(&format!("weft.v1.{service}")).await.unwrap();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    assert_eq!(check("").await.unwrap(), ServingStatus::Serving);
    assert_eq!(check("weft.v1.Nothing").await.unwrap_err().code(), Code::NotFound);
}

async fn reflect(cluster: &Cluster, question: MessageRequest) -> MessageResponse {
    let mut reflection = ServerReflectionClient::new(channel(cluster).await);
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let answers = reflection.server_reflection_info(futures::stream::iter([request])).await;
    let mut answers = answers.unwrap().into_inner();
    let answer = within(LIMIT, "the answer", answers.next()).await.unwrap().unwrap();
    answer.message_response.unwrap()
}

#[tokio::test]
async fn reflection_shows_what_is_public_and_nothing_else() {
    let cluster = Cluster::start(1).await;

    let services = reflect(&cluster, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(services) = services else { panic!("{services:?}") };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    for service in ["Publish", "Read", "Subscribe", "Catalog", "Cluster"] {
        assert!(names.contains(&format!("weft.v1.{service}")), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("internal")), "{names:?}");

    // Tools show events as what they are, though brokers pass them on as bytes.
    let symbol = MessageRequest::FileContainingSymbol("weft.v1.PublishRequest".to_owned());
    let MessageResponse::FileDescriptorResponse(files) = reflect(&cluster, symbol).await else {
        panic!("no descriptor of weft.v1.PublishRequest");
    };
    let file = prost_types::FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).unwrap();
    let request = file.message_type.iter().find(|message| message.name() == "PublishRequest");
    let events = request.unwrap().field.iter().find(|field| field.name() == "events").unwrap();
    assert_eq!(events.type_name(), ".io.cloudevents.v1.CloudEvent");
}

/// The whole answer of the HTTP port.
async fn get(cluster: &Cluster, path: &str) -> String {
    let address = format!("127.0.0.1:{}", cluster.nodes[0].ports.http);
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn monitoring_finds_health_and_metrics() {
    let cluster = Cluster::start(1).await;

    for path in ["/livez", "/readyz"] {
        let answer = within(LIMIT, path, get(&cluster, path)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    let metrics = within(LIMIT, "metrics", get(&cluster, "/metrics")).await;
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    // This node leads its groups, and its writer has synced their first entries.
    assert!(metrics.contains("\nweft_raft_leads{"), "{metrics}");
    assert!(metrics.contains("node=\"1\""), "{metrics}");
    assert!(get(&cluster, "/nothing").await.starts_with("HTTP/1.1 404 "));
}
