//! What an operator writes about a broker, and what it means.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weft_proto::resource::check_principal;
use weft_proto::trace::Telemetry;

use crate::access::jwt::IssuerConfig;
use crate::raft::machine::CHECKPOINT_BYTES;

/// A checkpoint costs a few kilobytes; without any, nothing could be given back.
const CHECKPOINT_BYTES_RANGE: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 30;

/// Fewer would not do for a client library and a look at the metrics.
const CONNECTIONS_RANGE: std::ops::RangeInclusive<usize> = 8..=1 << 20;

/// The configuration of one broker, as written. Unknown keys are errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who this node is and where its data are.
    pub node: Node,
    /// Where it listens.
    pub listen: Listen,
    /// The cluster it belongs to.
    pub cluster: Cluster,
    /// The store.
    pub store: Store,
    /// What becomes of events that nobody has to keep.
    pub retention: Retention,
    /// Certificates.
    pub security: Security,
    /// Who may do what.
    pub access: Access,
    /// Where spans and metrics go.
    pub telemetry: Telemetry,
}

/// Who this node is and where its data are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// The data folder; made when it is missing. In production a disk of its own.
    pub data: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self { data: PathBuf::from("weft-data") }
    }
}

/// Where a broker listens. Each is `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Clients, by gRPC.
    pub grpc: String,
    /// Health and metrics, by HTTP.
    pub http: String,
    /// The other nodes. Other nodes must reach this node at exactly this address.
    pub peer: String,
    /// The address that is told to clients; `grpc` when empty.
    pub advertise: String,
    /// Connections of `grpc`, and as many of `http`; fewer where the process may not open so many.
    pub connections: usize,
    /// Of these from one address; an IPv6 network of 64 bits counts as one.
    pub connections_per_address: usize,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            grpc: "127.0.0.1:7400".to_owned(),
            http: "127.0.0.1:7500".to_owned(),
            peer: "127.0.0.1:7600".to_owned(),
            advertise: String::new(),
            connections: 4_096,
            connections_per_address: 1_024,
        }
    }
}

/// The cluster a node belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Peer addresses of all founders, this node's own among them; empty for a node alone. Read
    /// once, when the cluster is born.
    pub founders: Vec<String>,
    /// Peer addresses of nodes of a cluster that exists: a node with an empty data folder joins it
    /// and gets an id of its own. `founders` must then be empty.
    pub join: Vec<String>,
    /// Raft groups that carry the streams' partitions. Read once, when the cluster is born.
    pub data_groups: u32,
    /// Bytes of a group's log between two checkpoints of its state: how much of it a start reads
    /// again at most, and in which steps disk is given back. Read once, when the cluster is born.
    pub checkpoint_bytes: u64,
    /// Between two heartbeats of a leader, in milliseconds.
    pub heartbeat_ms: u64,
    /// A follower asks for votes once the leader was silent for `election_max_ms` and a random part
    /// of `election_min_ms..election_max_ms` more, in milliseconds.
    pub election_min_ms: u64,
    /// The other end of that range: with the defaults, votes are asked for after 1,150 to 1,400 ms
    /// of silence. Starved machines need 1,500 to 3,000.
    pub election_max_ms: u64,
    /// Leadership of a group moves to the node that shall have it at most once in this time, in
    /// milliseconds; 0 = it stays where it is.
    pub balance_ms: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            founders: Vec::new(),
            join: Vec::new(),
            data_groups: 3,
            checkpoint_bytes: CHECKPOINT_BYTES,
            heartbeat_ms: 150,
            election_min_ms: 450,
            election_max_ms: 700,
            balance_ms: 60_000,
        }
    }
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `normal`, or `small` for several nodes on a laptop: less memory, less reserved disk.
    pub profile: Profile,
}

impl Default for Store {
    fn default() -> Self {
        Self { profile: Profile::Normal }
    }
}

/// What becomes of events that nobody has to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Between two looks of a leader at what may go, in milliseconds.
    pub tick_ms: u64,
    /// The newest part of each group's log stays on disk for this long whatever the streams say, in
    /// milliseconds: what a repeated publish is compared with must still be there.
    pub log_kept_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { tick_ms: 10_000, log_kept_ms: 10 * 60 * 1_000 }
    }
}

