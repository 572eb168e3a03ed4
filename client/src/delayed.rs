//! Events that wait for their time.

use weft_proto::v1::publish_client::PublishClient;
use weft_proto::v1::read_client::ReadClient;
use weft_proto::{Result, v1};

use crate::client::{Client, MESSAGE_BYTES_MAX, Repeat};

impl Client {
    /// Events of a stream that wait for their time: one page of at most 1,000. `page` is empty at first,
    /// then what the answer before says.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Invalid`; `Denied`; `Unavailable`.
    pub async fn delayed(
        &self,
        stream: &str,
        max_events: u32,
        page: &str,
    ) -> Result<v1::ListDelayedResponse> {
        let request = v1::ListDelayedRequest {
            stream: stream.to_owned(),
            max_events,
            page: page.to_owned(),
            min_generation: self.generation(),
        };
        let list = |transport| {
            let request = request.clone();
            async move {
                let client = ReadClient::new(transport);
                client.max_decoding_message_size(MESSAGE_BYTES_MAX).list_delayed(request).await
            }
        };
        self.call(Repeat::Always, list).await
    }

    /// Takes an event back that waits for its time, so that it is not delivered. The answer says whether
    /// it waited, or was delivered before. Without `source` the id must be that of one source only.
    ///
    /// # Errors
    ///
    /// `NotFound` for an event of which nothing is known; `Invalid`; `Denied`; `Unavailable`, after which
    /// it may have been taken back: asking again is harmless.
    pub async fn cancel_delayed(
        &self,
        stream: &str,
        id: &str,
        source: Option<&str>,
    ) -> Result<v1::CancelDelayedResponse> {
        let request = v1::CancelDelayedRequest {
            stream: stream.to_owned(),
            id: id.to_owned(),
            source: source.unwrap_or_default().to_owned(),
            min_generation: self.generation(),
        };
        let cancel = |transport| {
            let request = request.clone();
            async move { PublishClient::new(transport).cancel_delayed(request).await }
        };
        self.call(Repeat::Always, cancel).await
    }
}
