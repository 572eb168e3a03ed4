//! The only way to start long work: named, traced, and never dying in silence.
//!
//! *Owns* the stop signal of the process part it belongs to. *Never* exits the process itself:
//! when a task ends early, everything stops, and `failure` says why.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error, info_span, warn};

/// Starts tasks and stops them together; clones share one set of tasks.
#[derive(Clone, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    failure: Arc<OnceLock<String>>,
}

impl Tasks {
    /// Creates an empty set of tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. When it ends before `stop` was asked for, all others are stopped too.
    pub fn spawn<E, F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let stop_all = self.token.clone().drop_guard();
        let end = End { name, tasks: self.clone() };
        let running = task(self.token.clone());
        let supervised = async move {
            let _stop_all = stop_all;
            let end = end;
            if let Err(error) = running.await {
                error!(error = &error as &dyn std::error::Error, "task failed");
                end.tasks.fail(format!("{}: {}", end.name, chain(&error)));
            }
        };
        self.start(supervised.instrument(info_span!("task", name)));
    }

    /// Runs short work that outlives its caller; its end stops nothing.
    pub fn spawn_short(&self, work: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.start(async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = work => {}
            }
        });
    }

    fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        // In a simulation a task belongs to the node that started it.
        #[cfg(test)]
        let task = crate::sim::process::inherit(task);
        self.tracker.spawn(task);
    }

    /// Starts a thread for blocking work, with the same rule as `spawn`.
    pub fn spawn_thread<E: std::error::Error + Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(CancellationToken) -> Result<(), E> + Send + 'static,
    ) -> std::io::Result<()> {
        let stop_all = self.token.clone().drop_guard();
        let end = End { name, tasks: self.clone() };
        let tracked = self.tracker.token();
        let token = self.token.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _tracked = tracked;
            let _stop_all = stop_all;
            let end = end;
            if let Err(error) = work(token) {
                error!(task = name, error = &error as &dyn std::error::Error, "thread failed");
                end.tasks.fail(format!("{name}: {}", chain(&error)));
            }
        })?;
        Ok(())
    }

    /// Returns the signal that every task gets.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// A part of these tasks that can be stopped before the others: by cancelling its token.
    #[must_use]
    pub fn part(&self) -> Self {
        Self { token: self.token.child_token(), ..self.clone() }
    }

    /// Waits until somebody asked to stop, or a task ended early.
    pub async fn stopping(&self) {
        self.token.cancelled().await;
    }

    /// Returns why the tasks stopped, if one of them failed.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Stops everything and waits; returns false when something still runs at the deadline.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        let stopped = tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok();
        if !stopped {
            warn!(tasks = self.tracker.len(), "tasks still run at the deadline");
        }
        stopped
    }

    fn fail(&self, reason: String) {
        // The first failure is the cause; what follows are its consequences.
        _ = self.failure.set(reason);
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.tracker.len()).finish_non_exhaustive()
    }
}

/// Notices a panic: it is dropped while unwinding, before the stop guard of its task.
struct End {
    name: &'static str,
    tasks: Tasks,
}

impl Drop for End {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tasks.fail(format!("{}: panicked", self.name));
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn failed_task_stops_all_and_says_why() {
        let tasks = Tasks::new();
        tasks.spawn("waits", |stop| async move {
            stop.cancelled().await;
            Ok::<_, std::io::Error>(())
        });

        tasks.spawn("fails", |_| async { Err(std::io::Error::other("no disk")) });

        tokio::time::timeout(DEADLINE, tasks.stopping()).await.unwrap();
        assert!(tasks.stop(DEADLINE).await);
        assert_eq!(tasks.failure(), Some("fails: no disk"));
    }

    #[tokio::test]
    async fn panicking_task_stops_all_and_says_so() {
        let tasks = Tasks::new();

        tasks.spawn("breaks", |_| async {
            let nothing: Option<()> = std::hint::black_box(None);
            nothing.unwrap();
            Ok::<_, std::io::Error>(())
        });

        tokio::time::timeout(DEADLINE, tasks.stopping()).await.unwrap();
        assert!(tasks.stop(DEADLINE).await);
        assert_eq!(tasks.failure(), Some("breaks: panicked"));
    }

    #[tokio::test]
    async fn thread_is_waited_for() {
        let tasks = Tasks::new();
        tasks
            .spawn_thread("thread", |stop| {
                while !stop.is_cancelled() {
                    std::thread::yield_now();
                }
                Ok::<_, std::io::Error>(())
            })
            .unwrap();

        assert!(tasks.stop(DEADLINE).await);
        assert_eq!(tasks.failure(), None);
    }
}
