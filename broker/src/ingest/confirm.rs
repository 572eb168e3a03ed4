//! Reads that see everything that was acknowledged before them.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use weft_proto::{Error, GroupId, Result};

use super::Ingest;
use crate::raft::group;

/// How long a read waits for a leader with a majority, and for this node to have its log.
const PATIENCE: Duration = Duration::from_secs(3);
/// Before the leader is asked again.
const PAUSE: Duration = Duration::from_millis(50);

impl Ingest {
    /// Waits until this node has applied all that a group agreed on before the call.
    ///
    /// # Errors
    ///
    /// `Unavailable` when no leader confirms it in time, or this node is too far behind.
    pub async fn confirm(&self, group: GroupId) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let index = loop {
            let asked = async {
                match self.leader_of(group).await? {
                    leader if leader == self.parts.node => self.read_index(group).await,
                    leader => self.parts.forwarder.read_index(leader, group, PATIENCE).await,
                }
            };
            let error = match timeout_at(until, asked).await {
                Ok(Ok(index)) => break index,
                Ok(Err(error)) => error,
                Err(_elapsed) => unconfirmed(group),
            };
            if !error.is_retryable() || Instant::now() + PAUSE >= until {
                return Err(error);
            }
            sleep(PAUSE).await;
        };
        let mut applied = self.group(group)?.raft.applied_watch();
        let behind = || {
            let message = format!("this node is behind in group {group}; ask another one");
            Error::unavailable(message).with_retry_after(PAUSE)
        };
        match timeout_at(until, applied.wait_for(|upto| upto.index >= index)).await {
            Ok(Ok(_upto)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(behind()),
        }
    }

    /// On the leader: confirms with a majority that it still leads; returns the index up to which
    /// a replica must have applied the log to have all that was agreed on before the call.
    pub(super) async fn read_index(&self, group: GroupId) -> Result<u64> {
        let raft = &self.group(group)?.raft;
        match raft.ensure_linearizable().await {
            Ok(()) => Ok(raft.applied_watch().borrow().index),
            Err(group::Error::NotLeader { .. } | group::Error::NoQuorum) => Err(unconfirmed(group)),
            Err(error) => {
                let message = format!("group {group} cannot be read");
                Err(Error::unavailable(message).with_source(error))
            }
        }
    }
}

fn unconfirmed(group: GroupId) -> Error {
    Error::unavailable(format!("no leader of group {group} with a majority answers at present"))
        .with_retry_after(Duration::from_millis(200))
}
