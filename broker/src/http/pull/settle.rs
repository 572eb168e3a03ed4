//! Settling leases that nobody keeps attached: whoever comes with a token attaches under the name
//! that has the lease, at whichever node leads now, and goes again.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use weft_proto::{Error, Offset, PartitionId, ResourceUid, Result, Timestamp, v1};

use super::Part;
use super::token::{Token, member};
use crate::lend::{Answers, Frame, Join, Request};
use crate::subscription::Cursor;

/// How long a desk is looked for, and may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before it is looked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// Desks that are asked at once.
const AT_ONCE: usize = 16;
const ANSWERS_LEN: usize = 64;

/// What is done with leases.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Ack,
    /// Given back, as a failed delivery that is tried again after a while.
    Fail(Duration),
    /// Given back, as if they had never been lent.
    Undo,
    Reject,
    Extend,
}

impl Act {
    fn frame(&self, tokens: &[&Token]) -> v1::Settle {
        let ranges = tokens.iter().map(|token| token.range());
        let mut settle = v1::Settle { tag: 1, ..v1::Settle::default() };
        match self {
            Self::Ack => settle.acks = ranges.collect(),
            Self::Fail(_) | Self::Undo => {
                let (delay, uncounted) = match self {
                    Self::Fail(delay) => (u64::try_from(delay.as_millis()).ok(), false),
                    _ => (None, true),
                };
                let nack = |leases| v1::Nack {
                    leases: Some(leases),
                    delay_ms: delay,
                    uncounted,
                    reason: if uncounted { String::new() } else { "released".to_owned() },
                };
                settle.nacks = ranges.map(nack).collect();
            }
            Self::Reject => {
                let reject =
                    |leases| v1::Reject { leases: Some(leases), reason: "rejected".to_owned() };
                settle.rejects = ranges.map(reject).collect();
            }
            Self::Extend => {
                let extend = |leases| v1::Extend { leases: Some(leases), by_ms: None };
                settle.extends = ranges.map(extend).collect();
            }
        }
        settle
    }

    /// Whether it is done once its event is settled, by whomever.
    fn is_final(&self) -> bool {
        matches!(self, Self::Ack | Self::Reject)
    }
}

/// Settles leases; says for each, in order, why it was refused.
///
/// # Errors
///
/// What concerns a desk: the fate of its leases is then unknown. Doing it again is no mistake.
pub(super) async fn settle(
    part: &Part,
    tokens: &[Token],
    act: &Act,
) -> Result<Vec<Option<v1::Refused>>> {
    let mut by_desk: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (place, token) in tokens.iter().enumerate() {
        by_desk.entry((token.partition, token.member)).or_default().push(place);
    }
    let asked = by_desk.into_iter().map(|((partition, key), places)| async move {
        let own: Vec<&Token> = places.iter().filter_map(|&place| tokens.get(place)).collect();
        let settled = until_answered(part, PartitionId(partition), member(key), &own, act).await;
        settled.map(|settled| (places, settled))
    });
    let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
    let mut refused = vec![None; tokens.len()];
    while let Some(answer) = asked.next().await {
        let (places, settled) = answer?;
        for place in places {
            let (Some(token), Some(slot)) = (tokens.get(place), refused.get_mut(place)) else {
                continue;
            };
            let why =
                settled.refused.iter().find(|one| one.leases.is_some_and(|it| token.is_in(&it)));
            let why = why.map(v1::RefusedLeases::why);
            // The desk that knew is gone, and what it did is not.
            let known =
                why.filter(|why| *why == v1::Refused::Unknown).and_then(|_| fate(part, token));
            *slot = match known {
                _ if why == Some(v1::Refused::SettledBefore) && act.is_final() => None,
                Some(Fate::Settled) if act.is_final() => None,
                Some(Fate::Settled | Fate::Failed) => Some(v1::Refused::Expired),
                None => why,
            };
        }
    }
    Ok(refused)
}

async fn until_answered(
    part: &Part,
    partition: PartitionId,
    name: crate::entry::Member,
    tokens: &[&Token],
    act: &Act,
) -> Result<v1::Settled> {
    let until = Instant::now() + PATIENCE;
    loop {
        let join = Join {
            caller: part.caller.clone(),
            subscription: part.subscription.clone(),
            placement: part.subscription.stream.placement(partition)?,
            member: name.clone(),
            held: tokens.iter().map(|token| token.held()).collect(),
            lingers: true,
            since: Timestamp::default(),
        };
        let asked = once(part, join, act.frame(tokens));
        let late = || Error::unavailable("the desk of the partition did not answer in time");
        let answer = timeout_at(until, asked).await.unwrap_or_else(|_elapsed| Err(late()));
        match answer {
            Err(error) if error.is_retryable() && Instant::now() + PAUSE < until => {
                sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

async fn once(part: &Part, join: Join, settle: v1::Settle) -> Result<v1::Settled> {
    let (to, mut answers) = mpsc::channel(ANSWERS_LEN);
    let link = part.lender.attach(join, Answers::new(0, to)).await?;
    link.send(Request::Settle(settle)).await?;
    while let Some((_, frame)) = answers.recv().await {
        match frame {
            Frame::Settled(settled) => return Ok(settled),
            Frame::Ended(failure) => return Err(failure.into()),
            _ => {}
        }
    }
    Err(Error::unavailable("the desk of the partition is gone"))
}

/// How a delivery ended of which no desk knows.
enum Fate {
    Settled,
    Failed,
}

/// What became of a delivery, as far as the replica of this node knows.
fn fate(part: &Part, token: &Token) -> Option<Fate> {
    let placement = part.subscription.stream.placement(PartitionId(token.partition)).ok()?;
    let group = part.ingest.group(placement.group).ok()?;
    let partition = if token.redriven { placement.dead } else { placement.uid };
    let offset = Offset(token.offset);
    group.with_state(|state| {
        let owner = match token.replay_job {
            0 => part.subscription.uid,
            job => ResourceUid(job),
        };
        let cursor: &Cursor = state.cursors().get(owner, partition)?;
        if offset < cursor.watermark() || cursor.settled().contains(offset) {
            return Some(Fate::Settled);
        }
        let failed = cursor.parked().get(&offset)?;
        (failed.attempts >= token.attempt).then_some(Fate::Failed)
    })
}
