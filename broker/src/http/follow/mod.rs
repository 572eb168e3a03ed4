//! A stream as server-sent events. Source: WHATWG HTML, section "Server-sent events".
//!
//! *Owns* nothing: it reads as `weft.v1.Read` does, no faster than the other end takes it, and ends
//! when its caller may read no more.

mod ask;
mod cursor;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::time::Instant;
use weft_proto::event::{self, EventView};
use weft_proto::resource::Verb;
use weft_proto::{Error, v1};

pub(super) use self::ask::{PARAMETERS, name};
use self::cursor::Cursor;
#[cfg(feature = "fuzzing")]
pub use self::cursor::cursor_again;
use super::problem::Problem;
use super::{Call, Services};
use crate::access::{Caller, Taken, authorize};
use crate::rpc::Frames;

/// A comment is sent after this much silence, so that nobody in between takes the stream for dead.
const BEAT: Duration = Duration::from_secs(15);
/// Before a client comes back after its stream broke off.
const RETRY_MS: u32 = 1_000;
/// The type of the last event of a stream that ends for a reason.
const ENDED: &str = "weft-error";

/// Answers with the events of a stream, for as long as it goes on.
pub(super) async fn follow(services: &Services, call: Call) -> Result<Response, Problem> {
    let stream = name(call.name(0), "stream")?;
    let caller = call.caller.standing();
    authorize(&caller, Verb::Read, &stream)?;
    let stream = services.ingest.resources().stream_named(&stream.to_string())?;
    let last = match call.headers.get("last-event-id") {
        None => None,
        Some(value) => Some(value.to_str().map_err(|error| {
            let error = Error::invalid("the cursor is no text").with_source(error);
            Problem::from(error.with_field("lastEventId"))
        })?),
    };
    let ask = ask::read(&stream, &call.query, last)?;
    let frames = services.read.open(&caller, ask.request).await?;
    let follower = Follower {
        frames,
        cursor: ask.cursor,
        lost: caller.clone().until_lost().boxed(),
        caller,
        goes_on_at: None,
        beats_at: Instant::now() + BEAT,
        has_ended: false,
        _call: call.taken,
    };
    let chunks = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await?;
        Some((Ok::<_, Infallible>(chunk), follower))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static;
    headers.insert(header::CONTENT_TYPE, plain("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, plain("no-store"));
    // Proxies that gather an answer would hold events back.
    headers.insert("x-accel-buffering", plain("no"));
    Ok(response)
}

/// One stream of events, on its way.
struct Follower {
    frames: Frames<v1::ReadResponse>,
    cursor: Cursor,
    lost: BoxFuture<'static, Error>,
    caller: Caller,
    /// The rate of its caller is used up until then.
    goes_on_at: Option<Instant>,
    beats_at: Instant,
    has_ended: bool,
    _call: Taken,
}

impl Follower {
    /// The next piece of the answer. Nothing is read ahead of it.
    async fn next(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        loop {
            let goes_on_at = self.goes_on_at;
            let chunk = tokio::select! {
                biased;
                error = &mut self.lost => self.end(&error),
                () = crate::clock::sleep_until(goes_on_at), if goes_on_at.is_some() => {
                    self.goes_on_at = None;
                    continue;
                }
                frame = self.frames.next(), if goes_on_at.is_none() => match frame? {
                    Ok(frame) => self.tell(frame),
                    Err(status) => self.end(&status.into()),
                },
                () = tokio::time::sleep_until(self.beats_at) => self.beat(),
            };
            if chunk.is_empty() {
                continue;
            }
            self.beats_at = Instant::now() + BEAT;
            let wait = self.caller.meter().read(&self.caller.limits(), chunk.len() as u64);
            self.goes_on_at = (!wait.is_zero()).then(|| Instant::now() + wait);
            return Some(chunk.into());
        }
    }

    fn tell(&mut self, frame: v1::ReadResponse) -> String {
        use v1::read_response::Frame;
        match frame.frame {
            Some(Frame::Started(started)) => {
                let ranges = started.ranges.iter().map(|range| (range.partition, range.from));
                self.cursor.next = ranges.collect();
                // A block without data is no event, but the client keeps its id: should the stream
                // break off before the first event, nothing is missed.
                let mut text = format!("retry: {RETRY_MS}\n");
                self.put_id(&mut text);
                text.push('\n');
                text
            }
            Some(Frame::Batch(batch)) => self.batch(&batch),
            Some(Frame::CaughtUp(_) | Frame::End(_)) | None => String::new(),
        }
    }

    fn batch(&mut self, batch: &v1::EventBatch) -> String {
        let bytes: usize = batch.events.iter().map(Bytes::len).sum();
        let mut text = String::with_capacity(bytes + batch.events.len() * 256);
        for (place, event) in batch.events.iter().enumerate() {
            let delta = batch.offset_deltas.get(place).map_or(place as u64, |&delta| delta.into());
            self.cursor.pass(batch.partition, batch.first_offset.saturating_add(delta));
            // What is stored was an event when it came.
            let Some(view) = EventView::parse(event) else { continue };
            self.put_id(&mut text);
            // Neither has line breaks: attributes have no control characters.
            _ = write!(text, "event: {}\ndata: {}\n\n", view.ty, event::to_json(&view));
        }
        text
    }

    fn put_id(&self, text: &mut String) {
        text.push_str("id: ");
        self.cursor.encode(text);
        text.push('\n');
    }

    fn beat(&self) -> String {
        let mut text = ": \n".to_owned();
        self.put_id(&mut text);
        text.push('\n');
        text
    }

    /// The last event says why; a client that comes back goes on behind the one before it.
    fn end(&mut self, error: &Error) -> String {
        self.has_ended = true;
        format!("event: {ENDED}\ndata: {}\n\n", Problem::from(error).to_json())
    }
}
