//! The few threads that read the disk, so that no async worker waits for it.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use weft_proto::{Error, Result};

use crate::data::lock;
use crate::tasks::Tasks;

/// Reads under way at once; more would only make the disk seek.
const THREADS: usize = 2;
/// Reads that may wait; each caller has at most one.
const QUEUE_LEN: usize = 1_024;

type Job = Box<dyn FnOnce() + Send>;

/// Runs blocking reads on its own threads; clones share them.
#[derive(Clone, Debug)]
pub struct History {
    jobs: mpsc::Sender<Job>,
}

impl History {
    /// Starts the threads.
    pub fn start(tasks: &Tasks) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>(QUEUE_LEN);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..THREADS {
            let waiting = Arc::clone(&waiting);
            tasks.spawn_thread("history", move |stop| run(&waiting, &stop))?;
        }
        let closing = jobs.clone();
        tasks.spawn("history-stop", move |stop| async move {
            stop.cancelled().await;
            // One empty job wakes each thread, so that it sees the signal.
            for _ in 0..THREADS {
                _ = closing.send(Box::new(|| {})).await;
            }
            Ok::<_, std::convert::Infallible>(())
        });
        Ok(Self { jobs })
    }

    /// Reads in a task instead, as a simulation must that has one thread, over a store that never
    /// waits.
    #[cfg(test)]
    pub fn in_task(tasks: &Tasks) -> Self {
        let (jobs, mut waiting) = mpsc::channel::<Job>(QUEUE_LEN);
        tasks.spawn("history", move |stop| async move {
            while let Some(Some(job)) = stop.run_until_cancelled(waiting.recv()).await {
                job();
            }
            Ok::<_, std::convert::Infallible>(())
        });
        Self { jobs }
    }

    /// Runs one read and waits for its answer.
    ///
    /// # Cancel safety
    ///
    /// A read that was queued runs on; its answer is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (answer, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The reader may have gone meanwhile.
            _ = answer.send(read());
        });
        let stopping = || Error::unavailable("this node is stopping");
        self.jobs.send(job).await.map_err(|_closed| stopping())?;
        receiver.await.map_err(|_closed| stopping())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of all supervised threads")]
fn run(
    waiting: &Mutex<mpsc::Receiver<Job>>,
    stop: &CancellationToken,
) -> Result<(), std::convert::Infallible> {
    while !stop.is_cancelled() {
        // Whoever holds the lock waits for the next job; the others wait for the lock.
        let job = lock(waiting).blocking_recv();
        match job {
            Some(job) => job(),
            None => break,
        }
    }
    Ok(())
}
