//! How far cursors are.

use weft_proto::resource::Verb;
use weft_proto::{Error, Offset, PartitionUid, QualifiedName, Reason, ResourceUid, Result, v1};

use super::Service;
use crate::access::{Caller, authorize};
use crate::resources::SubscriptionView;
use crate::subscription::Cursor;

impl Service {
    pub(super) async fn progress(
        &self,
        caller: &Caller,
        request: v1::GetProgressRequest,
    ) -> Result<v1::GetProgressResponse> {
        use v1::get_progress_request::Of;
        self.ingest.resources().wait_for(request.min_generation).await?;
        match request.of {
            Some(Of::Subscription(name)) => self.of_subscription(caller, &name).await,
            Some(Of::ReplayJob(name)) => self.of_replay_job(caller, &name).await,
            None => {
                let message = "whose progress is missing: a subscription or a replay job";
                Err(Error::invalid(message).with_field("of"))
            }
        }
    }

    async fn of_subscription(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<v1::GetProgressResponse> {
        authorize(caller, Verb::View, &named(name, "subscription")?)?;
        let view = self.ingest.resources().subscription_named(name)?;
        let mut partitions = Vec::new();
        for placement in view.stream.placements.iter().copied() {
            self.ingest.confirm(placement.group).await?;
            let end = self.ingest.group(placement.group)?.bounds(placement.uid).end;
            let partition = placement.partition.get();
            let range = v1::Progress { partition, end: end.get(), ..v1::Progress::default() };
            partitions.push(self.one(&view, view.uid, range)?);
        }
        Ok(v1::GetProgressResponse { partitions })
    }

    async fn of_replay_job(&self, caller: &Caller, text: &str) -> Result<v1::GetProgressResponse> {
        let name = named(text, "replay_job")?;
        authorize(caller, Verb::View, &name)?;
        let resources = self.ingest.resources();
        let job = resources.replay_job(&name)?;
        let target = job.spec.target.subscription()?.to_string();
        let view = resources.subscription_named(&target)?;
        let range = job.spec.resolved.iter().find(|range| range.target_uid == view.uid.get());
        let Some(range) = range else {
            let message = format!("the target of the replay job {name} was deleted");
            return Err(Error::new(Reason::UnknownResource, message));
        };
        let mut partitions = Vec::new();
        for range in &range.partitions {
            let placement = view.stream.placement(weft_proto::PartitionId(range.partition))?;
            self.ingest.confirm(placement.group).await?;
            let known = v1::Progress {
                partition: range.partition,
                from: range.from,
                watermark: range.from,
                end: range.to,
                ..v1::Progress::default()
            };
            partitions.push(self.one(&view, job.uid, known)?);
        }
        Ok(v1::GetProgressResponse { partitions })
    }

    /// What the cursor says, if there is one.
    fn one(
        &self,
        view: &SubscriptionView,
        owner: ResourceUid,
        known: v1::Progress,
    ) -> Result<v1::Progress> {
        let placement = view.stream.placement(weft_proto::PartitionId(known.partition))?;
        let group = self.ingest.group(placement.group)?;
        let told = group.with_state(|state| {
            let cursor = |partition: PartitionUid| state.cursors().get(owner, partition);
            cursor(placement.uid).map(|cursor| tell(cursor, known))
        });
        Ok(told.unwrap_or(known))
    }
}

fn tell(cursor: &Cursor, known: v1::Progress) -> v1::Progress {
    // What filters passed over at the end of a range may reach beyond it.
    let watermark = cursor.watermark().min(Offset(known.end.max(known.from)));
    v1::Progress {
        watermark: watermark.get(),
        settled_above: cursor.settled().count_below(Offset(u64::MAX)),
        given_back: cursor.parked().len() as u64,
        overtaken: cursor.overtaken(),
        ..known
    }
}

fn named(text: &str, field: &str) -> Result<QualifiedName> {
    text.parse()
        .map_err(|error: weft_proto::NameError| Error::invalid(error.to_string()).with_field(field))
}
