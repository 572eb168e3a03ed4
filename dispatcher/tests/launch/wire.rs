//! The wire contract, served from a mesh in memory.

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weft_dispatcher::port::memory::{MemoryMembership, MemoryMesh};
use weft_dispatcher::port::{
    Act, CONTAINER_POLICY, Change, FUNCTION, Item, Joining, Membership as _, Mesh, SUBSCRIPTION,
    WEBHOOK,
};
use weft_proto::v1::catalog_server::{Catalog, CatalogServer};
use weft_proto::v1::publish_server::{Publish, PublishServer};
use weft_proto::v1::subscribe_request::Frame as Sent;
use weft_proto::v1::subscribe_response::Frame;
use weft_proto::v1::subscribe_server::{Subscribe, SubscribeServer};
use weft_proto::v1::{
    Assigned, DeleteRequest, DeleteResponse, Deleted, Delivery, EventBatch, GetRequest,
    GetResponse, ListRequest, ListResponse, PublishRequest, PublishResponse, PublishResult,
    PublishStreamRequest, PublishStreamResponse, PutRequest, PutResponse, Receipt,
    SetStatusRequest, SetStatusResponse, Settled, SubscribeRequest, SubscribeResponse, Synced,
    Turn, WatchRequest, WatchResponse, publish_result, watch_response,
};
use weft_proto::{Error, QualifiedName, Reason, ResourceUid};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone)]
struct Broker(MemoryMesh);

/// Serves the mesh on a free port and returns its address.
pub(crate) async fn serve(mesh: MemoryMesh) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let broker = Broker(mesh);
    let server = tonic::transport::Server::builder()
        .add_service(CatalogServer::new(broker.clone()))
        .add_service(PublishServer::new(broker.clone()))
        .add_service(SubscribeServer::new(broker));
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

fn name(text: &str) -> Result<QualifiedName, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("{error}")))
}

fn kind(text: &str) -> &'static str {
    [FUNCTION, WEBHOOK, SUBSCRIPTION, CONTAINER_POLICY]
        .into_iter()
        .find(|kind| *kind == text)
        .unwrap()
}

#[tonic::async_trait]
impl Catalog for Broker {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn put(&self, request: Request<PutRequest>) -> Answer<PutResponse> {
        self.0.put(request.into_inner().resource.unwrap()).await?;
        Ok(Response::new(PutResponse::default()))
    }

