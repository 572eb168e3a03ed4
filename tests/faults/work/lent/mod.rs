//! Members of subscriptions, who take what they are lent and do all that can be done with it.

mod deeds;
mod drain;
mod jobs;
mod member;
mod seat;
mod seeker;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_client::{Client, Options, PutOptions, resource_of};
use weft_proto::resource::Kind;

use self::jobs::{Asked, Jobs};
use self::seat::Seat;
use self::seeker::Seeker;
use super::recorder::Recorder;
use super::{END_MAX, STREAMS, ended};
use crate::check::history::{Micros, Record};
use crate::lab::cluster::Cluster;
use crate::lab::node::Node;

/// Of the subscriptions, among [`STREAMS`].
pub(super) const STREAM: u32 = 2;
/// Names, and who gets what.
const SUBSCRIPTIONS: [(&str, Mode); 3] =
    [("workers", Mode::Shared), ("carriers", Mode::KeyShared), ("skippers", Mode::Exclusive)];
/// Of them, those that take part in replay jobs: the first.
const REPLAYING: usize = 2;
/// Members of each subscription.
const SEATS: usize = 3;
const LEASE: Duration = Duration::from_secs(3);

/// Who gets what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Shared,
    KeyShared,
    Exclusive,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::KeyShared => "key-shared",
            Self::Exclusive => "exclusive",
        }
    }
}

/// Members at work, and who moves cursors and replays under them.
#[derive(Debug)]
pub(super) struct Work {
    members: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    /// From then on members settle what they get, and stay.
    drain: CancellationToken,
    seekers: JoinSet<anyhow::Result<()>>,
    jobs: JoinSet<Vec<Asked>>,
    stop_seekers: CancellationToken,
    endpoints: Vec<String>,
    recorder: Arc<Recorder>,
}

/// Makes the subscriptions.
pub(crate) async fn create(client: &Client) -> anyhow::Result<()> {
    for (name, mode) in SUBSCRIPTIONS {
        let spec = json!({
            "stream": STREAMS[STREAM as usize],
            "mode": mode.name(),
            "start": "earliest",
            "lease": format!("{}s", LEASE.as_secs()),
            "grace": "1s",
            "retry": { "attempts": 8, "base": "100ms", "cap": "1s" },
        });
        let resource = resource_of(Kind::Subscription, name, &spec)?;
        client.catalog().put(resource, PutOptions::default()).await?;
    }
    Ok(())
}

impl Work {
    pub(super) fn start(cluster: &Cluster, recorder: &Arc<Recorder>) -> anyhow::Result<Self> {
        let mut work = Self {
            members: JoinSet::new(),
            stop: CancellationToken::new(),
            drain: CancellationToken::new(),
            seekers: JoinSet::new(),
            jobs: JoinSet::new(),
            stop_seekers: CancellationToken::new(),
            endpoints: cluster.nodes.iter().map(Node::endpoint).collect(),
            recorder: Arc::clone(recorder),
        };
        for (subscription, (_, mode)) in (0..).zip(SUBSCRIPTIONS) {
            let (stream, lease) = (STREAM, micros(LEASE));
            let (keyed, exclusive) = (mode == Mode::KeyShared, mode == Mode::Exclusive);
            recorder.add(|t| Record::Subscription {
                t,
                subscription,
                stream,
                keyed,
                exclusive,
                lease,
            });
            for seat in 0..SEATS {
                // Each begins at another node.
                let mut options = cluster.options();
                let nodes = options.endpoints.len();
                options.endpoints.rotate_left(seat % nodes.max(1));
                let seat = Seat::new(options, subscription, seat, recorder, &work.drain);
                work.members.spawn(seat.run(work.stop.clone()));
            }
        }
        let seeker = Seeker::new(&work.endpoints, recorder)?;
        work.seekers.spawn(seeker.run(work.stop_seekers.clone()));
        let jobs = Jobs::new(&work.endpoints, recorder)?;
        work.jobs.spawn(jobs.run(work.stop_seekers.clone()));
        Ok(work)
    }

    /// Lets members settle all that is there. The answer says what is left when they do not.
    pub(super) async fn stop(mut self) -> anyhow::Result<Option<String>> {
        self.stop_seekers.cancel();
        ended(&mut self.seekers).await?;
        let asked = timeout(END_MAX, self.jobs.join_next()).await?.transpose()?.unwrap_or_default();
        self.drain.cancel();
        let mut complaint = drain::drained(&self.endpoints).await?;
        let client = Client::connect(&Options::new(&self.endpoints))?;
        complaint = complaint.or(jobs::finish(&client, &asked, &self.recorder).await?);
        drain::letters(&client, &self.recorder).await?;
        self.stop.cancel();
        ended(&mut self.members).await?;
        Ok(complaint)
    }
}

fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
