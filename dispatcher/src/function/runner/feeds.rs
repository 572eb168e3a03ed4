//! Triggers of the definition become feeds.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Runner, RunningFeed};
use crate::delivery::FeedId;
use crate::feed::{Feed, Outbox};
use crate::function::report::TriggerReport;
use crate::port::{Mesh, SUBSCRIPTION};

impl Runner {
    /// Starts feeds of new triggers and ends those of old ones. A changed trigger is both.
    pub(super) fn update_feeds(&mut self) {
        let gone: Vec<FeedId> = self
            .feeds
            .iter()
            .filter(|(_, feed)| !self.plan.triggers.contains(&feed.trigger))
            .map(|(&id, _)| id)
            .collect();
        for id in gone {
            let Some(feed) = self.feeds.remove(&id) else { continue };
            self.delivery.handle_feed_removed(id);
            self.report.triggers.remove(&id);
            let still_used =
                self.plan.triggers.iter().any(|new| new.subscription == feed.trigger.subscription);
            let mesh = (!still_used).then(|| Arc::clone(&self.parts.mesh));
            self.chores.push(Box::pin(end_feed(feed, mesh)));
        }
        for trigger in self.plan.triggers.clone() {
            if self.feeds.values().any(|feed| feed.trigger == trigger) {
                continue;
            }
            let id = FeedId(self.next_feed);
            self.next_feed += 1;
            let outbox = Outbox::default();
            let stop = CancellationToken::new();
            let feed = Feed {
                id,
                mesh: Arc::clone(&self.parts.mesh),
                subscription: trigger.resource.clone(),
                name: trigger.subscription.clone(),
                member: self.parts.member.clone(),
                told_tx: self.told_tx.clone(),
                outbox: outbox.clone(),
            };
            let ended = self.parts.tasks.spawn(feed.run(stop.clone(), self.random.next()));
            self.report.triggers.insert(id, TriggerReport::new(trigger.name.clone()));
            self.feeds.insert(id, RunningFeed { trigger, outbox, stop, ended });
        }
    }
}

/// Ends a feed and, given a mesh, deletes its subscription.
pub(super) async fn end_feed(feed: RunningFeed, mesh: Option<Arc<dyn Mesh>>) {
    feed.stop.cancel();
    feed.ended.await.ok();
    if let Some(mesh) = mesh {
        let name = &feed.trigger.subscription;
        if let Err(error) = mesh.delete(SUBSCRIPTION, name).await {
            warn!(subscription = %name, %error, "cannot delete the subscription");
        }
    }
}
