//! The task that publishes to one partition. It owns queue, window and connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use weft_proto::packed::{self, Codec};
use weft_proto::{AckLevel, Error, ErrorKind, Reason, v1};

use super::link::{self, Event, Link};
use super::receipt::{Landed, Part, PartResult, copy_of};
use super::window::{Answer, End, Limits, Verdict, Window};
use super::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, PublisherOptions};
use crate::client::Client;

/// Commands taken at once; acknowledgements are looked at in between.
const COMMANDS_AT_ONCE: usize = 256;

pub(super) type Done = oneshot::Sender<PartResult>;

pub(super) enum Events {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Events {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(events) => events.len(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::One(event) => event.len(),
            Self::Many(events) => events.iter().map(Bytes::len).sum(),
        }
    }
}

/// Events with one completion; fits into a batch.
pub(super) struct Job {
    pub(super) events: Events,
    pub(super) bytes: usize,
    pub(super) done: Done,
    /// Given back when the job is settled.
    pub(super) room: OwnedSemaphorePermit,
}

pub(super) enum Command {
    Publish(Job),
    Flush(oneshot::Sender<()>),
}

/// Jobs that are sent together.
struct Batch {
    events: Vec<Bytes>,
    jobs: Vec<(u32, Done, OwnedSemaphorePermit)>,
    formed: Duration,
}

pub(super) struct Lane {
    client: Client,
    stream: String,
    partition: u32,
    producer: Bytes,
    commands: mpsc::Receiver<Command>,
    queue: VecDeque<(Job, Duration)>,
    queue_bytes: usize,
    queue_events: usize,
    window: Window<Batch>,
    link: Link,
    attempt: usize,
    /// The credential that the link showed.
    shown: u64,
    /// Jobs taken and jobs settled since the start.
    taken: u64,
    settled: u64,
    /// Resolved when so many jobs are settled.
    flushes: VecDeque<(u64, oneshot::Sender<()>)>,
    round_trip: Duration,
    linger_max: Duration,
    compression: Option<Codec>,
    ack: AckLevel,
    /// The caller's own limit; a server may set a lower one.
    in_flight_bytes: usize,
    batch_events_max: usize,
    start: Instant,
    last_error: Option<Error>,
    /// Why nothing can be published any more.
    over: Option<Error>,
}

