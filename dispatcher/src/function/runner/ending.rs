//! The end of a function, in order.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::Runner;
use super::feeds::end_feed;
use crate::delivery::InstanceId;

/// Longest wait for acknowledgements under way when the function ends.
/// What instances get on top of their time-out.
const GRACE: Duration = Duration::from_secs(5);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

impl Runner {
    /// Ends the function: nothing new, then what is in flight, then the instances.
    pub(super) async fn finish(mut self, is_deleted: bool) {
        self.is_ending = true;
        self.delivery.give_back_all("the dispatcher stops");
        let ids: Vec<InstanceId> = self.fleet.serving().map(|(id, _)| id).collect();
        for id in ids {
            self.drain(id);
        }
        // Instances get their grace after the last push has ended, which has its own time-out.
        let longest = self.plan.longest_timeout();
        let deadline = Instant::now() + longest.saturating_mul(2) + GRACE;
        let drained = async {
            while !self.pushes.is_empty() || !self.fleet.is_empty() {
                self.act();
                let event = self.next().await;
                self.handle(event);
            }
        };
        if timeout_at(deadline, drained).await.is_err() {
            warn!(function = %self.plan.name, "gave up waiting for what is in flight");
        }
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        // What was lent meanwhile goes to another dispatcher at once, and not when its lease ends.
        self.delivery.give_back_all("the dispatcher stops");
        let settled = async {
            self.act();
            while !self.settles.is_empty() {
                let event = self.next().await;
                self.handle(event);
                self.act();
            }
        };
        timeout_at(deadline, settled).await.ok();
        // Feeds may be waiting to tell something that nobody will hear.
        self.told_rx.close();
        while self.told_rx.try_recv().is_ok() {}
        // Whatever is not answered by now is not waited for.
        self.settles.clear();
        let has_turn = !self.turns.is_empty();
        let mesh = is_deleted.then(|| Arc::clone(&self.parts.mesh));
        for feed in std::mem::take(&mut self.feeds).into_values() {
            end_feed(feed, mesh.clone()).await;
        }
        while self.chores.next().await.is_some() {}
        if !is_deleted && has_turn {
            let status = self.status();
            timeout_at(deadline, self.write_status(&status)).await.ok();
        }
    }
}
