//! What a member does with one event that it was lent.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use weft_client::{Acker, Done, Error, Held, Nack, Reason};

use super::{LEASE, micros};
use crate::check::history::{Act, Answer, Desk, Process, Record};
use crate::work::recorder::Recorder;

/// Time to work on an event.
const WORK_MS: std::ops::Range<u64> = 0..50;
/// After which an event comes again that was given back.
const DELAY_MS: std::ops::Range<u64> = 20..500;
/// A lease is over by then for certain.
const OVER: Duration = Duration::from_millis(3_400);
/// An extension that is less than a lease, but asked for late.
const LONGER: Duration = Duration::from_secs(2);

/// What becomes of an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// It is settled at once.
    Done,
    Acked,
    AckedTwice,
    GivenBack,
    /// It was not tried.
    GivenBackUncounted,
    /// And then settled, by mistake.
    GivenBackAndAcked,
    GivenUp,
    GivenUpAndAcked,
    /// Its lease ends first.
    AckedLate,
    Kept,
    KeptTooShort,
    Forgotten,
}

impl Fate {
    pub(super) fn random() -> Self {
        match rand::random_range(0..1_000) {
            0..60 => Self::GivenBack,
            60..80 => Self::GivenBackUncounted,
            80..100 => Self::GivenBackAndAcked,
            100..105 => Self::GivenUp,
            105..110 => Self::GivenUpAndAcked,
            110..120 => Self::AckedLate,
            120..140 => Self::Kept,
            140..145 => Self::KeptTooShort,
            145..150 => Self::Forgotten,
            150..180 => Self::AckedTwice,
            _ => Self::Acked,
        }
    }
}

/// One lease, and how to end it.
pub(super) struct Deeds {
    pub(super) acker: Acker,
    pub(super) held: Held,
    pub(super) recorder: Arc<Recorder>,
    pub(super) process: Process,
    pub(super) desk: Desk,
    pub(super) epoch: u64,
    pub(super) lease: u64,
}

impl Deeds {
    pub(super) async fn meet(self, fate: Fate) {
        let delay = Some(Duration::from_millis(rand::random_range(DELAY_MS)));
        let later = Nack { delay, reason: "later".to_owned(), is_uncounted: false };
        match fate {
            Fate::Done => self.ack().await,
            Fate::Acked => {
                self.work().await;
                self.ack().await;
            }
            Fate::AckedTwice => {
                self.work().await;
                self.ack().await;
                self.ack().await;
            }
            Fate::GivenBack => {
                self.work().await;
                self.nack(later).await;
            }
            Fate::GivenBackUncounted => self.nack(Nack { is_uncounted: true, ..later }).await,
            Fate::GivenBackAndAcked => {
                self.nack(later).await;
                self.ack().await;
            }
            Fate::GivenUp => self.reject().await,
            Fate::GivenUpAndAcked => {
                self.reject().await;
                self.ack().await;
            }
            Fate::AckedLate => {
                sleep(OVER).await;
                self.ack().await;
            }
            Fate::Kept => {
                sleep(LEASE / 2).await;
                self.extend(LEASE).await;
                sleep(LEASE * 2 / 3).await;
                self.ack().await;
            }
            Fate::KeptTooShort => {
                sleep(LEASE * 2 / 3).await;
                self.extend(LONGER).await;
                sleep(OVER).await;
                self.ack().await;
            }
            Fate::Forgotten => {}
        }
    }

    async fn work(&self) {
        sleep(Duration::from_millis(rand::random_range(WORK_MS))).await;
    }

    async fn ack(&self) {
        let op = self.begin(Act::Ack);
        let answer = async { self.acker.ack(self.held).await?.done().await };
        self.end(op, answer.await);
    }

    async fn nack(&self, nack: Nack) {
        let op = self.begin(Act::Nack);
        let answer = async { self.acker.nack(self.held, nack).await?.done().await };
        self.end(op, answer.await);
    }

    async fn reject(&self) {
        let op = self.begin(Act::Reject);
        let answer = async { self.acker.reject(self.held, "no good").await?.done().await };
        self.end(op, answer.await);
    }

    async fn extend(&self, by: Duration) {
        let op = self.begin(Act::Extend { by: micros(by) });
        let answer = async { self.acker.extend(self.held, Some(by)).await?.done().await };
        self.end(op, answer.await);
    }

    fn begin(&self, act: Act) -> u64 {
        let op = self.recorder.op();
        let Self { process, desk, epoch, lease, .. } = *self;
        self.recorder.add(|t| Record::Settle { t, process, op, desk, epoch, lease, act });
        op
    }

    fn end(&self, op: u64, answer: Result<Done, Error>) {
        let answer = match answer {
            Ok(Done::Now) => Answer::Ok,
            // By this or by a later lease; nobody can say.
            Ok(Done::Before) => Answer::Open { error: "settled before".to_owned() },
            Err(error) if error.reason() == Reason::Fenced => {
                Answer::Refused { error: error.to_string() }
            }
            Err(error) => Answer::Open { error: error.to_string() },
        };
        self.recorder.add(|t| Record::Settled { t, op, answer });
    }
}
