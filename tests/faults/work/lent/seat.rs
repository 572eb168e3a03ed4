//! A place among the members: one membership after the other, each in a runtime of its own, so that
//! it can vanish as a process does.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_client::Options;

use super::super::recorder::Recorder;
use super::member::Member;
use crate::check::history::{Gone, Record};

/// How long a membership lasts; then it leaves or vanishes.
const LIFE_MS: std::ops::Range<u64> = 3_000..25_000;
/// Until somebody else takes the place: sooner and later than the grace of the subscription.
const AWAY_MS: std::ops::Range<u64> = 10..2_500;

pub(super) struct Seat {
    options: Options,
    subscription: u32,
    number: usize,
    memberships: u32,
    recorder: Arc<Recorder>,
    drain: CancellationToken,
}

impl Seat {
    pub(super) fn new(
        options: Options,
        subscription: u32,
        number: usize,
        recorder: &Arc<Recorder>,
        drain: &CancellationToken,
    ) -> Self {
        let (recorder, drain) = (Arc::clone(recorder), drain.clone());
        Self { options, subscription, number, memberships: 0, recorder, drain }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            self.sit(&runtime, &stop).await;
            runtime.shutdown_background();
            let away = Duration::from_millis(rand::random_range(AWAY_MS));
            tokio::select! {
                () = sleep(away) => {}
                () = stop.cancelled() => {}
                // Somebody has to do what is left.
                () = self.drain.cancelled() => {}
            }
        }
        Ok(())
    }

    /// One membership.
    async fn sit(&mut self, runtime: &Runtime, stop: &CancellationToken) {
        // Whoever comes back under the old name takes the place with all that is held.
        self.memberships += u32::from(rand::random_range(0..3) > 0);
        let name = format!("seat-{}-{}", self.number, self.memberships);
        let process = self.recorder.process();
        let subscription = self.subscription;
        self.recorder.add(|t| Record::Join { t, process, subscription, name: name.clone() });
        let leave = stop.child_token();
        let member = Member {
            options: self.options.clone(),
            subscription,
            name,
            process,
            recorder: Arc::clone(&self.recorder),
            drain: self.drain.clone(),
        };
        let mut living = runtime.spawn(member.live(leave.clone()));
        let life = Duration::from_millis(rand::random_range(LIFE_MS));
        let how = tokio::select! {
            _ = &mut living => Gone::Ended,
            () = stop.cancelled() => Gone::Left,
            () = self.is_over(life) => if rand::random() { Gone::Crashed } else { Gone::Left },
        };
        if how == Gone::Left {
            leave.cancel();
            // How it ended is not of interest any more.
            drop(living.await);
        }
        self.recorder.add(|t| Record::Leave { t, process, how });
    }

    /// The time is up; never once all members have to stay.
    async fn is_over(&self, life: Duration) {
        tokio::select! {
            () = sleep(life) => {}
            () = self.drain.cancelled() => std::future::pending().await,
        }
    }
}
