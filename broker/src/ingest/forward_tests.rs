//! What is forwarded comes from a named node, and is answered or given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::internal::forward_server::{Forward, ForwardServer};
use weft_proto::{GroupId, NodeId, Principal, Reason, internal};

use super::Forwarder;
use super::forward::COMMAND_TIMEOUT;
use crate::peer::grpc::{Grpc, Name};
use crate::tasks::Tasks;

/// Takes commands and never answers.
#[derive(Clone, Default)]
struct Silent {
    arrived: Arc<Notify>,
}

#[tonic::async_trait]
impl Forward for Silent {
    type AppendStream = BoxStream<'static, Result<internal::ForwardedAnswer, Status>>;

    async fn append(
        &self,
        _request: Request<Streaming<internal::ForwardedAppend>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn command(
        &self,
        _request: Request<internal::ForwardedCommand>,
    ) -> Result<Response<internal::ForwardedReply>, Status> {
        self.arrived.notify_one();
        std::future::pending().await
    }

    async fn read_index(
        &self,
        _request: Request<internal::ReadIndexRequest>,
    ) -> Result<Response<internal::ReadIndexResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tokio::test]
async fn a_command_without_an_answer_has_an_unknown_fate() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (silent, tasks) = (Silent::default(), Tasks::new());
    let service = ForwardServer::new(silent.clone());
    tasks.spawn("silent", move |stop| {
        Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned())
    });
    let name = Name { cluster_uid: "c".to_owned(), node: NodeId(1) };
    let transport = Grpc::new(name, None, tasks.clone());
    let forwarder = Forwarder::new(transport, BTreeMap::from([(NodeId(2), address)]), tasks);

    let caller = Principal::system();
    let command = forwarder.command(NodeId(2), &caller, GroupId(1), Bytes::new());
    let late = async {
        silent.arrived.notified().await;
        tokio::time::pause();
        tokio::time::advance(COMMAND_TIMEOUT + Duration::from_secs(1)).await;
    };
    let both = async { tokio::join!(command, late) };
    let (answer, ()) = tokio::time::timeout(3 * COMMAND_TIMEOUT, both).await.unwrap();

    let error = answer.unwrap_err();
    assert_eq!(error.reason(), Reason::DeadlineExceeded);
    assert!(error.is_retryable());
    assert!(!error.not_applied());
    assert!(error.message().contains("node 2"), "{error}");
}
