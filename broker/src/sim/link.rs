//! The transport of a simulated node: carries its messages over the network, and shows each to the
//! observer.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use weft_proto::internal as wire;

use super::network::{Carried, Endpoint, Network};
use super::observer::Observer;
use super::process::{self, inside};
use crate::peer::{Error, Messages, Peer, Transport};

pub(crate) struct Link {
    pub(crate) node: u64,
    pub(crate) network: Network,
    pub(crate) observer: Arc<Observer>,
}

type Answers = Messages<Result<wire::AppendResponse, Error>>;

impl Link {
    fn call<T, F>(
        &self,
        to: &Peer,
        call: impl FnOnce(Endpoint) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Error>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let network = self.network.clone();
        let way = (self.node, to.node.get());
        Box::pin(async move {
            let connection = network.connect(way);
            network.travel(connection).await?;
            let endpoint = network.endpoint(way.1)?;
            let process = Arc::clone(&endpoint.process);
            let work = process.run(async move { call(endpoint).await });
            let answer = network.while_whole(connection, work).await?;
            network.travel(connection.back()).await?;
            answer
        })
    }
}

/// The last log id that a follower has after a request, if it took it.
fn reached(request: &wire::AppendRequest) -> Option<wire::LogId> {
    request.entries.last().map_or(request.previous, |entry| entry.log_id)
}

fn forged(request: &wire::AppendRequest) -> wire::AppendResponse {
    let matched = wire::Matched { log_id: reached(request) };
    wire::AppendResponse { outcome: Some(wire::append_response::Outcome::Matched(matched)) }
}

impl Transport for Link {
    fn append(
        &self,
        to: &Peer,
        requests: Messages<wire::AppendRequest>,
    ) -> BoxFuture<'static, Result<Answers, Error>> {
        let (network, observer) = (self.network.clone(), Arc::clone(&self.observer));
        let way = (self.node, to.node.get());
        let sender = process::current();
        Box::pin(async move {
            let connection = network.connect(way);
            network.travel(connection).await?;
            let endpoint = network.endpoint(way.1)?;
            let requests = match sender {
                Some(sender) => inside(sender, requests).boxed(),
                None => requests,
            };
            let watched = Arc::clone(&observer);
            let requests = requests.inspect(move |request| watched.append(way, request)).boxed();
            let requests = Carried::over(network.clone(), connection, requests, None);
            let answers = if observer.forges(way.1) {
                requests.map(|request| forged(&request)).boxed()
            } else {
                let process = endpoint.process;
                let answers = process.enter(|| endpoint.handler.append(requests));
                inside(process, answers).boxed()
            };
            let answers =
                answers.inspect(move |answer| observer.appended(way, answer)).map(Ok).boxed();
            let at_break = Err(Error::Broken("the connection was reset".to_owned()));
            Ok(Carried::over(network, connection.back(), answers, Some(at_break)))
        })
    }

    fn heartbeat(
        &self,
        to: &Peer,
        request: wire::AppendRequest,
    ) -> BoxFuture<'static, Result<wire::AppendResponse, Error>> {
        let way = (self.node, to.node.get());
        self.observer.append(way, &request);
        if self.observer.forges(way.1) {
            return std::future::ready(Ok(forged(&request))).boxed();
        }
        self.call(to, move |endpoint| async move { Ok(endpoint.handler.heartbeat(request).await) })
    }

    fn vote(
        &self,
        to: &Peer,
        request: wire::VoteRequest,
    ) -> BoxFuture<'static, Result<wire::VoteResponse, Error>> {
        let way = (self.node, to.node.get());
        self.observer.vote(way, &request);
        let observer = Arc::clone(&self.observer);
        self.call(to, move |endpoint| async move {
            let response = endpoint.handler.vote(request).await?;
            observer.voted(way, &request, &response);
            Ok(response)
        })
    }

    fn transfer_leader(
        &self,
        to: &Peer,
        request: wire::TransferLeaderRequest,
    ) -> BoxFuture<'static, Result<wire::TransferLeaderResponse, Error>> {
        self.observer.transfer((self.node, to.node.get()), &request);
        self.call(
            to,
            move |endpoint| async move { endpoint.handler.transfer_leader(request).await },
        )
    }

    fn install_snapshot(
        &self,
        to: &Peer,
        head: wire::SnapshotHead,
        data: Bytes,
    ) -> BoxFuture<'static, Result<wire::SnapshotResponse, Error>> {
        self.observer.snapshot((self.node, to.node.get()), &head, &data);
        self.call(
            to,
            move |endpoint| async move { endpoint.handler.install_snapshot(head, data).await },
        )
    }

    fn identify(
        &self,
        address: &str,
        _request: wire::IdentifyRequest,
    ) -> BoxFuture<'static, Result<wire::IdentifyResponse, Error>> {
        let error = Error::Unreachable(format!("{address} has nobody to introduce"));
        std::future::ready(Err(error)).boxed()
    }
}
