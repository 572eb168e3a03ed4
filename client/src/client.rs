//! The handle to a cluster: which node to ask, how often, and what was learnt from answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Response, Status};
use weft_proto::v1::cluster_client::ClusterClient;
use weft_proto::v1::publish_client::PublishClient;
use weft_proto::{Error, ErrorKind, Reason, Result, v1};

use crate::channels::{Channels, Transport, error_of};
use crate::options::{Options, Timeouts};
use crate::retry::Backoff;

/// A message of a server may be a batch of 1 MiB and a little, or a list of resources.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A handle to a cluster. Clones share its connections.
///
/// All calls carry the newest catalog generation that this handle has seen, so that what it wrote
/// through one node is known to the node that it asks next.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channels: Channels,
    endpoints: Vec<String>,
    /// Index of the endpoint that answered last.
    preferred: AtomicUsize,
    timeouts: Timeouts,
    generation: AtomicU64,
}

/// Whether a call may be made again when its fate is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It reads, or doing it twice is the same as doing it once.
    Always,
    /// Only when it certainly did nothing.
    IfNotApplied,
}

impl Client {
    /// Makes a handle. Connections are made when they are needed, so this needs no cluster.
    ///
    /// # Errors
    ///
    /// `Invalid` when an option is unusable; the error's field names it.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn connect(options: &Options) -> Result<Self> {
        let (channels, endpoints) = Channels::new(options)?;
        let inner = Inner {
            channels,
            endpoints,
            preferred: AtomicUsize::new(0),
            timeouts: options.timeouts,
            generation: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the cluster looks like to the node that answers.
    ///
    /// # Errors
    ///
    /// `Unavailable` when no node answers in time; `Denied`.
    pub async fn status(&self) -> Result<v1::StatusResponse> {
        let status = |transport| async move {
            ClusterClient::new(transport)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .status(v1::StatusRequest {})
                .await
        };
        self.call(Repeat::Always, status).await
    }

    /// Takes a node out of the cluster for good; its id is never given again.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown node; `Conflict` when too few nodes would be left; `Unavailable`.
    pub async fn remove_node(&self, node_id: u64) -> Result<()> {
        let remove = |transport| async move {
            ClusterClient::new(transport).remove_node(v1::RemoveNodeRequest { node_id }).await
        };
        // Once more does no harm.
        self.call(Repeat::Always, remove).await.map(drop)
    }

    /// Moves leadership away from a node, and keeps it away until the node starts again or, with
    /// `undo`, gives it back its share. It takes a second or so; [`Client::status`] shows it.
    ///
    /// # Errors
    ///
    /// `Invalid` for an unknown node; `Unavailable` when no node answers in time.
    pub async fn drain(&self, node_id: u64, undo: bool) -> Result<()> {
        let request = v1::DrainRequest { node_id, undo };
        let drain = |transport| async move { ClusterClient::new(transport).drain(request).await };
        self.call(Repeat::Always, drain).await.map(drop)
    }

    /// Where the partitions of a stream live.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown stream; `Unavailable` when no node answers in time.
    pub async fn route(&self, stream: &str) -> Result<Vec<v1::PartitionRoute>> {
        let request =
            v1::RouteRequest { stream: stream.to_owned(), min_generation: self.generation() };
        let route = |transport| {
            let request = request.clone();
            async move { ClusterClient::new(transport).route(request).await }
        };
        Ok(self.call(Repeat::Always, route).await?.partitions)
    }

    /// Publishes some events in one call; answers one result per event, in order.
    ///
    /// For more than a few events, a [`Publisher`](crate::Publisher) is faster and recognises its
    /// own retries. Here a request is sent again only if it certainly did nothing, or if it has
    /// an identity.
    ///
    /// # Errors
    ///
    /// The call as a whole; refused events are in the results. `Unavailable` leaves the fate
    /// unknown unless [`Error::not_applied`] says otherwise.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the events back.
    pub async fn publish_once(
        &self,
        mut request: v1::PublishRequest,
    ) -> Result<Vec<v1::PublishResult>> {
        request.min_generation = request.min_generation.max(self.generation());
        let repeat = if request.identity.is_some() { Repeat::Always } else { Repeat::IfNotApplied };
        let publish = |transport| {
            let request = request.clone();
            async move {
                PublishClient::new(transport)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .publish(request)
                    .await
            }
        };
        Ok(self.call(repeat, publish).await?.results)
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.inner.timeouts
    }

    /// The newest catalog generation that any answer told.
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn saw_generation(&self, generation: u64) {
        self.inner.generation.fetch_max(generation, Ordering::Relaxed);
    }

    /// The channel to the node that answered last, and its place among the endpoints.
    pub(crate) fn any_node(&self) -> Result<(Transport, usize)> {
        let place = self.inner.preferred.load(Ordering::Relaxed) % self.inner.endpoints.len();
        Ok((self.node(&self.inner.endpoints[place])?, place))
    }

    pub(crate) fn node(&self, address: &str) -> Result<Transport> {
        self.inner.channels.get(address)
    }

    /// A number for the credential that calls show now.
    pub(crate) fn shows(&self) -> u64 {
        self.inner.channels.credential().version()
    }

    /// Whether a call that was refused may be made once more: there is another credential to show
    /// than the one that it showed.
    pub(crate) fn shows_another(&self, error: &Error, shown: u64) -> bool {
        error.kind() == ErrorKind::Denied
            && self.inner.channels.credential().has_changed_since(shown)
    }

    /// The node at this place did not answer: the next call begins with the one after it.
    pub(crate) fn avoid(&self, place: usize) {
        let next = (place + 1) % self.inner.endpoints.len();
        // If it has moved on already, someone else saw the same.
        _ = self.inner.preferred.compare_exchange(
            place,
            next,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Makes a call at one node after the other until one answers. A refusal ends it, unless the
    /// credential has changed since; a limit that is reached is waited for.
    pub(crate) async fn call<T, F>(
        &self,
        repeat: Repeat,
        call: impl Fn(Transport) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.inner.timeouts.call;
        let mut backoff = Backoff::default();
        let mut leader: Option<String> = None;
        let mut before: Option<Error> = None;
        let mut is_open = false;
        for attempt in 1.. {
            let hint = leader.take();
            let (transport, place) = match &hint {
                Some(address) => (self.node(address)?, None),
                None => self.any_node().map(|(transport, place)| (transport, Some(place)))?,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = self.inner.timeouts.attempt.min(left);
            let shown = self.shows();
            let error = match timeout(limit, call(transport)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => error_of(status),
                Err(_elapsed) => out_of_time(before.as_ref()),
            };
            if self.shows_another(&error, shown) {
                continue;
            }
            if error.is_retryable()
                && let Some(place) = place
            {
                self.avoid(place);
            }
            if !error.is_retryable() || (repeat == Repeat::IfNotApplied && !error.not_applied()) {
                return Err(error);
            }
            leader = error.leader().filter(|_| hint.is_none()).map(str::to_owned);
            let round_ends = attempt % self.inner.endpoints.len() == 0;
            // Another node is asked at once; a round without success is followed by a pause.
            let pause = if round_ends || error.kind() == ErrorKind::Overloaded {
                backoff.next(error.retry_after(), rand::random())
            } else {
                Duration::ZERO
            };
            if Instant::now() + pause >= deadline {
                return Err(if is_open { left_open(error) } else { error });
            }
            is_open |= !error.not_applied();
            if leader.is_none() {
                sleep(pause).await;
            }
            // One that timed out as well tells nothing.
            if error.reason() != Reason::DeadlineExceeded {
                before = Some(error);
            }
        }
        Err(Error::internal("more attempts than numbers"))
    }
}

/// What an attempt without an answer says. The last one may have had a moment only: why the one
/// `before` it failed tells more.
fn out_of_time(before: Option<&Error>) -> Error {
    let mut message = "no node answered in time".to_owned();
    if let Some(before) = before {
        message = format!("{message}; the attempt before: {}", before.message());
    }
    Error::new(Reason::DeadlineExceeded, message)
}

/// What the last attempt says, after an earlier one whose fate nobody knows.
fn left_open(error: Error) -> Error {
    if !error.not_applied() {
        return error;
    }
    Error::unavailable(format!("{}; an earlier attempt may have been applied", error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_attempt_promises_nothing_about_the_ones_before() {
        let refused = Error::unavailable("cannot connect").with_not_applied();
        let full = Error::new(Reason::Overloaded, "full");
        let lost = Error::unavailable("the connection broke");

        for error in [refused, full, lost] {
            let left = left_open(error);
            assert!(!left.not_applied() && left.is_retryable(), "{left}");
        }
    }

    #[test]
    fn an_attempt_without_an_answer_tells_why_the_one_before_failed() {
        let before = Error::unavailable("cannot connect: refused").with_not_applied();

        let error = out_of_time(Some(&before));

        let expected = "no node answered in time; the attempt before: cannot connect: refused";
        assert_eq!(error.message(), expected);
        // The last attempt may have reached a node.
        assert!(!error.not_applied());
        assert_eq!(out_of_time(None).message(), "no node answered in time");
    }
}
