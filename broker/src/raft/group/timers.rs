//! How patient the nodes of a group are, and what consensus is told.

use std::time::Duration;

use super::Error;

/// How long leaders stay silent and followers stay patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// A replica asks for votes after `election_max` of silence and a random part of
    /// `election_min..election_max` more.
    pub election_min: Duration,
    /// The other end of the random range, and the part that is waited for in any case.
    pub election_max: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_millis(700),
            election_max: Duration::from_millis(1_200),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn config(timers: Timers) -> Result<openraft::Config, Error> {
    let config = openraft::Config {
        cluster_name: "weft".to_owned(),
        heartbeat_interval: millis(timers.heartbeat),
        // Entries prove that the leader lives just as well.
        heartbeat_min_interval: Some(millis(timers.heartbeat)),
        election_timeout_min: millis(timers.election_min),
        election_timeout_max: millis(timers.election_max),
        enable_pre_vote: Some(true),
        // A restarted leader may have forgotten what it promised: it asks like everybody else.
        enable_leader_restore: Some(false),
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        max_payload_entries: 32,
        max_append_entries: Some(64),
        replication_lag_threshold: 8,
        install_snapshot_timeout: 10_000,
        // openraft counts messages; these counts keep the bytes bounded.
        api_channel_size: Some(256),
        api_batch_capacity: 64,
        api_batch_linger_ms: 0,
        broadcast_submitted_on_append: Some(true),
        backoff: "50ms 100ms 200ms ...2s".to_owned(),
        ..openraft::Config::default()
    };
    config.validate().map_err(|error| Error::Refused(error.to_string()))
}
