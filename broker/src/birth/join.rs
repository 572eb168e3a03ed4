//! A node with an empty folder joins a cluster that exists: it gets an id that nobody had before.

use tracing::warn;
use weft_proto::NodeId;
use weft_proto::internal as wire;

use super::{Birth, Error, ROUNDS_QUIET, founder_in};
use crate::identity::{FORMAT, Membership};
use crate::peer::{self, Transport};

impl Birth<'_> {
    /// Asks the members in turn until one of them has an id for this folder.
    pub(super) async fn ask_to_join(
        &self,
        transport: &dyn Transport,
        round: u32,
    ) -> Result<Option<Membership>, Error> {
        let mut missing = Vec::new();
        for address in &self.founding.join {
            let request = wire::IdentifyRequest {
                node_uid: self.identity.node_uid.clone(),
                address: self.founding.address.clone(),
                founders: Vec::new(),
                format: FORMAT,
                run: None,
                joins: true,
            };
            match transport.identify(address, request).await {
                Ok(answer) => match answer.birth {
                    Some(record) if answer.admitted > 0 => {
                        return Ok(Some(Membership {
                            cluster_uid: record.cluster_uid,
                            node_id: NodeId(answer.admitted),
                            data_groups: record.data_groups,
                            checkpoint_bytes: record.checkpoint_bytes,
                            founders: record.founders.into_iter().map(founder_in).collect(),
                        }));
                    }
                    _ => missing.push(format!("{address} (it has no id for this node)")),
                },
                Err(peer::Error::Refused(reason)) => {
                    return Err(Error::Refused { address: address.clone(), reason });
                }
                Err(error) => missing.push(format!("{address} ({error})")),
            }
        }
        if round.is_multiple_of(ROUNDS_QUIET) {
            warn!(missing = missing.join(", "), "waiting to join the cluster");
        }
        Ok(None)
    }
}
