//! The mesh over gRPC.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};
use weft_client::{
    Acker, Client, Credential, Held, Options, Secret, Subscription, SubscriptionItem,
    SubscriptionOptions, Tls,
};
use weft_proto::v1::catalog_client::CatalogClient;
use weft_proto::v1::publish_client::PublishClient;
use weft_proto::v1::{
    DeleteRequest, GetRequest, ListRequest, PublishRequest, PutRequest, Resource, SetStatusRequest,
    WatchRequest, publish_result, watch_response,
};
use weft_proto::{Error, ErrorKind, Offset, PartitionId, QualifiedName, ResourceUid, Result};

use super::{Act, Change, Item, Joining, Lent, Membership, Mesh, Settler};
use crate::Config;

/// Longest wait for the answer to one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A broker that is silent this long on an open connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Largest message that is taken from a broker.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The mesh, reached through any of several brokers.
#[derive(Clone, Debug)]
pub struct WireMesh {
    channel: Channel,
    credential: Credential,
    client: Client,
}

/// A channel that shows the credential with every call.
type Transport = InterceptedService<Channel, Credential>;

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
        let credential = match &config.token_file {
            Some(path) => Credential::file(path)?,
            None => Credential::none(),
        };
        let client = Client::connect(&options(config)?)?;
        let channel = Channel::balance_list(endpoints.into_iter());
        Ok(Self { channel, credential, client })
    }

    fn transport(&self) -> Transport {
        InterceptedService::new(self.channel.clone(), self.credential.clone())
    }

    fn catalog(&self) -> CatalogClient<Transport> {
        CatalogClient::new(self.transport()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Makes a call; once more when it was refused and the file has another credential since.
    async fn ask<T, F>(&self, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let shown = self.credential.version();
        let error = match call().await.map_err(Error::from) {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(error) => error,
        };
        if error.kind() == ErrorKind::Denied && self.credential.has_changed_since(shown) {
            return Ok(call().await?.into_inner());
        }
        Err(error)
    }

    async fn follow(&self, kind: &'static str) -> Result<BoxStream<'static, Result<Change>>> {
        let watch = WatchRequest { kinds: vec![kind.to_owned()], namespace: String::new() };
        let open = || {
            let watch = watch.clone();
            async { self.catalog().watch(watch).await }
        };
        let frames = self.ask(open).await?;
        let changes = frames.filter_map(|answer| async {
            match answer {
                Err(status) => Some(Err(status.into())),
                Ok(answer) => answer.frame.map(change),
            }
        });
        Ok(changes.boxed())
    }

    async fn publish_all(
        &self,
        stream: &QualifiedName,
        events: Vec<Bytes>,
    ) -> Result<Vec<Result<(), Error>>> {
        let count = events.len();
        let message =
            PublishRequest { stream: stream.to_string(), events, ..PublishRequest::default() };
        let publish = || {
            let request = limited(message.clone());
            async { PublishClient::new(self.transport()).publish(request).await }
        };
        let results = self.ask(publish).await?.results;
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

/// How this dispatcher reaches the brokers, for the client library.
pub(crate) fn options(config: &Config) -> Result<Options> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| {
            Error::invalid(format!("cannot read {}: {error}", path.display())).with_source(error)
        })
    };
    let mut options = Options::new(config.endpoints.iter().cloned());
    options.token_file.clone_from(&config.token_file);
    if config.tls.enabled {
        let identity = match (&config.tls.certificate, &config.tls.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, Secret::new(read(key)?))),
            _ => None,
        };
        let ca_pem = config.tls.ca_file.as_deref().map(read).transpose()?.unwrap_or_default();
        options.tls = Some(Tls { ca_pem, identity_pem: identity, server_name: None });
    }
    Ok(options)
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
    if let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) {
        let pem = |path: &Path, marker, what, field| {
            let text = Secret::new(read(path)?);
            if !text.expose().contains(marker) {
                let message = format!("{} holds no {what} in PEM", path.display());
                return Err(Error::invalid(message).with_field(field));
            }
            Ok(text)
        };
        let shown =
            pem(certificate, "-----BEGIN CERTIFICATE-----", "certificate", "tls.certificate")?;
        let key = pem(key, "PRIVATE KEY-----", "private key", "tls.key")?;
        tls = tls.identity(Identity::from_pem(shown.expose(), key.expose()));
    }
    Ok(Some(tls))
}

