//! The task that keeps a group alive.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::Fatal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use weft_proto::NodeId;

use super::{Error, Group, Leadership};
use crate::raft::types::TypeConfig;

/// Rebuilds within a minute after which a core is given up: it would only panic again.
const REBUILDS_MAX: usize = 3;
const REBUILDS_WINDOW: Duration = Duration::from_mins(1);

impl Group {
    /// Stops taking part.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        if let Err(error) = self.core().shutdown().await {
            warn!(group = self.inner.group.get(), %error, "the consensus core did not stop cleanly");
        }
    }

    /// Watches the core until `stop`: publishes who leads, and rebuilds the core if it panics.
    ///
    /// # Errors
    ///
    /// The group cannot go on in this process: its store failed, or its core panics again and
    /// again.
    pub(in crate::raft) async fn supervise(self, stop: CancellationToken) -> Result<(), Error> {
        let mut rebuilds: Vec<Instant> = Vec::new();
        loop {
            let fatal = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                fatal = self.watch_core() => fatal,
            };
            if self.inner.stopping.load(Ordering::Acquire) {
                // A task that ends stops all others; that is for the node to decide.
                stop.cancelled().await;
                return Ok(());
            }
            self.inner.leadership.send_modify(|now| {
                now.leader = None;
                now.is_self_ready = false;
            });
            if !matches!(fatal, Fatal::Panicked) {
                return Err(Error::Stopped(fatal.to_string()));
            }
            rebuilds.retain(|at| at.elapsed() < REBUILDS_WINDOW);
            if rebuilds.len() >= REBUILDS_MAX {
                return Err(Error::Panics(rebuilds.len() + 1));
            }
            rebuilds.push(Instant::now());
            error!(group = self.inner.group.get(), "the consensus core panicked; building it anew");
            let core = (self.inner.build)().await?;
            *self.inner.core.lock().unwrap_or_else(PoisonError::into_inner) = core;
        }
    }

    /// Publishes leadership until the core dies; returns what it died of.
    async fn watch_core(&self) -> Fatal<TypeConfig> {
        let core = self.core();
        let mut server = core.server_metrics();
        let mut applied = self.applied_watch();
        loop {
            let now = {
                let server = server.borrow_watched();
                let leads = server.state == ServerState::Leader;
                let term = server.vote.leader_id.term;
                let applied_term = applied.borrow_and_update().term;
                Leadership {
                    term,
                    leader: server.current_leader.map(NodeId),
                    is_self_ready: leads && applied_term == term,
                }
            };
            let was = self.inner.leadership.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
            if was {
                info!(
                    group = self.inner.group.get(),
                    term = now.term,
                    leader = now.leader.map(NodeId::get),
                    ready = now.is_self_ready,
                    "leadership"
                );
            }
            let waits_for_own_entry = now.leader == Some(self.inner.node) && !now.is_self_ready;
            tokio::select! {
                biased;
                changed = server.changed() => if changed.is_err() { break },
                changed = applied.changed(), if waits_for_own_entry => if changed.is_err() { break },
            }
        }
        // Not by asking the core: openraft panics itself when somebody asked a dead core before
        // and gave up. A core that ends says why in its metrics; only a panic leaves them as is.
        match core.metrics().borrow_watched().running_state.clone() {
            Err(fatal) => fatal,
            Ok(()) => Fatal::Panicked,
        }
    }

    /// Makes the core panic, as a defect in it would.
    #[cfg(test)]
    pub(in crate::raft) async fn break_core(&self) {
        let broken = self.core().with_raft_state(|_state| -> () { panic!("injected") }).await;
        assert!(matches!(broken, Err(Fatal::Panicked)));
    }
}
