//! Makes a group have what the catalog says it shall have.

use weft_proto::{Error, Offset, PartitionUid, Reason, ResourceUid};

use super::proposer::Loop;
use super::reply;
use crate::data::lock;
use crate::entry::{Command, Opening};

impl Loop {
    /// Opens what the catalog has and this group lacks; drops what the catalog has no more.
    pub(super) async fn reconcile(&mut self) {
        let Some(term) = self.lead.term else { return };
        let wanted = self.directory.partitions_of(self.group.id);
        // A node whose catalog lags must not take what is new for what is gone.
        let (partitions_end, resources_end) =
            (self.directory.partition_uids_end(), self.directory.resource_uids_end());
        let owners = self.directory.cursor_owners();
        let (missing, gone, forgotten) = {
            let machine = lock(&self.group.machine);
            let state = machine.state();
            let known = state.partitions();
            let missing: Vec<Opening> = wanted
                .iter()
                .filter(|&&partition| known.get(partition).is_none())
                .map(|&partition| Opening { partition, start: Offset(0) })
                .collect();
            let gone: Vec<PartitionUid> = known
                .iter()
                .map(|(uid, _)| uid)
                .filter(|uid| *uid < partitions_end && !wanted.contains(uid))
                .collect();
            let mut forgotten: Vec<ResourceUid> = state
                .cursors()
                .subscriptions()
                .filter(|uid| *uid < resources_end && !owners.contains(uid))
                .collect();
            forgotten.dedup();
            (missing, gone, forgotten)
        };
        if !missing.is_empty() {
            self.propose_command(term, &Command::Open(missing), None).await;
        }
        if !gone.is_empty() {
            self.propose_command(term, &Command::Drop(gone.clone()), None).await;
        }
        for subscription in forgotten {
            self.propose_command(term, &Command::Forget(subscription), None).await;
        }
        // Appends to partitions that nobody will open.
        let parked: Vec<PartitionUid> = self.lead.backlog.keys().copied().collect();
        for partition in parked {
            if partition < partitions_end && !wanted.contains(&partition) {
                let appends = self.lead.backlog.remove(&partition).unwrap_or_default();
                for append in appends {
                    reply(append, Err(Error::new(Reason::UnknownStream, "the stream was deleted")));
                }
            }
        }
    }
}
