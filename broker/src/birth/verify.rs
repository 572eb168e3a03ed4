//! What a node of an existing cluster asks the others before it takes part again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_proto::NodeId;
use weft_proto::internal as wire;

use super::{Birth, Error, Introduction};
use crate::identity::{FORMAT, Founder, Membership};
use crate::peer::{self, Transport};
use crate::planted::{self, Bug};

/// Between two rounds while a majority is missing.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a start waits for a majority: without one nobody can lead anyway, but reading can
/// begin. Whoever answers later is heard later.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts to reach those that have not heard of this run.
const LATER: Duration = Duration::from_secs(1);

impl Birth<'_> {
    /// Asks the other founders whether they belong to the same cluster, and whether they know of a
    /// later run of this folder.
    pub(super) async fn verify(
        &self,
        membership: &Membership,
        transport: &dyn Transport,
    ) -> Result<(), Error> {
        let mut introducer = Introducer::new(self.introduction(), membership.clone());
        let until = Instant::now() + PATIENCE;
        loop {
            introducer.round(transport).await?;
            let heard = introducer.heard.len() + 1;
            if heard * 2 > membership.founders.len() || Instant::now() >= until {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Tells the other founders of this run until all have heard of it.
#[derive(Debug)]
pub struct Introducer {
    introduction: Arc<Introduction>,
    membership: Membership,
    heard: BTreeSet<NodeId>,
}

impl Introducer {
    /// For a node that has its place in the cluster.
    pub fn new(introduction: Arc<Introduction>, membership: Membership) -> Self {
        Self { introduction, membership, heard: BTreeSet::new() }
    }

    /// Goes on until all have heard, then waits for the end of the node.
    ///
    /// # Errors
    ///
    /// `Suspect`: the node must end.
    pub async fn run(
        mut self,
        transport: Arc<dyn Transport>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let telling = async {
            let others = |one: &&Founder| one.node_id != self.membership.node_id;
            let all = self.membership.founders.iter().filter(others).count();
            while self.heard.len() < all {
                // Other errors were told at the start; a stranger that comes later is not this
                // node's affair.
                if let Err(suspect @ Error::Suspect { .. }) = self.round(&*transport).await {
                    return Err(suspect);
                }
                tokio::time::sleep(LATER).await;
            }
            // A task that ends stops all others.
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            told = telling => told,
        }
    }

    /// Asks once all that have not heard yet.
    ///
    /// Nobody has to answer: this finds folders in the wrong place. One founder that agrees is
    /// enough: a stranger at the address of another must not keep the cluster from starting. But
    /// one that knows of a later run is enough, too.
    async fn round(&mut self, transport: &dyn Transport) -> Result<(), Error> {
        let membership = &self.membership;
        let founders: Vec<_> =
            membership.founders.iter().map(|founder| founder.address.clone()).collect();
        let others = membership.founders.iter().filter(|other| {
            other.node_id != membership.node_id && !self.heard.contains(&other.node_id)
        });
        let asked = others.map(|other| {
            let request = wire::IdentifyRequest {
                node_uid: self.introduction.node_uid.clone(),
                address: self.introduction.address.clone(),
                founders: founders.clone(),
                format: FORMAT,
                run: self.introduction.run(),
                joins: false,
            };
            let answer = transport.identify(&other.address, request);
            async move { (other.clone(), answer.await) }
        });
        let mut contradiction = None;
        let mut heard = Vec::new();
        for (other, answer) in futures::future::join_all(asked).await {
            let address = other.address;
            match answer {
                Ok(answer) if !answer.suspect.is_empty() && !planted::is(Bug::OldCopyTrusted) => {
                    return Err(Error::Suspect { address, reason: answer.suspect });
                }
                Ok(answer) => match answer.birth {
                    Some(record) if record.cluster_uid == membership.cluster_uid => {
                        // Who it is may be wrong; then it learns so from this node's own answer.
                        if let Some(run) = answer.run {
                            _ = self.introduction.note(&answer.node_uid, run);
                        }
                        heard.push(other.node_id);
                    }
                    Some(record) => {
                        let ours = membership.cluster_uid.clone();
                        let theirs = record.cluster_uid;
                        contradiction = Some(Error::OtherCluster { ours, address, theirs });
                    }
                    None => {}
                },
                Err(peer::Error::Refused(reason)) => {
                    contradiction = Some(Error::Refused { address, reason });
                }
                // It may come later.
                Err(_silent) => {}
            }
        }
        self.heard.extend(heard);
        match contradiction {
            Some(contradiction) if self.heard.is_empty() => Err(contradiction),
            _ => Ok(()),
        }
    }
}
