//! The birth of a cluster: the founders agree on its identity and on their ids, once.
//!
//! The founder with the lowest address waits until all answer, makes the birth record and stores
//! it; the others ask until they see the record, and store it too. Each step can be repeated, so
//! a founder that crashes goes on where it was. *Never* makes a second record while any founder
//! still has one: a node that lost its folder is refused.

mod join;
mod verify;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::{info, warn};
use weft_proto::NodeId;
use weft_proto::internal as wire;

use crate::identity::{self, FORMAT, Folder, Founder, Identity, Membership, random_uid};
use crate::peer::{self, Introduce, Transport};
use crate::pledge::{Boot, Pledge};

/// Between two rounds of asking; a birth waits for people starting processes.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// Rounds between two complaints about who is missing.
const ROUNDS_QUIET: u32 = 50;

pub use verify::Introducer;

/// What the configuration says about the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// Address of this node's peer listener, as `founders` has it.
    pub address: String,
    /// Addresses of all founders; empty means that this node is alone.
    pub founders: Vec<String>,
    /// Groups for data; the record of the first founder counts.
    pub data_groups: u32,
    /// Bytes of a log between two checkpoints; as above.
    pub checkpoint_bytes: u64,
    /// Peer addresses of a cluster that exists, which this node joins if it has none yet.
    pub join: Vec<String>,
}

/// Why a cluster is not born, or this node is not part of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list does not make sense.
    #[error("the founders of the cluster are not right: {0}")]
    Founders(String),
    /// Another node will not have this one.
    #[error("the node at {address} refuses this node: {reason}")]
    Refused {
        /// Who refuses.
        address: String,
        /// What it says.
        reason: String,
    },
    /// The cluster exists, and this folder is not that of its founder.
    #[error(
        "the cluster {cluster_uid} exists and knows {address} with another data folder: a founder that lost its folder cannot return under its old id; start it with the old folder, or remove it from the cluster and let a new node join"
    )]
    Wiped {
        /// The existing cluster.
        cluster_uid: String,
        /// Address of this node.
        address: String,
    },
    /// The folder is that of another node.
    #[error(
        "the data folder is that of node {node_id} at {known}, the configuration says {address}: give this node its own folder"
    )]
    OtherNode {
        /// The node of the folder.
        node_id: NodeId,
        /// Its address.
        known: String,
        /// The configured address.
        address: String,
    },
    /// The folder is that of another cluster.
    #[error(
        "the data folder belongs to cluster {ours}, but the node at {address} belongs to cluster {theirs}: one of both folders is in the wrong place"
    )]
    OtherCluster {
        /// The cluster of this folder.
        ours: String,
        /// Who belongs to another one.
        address: String,
        /// That other cluster.
        theirs: String,
    },
    /// Other nodes know of a later run of this folder.
    #[error("the node at {address} says: {reason}")]
    Suspect {
        /// Who says so.
        address: String,
        /// What.
        reason: String,
    },
    /// The data folder failed.
    #[error(transparent)]
    Folder(#[from] identity::Error),
}

impl Founding {
    /// Returns the founders in the order of their ids, checked.
    fn in_order(&self) -> Result<Vec<String>, Error> {
        if !self.join.is_empty() {
            return Ok(Vec::new());
        }
        let mut founders = self.founders.clone();
        if founders.is_empty() {
            founders.push(self.address.clone());
        }
        let mut keyed = Vec::new();
        for address in founders {
            let parts = address.rsplit_once(':');
            let port = parts.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
            match port {
                Some((host, port)) if !host.is_empty() && port != 0 => {
                    let port: u16 = port;
                    keyed.push(((host, port), address));
                }
                _ => return Err(Error::Founders(format!("{address} is not host:port"))),
            }
        }
        keyed.sort();
        if let Some(((_, twice), _)) =
            keyed.iter().zip(keyed.iter().skip(1)).find(|(one, next)| one == next)
        {
            return Err(Error::Founders(format!("{twice} is there twice")));
        }
        let ordered: Vec<String> = keyed.into_iter().map(|(_key, address)| address).collect();
        if ordered.contains(&self.address) {
            return Ok(ordered);
        }
        let list = ordered.join(", ");
        Err(Error::Founders(format!(
            "this node's own address {} is not among {list}",
            self.address
        )))
    }
}

