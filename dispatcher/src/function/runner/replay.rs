//! Replay jobs that name the revision which gets their events.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::sleep;
use weft_proto::event::EventView;
use weft_proto::resource::{self, Kind, ReplayJobSpec, ReplayTarget};
use weft_proto::{QualifiedName, Result};

use super::Runner;
use crate::delivery::{FeedId, RevisionNo};
use crate::port::{Lent, Mesh, REPLAY_JOB};

/// Before it is asked once more for a job that could not be read.
const AGAIN: Duration = Duration::from_millis(500);

/// What a job says.
pub(super) struct Known {
    job: u64,
    /// Nothing if it names no revision, or is gone.
    pinned: Option<String>,
}

/// What is known of jobs whose events came.
pub(super) struct Jobs {
    mesh: Arc<dyn Mesh>,
    known: BTreeMap<u64, Option<String>>,
    /// Events that wait until it is known who gets them.
    waiting: BTreeMap<u64, Vec<(FeedId, Lent)>>,
    asking: FuturesUnordered<BoxFuture<'static, Known>>,
}

impl Jobs {
    pub(super) fn new(mesh: Arc<dyn Mesh>) -> Self {
        Self {
            mesh,
            known: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asking: FuturesUnordered::new(),
        }
    }

    /// The next job that is known; only to be asked while others are waited for as well.
    pub(super) async fn next(&mut self) -> Known {
        match self.asking.next().await {
            Some(known) => known,
            None => pending().await,
        }
    }

    /// Events of a membership that is over.
    pub(super) fn forget(&mut self, feed: FeedId) {
        for waiting in self.waiting.values_mut() {
            waiting.retain(|&(of, _)| of != feed);
        }
    }
}

impl Runner {
    /// The revision that the job of an event names; the event is kept until that is known.
    pub(super) fn pinned_by(
        &mut self,
        feed: FeedId,
        lent: Lent,
    ) -> Option<(Lent, Option<RevisionNo>)> {
        let Some(job) = lent.replay_job else { return Some((lent, None)) };
        if let Some(known) = self.jobs.known.get(&job) {
            let pinned = known.as_ref().and_then(|name| self.plan.number_of(name));
            return Some((lent, pinned));
        }
        let name = EventView::parse(&lent.event)
            .and_then(|view| view.attribute("weftreplayjob")?.parse::<QualifiedName>().ok());
        if let Some(waiting) = self.jobs.waiting.get_mut(&job) {
            waiting.push((feed, lent));
            return None;
        }
        let Some(name) = name else { return Some((lent, None)) };
        self.jobs.waiting.insert(job, vec![(feed, lent)]);
        let mesh = Arc::clone(&self.jobs.mesh);
        self.jobs.asking.push(Box::pin(async move {
            loop {
                match ask(mesh.as_ref(), &name).await {
                    Ok(pinned) => return Known { job, pinned },
                    Err(error) => {
                        tracing::debug!(%name, %error, "cannot read a replay job");
                        sleep(AGAIN).await;
                    }
                }
            }
        }));
        None
    }

    pub(super) fn handle_job(&mut self, known: Known) {
        let Known { job, pinned } = known;
        self.jobs.known.insert(job, pinned);
        for (feed, lent) in self.jobs.waiting.remove(&job).unwrap_or_default() {
            self.handle_lent(feed, lent);
        }
    }
}

async fn ask(mesh: &dyn Mesh, name: &QualifiedName) -> Result<Option<String>> {
    let Some(found) = mesh.get(REPLAY_JOB, name).await? else { return Ok(None) };
    let spec: ReplayJobSpec = resource::parse(Kind::ReplayJob, &found.spec)?;
    Ok(match spec.target {
        ReplayTarget::Function(target) => target.revision,
        ReplayTarget::Subscription(_) | ReplayTarget::Webhook(_) => None,
    })
}
