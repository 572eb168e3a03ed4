//! Taking events back before their time has come.
//!
//! The mover of the group does it, between two moves: it alone settles what waits, so an event is either
//! delivered or taken back, never both.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use weft_proto::{Error, GroupId, Offset, PartitionUid, Reason, Result};

use super::Delays;
use crate::data::lock;

/// Wishes of one group that wait for its mover.
const CANCELS_MAX: usize = 256;
/// For the mover to answer; then the fate is not known.
const PATIENCE: Duration = Duration::from_secs(5);

/// A wish to take events back.
#[derive(Debug)]
pub(super) struct Cancel {
    pub(super) place: PartitionUid,
    pub(super) offsets: Vec<Offset>,
    pub(super) answer: oneshot::Sender<Result<Vec<Offset>>>,
}

impl Delays {
    /// Takes events back that wait in a place of a group that this node leads; answers which of them did
    /// wait there.
    ///
    /// # Errors
    ///
    /// `Overloaded` while too many ask; `Unavailable` when the leadership changes: the fate is not known.
    pub async fn cancel(
        &self,
        group: GroupId,
        place: PartitionUid,
        offsets: Vec<Offset>,
    ) -> Result<Vec<Offset>> {
        let (answer, answered) = oneshot::channel();
        {
            let mut cancels = lock(&self.shared.cancels);
            let queue = cancels.entry(group).or_default();
            // Of those who gave up, nothing is left.
            queue.retain(|one| !one.answer.is_closed());
            if queue.len() >= CANCELS_MAX {
                let message = "too many delayed events are taken back at once";
                return Err(Error::new(Reason::Overloaded, message).with_not_applied());
            }
            queue.push(Cancel { place, offsets, answer });
        }
        self.published(group);
        match timeout(PATIENCE, answered).await {
            Ok(Ok(done)) => done,
            Ok(Err(_closed)) => Err(Error::unavailable("another node leads the group now")),
            Err(_elapsed) => {
                Err(Error::unavailable("the leader of the group did not answer in time"))
            }
        }
    }

    /// What is to be taken back in a group.
    pub(super) fn cancels(&self, group: GroupId) -> Vec<Cancel> {
        let taken = lock(&self.shared.cancels).get_mut(&group).map(std::mem::take);
        taken.unwrap_or_default().into_iter().filter(|one| !one.answer.is_closed()).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn asked(delays: &Delays, offset: u64) -> impl Future<Output = Result<Vec<Offset>>> + '_ {
        delays.cancel(GROUP, PartitionUid(7), vec![Offset(offset)])
    }

    #[tokio::test(start_paused = true)]
    async fn a_mover_answers_and_one_that_is_gone_leaves_the_fate_open() {
        let delays = Delays::default();
        let mut first = Box::pin(asked(&delays, 1));
        assert!(first.as_mut().now_or_never().is_none());
        let taken = delays.cancels(GROUP);
        assert_eq!((taken.len(), delays.cancels(GROUP).len()), (1, 0));
        assert_eq!(
            (taken[0].place, taken[0].offsets.as_slice()),
            (PartitionUid(7), &[Offset(1)][..])
        );
        for one in taken {
            one.answer.send(Ok(one.offsets)).unwrap();
        }
        assert_eq!(first.await.unwrap(), [Offset(1)]);

        let mut second = Box::pin(asked(&delays, 2));
        assert!(second.as_mut().now_or_never().is_none());
        drop(delays.cancels(GROUP));
        let lost = second.await.unwrap_err();
        assert!(lost.is_retryable() && !lost.not_applied(), "{lost}");
        // Nobody leads.
        let late = asked(&delays, 3).await.unwrap_err();
        assert!(late.is_retryable() && !late.not_applied(), "{late}");
        assert_eq!(delays.cancels(GROUP).len(), 0, "who gave up wants nothing any more");
    }

    #[tokio::test]
    async fn too_many_are_refused_and_who_gave_up_counts_no_more() {
        let delays = Delays::default();
        let mut waiting: Vec<_> =
            (0..CANCELS_MAX as u64).map(|offset| Box::pin(asked(&delays, offset))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let refused = asked(&delays, 999).await.unwrap_err();
        assert_eq!((refused.reason(), refused.not_applied()), (Reason::Overloaded, true));

        waiting.pop();
        assert!(asked(&delays, 999).now_or_never().is_none());
    }
}