/// What this node tells others about itself while it is born, and ever after.
#[derive(Debug)]
pub struct Introduction {
    node_uid: String,
    founders: Vec<String>,
    birth: Mutex<Option<wire::BirthRecord>>,
    pledge: Arc<Pledge>,
    /// Address of its peer listener.
    address: String,
    /// Its id, once it has one.
    node_id: OnceLock<NodeId>,
}

impl Introduction {
    fn birth(&self) -> MutexGuard<'_, Option<wire::BirthRecord>> {
        // A plain value: a panic elsewhere leaves it whole.
        self.birth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node's own run, once it has an id.
    fn run(&self) -> Option<wire::Run> {
        let node_id = self.node_id.get()?.get();
        let boot = self.pledge.boot();
        Some(wire::Run { node_id, number: boot.number, nonce: boot.nonce })
    }

    /// Takes note of a founder's run; says why it must not take part.
    fn note(&self, node_uid: &str, run: wire::Run) -> Result<Option<String>, peer::Error> {
        let is_founder = self.birth().as_ref().is_some_and(|record| {
            let same =
                |known: &wire::Founder| known.node_id == run.node_id && known.node_uid == node_uid;
            record.founders.iter().any(same)
        });
        if !is_founder {
            return Ok(None);
        }
        let boot = Boot { number: run.number, nonce: run.nonce };
        let noted = self.pledge.note(NodeId(run.node_id), boot);
        let noted = noted.map_err(|error| {
            peer::Error::Unreachable(format!("it cannot write its pledge: {error}"))
        })?;
        Ok((!noted).then(|| {
            format!(
                "node {} took part with a newer state of its data folder than the one it runs over now: it is an older copy",
                run.node_id
            )
        }))
    }
}

impl Introduce for Introduction {
    fn identify(
        &self,
        request: wire::IdentifyRequest,
    ) -> Result<wire::IdentifyResponse, peer::Error> {
        let birth = self.birth().clone();
        if request.format != FORMAT {
            return Err(peer::Error::Refused(format!(
                "it speaks format {FORMAT}, the caller format {}",
                request.format
            )));
        }
        if request.joins {
            if birth.is_none() {
                return Err(peer::Error::Unreachable("its cluster is not born yet".to_owned()));
            }
        } else if let Some(record) = &birth {
            // A node that joined later may have the address of a founder that is gone.
            let id = request.run.map_or(0, |run| run.node_id);
            let joined = id != 0 && record.founders.iter().all(|known| known.node_id != id);
            let known = record.founders.iter().find(|known| known.address == request.address);
            if let Some(known) = known
                && known.node_uid != request.node_uid
                && !joined
            {
                return Err(peer::Error::Refused(format!(
                    "cluster {} knows node {} at {} with another data folder; a node that lost its folder cannot return under its old id",
                    record.cluster_uid, known.node_id, known.address
                )));
            }
        } else if request.founders != self.founders {
            return Err(peer::Error::Refused(format!(
                "its founders are [{}], the caller's are [{}]",
                self.founders.join(", "),
                request.founders.join(", ")
            )));
        }
        let suspect = match request.run {
            Some(run) => self.note(&request.node_uid, run)?,
            None => None,
        };
        Ok(wire::IdentifyResponse {
            node_uid: self.node_uid.clone(),
            founders: self.founders.clone(),
            birth,
            format: FORMAT,
            run: self.run(),
            suspect: suspect.unwrap_or_default(),
            // Whoever asks the catalog fills it in.
            admitted: 0,
        })
    }
}

