//! The mesh over gRPC.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Streaming};
use weft_proto::v1::catalog_client::CatalogClient;
use weft_proto::v1::publish_client::PublishClient;
use weft_proto::v1::subscribe_client::SubscribeClient;
use weft_proto::v1::subscribe_request::Frame as Sent;
use weft_proto::v1::subscribe_response::Frame;
use weft_proto::v1::{
    Credit, DeleteRequest, GetRequest, ListRequest, PublishRequest, PutRequest, Resource,
    SetStatusRequest, Settle, SettledRange, SubscribeOpen, SubscribeRequest, SubscribeResponse,
    WatchRequest, publish_result, watch_response,
};
use weft_proto::{Error, ErrorKind, QualifiedName, ResourceUid, Result};

use super::{Change, FUNCTION, Member, Mesh};
use crate::Config;

/// Longest wait for the answer to one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A broker that is silent this long on an open connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Largest message that is taken from a broker.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Frames to the server that may wait.
const FRAMES_LEN: usize = 16;

/// The mesh, reached through any of several brokers.
#[derive(Clone, Debug)]
pub struct WireMesh {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl WireMesh {
    /// Prepares connections to the brokers; they are made when needed and again when they break.
    ///
    /// # Errors
    ///
    /// `Invalid` when the settings cannot work.
    pub fn connect(config: &Config) -> Result<Self> {
        config.check()?;
        let tls = tls(config)?;
        let endpoints = config.endpoints.iter().map(|address| endpoint(address, tls.as_ref()));
        let endpoints = endpoints.collect::<Result<Vec<_>>>()?;
        Ok(Self { channel: Channel::balance_list(endpoints.into_iter()), token: token(config)? })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    fn call<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    fn catalog(&self) -> CatalogClient<Channel> {
        CatalogClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<Change>>> {
        let watch = WatchRequest { kinds: vec![FUNCTION.to_owned()], namespace: String::new() };
        let frames = self.catalog().watch(self.request(watch)).await?.into_inner();
        let changes = frames.filter_map(|answer| async {
            match answer {
                Err(status) => Some(Err(status.into())),
                Ok(answer) => answer.frame.map(change),
            }
        });
        Ok(changes.boxed())
    }

    async fn join(&self, subscription: &QualifiedName, member: &str) -> Result<Box<dyn Member>> {
        let (frames_tx, frames_rx) = mpsc::channel(FRAMES_LEN);
        let open = SubscribeOpen {
            subscription: subscription.to_string(),
            member: member.to_owned(),
            min_generation: 0,
        };
        let sender = WireMember { frames_tx, frames: None };
        sender.send(Sent::Open(open)).await?;
        let requests = self.request(ReceiverStream::new(frames_rx));
        let mut client =
            SubscribeClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let frames = client.subscribe(requests).await?.into_inner();
        Ok(Box::new(WireMember { frames: Some(frames), ..sender }))
    }

    async fn publish_all(
        &self,
        stream: &QualifiedName,
        events: Vec<Bytes>,
    ) -> Result<Vec<Result<(), Error>>> {
        let count = events.len();
        let message =
            PublishRequest { stream: stream.to_string(), events, ..PublishRequest::default() };
        let mut client = PublishClient::new(self.channel.clone());
        let results = client.publish(self.call(message)).await?.into_inner().results;
        if results.len() != count {
            return Err(Error::internal("the broker did not answer for each event"));
        }
        let result = |result: weft_proto::v1::PublishResult| match result.outcome {
            Some(publish_result::Outcome::Receipt(_)) => Ok(()),
            Some(publish_result::Outcome::Refusal(refusal)) => Err(Error::from_refusal(refusal)),
            None => Err(Error::internal("the broker's answer has no outcome")),
        };
        Ok(results.into_iter().map(result).collect())
    }
}

fn tls(config: &Config) -> Result<Option<ClientTlsConfig>> {
    if !config.tls.enabled {
        return Ok(None);
    }
    let mut tls = ClientTlsConfig::new();
    if let Some(path) = &config.tls.ca_file {
        let text = read(path)?;
        // Anything else would be passed over, and then no broker could be trusted.
        if !text.contains("-----BEGIN CERTIFICATE-----") {
            let message = format!("{} holds no certificate in PEM", path.display());
            return Err(Error::invalid(message).with_field("tls.ca_file"));
        }
        tls = tls.ca_certificate(Certificate::from_pem(text));
    }
    Ok(Some(tls))
}

fn token(config: &Config) -> Result<Option<MetadataValue<Ascii>>> {
    let Some(path) = &config.token_file else { return Ok(None) };
    let text = read(path)?;
    // The text is a secret: say where it is, not what.
    let wrong = || {
        let message = format!("{} holds no usable token", path.display());
        Error::invalid(message).with_field("token_file")
    };
    let token = Some(text.trim()).filter(|token| !token.is_empty()).ok_or_else(wrong)?;
    let value = format!("Bearer {token}").parse();
    let mut value: MetadataValue<Ascii> = value.ok().ok_or_else(wrong)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn read(path: &std::path::Path) -> Result<String> {
    let wrong = |error: std::io::Error| {
        Error::invalid(format!("cannot read {}: {error}", path.display())).with_source(error)
    };
    std::fs::read_to_string(path).map_err(wrong)
}

fn endpoint(address: &str, tls: Option<&ClientTlsConfig>) -> Result<Endpoint> {
    let wrong = |error: tonic::transport::Error| {
        Error::invalid(format!("{address:?} is no address of a broker")).with_source(error)
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(wrong)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .tcp_nodelay(true);
    match tls {
        Some(tls) => endpoint.tls_config(tls.clone()).map_err(wrong),
        None => Ok(endpoint),
    }
}

fn change(frame: watch_response::Frame) -> Result<Change> {
    let unusable = |error| Error::internal(format!("the catalog told an impossible name: {error}"));
    Ok(match frame {
        watch_response::Frame::Put(resource) => Change::Put(Box::new(resource)),
        watch_response::Frame::Deleted(deleted) => Change::Deleted {
            name: QualifiedName {
                namespace: deleted.namespace.parse().map_err(unusable)?,
                name: deleted.name.parse().map_err(unusable)?,
            },
            uid: ResourceUid(deleted.uid),
        },
        watch_response::Frame::Synced(_) => Change::Synced,
    })
}

/// What is not there is an answer, not an error.
fn absent<T>(result: Result<T, tonic::Status>) -> Result<Option<T>> {
    match result.map_err(Error::from) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Mesh for WireMesh {
    fn watch_functions(&self) -> BoxFuture<'_, Result<BoxStream<'static, Result<Change>>>> {
        Box::pin(self.watch())
    }

    fn get(
        &self,
        kind: &'static str,
        name: &QualifiedName,
    ) -> BoxFuture<'_, Result<Option<Resource>>> {
        let message =
            GetRequest { kind: kind.to_owned(), name: name.to_string(), min_generation: 0 };
        Box::pin(async move {
            let found = absent(self.catalog().get(self.call(message)).await)?;
            Ok(found.and_then(|found| found.into_inner().resource))
        })
    }

    fn list(&self, kind: &'static str) -> BoxFuture<'_, Result<Vec<Resource>>> {
        let message = ListRequest { kind: kind.to_owned(), ..ListRequest::default() };
        Box::pin(async move {
            Ok(self.catalog().list(self.call(message)).await?.into_inner().resources)
        })
    }

    fn put(&self, resource: Resource) -> BoxFuture<'_, Result<()>> {
        let message = PutRequest { resource: Some(resource), ..PutRequest::default() };
        Box::pin(async move {
            self.catalog().put(self.call(message)).await?;
            Ok(())
        })
    }

    fn delete(&self, kind: &'static str, name: &QualifiedName) -> BoxFuture<'_, Result<()>> {
        let message = DeleteRequest {
            kind: kind.to_owned(),
            name: name.to_string(),
            expected_generation: None,
        };
        Box::pin(async move {
            absent(self.catalog().delete(self.call(message)).await)?;
            Ok(())
        })
    }

    fn set_status(
        &self,
        function: &QualifiedName,
        uid: ResourceUid,
        status: Vec<u8>,
    ) -> BoxFuture<'_, Result<()>> {
        let message = SetStatusRequest {
            kind: FUNCTION.to_owned(),
            name: function.to_string(),
            uid: uid.get(),
            status: status.into(),
        };
        Box::pin(async move {
            self.catalog().set_status(self.call(message)).await?;
            Ok(())
        })
    }

    fn open(
        &self,
        subscription: &QualifiedName,
        member: &str,
    ) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        let (subscription, member) = (subscription.clone(), member.to_owned());
        Box::pin(async move { self.join(&subscription, &member).await })
    }

    fn publish(
        &self,
        stream: &QualifiedName,
        events: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), Error>>>> {
        let stream = stream.clone();
        Box::pin(async move { self.publish_all(&stream, events).await })
    }
}

struct WireMember {
    frames_tx: mpsc::Sender<SubscribeRequest>,
    frames: Option<Streaming<SubscribeResponse>>,
}

impl WireMember {
    async fn send(&self, frame: Sent) -> Result<()> {
        let broken = |_| Error::unavailable("the subscription's stream is broken");
        self.frames_tx.send(SubscribeRequest { frame: Some(frame) }).await.map_err(broken)
    }
}

impl Member for WireMember {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Frame>>> {
        Box::pin(async {
            let Some(frames) = &mut self.frames else { return Ok(None) };
            // A frame of a newer server that this one does not know is passed over.
            while let Some(answer) = frames.message().await? {
                if answer.frame.is_some() {
                    return Ok(answer.frame);
                }
            }
            Ok(None)
        })
    }

    fn credit(&mut self, events: u32, bytes: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.send(Sent::Credit(Credit { events, bytes })))
    }

    fn settle(&mut self, tag: u64, acks: Vec<SettledRange>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.send(Sent::Settle(Settle { tag, acks })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tls;

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let endpoints = vec!["127.0.0.1:1".to_owned()];
        let tls = Tls { enabled: true, ca_file: Some(path.clone()) };
        let token = Config {
            endpoints: endpoints.clone(),
            token_file: Some(path.clone()),
            ..Config::default()
        };
        let authority = Config { endpoints, tls, ..Config::default() };

        for (config, field) in [(&token, "token_file"), (&authority, "tls.ca_file")] {
            for text in ["", "\n", "a\nb"] {
                std::fs::write(&path, text).unwrap();
                let error = WireMesh::connect(config).unwrap_err();
                assert_eq!(error.field(), Some(field), "{text:?}: {error}");
                assert!(error.message().contains("file"), "{error}");
            }
        }
        std::fs::write(&path, "a-token\n").unwrap();
        assert!(WireMesh::connect(&token).is_ok());
    }
}