/// Sizes of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// For a machine of its own.
    Normal,
    /// For several nodes on a laptop.
    Small,
}

/// Certificates. Paths of PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "three switches that have nothing in common")]
pub struct Security {
    /// Certificate chain shown to clients, on both ports that they reach.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// Authority that signed the certificates of all nodes; nodes then prove who they are to each
    /// other.
    pub peer_ca: Option<PathBuf>,
    /// Certificate chain shown to other nodes.
    pub peer_certificate: Option<PathBuf>,
    /// Its private key.
    pub peer_key: Option<PathBuf>,
    /// Authority that signs certificates of clients: who shows one is known by it, the others show
    /// another credential.
    pub client_ca: Option<PathBuf>,
    /// The certificate of a node must name its id, as the URI `weft://node/ID`.
    pub peer_ids: bool,
    /// Lets clients speak TLS 1.2 too; nodes speak 1.3 only.
    pub tls12: bool,
    /// Allows plain text or missing credentials on addresses other than loopback.
    pub insecure: bool,
}

/// Who may do what. The same on all nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Access {
    /// Whether callers must show who they are, and need grants for what they do. Without, everybody
    /// may do everything.
    pub enforced: bool,
    /// Principals and groups that may do everything, whoever granted them nothing: a way in when all
    /// keys are lost.
    pub admins: Vec<String>,
    /// Whether an administrative act that cannot be recorded in `_weft.audit` is refused.
    pub audit_required: bool,
    /// Identity providers whose tokens are taken.
    pub issuers: Vec<IssuerConfig>,
}

impl Default for Access {
    fn default() -> Self {
        Self { enforced: false, admins: Vec::new(), audit_required: true, issuers: Vec::new() }
    }
}

