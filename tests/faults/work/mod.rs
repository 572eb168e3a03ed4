//! What goes on while faults come and go: publishers and readers that note all they are told.

mod ends;
pub(crate) mod event;
pub(crate) mod finals;
mod follow;
pub(crate) mod lent;
mod library;
mod raw;
pub(crate) mod recorder;
mod replay;
mod retry;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::recorder::Recorder;
use super::lab::cluster::Cluster;
use super::lab::node::Node;

/// The last one is calm: it has subscriptions, and readers that replay all of it.
pub(crate) const STREAMS: [&str; 3] = ["orders", "payments", "parcels"];
const BUSY: usize = 2;
pub(crate) const PARTITIONS: u32 = 2;
/// Longer than any attempt of a publisher.
const END_MAX: Duration = Duration::from_mins(2);

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Work {
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    followers: JoinSet<anyhow::Result<()>>,
    stop_followers: CancellationToken,
    lent: lent::Work,
}

/// What clients get wrong on purpose, to see that the checkers notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lies {
    /// A timeout is noted as a refusal.
    pub(crate) timeout_is_refusal: bool,
}

impl Work {
    /// Starts all clients.
    pub(crate) fn start(
        cluster: &Cluster,
        recorder: &Arc<Recorder>,
        lies: Lies,
    ) -> anyhow::Result<Self> {
        let mut work = Self {
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            followers: JoinSet::new(),
            stop_followers: CancellationToken::new(),
            lent: lent::Work::start(cluster, recorder)?,
        };
        let endpoints: Vec<String> = cluster.nodes.iter().map(Node::endpoint).collect();
        for (stream, _) in (0..).zip(&STREAMS[..BUSY]) {
            for patient in [true, false] {
                let how = (patient, library::BUSY);
                let source = library::Source::new(cluster.options(), stream, how, recorder);
                work.tasks.spawn(source.run(work.stop.clone()));
            }
            let retrying = retry::Source::new(&endpoints, stream, recorder)?;
            work.tasks.spawn(retrying.run(work.stop.clone()));
        }
        for (node, endpoint) in endpoints.iter().enumerate() {
            let stream = u32::try_from(node % BUSY)?;
            let raw = raw::Source::new(endpoint, stream, recorder, lies)?;
            work.tasks.spawn(raw.run(work.stop.clone()));
        }
        let source =
            library::Source::new(cluster.options(), lent::STREAM, (true, library::CALM), recorder);
        work.tasks.spawn(source.run(work.stop.clone()));
        let replay = replay::Replayer::new(&cluster.options(), recorder)?;
        work.followers.spawn(replay.run(work.stop_followers.clone()));
        for node in &cluster.nodes {
            let asker = ends::Asker::new(node, recorder)?;
            work.followers.spawn(asker.run(work.stop_followers.clone()));
            for (stream, _) in (0..).zip(&STREAMS[..BUSY]) {
                for partition in 0..PARTITIONS {
                    let key = super::check::history::Key { stream, partition };
                    let follower = follow::Follower::new(node, key, recorder)?;
                    work.followers.spawn(follower.run(work.stop_followers.clone()));
                }
            }
        }
        Ok(work)
    }

    /// Lets all that is under way end. The answer says what does not.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Option<String>> {
        self.stop.cancel();
        ended(&mut self.tasks).await.context("a publisher")?;
        let complaint = self.lent.stop().await.context("a subscription")?;
        self.stop_followers.cancel();
        ended(&mut self.followers).await.context("a reader")?;
        Ok(complaint)
    }
}

async fn ended(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    };
    timeout(END_MAX, all).await.context("does not end")?
}
