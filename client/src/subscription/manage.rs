//! Moving cursors; dead letters.

use weft_proto::v1::subscribe_client::SubscribeClient;
use weft_proto::{PartitionId, Result, v1};

use crate::client::{Client, MESSAGE_BYTES_MAX, Repeat};
use crate::{EventPlace, Position};

/// Which dead letters, and what becomes of them.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "flags of one request")]
pub struct Redrive {
    /// These; without any, all.
    pub letters: Vec<v1::DeadLetterRange>,
    /// Events per second and partition; 0 means as fast as members take them.
    pub per_second: u32,
    /// Counts, and does nothing.
    pub is_dry_run: bool,
    /// Settles them without delivering them.
    pub discards: bool,
}

impl Client {
    /// Moves the cursor of a subscription, in one partition or in all. Everything before counts as
    /// settled, nothing from there on; what was lent before is fenced.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Invalid` for a partition that the stream does not have; `Denied`; `Unavailable`,
    /// and then some cursors may have been moved: moving them again is harmless.
    pub async fn seek(
        &self,
        subscription: &str,
        partition: Option<PartitionId>,
        to: Position,
    ) -> Result<Vec<v1::SeekResult>> {
        let request = v1::SeekRequest {
            subscription: subscription.to_owned(),
            partition: partition.map(PartitionId::get),
            to: Some(to.into()),
            ..v1::SeekRequest::default()
        };
        self.seek_by(request).await
    }

    /// Moves the cursor of a subscription so that an event is the next one that is delivered: in its own
    /// partition to its offset, in the others to what was appended at its time or later.
    ///
    /// # Errors
    ///
    /// As [`Client::seek`]; `NotFound` also for the event; `Invalid` also for an id that events of several
    /// sources have, and where there is too much to look through.
    pub async fn seek_to_event(
        &self,
        subscription: &str,
        partition: Option<PartitionId>,
        event: EventPlace,
    ) -> Result<Vec<v1::SeekResult>> {
        let request = v1::SeekRequest {
            subscription: subscription.to_owned(),
            partition: partition.map(PartitionId::get),
            to_event: Some(event.into()),
            ..v1::SeekRequest::default()
        };
        self.seek_by(request).await
    }

    async fn seek_by(&self, request: v1::SeekRequest) -> Result<Vec<v1::SeekResult>> {
        let request = v1::SeekRequest { min_generation: self.generation(), ..request };
        let seek = |transport| {
            let request = request.clone();
            async move { SubscribeClient::new(transport).seek(request).await }
        };
        Ok(self.call(Repeat::Always, seek).await?.cursors)
    }

    /// How far a subscription is, by partition.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Denied`; `Unavailable` when no node answers in time.
    pub async fn subscription_progress(&self, subscription: &str) -> Result<Vec<v1::Progress>> {
        self.progress(v1::get_progress_request::Of::Subscription(subscription.to_owned())).await
    }

    /// How far a replay job is, by partition, without those in which its range is empty.
    ///
    /// # Errors
    ///
    /// `NotFound`, also when the target of the job was deleted; `Denied`; `Unavailable` when no node
    /// answers in time.
    pub async fn replay_progress(&self, replay_job: &str) -> Result<Vec<v1::Progress>> {
        self.progress(v1::get_progress_request::Of::ReplayJob(replay_job.to_owned())).await
    }

    async fn progress(&self, of: v1::get_progress_request::Of) -> Result<Vec<v1::Progress>> {
        let request = v1::GetProgressRequest { of: Some(of), min_generation: self.generation() };
        let get = |transport| {
            let request = request.clone();
            async move { SubscribeClient::new(transport).get_progress(request).await }
        };
        Ok(self.call(Repeat::Always, get).await?.partitions)
    }

    /// Events that a subscription gave up: one page of at most 1,000. `page` is empty at first, then
    /// what the answer before says.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Invalid`; `Denied`; `Unavailable`.
    pub async fn dead_letters(
        &self,
        subscription: &str,
        max_events: u32,
        page: &str,
    ) -> Result<v1::ListDeadLettersResponse> {
        let request = v1::ListDeadLettersRequest {
            subscription: subscription.to_owned(),
            max_events,
            page: page.to_owned(),
        };
        let list = |transport| {
            let request = request.clone();
            async move {
                let client = SubscribeClient::new(transport);
                client.max_decoding_message_size(MESSAGE_BYTES_MAX).list_dead_letters(request).await
            }
        };
        self.call(Repeat::Always, list).await
    }

    /// Delivers dead letters again, to their subscription alone, or discards them. At most 8,192 of
    /// each partition are taken on at once: the answer says whether there are more.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Invalid`; `Denied`; `Overloaded` while too many are on their way; `Unavailable`:
    /// asking again takes on only what was not.
    pub async fn redrive(
        &self,
        subscription: &str,
        redrive: Redrive,
    ) -> Result<v1::RedriveResponse> {
        let request = v1::RedriveRequest {
            subscription: subscription.to_owned(),
            letters: redrive.letters,
            per_second: redrive.per_second,
            dry_run: redrive.is_dry_run,
            discard: redrive.discards,
        };
        let redrive = |transport| {
            let request = request.clone();
            async move { SubscribeClient::new(transport).redrive(request).await }
        };
        self.call(Repeat::Always, redrive).await
    }
}