/// Why a configuration cannot be used; names the key.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The key, as in `listen.grpc`.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl Config {
    /// Checks everything that can be checked without touching the machine.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let listen = &self.listen;
        for (key, address) in [
            ("listen.grpc", &listen.grpc),
            ("listen.http", &listen.http),
            ("listen.peer", &listen.peer),
        ] {
            check_address(key, address)?;
        }
        if !listen.advertise.is_empty() {
            check_address("listen.advertise", &listen.advertise)?;
        }
        self.check_connections()?;
        for founder in &self.cluster.founders {
            check_address("cluster.founders", founder)?;
        }
        for member in &self.cluster.join {
            check_address("cluster.join", member)?;
        }
        if !self.cluster.join.is_empty() && !self.cluster.founders.is_empty() {
            let problem = "a node founds a cluster or joins one, not both".to_owned();
            return Err(ConfigError { key: "cluster.join", problem });
        }
        if self.cluster.founders.len() == 2 {
            let problem = "two founders cannot lose one: use 1, 3 or 5".to_owned();
            return Err(ConfigError { key: "cluster.founders", problem });
        }
        if !(1..=100).contains(&self.cluster.data_groups) {
            let problem = format!("{} is not in 1..=100", self.cluster.data_groups);
            return Err(ConfigError { key: "cluster.data_groups", problem });
        }
        let checkpoint_bytes = self.cluster.checkpoint_bytes;
        if !CHECKPOINT_BYTES_RANGE.contains(&checkpoint_bytes) {
            let problem = format!("{checkpoint_bytes} is not in {CHECKPOINT_BYTES_RANGE:?}");
            return Err(ConfigError { key: "cluster.checkpoint_bytes", problem });
        }
        let Retention { tick_ms, log_kept_ms } = self.retention;
        if !(50..=3_600_000).contains(&tick_ms) {
            let problem = format!("{tick_ms} is not in 50..=3600000");
            return Err(ConfigError { key: "retention.tick_ms", problem });
        }
        if log_kept_ms > 86_400_000 {
            let problem = format!("{log_kept_ms} is more than a day, 86400000");
            return Err(ConfigError { key: "retention.log_kept_ms", problem });
        }
        for principal in &self.access.admins {
            let checked = match principal.as_str() {
                "*" => Err("everybody is no administrator: leave out access.enforced".to_owned()),
                principal => check_principal(principal),
            };
            checked.map_err(|problem| ConfigError { key: "access.admins", problem })?;
        }
        self.check_issuers()?;
        if !self.access.admins.is_empty() && !self.access.enforced {
            let problem = "it means nothing without access.enforced = true".to_owned();
            return Err(ConfigError { key: "access.admins", problem });
        }
        self.telemetry.check().map_err(|(key, problem)| ConfigError { key, problem })?;
        self.check_timers()?;
        self.check_security()
    }

    fn check_issuers(&self) -> Result<(), ConfigError> {
        let issuers = &self.access.issuers;
        for (place, issuer) in issuers.iter().enumerate() {
            issuer.check()?;
            if issuers.iter().take(place).any(|other| other.name == issuer.name) {
                let problem = format!("{} is there twice", issuer.name);
                return Err(ConfigError { key: "access.issuers.name", problem });
            }
        }
        if !issuers.is_empty() && !self.access.enforced {
            let problem = "they mean nothing without access.enforced = true".to_owned();
            return Err(ConfigError { key: "access.issuers", problem });
        }
        Ok(())
    }

    fn check_connections(&self) -> Result<(), ConfigError> {
        let Listen { connections, connections_per_address, .. } = self.listen;
        if !CONNECTIONS_RANGE.contains(&connections) {
            let problem = format!("{connections} is not in {CONNECTIONS_RANGE:?}");
            return Err(ConfigError { key: "listen.connections", problem });
        }
        if !(1..=connections).contains(&connections_per_address) {
            let problem = format!(
                "{connections_per_address} is not in 1..={connections}, which are listen.connections"
            );
            return Err(ConfigError { key: "listen.connections_per_address", problem });
        }
        Ok(())
    }

    fn check_timers(&self) -> Result<(), ConfigError> {
        let Cluster { heartbeat_ms, election_min_ms, election_max_ms, balance_ms, .. } =
            self.cluster;
        if !(20..=10_000).contains(&heartbeat_ms) {
            let problem = format!("{heartbeat_ms} is not in 20..=10000");
            return Err(ConfigError { key: "cluster.heartbeat_ms", problem });
        }
        // A leader must be heard at least twice before it is doubted, or leaders change for nothing.
        if election_min_ms < heartbeat_ms.saturating_mul(5) / 2 {
            let problem = format!(
                "{election_min_ms} is less than two and a half heartbeats of {heartbeat_ms}"
            );
            return Err(ConfigError { key: "cluster.election_min_ms", problem });
        }
        if !(balance_ms == 0 || (500..=86_400_000).contains(&balance_ms)) {
            let problem = format!("{balance_ms} is neither 0 nor in 500..=86400000");
            return Err(ConfigError { key: "cluster.balance_ms", problem });
        }
        if election_max_ms <= election_min_ms {
            let problem = format!("{election_max_ms} is not greater than election_min_ms");
            return Err(ConfigError { key: "cluster.election_max_ms", problem });
        }
        Ok(())
    }

    fn check_security(&self) -> Result<(), ConfigError> {
        let security = &self.security;
        let pairs = [
            ("security.key", security.certificate.is_some() == security.key.is_some()),
            (
                "security.peer_key",
                security.peer_certificate.is_some() == security.peer_key.is_some(),
            ),
            ("security.peer_ca", security.peer_certificate.is_some() == security.peer_ca.is_some()),
            ("security.client_ca", security.client_ca.is_none() || security.certificate.is_some()),
            ("security.tls12", !security.tls12 || security.certificate.is_some()),
            ("security.peer_ids", !security.peer_ids || security.peer_certificate.is_some()),
        ];
        for (key, whole) in pairs {
            if !whole {
                let problem = "certificate, key and authority must be given together".to_owned();
                return Err(ConfigError { key, problem });
            }
        }
        if security.insecure {
            return Ok(());
        }
        let refuse = |key, what: &str, address: &str| {
            let problem = format!(
                "{address} is not loopback: {what}, or set security.insecure = true if nobody else can reach it"
            );
            Err(ConfigError { key, problem })
        };
        for (key, address) in
            [("listen.grpc", &self.listen.grpc), ("listen.http", &self.listen.http)]
        {
            if is_loopback(address) {
                continue;
            }
            if security.certificate.is_none() {
                return refuse(key, "set security.certificate and security.key", address);
            }
            if !self.access.enforced {
                return refuse(key, "set access.enforced = true", address);
            }
        }
        if !is_loopback(&self.listen.peer) && security.peer_ca.is_none() {
            let what = "set security.peer_ca, peer_certificate and peer_key";
            return refuse("listen.peer", what, &self.listen.peer);
        }
        Ok(())
    }

    /// The address that clients are told.
    pub fn advertised(&self) -> &str {
        if self.listen.advertise.is_empty() { &self.listen.grpc } else { &self.listen.advertise }
    }
}

fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!host.is_empty()).then_some((host, port))
}

fn check_address(key: &'static str, address: &str) -> Result<(), ConfigError> {
    match split(address) {
        Some((_, port)) if port != 0 => Ok(()),
        _ => Err(ConfigError { key, problem: format!("{address:?} is not host:port") }),
    }
}

/// Whether only this machine can reach an address.
pub fn is_loopback(address: &str) -> bool {
    let Some((host, _)) = split(address) else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(change: impl FnOnce(&mut Config)) -> Option<&'static str> {
        let mut config = Config::default();
        change(&mut config);
        config.check().err().map(|error| error.key)
    }

    #[test]
    fn defaults_are_usable() {
        assert_eq!(key_of(|_| {}), None);
    }

    #[test]
    fn each_wrong_value_names_its_key() {
        assert_eq!(key_of(|c| c.listen.grpc = "7400".to_owned()), Some("listen.grpc"));
        assert_eq!(key_of(|c| c.listen.peer = "a:0".to_owned()), Some("listen.peer"));
        assert_eq!(key_of(|c| c.cluster.data_groups = 0), Some("cluster.data_groups"));
        assert_eq!(key_of(|c| c.cluster.checkpoint_bytes = 1), Some("cluster.checkpoint_bytes"));
        assert_eq!(key_of(|c| c.cluster.join = vec!["x".to_owned()]), Some("cluster.join"));
        assert_eq!(key_of(|c| c.retention.tick_ms = 0), Some("retention.tick_ms"));
        assert_eq!(key_of(|c| c.retention.log_kept_ms = u64::MAX), Some("retention.log_kept_ms"));
        assert_eq!(key_of(|c| c.cluster.heartbeat_ms = 1), Some("cluster.heartbeat_ms"));
        assert_eq!(key_of(|c| c.cluster.election_min_ms = 300), Some("cluster.election_min_ms"));
        assert_eq!(key_of(|c| c.cluster.election_max_ms = 450), Some("cluster.election_max_ms"));
        assert_eq!(key_of(|c| c.cluster.founders = vec!["x".to_owned()]), Some("cluster.founders"));
        assert_eq!(key_of(|c| c.security.certificate = Some("c".into())), Some("security.key"));
        assert_eq!(key_of(|c| c.security.client_ca = Some("c".into())), Some("security.client_ca"));
        assert_eq!(key_of(|c| c.security.tls12 = true), Some("security.tls12"));
        assert_eq!(key_of(|c| c.security.peer_ids = true), Some("security.peer_ids"));
        assert_eq!(key_of(|c| c.listen.connections = 7), Some("listen.connections"));
        let per_address = |c: &mut Config| c.listen.connections_per_address = 4_097;
        assert_eq!(key_of(per_address), Some("listen.connections_per_address"));
    }

    #[test]
    fn other_machines_need_tls_and_a_credential_or_the_flag() {
        let open = |c: &mut Config| c.listen.grpc = "0.0.0.0:7400".to_owned();

        assert_eq!(key_of(open), Some("listen.grpc"));
        assert_eq!(key_of(|c| c.listen.peer = "10.0.0.1:1".to_owned()), Some("listen.peer"));
        let flagged = |c: &mut Config| {
            open(c);
            c.security.insecure = true;
        };
        assert_eq!(key_of(flagged), None);
    }
}
