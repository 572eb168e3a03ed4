//! What a node tells the others about itself: that it is here, and that it leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;
use weft_proto::internal::{self, catalog_command::Change};
use weft_proto::{GroupId, NodeId, Principal};

use crate::ingest::{Ingest, Remote};
use crate::resources::Resources;

/// The others find out anyway, only later.
const ANNOUNCE_MAX: Duration = Duration::from_millis(500);
/// How long answers may take once nothing more is taken.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Before the others are asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What others ask of a node, and how it stops to take it.
pub(crate) struct Edge {
    pub(crate) closing: CancellationToken,
    /// The client port ended.
    pub(crate) closed: CancellationToken,
    pub(crate) remote: Remote,
}

impl Edge {
    /// Takes nothing more, and lets what was taken come to its end while the groups still run: a
    /// caller that gets no answer would not know what became of its events.
    pub(crate) async fn close(self) {
        self.closing.cancel();
        let clients = tokio::time::timeout(CLOSE_MAX, self.closed.cancelled());
        let (clients, ()) = tokio::join!(clients, self.remote.close(CLOSE_MAX));
        if clients.is_err() {
            warn!("some clients stay without an answer");
        }
    }
}

/// Nodes of which the catalog says that they shall lead nothing.
pub(crate) fn draining(resources: &Resources) -> Arc<dyn Fn() -> BTreeSet<NodeId> + Send + Sync> {
    let resources = resources.clone();
    Arc::new(move || {
        let catalog = resources.snapshot();
        let leaving = catalog.nodes().filter(|node| node.draining);
        leaving.map(|node| NodeId(node.id)).collect()
    })
}

/// Lets the other nodes know that this one leaves, so that nobody gives it a group meanwhile. If
/// the catalog has no leader, they find out by its silence.
pub(crate) async fn announce(resources: &Resources, own: internal::CatalogNode) {
    let leaving = internal::CatalogNode { draining: true, ..own };
    let caller = Principal::system();
    let told = resources.change(&caller, Change::Node(leaving));
    if !matches!(tokio::time::timeout(ANNOUNCE_MAX, told).await, Ok(Ok(_))) {
        tracing::debug!("the catalog could not be told that this node leaves");
    }
}

/// Waits until this node has what its groups agreed on before; tries until it has.
pub(crate) async fn catch_up(ingest: &Ingest, groups: &[GroupId]) {
    for &group in groups {
        while let Err(error) = ingest.confirm(group).await {
            tracing::debug!(group = group.get(), %error, "not caught up yet");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Tells the catalog where this node is; tries until it is told.
pub(crate) async fn register(resources: &Resources, own: internal::CatalogNode) {
    let mut wait = Duration::from_millis(50);
    loop {
        let error = match resources.change(&Principal::system(), Change::Node(own.clone())).await {
            Ok(reply) => {
                if let Err(refusal) = reply.outcome {
                    tracing::error!(
                        node = own.id,
                        reason = refusal.message,
                        "this node is not wanted"
                    );
                }
                return;
            }
            Err(error) => error,
        };
        tracing::debug!(%error, "the catalog cannot be told yet");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(1));
    }
}
