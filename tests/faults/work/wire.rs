//! Publishing without the client library, and the table that says what an answer means.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use weft_proto::v1::publish_client::PublishClient;
use weft_proto::v1::publish_result::Outcome as Result1;
use weft_proto::v1::{BatchIdentity, PublishRequest, PublishResponse};
use weft_proto::{Error, Reason};

use super::STREAMS;
use crate::check::history::{Key, Outcome};

/// Marks an answer of a broker.
const DOMAIN: &str = "weft.v1";

/// A connection to one node.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    client: PublishClient<Channel>,
}

/// An answer, and the reason where the broker gave one.
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) reason: Option<Reason>,
    pub(super) timed_out: bool,
}

impl Wire {
    pub(super) fn new(endpoint: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2));
        Ok(Self { client: PublishClient::new(endpoint.connect_lazy()) })
    }

    /// One attempt.
    pub(super) async fn publish(
        &mut self,
        key: Key,
        events: Vec<Bytes>,
        identity: Option<BatchIdentity>,
        limit: Duration,
    ) -> Answer {
        let count = events.len();
        let request = PublishRequest {
            stream: STREAMS[key.stream as usize].to_owned(),
            events,
            partition: Some(key.partition),
            atomic: true,
            identity,
            ..PublishRequest::default()
        };
        match timeout(limit, self.client.publish(request)).await {
            Ok(Ok(response)) => stored(key, count, response.into_inner()),
            Ok(Err(status)) => failed(status),
            Err(_elapsed) => Answer {
                outcome: Outcome::Info { error: format!("no answer in {limit:?}") },
                reason: None,
                timed_out: true,
            },
        }
    }
}

fn stored(key: Key, count: usize, response: PublishResponse) -> Answer {
    let mut offsets = Vec::new();
    let mut duplicate = false;
    for result in response.results {
        match result.outcome {
            Some(Result1::Receipt(receipt)) if receipt.partition == key.partition => {
                duplicate |= receipt.duplicate;
                offsets.push(receipt.offset);
            }
            Some(Result1::Receipt(receipt)) => {
                return strange(format!("stored in partition {}", receipt.partition));
            }
            // The batch is atomic: one refusal is the refusal of all.
            Some(Result1::Refusal(refusal)) => {
                let error = Error::from_refusal(refusal);
                let outcome = meaning(error.not_applied(), format!("{error}"));
                return Answer { outcome, reason: Some(error.reason()), timed_out: false };
            }
            None => return strange("a result without an outcome".to_owned()),
        }
    }
    if offsets.len() != count {
        return strange(format!("{} results for {count} events", offsets.len()));
    }
    let outcome = Outcome::Ok { key, offsets, duplicate };
    Answer { outcome, reason: None, timed_out: false }
}

fn strange(error: String) -> Answer {
    Answer { outcome: Outcome::Info { error }, reason: None, timed_out: false }
}

/// The status table. Whatever the broker did not say itself leaves everything open: a library or a
/// proxy made it.
fn failed(status: Status) -> Answer {
    let details = status.get_error_details();
    let ours = details.error_info().is_some_and(|info| info.domain == DOMAIN);
    let code = status.code();
    let text = format!("{code:?}: {}", status.message());
    let error = Error::from(status);
    let open = matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::Ok
    );
    // For open codes the flag decides, which the broker sets when it is certain.
    let certain = ours && (!open || error.not_applied());
    Answer {
        outcome: meaning(certain, text),
        reason: ours.then(|| error.reason()),
        timed_out: code == Code::DeadlineExceeded || code == Code::Cancelled,
    }
}

fn meaning(certain: bool, error: String) -> Outcome {
    if certain { Outcome::Fail { error } } else { Outcome::Info { error } }
}
