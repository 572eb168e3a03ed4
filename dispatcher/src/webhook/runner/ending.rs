//! The end of a definition, in order.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::warn;
use weft_proto::ErrorKind;
use weft_proto::resource::Kind;

use super::membership::Membership;
use super::{End, Runner};
use crate::webhook::report::Report;

/// Longest wait for what is settled, and for leaving, when a definition ends.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

impl Runner {
    /// Ends the definition: nothing new, then what is in flight; then it is left.
    pub(super) async fn finish(mut self, end: &End) -> Report {
        let deadline = Instant::now() + self.plan.spec.timeout.0 + SETTLE_TIMEOUT;
        let drained = async {
            while !self.pushes.is_empty() {
                let event = self.next().await;
                self.handle(event);
            }
        };
        if timeout_at(deadline, drained).await.is_err() {
            warn!(webhook = %self.plan.name, "gave up waiting for what is in flight");
        }
        self.leave();
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let left = async {
            while !(self.settles.is_empty() && matches!(self.membership, Membership::Out { .. })) {
                let event = self.next().await;
                self.handle(event);
            }
        };
        timeout_at(deadline, left).await.ok();
        match end {
            End::Deleted => self.delete_subscription().await,
            End::Stopped => {
                let now = self.now();
                let status = self.status(now);
                timeout_at(deadline, self.write_status(&status)).await.ok();
            }
            End::Revised(_) => {}
        }
        self.report
    }

    async fn delete_subscription(&mut self) {
        let name = self.plan.subscription_name.to_string();
        let catalog = self.parts.client.catalog();
        if let Err(error) = catalog.delete(Kind::Subscription, &name, None).await
            && error.kind() != ErrorKind::NotFound
        {
            warn!(subscription = %name, %error, "cannot delete the subscription");
        }
    }
}
