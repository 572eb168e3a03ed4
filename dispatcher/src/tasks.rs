//! The only way to start a task.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error, info_span};
use weft_proto::Result;

/// Long-lived tasks of a dispatcher: named, watched, and all stopped when one ends early.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    pub(crate) fn new(token: CancellationToken) -> Self {
        Self { token, tracker: TaskTracker::new() }
    }

    /// Starts a task that lives as long as the dispatcher.
    pub(crate) fn spawn<F, T>(&self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> T,
        T: Future<Output = Result<()>> + Send + 'static,
    {
        // Dropped by return, error and panic alike: no task dies in silence.
        let stop_all = self.token.clone().drop_guard();
        let running = task(self.token.clone());
        let supervised = async move {
            let _stop_all = stop_all;
            if let Err(error) = running.await {
                error!(error = &error as &dyn std::error::Error, "task failed");
            }
        };
        self.tracker.spawn(supervised.instrument(info_span!("task", name)));
    }

    /// For work that ends by itself: connections, instances, functions.
    pub(crate) fn tracker(&self) -> TaskTracker {
        self.tracker.clone()
    }

    /// Waits until every task has ended.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
