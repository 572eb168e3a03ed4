//! Peers within one process: messages pass as values, links can be cut.
//!
//! For tests and simulation; the second implementation of the transport seam.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use weft_proto::internal as wire;

use super::{Error, Handler, Introduce, Messages, Peer, Transport};

/// Knows all nodes of the process, by the address of their peer listener.
#[derive(Clone, Default)]
pub struct Router {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    nodes: BTreeMap<String, Arc<dyn Handler>>,
    introductions: BTreeMap<String, Arc<dyn Introduce>>,
    /// Nodes that neither send nor receive.
    cut: BTreeSet<String>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("cut", &self.shared().cut).finish_non_exhaustive()
    }
}

impl Router {
    /// Creates a network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a node receive Raft messages.
    pub fn serve(&self, address: &str, handler: Arc<dyn Handler>) {
        self.shared().nodes.insert(address.to_owned(), handler);
    }

    /// Lets a node say who it is.
    pub fn introduce(&self, address: &str, introduce: Arc<dyn Introduce>) {
        self.shared().introductions.insert(address.to_owned(), introduce);
    }

    /// Takes a node off the network, as if its process had ended.
    pub fn remove(&self, address: &str) {
        let mut shared = self.shared();
        shared.nodes.remove(address);
        shared.introductions.remove(address);
    }

    /// Cuts a node off until `heal`.
    pub fn cut(&self, address: &str) {
        self.shared().cut.insert(address.to_owned());
    }

    /// Joins all nodes again.
    pub fn heal(&self) {
        self.shared().cut.clear();
    }

    /// Returns the transport of the node at an address.
    pub fn transport(&self, address: &str) -> Arc<dyn Transport> {
        Arc::new(Line { router: self.clone(), from: address.to_owned() })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Plain maps: a panic elsewhere leaves them whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self, from: &str, to: &str) -> bool {
        let shared = self.shared();
        !shared.cut.contains(from) && !shared.cut.contains(to)
    }

    fn find(&self, from: &str, to: &str) -> Result<Arc<dyn Handler>, Error> {
        if !self.is_open(from, to) {
            return Err(Error::Unreachable(format!("{from} and {to} are cut off")));
        }
        let nobody = || Error::Unreachable(format!("nobody listens at {to}"));
        self.shared().nodes.get(to).cloned().ok_or_else(nobody)
    }
}

/// One node's way to all others.
#[derive(Clone)]
struct Line {
    router: Router,
    from: String,
}

impl Line {
    /// Calls a node; an answer that arrives after a cut is lost.
    fn call<T, F>(
        &self,
        to: &Peer,
        call: impl FnOnce(Arc<dyn Handler>) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Error>>
    where
        T: Send,
        F: Future<Output = Result<T, Error>> + Send,
    {
        let (line, to) = (self.clone(), to.address.clone());
        Box::pin(async move {
            let answer = call(line.router.find(&line.from, &to)?).await;
            line.router.find(&line.from, &to)?;
            answer
        })
    }
}

impl Transport for Line {
    fn append(
        &self,
        to: &Peer,
        requests: Messages<wire::AppendRequest>,
    ) -> BoxFuture<'static, Result<Messages<Result<wire::AppendResponse, Error>>, Error>> {
        let (line, to) = (self.clone(), to.address.clone());
        Box::pin(async move {
            let handler = line.router.find(&line.from, &to)?;
            let (sending, target) = (line.clone(), to.clone());
            let requests = requests.take_while(move |_request| {
                std::future::ready(sending.router.find(&sending.from, &target).is_ok())
            });
            let answers = handler.append(Box::pin(requests)).map(move |response| {
                line.router.find(&line.from, &to)?;
                Ok(response)
            });
            Ok(answers.boxed())
        })
    }

    fn heartbeat(
        &self,
        to: &Peer,
        request: wire::AppendRequest,
    ) -> BoxFuture<'static, Result<wire::AppendResponse, Error>> {
        self.call(to, move |handler| async move { Ok(handler.heartbeat(request).await) })
    }

    fn vote(
        &self,
        to: &Peer,
        request: wire::VoteRequest,
    ) -> BoxFuture<'static, Result<wire::VoteResponse, Error>> {
        self.call(to, move |handler| async move { handler.vote(request).await })
    }

    fn transfer_leader(
        &self,
        to: &Peer,
        request: wire::TransferLeaderRequest,
    ) -> BoxFuture<'static, Result<wire::TransferLeaderResponse, Error>> {
        self.call(to, move |handler| async move { handler.transfer_leader(request).await })
    }

    fn install_snapshot(
        &self,
        to: &Peer,
        head: wire::SnapshotHead,
        data: Bytes,
    ) -> BoxFuture<'static, Result<wire::SnapshotResponse, Error>> {
        self.call(to, move |handler| async move { handler.install_snapshot(head, data).await })
    }

    fn identify(
        &self,
        address: &str,
        request: wire::IdentifyRequest,
    ) -> BoxFuture<'static, Result<wire::IdentifyResponse, Error>> {
        let open = self.router.is_open(&self.from, address);
        let node = self.router.shared().introductions.get(address).cloned();
        let nobody = Error::Unreachable(format!("nobody listens at {address}"));
        let answer = match node.filter(|_node| open) {
            Some(node) => node.identify(request),
            None => Err(nobody),
        };
        Box::pin(std::future::ready(answer))
    }
}