    async fn get(&self, request: Request<GetRequest>) -> Answer<GetResponse> {
        let request = request.into_inner();
        let resource = self.0.get(kind(&request.kind), &name(&request.name)?).await?;
        let absent = || Error::new(Reason::UnknownResource, "no such resource");
        let resource = Some(resource.ok_or_else(absent)?);
        Ok(Response::new(GetResponse { resource, ..GetResponse::default() }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let resources = self.0.list(kind(&request.into_inner().kind)).await?;
        Ok(Response::new(ListResponse { resources, ..ListResponse::default() }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Answer<DeleteResponse> {
        let request = request.into_inner();
        self.0.delete(kind(&request.kind), &name(&request.name)?).await?;
        Ok(Response::new(DeleteResponse::default()))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        let kind = kind(&request.into_inner().kinds[0]);
        let frame = move |change| match change {
            Change::Put(resource) => watch_response::Frame::Put(*resource),
            Change::Synced => watch_response::Frame::Synced(Synced {}),
            Change::Deleted { name, uid } => watch_response::Frame::Deleted(Deleted {
                kind: kind.to_owned(),
                namespace: name.namespace.to_string(),
                name: name.name.to_string(),
                uid: uid.get(),
            }),
        };
        let changes = self.0.watch(kind).await?;
        let answers = changes.map_ok(move |change| WatchResponse {
            frame: Some(frame(change)),
            catalog_generation: 0,
        });
        Ok(Response::new(answers.map_err(Status::from).boxed()))
    }

    async fn set_status(&self, request: Request<SetStatusRequest>) -> Answer<SetStatusResponse> {
        let request = request.into_inner();
        let (kind, uid) = (kind(&request.kind), ResourceUid(request.uid));
        self.0.set_status(kind, &name(&request.name)?, uid, request.status.to_vec()).await?;
        Ok(Response::new(SetStatusResponse::default()))
    }
}

#[tonic::async_trait]
impl Publish for Broker {
    type PublishStreamStream = BoxStream<'static, Result<PublishStreamResponse, Status>>;

    async fn cancel_delayed(
        &self,
        _request: Request<weft_proto::v1::CancelDelayedRequest>,
    ) -> Answer<weft_proto::v1::CancelDelayedResponse> {
        Err(Status::unimplemented("the dispatcher does not use it"))
    }

    async fn publish(&self, request: Request<PublishRequest>) -> Answer<PublishResponse> {
        let request = request.into_inner();
        let results = Mesh::publish(&self.0, &name(&request.stream)?, request.events).await?;
        let result = |result: Result<(), Error>| PublishResult {
            outcome: Some(match result {
                Ok(()) => publish_result::Outcome::Receipt(Receipt::default()),
                Err(error) => publish_result::Outcome::Refusal(error.to_refusal()),
            }),
        };
        let results = results.into_iter().map(result).collect();
        Ok(Response::new(PublishResponse { results }))
    }

    async fn publish_stream(
        &self,
        _request: Request<Streaming<PublishStreamRequest>>,
    ) -> Answer<Self::PublishStreamStream> {
        Err(Status::unimplemented("the dispatcher does not use it"))
    }
}

#[tonic::async_trait]
impl Subscribe for Broker {
    type SubscribeStream = ReceiverStream<Result<SubscribeResponse, Status>>;

    async fn seek(
        &self,
        _request: Request<weft_proto::v1::SeekRequest>,
    ) -> Result<Response<weft_proto::v1::SeekResponse>, Status> {
        Err(Status::unimplemented("the dispatcher does not use it"))
    }

    async fn list_dead_letters(
        &self,
        _request: Request<weft_proto::v1::ListDeadLettersRequest>,
    ) -> Result<Response<weft_proto::v1::ListDeadLettersResponse>, Status> {
        Err(Status::unimplemented("the dispatcher does not use it"))
    }

    async fn get_progress(
        &self,
        _request: Request<weft_proto::v1::GetProgressRequest>,
    ) -> Result<Response<weft_proto::v1::GetProgressResponse>, Status> {
        Err(Status::unimplemented("the dispatcher does not use it"))
    }

    async fn redrive(
        &self,
        _request: Request<weft_proto::v1::RedriveRequest>,
    ) -> Result<Response<weft_proto::v1::RedriveResponse>, Status> {
        Err(Status::unimplemented("the dispatcher does not use it"))
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Answer<Self::SubscribeStream> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.and_then(|request| request.frame);
        let Some(Sent::Open(open)) = first else {
            return Err(Status::invalid_argument("the first frame must be open"));
        };
        let joining = Joining { member: open.member, events_max: 1_000, bytes_max: u64::MAX };
        let subscription = name(&open.subscription)?;
        let member = self.0.take_part(&subscription, &joining);
        let (answers_tx, answers_rx) = mpsc::channel(16);
        tokio::spawn(converse(self.0.clone(), subscription, member, frames, answers_tx));
        Ok(Response::new(ReceiverStream::new(answers_rx)))
    }
}

/// Lends without regard for credit: the tests have few events.
async fn converse(
    mesh: MemoryMesh,
    subscription: QualifiedName,
    mut member: MemoryMembership,
    mut frames: Streaming<SubscribeRequest>,
    answers_tx: mpsc::Sender<Result<SubscribeResponse, Status>>,
) {
    let say = async |frame: Frame| {
        answers_tx.send(Ok(SubscribeResponse { frame: Some(frame) })).await.is_ok()
    };
    if !say(Frame::Assigned(Assigned { partition: 0, epoch: 1, watermark: 0 })).await {
        return;
    }
    loop {
        tokio::select! {
            frame = frames.message() => match frame.ok().flatten().and_then(|sent| sent.frame) {
                Some(Sent::Credit(_)) => {}
                Some(Sent::Settle(settle)) => {
                    for range in settle.acks {
                        for lease in range.first..=range.last {
                            mesh.settle(&subscription, lease, Act::Ack).unwrap();
                        }
                    }
                    let settled = Settled { tag: settle.tag, ..Settled::default() };
                    if !say(Frame::Settled(settled)).await {
                        return;
                    }
                }
                _ => return,
            },
            item = member.next() => match item {
                Ok(Item::Lent(lent)) => {
                    for one in lent {
                        let batch = EventBatch {
                            first_offset: one.offset,
                            events: vec![one.event],
                            ..EventBatch::default()
                        };
                        let delivery = Delivery {
                            epoch: 1,
                            batch: Some(batch),
                            first_lease: Some(one.held.first()),
                            ..Delivery::default()
                        };
                        if !say(Frame::Delivery(delivery)).await {
                            return;
                        }
                    }
                }
                Ok(Item::Turn { partition, is_own }) => {
                    if !say(Frame::Turn(Turn { partition, own: is_own })).await {
                        return;
                    }
                }
                Ok(Item::Lags(_)) => {}
                Err(_) => return,
            },
        }
    }
}