impl Lane {
    pub(super) fn new(
        client: Client,
        (stream, partition): (&str, u32),
        producer: [u8; 16],
        options: PublisherOptions,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        // An answer may wait for an election; the node itself gives up earlier and says so.
        let attempt = client.timeouts().attempt * 2;
        let limits = Limits { bytes_max: options.in_flight_bytes, attempt };
        Self {
            client,
            stream: stream.to_owned(),
            partition,
            producer: Bytes::copy_from_slice(&producer),
            commands,
            queue: VecDeque::new(),
            queue_bytes: 0,
            queue_events: 0,
            window: Window::new(limits),
            link: Link::Closed,
            attempt: 0,
            shown: 0,
            taken: 0,
            settled: 0,
            flushes: VecDeque::new(),
            round_trip: Duration::ZERO,
            linger_max: options.linger_max,
            compression: options.compression,
            ack: options.ack,
            in_flight_bytes: options.in_flight_bytes,
            batch_events_max: options.batch_events_max.clamp(1, BATCH_EVENTS_MAX),
            start: Instant::now(),
            last_error: None,
            over: None,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Runs until the last handle is gone and all is settled.
    pub(super) async fn run(mut self) {
        let mut open = true;
        let mut commands = Vec::new();
        loop {
            let now = self.now();
            self.expire(now);
            self.form(now, !open);
            self.answer_flushes();
            if !open && self.queue.is_empty() && self.window.is_empty() {
                return;
            }
            if self.link.is_closed() && self.window.may_connect(now) {
                let client = self.client.clone();
                self.shown = client.shows();
                self.link = Link::Opening(link::open(
                    client,
                    self.stream.clone(),
                    self.partition,
                    self.attempt,
                ));
                self.attempt = self.attempt.wrapping_add(1);
            }
            let wake = self.wake_at(now);
            let sends = self.window.wants_to_send(now);
            tokio::select! {
                biased;
                event = self.link.next(sends) => self.handle(event),
                taken = self.commands.recv_many(&mut commands, COMMANDS_AT_ONCE), if open => {
                    open = taken > 0;
                    let now = self.now();
                    commands.drain(..).for_each(|command| self.take(command, now));
                }
                () = sleep_until(self.start + wake.unwrap_or_default()), if wake.is_some() => {}
            }
        }
    }

    fn take(&mut self, command: Command, now: Duration) {
        match command {
            Command::Publish(job) => {
                self.taken += 1;
                self.queue_bytes += job.bytes;
                self.queue_events += job.events.len();
                self.queue.push_back((job, now));
            }
            Command::Flush(done) => self.flushes.push_back((self.taken, done)),
        }
    }

    fn linger(&self) -> Duration {
        // Each batch wakes a dozen threads on its way: where processors are short, half a round trip
        // of waiting makes events arrive sooner than a quarter does.
        (self.round_trip / 2).min(self.linger_max)
    }

    /// Makes batches of what is queued, as far as the window has room and it is time.
    fn form(&mut self, now: Duration, ending: bool) {
        if let Some(error) = &self.over {
            for (job, _) in self.queue.drain(..) {
                self.settled += 1;
                _ = job.done.send(Err(copy_of(error).with_not_applied()));
            }
            (self.queue_bytes, self.queue_events) = (0, 0);
        }
        while let Some((_, oldest)) = self.queue.front() {
            let full =
                self.queue_bytes >= BATCH_BYTES_MAX || self.queue_events >= self.batch_events_max;
            let due = now >= *oldest + self.linger();
            let hurry = ending || self.window.is_empty() || !self.flushes.is_empty();
            if !(full || due || hurry) || !self.window.has_room(BATCH_BYTES_MAX) {
                return;
            }
            let deadline = *oldest + self.client.timeouts().publish;
            let (batch, bytes) = self.next_batch(now);
            self.window.push(batch, bytes, deadline);
        }
    }

    fn next_batch(&mut self, now: Duration) -> (Batch, usize) {
        let mut batch = Batch { events: Vec::new(), jobs: Vec::new(), formed: now };
        let mut bytes = 0;
        while let Some((job, _)) = self.queue.front() {
            let fits = bytes + job.bytes <= BATCH_BYTES_MAX
                && batch.events.len() + job.events.len() <= self.batch_events_max;
            if !fits && !batch.jobs.is_empty() {
                break;
            }
            let Some((job, _)) = self.queue.pop_front() else { break };
            let count = job.events.len();
            self.queue_bytes -= job.bytes;
            self.queue_events -= count;
            bytes += job.bytes;
            match job.events {
                Events::One(event) => batch.events.push(event),
                Events::Many(events) if batch.events.is_empty() => batch.events = events,
                Events::Many(events) => batch.events.extend(events),
            }
            batch.jobs.push((u32::try_from(count).unwrap_or(u32::MAX), job.done, job.room));
        }
        (batch, bytes)
    }

    fn wake_at(&self, now: Duration) -> Option<Duration> {
        let linger = self
            .queue
            .front()
            .filter(|_| self.window.has_room(BATCH_BYTES_MAX))
            .map(|(_, oldest)| *oldest + self.linger());
        // A job that waits for the window needs its deadline watched too.
        let waiting =
            self.queue.front().map(|(_, oldest)| *oldest + self.client.timeouts().publish);
        [self.window.poll_timeout(now), linger, waiting].into_iter().flatten().min()
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Limits(bytes_max) => {
                let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
                // 0 is said by a server that has no limit.
                let bytes_max = if bytes_max == 0 { usize::MAX } else { bytes_max };
                self.window.set_bytes_max(bytes_max.min(self.in_flight_bytes));
            }
            Event::Writable => self.send(now),
            Event::Acks(acks) => acks.into_iter().for_each(|ack| self.handle_ack(ack, now)),
            Event::Broken(error) => self.broken(error, now),
        }
    }

    fn send(&mut self, now: Duration) {
        let Some(send) = self.window.poll_send(now) else { return };
        let Some(batch) = self.window.body(send.slot) else { return };
        let identity = v1::BatchIdentity {
            producer: self.producer.clone(),
            epoch: send.epoch,
            sequence: send.sequence,
            previous: send.previous,
        };
        let (events, packed) = match self.compression.and_then(|codec| smaller(codec, batch)) {
            Some(packed) => (Vec::new(), Some(packed)),
            None => (batch.events.clone(), None),
        };
        self.link.send(v1::PublishBatch {
            tag: send.tag,
            events,
            packed,
            partition: Some(self.partition),
            identity: Some(identity),
            expected: Vec::new(),
            ack: self.ack.to_wire().into(),
            expected_subjects: Vec::new(),
        });
    }

    fn handle_ack(&mut self, ack: v1::PublishAck, now: Duration) {
        let tag = ack.tag;
        let (answer, result, breaks) = match ack.failure.clone() {
            None => {
                let landed = Landed::new(ack);
                let answer = Answer::Stored { empty: landed.is_empty() };
                (answer, Ok(Arc::new(landed)), false)
            }
            Some(failure) => {
                let error = Error::from(failure);
                let (answer, breaks) = answer_of(&error);
                (answer, Err(error), breaks)
            }
        };
        let mut done = Vec::new();
        let random = rand::random();
        let verdict = self.window.handle_answer(tag, answer, (now, random), &mut done);
        if matches!(answer, Answer::Stored { .. }) {
            self.attempt = 0;
        }
        for (batch, end) in done {
            match (end, &result) {
                (End::Answered, Ok(landed)) => self.land(batch, landed, now),
                (End::Answered, Err(error)) => self.fail(batch, error),
                (end, _) => self.abandon(batch, end),
            }
        }
        let Err(error) = result else { return };
        if verdict == Verdict::Over {
            self.give_up(&error);
            self.over = Some(error);
        } else if breaks && self.link.is_open() {
            // This node does not lead any more, or has no majority: ask another one who does.
            self.link.leave();
            self.broken(error, now);
        } else {
            self.last_error = Some(error);
        }
    }

    fn broken(&mut self, error: Error, now: Duration) {
        tracing::debug!(stream = self.stream, partition = self.partition, %error, "link broken");
        let after = error.retry_after();
        self.window.handle_broken(after, now, rand::random());
        let hopeless = !error.is_retryable()
            && error.kind() != ErrorKind::Internal
            && !self.client.shows_another(&error, self.shown);
        if hopeless {
            self.give_up(&error);
        } else {
            self.last_error = Some(error);
        }
    }

    /// No retry will help: everything that is out or queued fails.
    fn give_up(&mut self, error: &Error) {
        let mut done = Vec::new();
        self.window.drain(&mut done);
        for (batch, end) in done {
            match end {
                End::NotStored => self.fail(batch, &copy_of(error).with_not_applied()),
                End::Answered => self.fail(batch, error),
                End::Unknown => {
                    let message = format!("not acknowledged, it may be stored or not: {error}");
                    self.fail(batch, &Error::unavailable(message));
                }
            }
        }
        for (job, _) in std::mem::take(&mut self.queue) {
            self.settled += 1;
            _ = job.done.send(Err(copy_of(error).with_not_applied()));
        }
        (self.queue_bytes, self.queue_events) = (0, 0);
    }

    fn expire(&mut self, now: Duration) {
        if self.window.is_stuck(now) {
            self.link.leave();
            let error = Error::new(Reason::DeadlineExceeded, "the node does not acknowledge");
            self.broken(error, now);
        }
        let mut done = Vec::new();
        self.window.handle_deadline(now, &mut done);
        if !done.is_empty() && self.link.is_open() {
            // The numbering begins anew; what is still on the way belongs to the old one.
            self.link = Link::Closed;
        }
        for (batch, end) in done {
            self.abandon(batch, end);
        }
        let limit = self.client.timeouts().publish;
        while self.queue.front().is_some_and(|(_, oldest)| now >= *oldest + limit) {
            let Some((job, _)) = self.queue.pop_front() else { break };
            self.queue_bytes -= job.bytes;
            self.queue_events -= job.events.len();
            self.settled += 1;
            _ = job.done.send(Err(self.timed_out(End::NotStored)));
        }
    }

    fn timed_out(&self, end: End) -> Error {
        let limit = self.client.timeouts().publish;
        let cause = self.last_error.as_ref().map_or("no answer", Error::message);
        match end {
            End::NotStored => Error::unavailable(format!("not stored within {limit:?}: {cause}"))
                .with_not_applied(),
            End::Unknown | End::Answered => Error::unavailable(format!(
                "not acknowledged within {limit:?}, it may be stored or not: {cause}"
            )),
        }
    }

    fn land(&mut self, batch: Batch, landed: &Arc<Landed>, now: Duration) {
        if !landed.is_complete(batch.events.len()) {
            let error = Error::internal("the answer to a batch does not fit its events");
            return self.fail(batch, &error);
        }
        let sample = now.saturating_sub(batch.formed);
        self.round_trip = (self.round_trip * 7 + sample) / 8;
        let mut first = 0;
        for (count, done, _room) in batch.jobs {
            self.settled += 1;
            // The caller may have given up; its events stay.
            _ = done.send(Ok(Part { batch: Arc::clone(landed), first, count }));
            first += count;
        }
    }

    fn abandon(&mut self, batch: Batch, end: End) {
        let error = self.timed_out(end);
        self.fail(batch, &error);
    }

    fn fail(&mut self, batch: Batch, error: &Error) {
        for (_, done, _room) in batch.jobs {
            self.settled += 1;
            _ = done.send(Err(copy_of(error)));
        }
    }

    fn answer_flushes(&mut self) {
        while self.flushes.front().is_some_and(|(jobs, _)| *jobs <= self.settled) {
            if let Some((_, done)) = self.flushes.pop_front() {
                _ = done.send(());
            }
        }
    }
}

/// A batch compressed, if that makes it smaller.
fn smaller(codec: Codec, batch: &Batch) -> Option<v1::PackedEvents> {
    let bytes: usize = batch.events.iter().map(Bytes::len).sum();
    let packed = packed::pack(codec, batch.events.clone()).ok()?;
    (packed.body.len() < bytes).then_some(packed)
}

/// What a failure means to the window, and whether another node should be asked.
fn answer_of(error: &Error) -> (Answer, bool) {
    let later = Answer::Later { certain: error.not_applied(), after: error.retry_after() };
    match (error.reason(), error.kind()) {
        (Reason::OutOfOrder, _) => (Answer::OutOfOrder, false),
        (Reason::UnknownProducer, _) => (Answer::UnknownProducer, false),
        (Reason::Fenced, _) => (Answer::Fenced, false),
        (_, ErrorKind::Overloaded) => (later, false),
        (_, ErrorKind::Unavailable | ErrorKind::Internal) => (later, true),
        _ => (Answer::Refused, false),
    }
}
