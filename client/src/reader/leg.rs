//! One partition of a read, or several that a node merges, over all connections.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use weft_proto::packed::Codec;
use weft_proto::v1::read_client::ReadClient;
use weft_proto::v1::read_response::Frame;
use weft_proto::{Error, Reason, Result, filter, v1};

use super::ReadOptions;
use crate::batch::Batch;
use crate::channels::error_of;
use crate::client::{Client, MESSAGE_BYTES_MAX};
use crate::retry::Backoff;

pub(super) enum LegItem {
    Batch(Batch),
    CaughtUp,
    /// The range is complete. The node's sums are those of the whole range only if all of it came
    /// over one connection.
    End {
        sums: Vec<v1::PartitionEnd>,
        whole: bool,
    },
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts about one read")]
pub(super) struct Leg {
    client: Client,
    request: v1::ReadRequest,
    partitions: Vec<u32>,
    follows: bool,
    /// What is left of each partition, from the first offset that was not yielded; empty until a
    /// node told where it starts and ends.
    left: BTreeMap<u32, v1::PartitionRange>,
    /// Some of the range came over an earlier connection.
    broken: bool,
    connection: Option<Streaming<v1::ReadResponse>>,
    /// The endpoint that was asked last, for the leader or for the events.
    place: Option<usize>,
    /// The credential that the connection showed.
    shown: u64,
    caught_up: bool,
    attempt: usize,
    backoff: Backoff,
    failing_since: Option<Instant>,
    over: bool,
}

impl Leg {
    pub(super) fn new(client: Client, options: &ReadOptions, partitions: Vec<u32>) -> Self {
        let request = v1::ReadRequest {
            stream: options.stream.clone(),
            partitions: partitions.clone(),
            from: Some(options.from.into()),
            to: options.to.map(Into::into),
            filters: filter::to_wire(&options.filters),
            events_max: options.events_max.unwrap_or_default(),
            min_generation: 0,
            linearizable: options.linearizable,
            merged: partitions.len() > 1,
            checksum: options.checksum && options.to.is_some(),
            resume: Vec::new(),
            accept: [Codec::Lz4, Codec::Zstd].map(|codec| codec.to_wire().into()).into(),
        };
        Self {
            client,
            request,
            partitions,
            follows: options.to.is_none(),
            left: BTreeMap::new(),
            broken: false,
            connection: None,
            place: None,
            shown: 0,
            caught_up: false,
            attempt: 0,
            backoff: Backoff::default(),
            failing_since: None,
            over: false,
        }
    }

    pub(super) fn into_stream(self) -> BoxStream<'static, Result<LegItem>> {
        futures::stream::unfold(self, |mut leg| async move {
            let item = leg.step().await?;
            Some((item, leg))
        })
        .boxed()
    }

