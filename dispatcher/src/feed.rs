//! One trigger: keeps its subscription in the catalog, and takes part in it.
//!
//! *Owns* the membership. *Never* decides about an event. When the membership ends, what was lent
//! comes again: the function is told, and the subscription joined once more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use weft_proto::v1::Resource;
use weft_proto::{Error, QualifiedName, Reason, Result};

use crate::delivery::{FeedId, Random, backoff_max};
use crate::port::{Item, Joining, Mesh, SUBSCRIPTION, Settler};

/// Events that may be in hand for one trigger.
pub(crate) const HELD_EVENTS_MAX: u32 = 2_048;
/// Bytes of events that may be in hand for one trigger.
pub(crate) const HELD_BYTES_MAX: u64 = 4 * 1024 * 1024;
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(10);
/// Says which function a subscription serves.
pub(crate) const FUNCTION_LABEL: &str = "weft.function";

/// What a feed tells the runner of the function.
pub(crate) enum Told {
    /// The subscription works; events are settled by this.
    Joined(Arc<dyn Settler>),
    /// What the subscription says.
    Item(Item),
    /// The subscription does not work, and nothing that was lent can be settled any more; it is joined
    /// again.
    Trouble(Error),
}

/// One trigger of one function.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) id: FeedId,
    pub(crate) mesh: Arc<dyn Mesh>,
    pub(crate) subscription: Resource,
    pub(crate) name: QualifiedName,
    pub(crate) member: String,
    pub(crate) told_tx: mpsc::Sender<(FeedId, Told)>,
}

impl Feed {
    /// Runs until stopped; then leaves, once everything is settled that was asked for.
    pub(crate) async fn run(self, stop: CancellationToken, seed: u64) {
        let mut random = Random::new(seed);
        let (mut failures, mut joins) = (0, 0);
        loop {
            let Err(error) = self.follow(&stop, &mut failures, &mut joins).await else { return };
            failures += 1;
            debug!(subscription = %self.name, %error, "subscription interrupted");
            let high = backoff_max(BACKOFF_BASE, BACKOFF_CAP, failures);
            let delay = random.between(high / 2, high);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                sent = self.tell(Told::Trouble(error)) => if sent.is_err() { return },
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(delay) => {}
            }
        }
    }

    async fn tell(&self, told: Told) -> Result<()> {
        let gone = |_| Error::unavailable("the function has ended");
        self.told_tx.send((self.id, told)).await.map_err(gone)
    }

    /// Creates the subscription, or brings it up to date.
    async fn ensure(&self) -> Result<()> {
        let present = self.mesh.get(SUBSCRIPTION, &self.name).await?;
        let owner = self.subscription.labels.get(FUNCTION_LABEL);
        if let Some(present) = present
            && present.labels.get(FUNCTION_LABEL) != owner
        {
            let message = format!(
                "subscription {} exists and is not this function's; rename the function or the \
                 trigger, or delete the subscription",
                self.name
            );
            return Err(Error::new(Reason::AlreadyExists, message));
        }
        self.mesh.put(self.subscription.clone()).await
    }

    /// Takes part until stopped.
    async fn follow(
        &self,
        stop: &CancellationToken,
        failures: &mut u32,
        joins: &mut u32,
    ) -> Result<()> {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            made = self.ensure() => made?,
        }
        *joins += 1;
        let joining = Joining {
            // A new name each time: under an old one, what was left would count as ours.
            member: format!("{}-{joins}", self.member),
            events_max: HELD_EVENTS_MAX,
            bytes_max: HELD_BYTES_MAX,
        };
        let mut membership = self.mesh.join(&self.name, joining);
        self.tell(Told::Joined(membership.settler())).await?;
        let ended = loop {
            let item = tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                item = membership.next() => item,
            };
            match item {
                Ok(item) => {
                    *failures = 0;
                    let told = tokio::select! {
                        biased;
                        () = stop.cancelled() => break Ok(()),
                        told = self.tell(Told::Item(item)) => told,
                    };
                    told?;
                }
                Err(error) => break Err(error),
            }
        };
        membership.close().await;
        ended
    }
}