/// A birth under way, or long past.
#[derive(Debug)]
pub struct Birth<'a> {
    folder: &'a Folder,
    founding: Founding,
    founders: Vec<String>,
    identity: Identity,
    introduction: Arc<Introduction>,
}

impl<'a> Birth<'a> {
    /// Reads the folder and checks it against the configuration.
    ///
    /// Serve `introduction` on the peer port before `complete`.
    pub fn new(folder: &'a Folder, pledge: Arc<Pledge>, founding: Founding) -> Result<Self, Error> {
        check_folder(folder, &founding)?;
        let founders = founding.in_order()?;
        let identity = folder.identity()?;
        let introduction = Arc::new(Introduction {
            node_uid: identity.node_uid.clone(),
            founders: founders.clone(),
            birth: Mutex::new(identity.cluster.as_ref().map(record)),
            pledge,
            address: founding.address.clone(),
            node_id: OnceLock::new(),
        });
        if let Some(cluster) = &identity.cluster {
            _ = introduction.node_id.set(cluster.node_id);
        }
        Ok(Self { folder, founding, founders, identity, introduction })
    }

    /// Returns what to answer to those who ask who this node is.
    pub fn introduction(&self) -> Arc<Introduction> {
        Arc::clone(&self.introduction)
    }

    /// Waits until the cluster is born and this node knows its place in it.
    ///
    /// # Cancel safety
    ///
    /// A birth that is given up continues with the next start.
    pub async fn complete(mut self, transport: &dyn Transport) -> Result<Membership, Error> {
        if let Some(cluster) = &self.identity.cluster {
            self.verify(cluster, transport).await?;
            return Ok(cluster.clone());
        }
        let mut round = 0_u32;
        loop {
            let decided = if self.founding.join.is_empty() {
                self.ask_all(transport, round).await?
            } else {
                self.ask_to_join(transport, round).await?
            };
            if let Some(cluster) = decided {
                self.identity.cluster = Some(cluster.clone());
                self.folder.save(&self.identity)?;
                // Only now: who sees the record may rely on it.
                _ = self.introduction.node_id.set(cluster.node_id);
                *self.introduction.birth() = Some(record(&cluster));
                info!(
                    cluster = cluster.cluster_uid,
                    node = cluster.node_id.get(),
                    founders = cluster.founders.len(),
                    "the cluster is born"
                );
                return Ok(cluster);
            }
            round = round.wrapping_add(1);
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// Asks every other founder once; returns the cluster if it is decided.
    async fn ask_all(
        &self,
        transport: &dyn Transport,
        round: u32,
    ) -> Result<Option<Membership>, Error> {
        let others = self.founders.iter().filter(|address| **address != self.founding.address);
        let asked = others.map(|address| {
            let request = wire::IdentifyRequest {
                node_uid: self.identity.node_uid.clone(),
                address: self.founding.address.clone(),
                founders: self.founders.clone(),
                format: FORMAT,
                run: None,
                joins: false,
            };
            let answer = transport.identify(address, request);
            async move { (address.as_str(), answer.await) }
        });
        let mut uids = vec![(self.founding.address.as_str(), self.identity.node_uid.clone())];
        let mut missing = Vec::new();
        for (address, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(answer) => match answer.birth {
                    Some(record) => return self.adopt(address, record).map(Some),
                    None => uids.push((address, answer.node_uid)),
                },
                Err(peer::Error::Refused(reason)) => {
                    return Err(Error::Refused { address: address.to_owned(), reason });
                }
                Err(error) => missing.push(format!("{address} ({error})")),
            }
        }
        if !missing.is_empty() && round.is_multiple_of(ROUNDS_QUIET) {
            warn!(missing = missing.join(", "), "waiting for the other founders");
        }
        // Only the first founder decides, and only when nobody can know of an earlier birth.
        let decides = self.founders.first() == Some(&self.founding.address);
        if decides && missing.is_empty() { self.found(&uids).map(Some) } else { Ok(None) }
    }

    fn found(&self, uids: &[(&str, String)]) -> Result<Membership, Error> {
        let mut founders = Vec::with_capacity(self.founders.len());
        for (node_id, address) in (1..).zip(&self.founders) {
            let known = uids.iter().find(|(known, _uid)| known == address);
            let Some((_known, node_uid)) = known else {
                return Err(Error::Founders(format!("{address} did not answer")));
            };
            let (node_uid, address) = (node_uid.clone(), address.clone());
            founders.push(Founder { node_id: NodeId(node_id), node_uid, address });
        }
        let record = wire::BirthRecord {
            cluster_uid: random_uid(),
            founders: founders.into_iter().map(founder_out).collect(),
            data_groups: self.founding.data_groups,
            checkpoint_bytes: self.founding.checkpoint_bytes,
        };
        self.adopt(&self.founding.address, record)
    }

    /// Takes a record if it knows this very folder.
    fn adopt(&self, from: &str, record: wire::BirthRecord) -> Result<Membership, Error> {
        let own = record.founders.iter().find(|known| known.address == self.founding.address);
        match own {
            Some(own) if own.node_uid == self.identity.node_uid => {
                if record.data_groups != self.founding.data_groups {
                    warn!(
                        configured = self.founding.data_groups,
                        record = record.data_groups,
                        "the number of data groups was set at birth; the configuration is ignored"
                    );
                }
                if record.checkpoint_bytes != self.founding.checkpoint_bytes {
                    warn!(
                        configured = self.founding.checkpoint_bytes,
                        record = record.checkpoint_bytes,
                        "the bytes between checkpoints were set at birth; the configuration is ignored"
                    );
                }
                Ok(Membership {
                    node_id: NodeId(own.node_id),
                    cluster_uid: record.cluster_uid,
                    data_groups: record.data_groups,
                    checkpoint_bytes: record.checkpoint_bytes,
                    founders: record.founders.into_iter().map(founder_in).collect(),
                })
            }
            Some(_other) => Err(Error::Wiped {
                cluster_uid: record.cluster_uid,
                address: self.founding.address.clone(),
            }),
            None => Err(Error::Refused {
                address: from.to_owned(),
                reason: format!(
                    "cluster {} was founded without {}",
                    record.cluster_uid, self.founding.address
                ),
            }),
        }
    }
}

/// Whether a folder may be that of this node. Changes nothing in it: it may be another node's.
///
/// # Errors
///
/// When it belongs to a node at another address, or the configuration contradicts it.
pub fn check_folder(folder: &Folder, founding: &Founding) -> Result<(), Error> {
    match &folder.identity()?.cluster {
        Some(cluster) => check_own(cluster, founding),
        None => Ok(()),
    }
}

fn check_own(cluster: &Membership, founding: &Founding) -> Result<(), Error> {
    let own = cluster.founders.iter().find(|founder| founder.node_id == cluster.node_id);
    match own {
        Some(own) if own.address != founding.address => Err(Error::OtherNode {
            node_id: cluster.node_id,
            known: own.address.clone(),
            address: founding.address.clone(),
        }),
        _ => Ok(()),
    }
}

fn record(cluster: &Membership) -> wire::BirthRecord {
    wire::BirthRecord {
        cluster_uid: cluster.cluster_uid.clone(),
        founders: cluster.founders.iter().cloned().map(founder_out).collect(),
        data_groups: cluster.data_groups,
        checkpoint_bytes: cluster.checkpoint_bytes,
    }
}

fn founder_out(founder: Founder) -> wire::Founder {
    let Founder { node_id, node_uid, address } = founder;
    wire::Founder { node_id: node_id.get(), node_uid, address }
}

fn founder_in(founder: wire::Founder) -> Founder {
    let wire::Founder { node_id, node_uid, address } = founder;
    Founder { node_id: NodeId(node_id), node_uid, address }
}

#[cfg(test)]
mod tests;
