//! Triggers of the definition become feeds.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Runner, RunningFeed};
use crate::delivery::FeedId;
use crate::feed::Feed;
use crate::function::report::TriggerReport;
use crate::port::{Mesh, SUBSCRIPTION};

impl Runner {
    /// Starts feeds of new triggers and ends those of old ones. A changed subscription is both.
    pub(super) fn update_feeds(&mut self) {
        let stays = |feed: &RunningFeed| {
            self.plan.triggers.iter().any(|new| new.resource == feed.trigger.resource)
        };
        let gone: Vec<FeedId> =
            self.feeds.iter().filter(|(_, feed)| !stays(feed)).map(|(&id, _)| id).collect();
        for id in gone {
            let Some(feed) = self.feeds.remove(&id) else { continue };
            self.feed_lost(id);
            self.report.triggers.remove(&id);
            let still_used =
                self.plan.triggers.iter().any(|new| new.subscription == feed.trigger.subscription);
            let mesh = (!still_used).then(|| Arc::clone(&self.parts.mesh));
            self.chores.push(Box::pin(end_feed(feed, mesh)));
        }
        for trigger in self.plan.triggers.clone() {
            let known =
                self.feeds.iter_mut().find(|(_, feed)| feed.trigger.resource == trigger.resource);
            if let Some((&id, feed)) = known {
                self.delivery.handle_policy(id, trigger.policy.clone());
                feed.trigger = trigger;
                continue;
            }
            let id = FeedId(self.next_feed);
            self.next_feed += 1;
            let stop = CancellationToken::new();
            let feed = Feed {
                id,
                mesh: Arc::clone(&self.parts.mesh),
                subscription: trigger.resource.clone(),
                name: trigger.subscription.clone(),
                member: self.parts.member.clone(),
                told_tx: self.told_tx.clone(),
            };
            let ended = self.parts.tasks.spawn(feed.run(stop.clone(), self.random.next()));
            self.report.triggers.insert(id, TriggerReport::new(trigger.name.clone()));
            self.delivery.handle_policy(id, trigger.policy.clone());
            self.feeds.insert(id, RunningFeed { trigger, settler: None, stop, ended });
        }
    }

    /// Nothing of a trigger can be settled any more.
    pub(super) fn feed_lost(&mut self, id: FeedId) {
        self.delivery.handle_feed_lost(id);
        self.jobs.forget(id);
        self.turns.retain(|&(feed, _)| feed != id);
        if let Some(feed) = self.feeds.get_mut(&id) {
            feed.settler = None;
        }
    }
}

/// Ends a feed and, given a mesh, deletes its subscription.
pub(super) async fn end_feed(feed: RunningFeed, mesh: Option<Arc<dyn Mesh>>) {
    let RunningFeed { trigger, settler, stop, ended } = feed;
    // It leaves when nobody could settle any more.
    drop(settler);
    stop.cancel();
    ended.await.ok();
    if let Some(mesh) = mesh {
        let name = &trigger.subscription;
        if let Err(error) = mesh.delete(SUBSCRIPTION, name).await {
            warn!(subscription = %name, %error, "cannot delete the subscription");
        }
    }
}