    async fn step(&mut self) -> Option<Result<LegItem>> {
        while !self.over {
            let progress = match &mut self.connection {
                None => match self.connect().await {
                    Ok(connection) => {
                        self.connection = Some(connection);
                        Ok(None)
                    }
                    Err(error) => Err(error),
                },
                Some(connection) => match connection.message().await {
                    Ok(Some(response)) => self.handle(response),
                    Ok(None) => Err(Error::unavailable("the node ended the read")),
                    Err(status) => Err(error_of(status)),
                },
            };
            match progress {
                Ok(None) => {}
                Ok(Some(item)) => return Some(Ok(item)),
                Err(error) => {
                    self.connection = None;
                    self.broken |= !self.left.is_empty();
                    if let Some(place) = self.place.take() {
                        self.client.avoid(place);
                    }
                    if let Err(error) = self.pause(error).await {
                        self.over = true;
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }

    fn handle(&mut self, response: v1::ReadResponse) -> Result<Option<LegItem>> {
        match response.frame {
            Some(Frame::Started(started)) => self.started(&started).map(|()| None),
            Some(Frame::Batch(batch)) => {
                self.healthy();
                let Some(left) = self.left.get_mut(&batch.partition) else {
                    return Err(Error::internal("the node reads another partition"));
                };
                let batch = Batch::from_wire(batch, left.from)?;
                let Some((last, _)) = batch.events.last() else { return Ok(None) };
                left.from = last.get() + 1;
                Ok(Some(LegItem::Batch(batch)))
            }
            Some(Frame::CaughtUp(_)) if !self.caught_up => {
                self.healthy();
                self.caught_up = true;
                Ok(Some(LegItem::CaughtUp))
            }
            Some(Frame::End(end)) => {
                self.over = true;
                Ok(Some(LegItem::End { sums: end.partitions, whole: !self.broken }))
            }
            // A second signal after a new connection, or a frame of a newer server.
            Some(Frame::CaughtUp(_)) | None => Ok(None),
        }
    }

    fn started(&mut self, started: &v1::ReadStarted) -> Result<()> {
        for wanted in &self.partitions {
            let range = started.ranges.iter().find(|range| range.partition == *wanted);
            let Some(range) = range else {
                return Err(Error::internal("the node reads another partition"));
            };
            let left = self.left.entry(*wanted).or_insert(*range);
            if let (Some(wanted), Some(told)) = (left.to, range.to)
                && told < wanted
            {
                // A replica that lags would end the range early.
                return Err(Error::unavailable("this node does not have the whole range yet"));
            }
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<Streaming<v1::ReadResponse>> {
        self.shown = self.client.shows();
        let mut request = self.request.clone();
        request.min_generation = self.client.generation();
        request.resume = self.left.values().copied().collect();
        if let [range] = request.resume[..] {
            // For one partition, a server that does not know how to resume does the same by these.
            let offset = |offset| v1::Position { at: Some(v1::position::At::Offset(offset)) };
            request.from = Some(offset(range.from));
            request.to = range.to.map(offset);
        }
        // Where it ends is settled.
        request.linearizable &= self.left.is_empty();
        // Only the leader surely has all that was acknowledged before the call.
        let asks_leader = !self.follows && self.attempt.is_multiple_of(2);
        let leader = if asks_leader { self.leader().await? } else { None };
        self.attempt = self.attempt.wrapping_add(1);
        let (asked, place) = self.client.any_node()?;
        self.place = Some(place);
        let transport = match leader {
            Some(address) => self.client.node(&address)?,
            None => asked,
        };
        let mut client = ReadClient::new(transport).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let limit = self.client.timeouts().attempt;
        match timeout(limit, client.read(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(error_of(status)),
            Err(_elapsed) => {
                Err(Error::new(Reason::DeadlineExceeded, "the node did not begin to read in time"))
            }
        }
    }

    async fn leader(&self) -> Result<Option<String>> {
        let routes = self.client.route(&self.request.stream).await?;
        let first = self.partitions.first();
        let route = routes.into_iter().find(|route| Some(&route.partition) == first);
        Ok(route.and_then(|route| route.leader_address))
    }

    fn healthy(&mut self) {
        self.backoff.reset();
        self.failing_since = None;
    }

    /// Waits before the next attempt, or gives the error back if none makes sense.
    async fn pause(&mut self, error: Error) -> Result<()> {
        if self.client.shows_another(&error, self.shown) {
            return Ok(());
        }
        // After a start, an offset that is "not stored" may be one that this replica lacks yet; what
        // retention took will not come back, and the node then says nothing of trying again.
        let lags = error.reason() == Reason::OffsetOutOfRange
            && error.retry_after().is_some()
            && !self.left.is_empty();
        if !error.is_retryable() && !lags {
            return Err(error);
        }
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let delay = self.backoff.next(error.retry_after(), rand::random());
        // Who follows a stream wants to hear again from a cluster that was away for an hour; but a
        // start that is lost to retention will not come back.
        let patient = self.follows && !self.left.is_empty() && !lags;
        if !patient && since.elapsed() + delay > self.client.timeouts().call {
            return Err(error);
        }
        if delay > Duration::from_millis(500) {
            tracing::warn!(stream = self.request.stream, partitions = ?self.partitions, %error, "reading again");
        }
        sleep(delay).await;
        Ok(())
    }
}
