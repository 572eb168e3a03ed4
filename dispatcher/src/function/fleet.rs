//! The instances of one function: started, watched, stopped.
//!
//! *Owns* the handles of all instances. *Never* decides how many there should be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::delivery::{InstanceId, RevisionNo};
use crate::launch::{Exit, Failure, Instance, Launch, Launcher, Line, Progress, Stop};
use crate::push::Target;

/// What happened in the fleet.
#[derive(Debug)]
pub(super) enum Happening {
    Started {
        id: InstanceId,
        revision: RevisionNo,
    },
    NotStarted {
        revision: RevisionNo,
        error: Failure,
    },
    /// Something is in the way of a start that goes on; or nothing is any more.
    HeldUp {
        failure: Option<Failure>,
    },
    Wrote {
        id: InstanceId,
        line: Line,
    },
    Ended {
        id: InstanceId,
        revision: RevisionNo,
        exit: Exit,
        last_lines: Vec<Line>,
    },
}

#[derive(Debug)]
struct Member {
    target: Arc<Target>,
    stop: Stop,
    is_draining: bool,
    revision: RevisionNo,
}

struct Watched {
    id: InstanceId,
    lines: mpsc::Receiver<Line>,
    exit: oneshot::Receiver<Exit>,
}

enum Event {
    Start { id: InstanceId, revision: RevisionNo, result: Result<Instance, Failure> },
    HeldUp(HeldUp),
    Line(Watched, Line),
    Exit(Watched, Exit),
}

/// What is in the way of a start; ends with the start.
type HeldUp = watch::Receiver<Option<Failure>>;

/// The instances of one function.
pub(super) struct Fleet {
    launcher: Arc<dyn Launcher>,
    tasks: TaskTracker,
    members: BTreeMap<InstanceId, Member>,
    /// Starts under way, by revision.
    starting: BTreeMap<InstanceId, RevisionNo>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
}

impl Fleet {
    pub(super) fn new(launcher: Arc<dyn Launcher>, tasks: TaskTracker) -> Self {
        Self {
            launcher,
            tasks,
            members: BTreeMap::new(),
            starting: BTreeMap::new(),
            events: FuturesUnordered::new(),
        }
    }

    pub(super) fn start(&mut self, launch: Launch, revision: RevisionNo) {
        let id = launch.id;
        self.starting.insert(id, revision);
        let launcher = Arc::clone(&self.launcher);
        let (progress, held_up) = Progress::new();
        self.events.push(Box::pin(hold_up(held_up)));
        self.events.push(Box::pin(async move {
            Event::Start { id, revision, result: launcher.start(launch, progress).await }
        }));
    }

    /// The next thing that happens; only to be asked while there is an instance.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Happening> {
        loop {
            if let Some(happening) = self.happening().await? {
                return Some(happening);
            }
        }
    }

    async fn happening(&mut self) -> Option<Option<Happening>> {
        Some(Some(match self.events.next().await? {
            Event::HeldUp(mut held_up) => {
                // The start has ended, and says so itself.
                if held_up.has_changed().is_err() {
                    return Some(None);
                }
                let failure = held_up.borrow_and_update().clone();
                self.events.push(Box::pin(hold_up(held_up)));
                Happening::HeldUp { failure }
            }
            Event::Start { id, revision, result } => {
                self.starting.remove(&id);
                match result {
                    Ok(instance) => self.admit(id, revision, instance),
                    Err(error) => Happening::NotStarted { revision, error },
                }
            }
            Event::Line(watched, line) => {
                let id = watched.id;
                self.events.push(Box::pin(watch(watched)));
                Happening::Wrote { id, line }
            }
            Event::Exit(mut watched, exit) => {
                let last_lines = std::iter::from_fn(|| watched.lines.try_recv().ok()).collect();
                let member = self.members.remove(&watched.id);
                let revision = member.map_or_else(RevisionNo::default, |member| member.revision);
                Happening::Ended { id: watched.id, revision, exit, last_lines }
            }
        }))
    }

    fn admit(&mut self, id: InstanceId, revision: RevisionNo, instance: Instance) -> Happening {
        let target = Arc::new(Target::new(instance.address, self.tasks.clone()));
        let member = Member { target, stop: instance.stop, is_draining: false, revision };
        self.members.insert(id, member);
        let watched = Watched { id, lines: instance.lines, exit: instance.exit };
        self.events.push(Box::pin(watch(watched)));
        Happening::Started { id, revision }
    }

    pub(super) fn target(&self, id: InstanceId) -> Option<(RevisionNo, Arc<Target>)> {
        self.members.get(&id).map(|member| (member.revision, Arc::clone(&member.target)))
    }

    pub(super) fn revision_of(&self, id: InstanceId) -> Option<RevisionNo> {
        self.members.get(&id).map(|member| member.revision)
    }

    /// Marks an instance as one that gets no further event.
    pub(super) fn drain(&mut self, id: InstanceId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.is_draining = true;
        }
    }

    /// Asks draining instances to end that have nothing in flight.
    pub(super) fn stop_idle(
        &self,
        is_idle: impl Fn(InstanceId) -> bool,
        grace: impl Fn(RevisionNo) -> Duration,
    ) {
        for (&id, member) in &self.members {
            if member.is_draining && is_idle(id) {
                member.stop.stop(grace(member.revision));
            }
        }
    }

    /// Instances that take events, the youngest first.
    pub(super) fn serving(&self) -> impl Iterator<Item = (InstanceId, RevisionNo)> {
        let members = self.members.iter().rev();
        members.filter(|(_, member)| !member.is_draining).map(|(&id, member)| (id, member.revision))
    }

    /// Those of one revision.
    pub(super) fn serving_of(&self, revision: RevisionNo) -> impl Iterator<Item = InstanceId> {
        self.serving().filter(move |&(_, of)| of == revision).map(|(id, _)| id)
    }

    /// Revisions that have instances, or will have.
    pub(super) fn revisions(&self) -> BTreeSet<RevisionNo> {
        let starting = self.starting.values().copied();
        self.serving().map(|(_, revision)| revision).chain(starting).collect()
    }

    pub(super) fn starting_len(&self, revision: RevisionNo) -> usize {
        self.starting.values().filter(|&&of| of == revision).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.starting.is_empty()
    }
}

async fn hold_up(mut held_up: HeldUp) -> Event {
    held_up.changed().await.ok();
    Event::HeldUp(held_up)
}

async fn watch(mut watched: Watched) -> Event {
    tokio::select! {
        biased;
        Some(line) = watched.lines.recv() => Event::Line(watched, line),
        exit = &mut watched.exit => {
            let lost = |_| Exit::Crashed(Failure::engine("the launcher lost sight of it"));
            Event::Exit(watched, exit.unwrap_or_else(lost))
        }
    }
}