/// A call that does not wait for ever.
fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

fn read(path: &Path) -> Result<String> {
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
fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Mesh for WireMesh {
    fn watch(
        &self,
        kind: &'static str,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Change>>>> {
        Box::pin(self.follow(kind))
    }

    fn get(
        &self,
        kind: &'static str,
        name: &QualifiedName,
    ) -> BoxFuture<'_, Result<Option<Resource>>> {
        let message =
            GetRequest { kind: kind.to_owned(), name: name.to_string(), min_generation: 0 };
        Box::pin(async move {
            let get = || {
                let request = limited(message.clone());
                async { self.catalog().get(request).await }
            };
            Ok(absent(self.ask(get).await)?.and_then(|found| found.resource))
        })
    }

    fn list(&self, kind: &'static str) -> BoxFuture<'_, Result<Vec<Resource>>> {
        let message = ListRequest { kind: kind.to_owned(), ..ListRequest::default() };
        Box::pin(async move {
            let list = || {
                let request = limited(message.clone());
                async { self.catalog().list(request).await }
            };
            Ok(self.ask(list).await?.resources)
        })
    }

    fn put(&self, resource: Resource) -> BoxFuture<'_, Result<()>> {
        let message = PutRequest { resource: Some(resource), ..PutRequest::default() };
        Box::pin(async move {
            let put = || {
                let request = limited(message.clone());
                async { self.catalog().put(request).await }
            };
            self.ask(put).await.map(drop)
        })
    }

    fn delete(&self, kind: &'static str, name: &QualifiedName) -> BoxFuture<'_, Result<()>> {
        let message = DeleteRequest {
            kind: kind.to_owned(),
            name: name.to_string(),
            expected_generation: None,
        };
        Box::pin(async move {
            let delete = || {
                let request = limited(message.clone());
                async { self.catalog().delete(request).await }
            };
            absent(self.ask(delete).await).map(drop)
        })
    }

    fn set_status(
        &self,
        kind: &'static str,
        name: &QualifiedName,
        uid: ResourceUid,
        status: Vec<u8>,
    ) -> BoxFuture<'_, Result<()>> {
        let message = SetStatusRequest {
            kind: kind.to_owned(),
            name: name.to_string(),
            uid: uid.get(),
            status: status.into(),
        };
        Box::pin(async move {
            let set = || {
                let request = limited(message.clone());
                async { self.catalog().set_status(request).await }
            };
            self.ask(set).await.map(drop)
        })
    }

    fn join(&self, subscription: &QualifiedName, joining: Joining) -> Box<dyn Membership> {
        let Joining { member, events_max, bytes_max } = joining;
        let options =
            SubscriptionOptions { member, events_max, bytes_max, ..SubscriptionOptions::default() };
        let subscription = self.client.subscribe(&subscription.to_string(), options);
        Box::new(WireMembership {
            settler: Arc::new(WireSettler(subscription.acker())),
            subscription,
        })
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

#[derive(Debug)]
struct WireMembership {
    settler: Arc<WireSettler>,
    subscription: Subscription,
}

#[derive(Debug)]
struct WireSettler(Acker);

impl Settler for WireSettler {
    fn settle(&self, held: Held, act: Act) -> BoxFuture<'static, Result<()>> {
        let acker = self.0.clone();
        Box::pin(async move {
            let settling = match act {
                Act::Ack => acker.ack(held).await?,
                Act::Nack(nack) => acker.nack(held, nack).await?,
                Act::Reject(reason) => acker.reject(held, reason).await?,
                Act::Extend => acker.extend(held, None).await?,
            };
            // The membership is over when nobody could ask it for anything any more.
            drop(acker);
            settling.await
        })
    }
}

impl WireMembership {
    fn item(item: SubscriptionItem) -> Option<Item> {
        match item {
            SubscriptionItem::Delivery(delivery) => {
                let lent = |(place, (offset, event)): (usize, &(Offset, Bytes))| Lent {
                    held: delivery.one(place),
                    partition: delivery.batch.partition.get(),
                    offset: offset.get(),
                    appended: delivery.batch.append_time,
                    event: event.clone(),
                    attempt: delivery.attempt(place),
                    is_redriven: delivery.is_redriven,
                    replay_job: delivery.replay_job,
                };
                Some(Item::Lent(delivery.batch.events.iter().enumerate().map(lent).collect()))
            }
            SubscriptionItem::Turn { partition, is_own } => {
                Some(Item::Turn { partition: partition.get(), is_own })
            }
            SubscriptionItem::Idle { positions } => {
                let lag = |(partition, watermark, end): (PartitionId, Offset, Offset)| {
                    (partition.get(), end.get().saturating_sub(watermark.get()))
                };
                Some(Item::Lags(positions.into_iter().map(lag).collect()))
            }
            // What is lent stays lent, whoever leads.
            SubscriptionItem::Assigned { .. }
            | SubscriptionItem::Revoked { .. }
            | SubscriptionItem::Seam { .. } => None,
        }
    }
}

impl Membership for WireMembership {
    fn next(&mut self) -> BoxFuture<'_, Result<Item>> {
        Box::pin(async {
            loop {
                if let Some(item) = Self::item(self.subscription.next().await?) {
                    return Ok(item);
                }
            }
        })
    }

    fn settler(&self) -> Arc<dyn Settler> {
        Arc::clone(&self.settler) as Arc<dyn Settler>
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        let Self { settler, subscription } = *self;
        drop(settler);
        Box::pin(subscription.close())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use weft_proto::v1::{self, publish_server};

    use super::*;
    use crate::Tls;

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let good = folder.path().join("good");
        std::fs::write(&good, "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----").unwrap();
        let plain = Config { endpoints: vec!["127.0.0.1:1".to_owned()], ..Config::default() };
        let token = Config { token_file: Some(path.clone()), ..plain.clone() };
        let file = |is_it: bool| Some(if is_it { path.clone() } else { good.clone() });
        let tls = |wrong: &str| {
            let tls = Tls {
                enabled: true,
                ca_file: file(wrong == "ca_file"),
                certificate: file(wrong == "certificate"),
                key: file(wrong == "key"),
            };
            Config { tls, ..plain.clone() }
        };

        for (config, field) in [
            (&token, "token_file"),
            (&tls("ca_file"), "tls.ca_file"),
            (&tls("certificate"), "tls.certificate"),
            (&tls("key"), "tls.key"),
        ] {
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

    /// Takes events of whoever shows the right token; counts the calls.
    #[derive(Clone, Default)]
    struct Node(Arc<Mutex<(String, u32)>>);

    #[tonic::async_trait]
    impl publish_server::Publish for Node {
        async fn publish(
            &self,
            request: Request<PublishRequest>,
        ) -> Result<Response<v1::PublishResponse>, Status> {
            let mut state = self.0.lock().unwrap();
            state.1 += 1;
            let shown = request.metadata().get("authorization").unwrap().to_str().unwrap();
            if shown != format!("Bearer {}", state.0) {
                let error = Error::new(weft_proto::Reason::Unauthenticated, "not valid");
                return Err(error.into());
            }
            Ok(Response::new(v1::PublishResponse::default()))
        }

        async fn cancel_delayed(
            &self,
            _: Request<v1::CancelDelayedRequest>,
        ) -> Result<Response<v1::CancelDelayedResponse>, Status> {
            Err(Status::unimplemented("not here"))
        }

        type PublishStreamStream = BoxStream<'static, Result<v1::PublishStreamResponse, Status>>;

        async fn publish_stream(
            &self,
            _: Request<tonic::Streaming<v1::PublishStreamRequest>>,
        ) -> Result<Response<Self::PublishStreamStream>, Status> {
            Err(Status::unimplemented("not here"))
        }
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the server ends with the test's runtime")]
    async fn a_replaced_token_is_shown_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "old").unwrap();
        let node = Node::default();
        node.0.lock().unwrap().0 = "old".to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder()
            .add_service(publish_server::PublishServer::new(node.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let config = Config {
            endpoints: vec![endpoint],
            token_file: Some(path.clone()),
            ..Config::default()
        };
        let mesh = WireMesh::connect(&config).unwrap();
        let stream: QualifiedName = "orders".parse().unwrap();
        mesh.publish(&stream, Vec::new()).await.unwrap();

        std::fs::write(&path, "new-one").unwrap();
        node.0.lock().unwrap().0 = "new-one".to_owned();
        mesh.publish(&stream, Vec::new()).await.unwrap();
        assert_eq!(node.0.lock().unwrap().1, 3);

        node.0.lock().unwrap().0 = "another".to_owned();
        let error = mesh.publish(&stream, Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(node.0.lock().unwrap().1, 4);
    }
}
