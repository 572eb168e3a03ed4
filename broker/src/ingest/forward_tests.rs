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
use weft_proto::{Error, GroupId, NodeId, Principal, Reason, internal, v1};

use super::forward::COMMAND_TIMEOUT;
use super::{Forwarder, outcome_in, outcome_out};
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
    type LendStream = BoxStream<'static, Result<internal::LendAnswer, Status>>;

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

    async fn whereabouts(
        &self,
        _request: Request<internal::WhereaboutsRequest>,
    ) -> Result<Response<internal::WhereaboutsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn cancel_delayed(
        &self,
        _request: Request<internal::DelayedCancellation>,
    ) -> Result<Response<internal::DelayedCancelled>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn lend(
        &self,
        _request: Request<Streaming<internal::LendRequest>>,
    ) -> Result<Response<Self::LendStream>, Status> {
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

#[test]
fn failed_expectations_come_back_from_the_node_that_checked_them() {
    let unmet = |subject: Option<&str>, actual| v1::UnmetExpectation {
        partition: 3,
        subject: subject.map(str::to_owned),
        expected: Some(7),
        actual,
    };
    let all = vec![unmet(None, Some(8)), unmet(Some("cart/1"), None)];
    let error = Error::new(Reason::WrongOffset, "two failed").with_unmet(all.clone());

    let back = outcome_in(outcome_out(1, Err(error.with_offset(8)))).unwrap_err();

    assert_eq!((back.reason(), back.offset()), (Reason::WrongOffset, Some(8)));
    assert_eq!(back.unmet(), all);
}
