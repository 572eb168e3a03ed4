//! Names and help of the broker's metrics.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Events appended and acknowledged.
pub const APPENDED_EVENTS: &str = "weft_ingest_appended_events_total";
/// Bytes of the same.
pub const APPENDED_BYTES: &str = "weft_ingest_appended_bytes_total";
/// Events refused, by reason.
pub const REFUSED_EVENTS: &str = "weft_ingest_refused_events_total";
/// Events that were there already, by source and id.
pub const REPEATED_EVENTS: &str = "weft_ingest_repeated_events_total";
/// Batches that waited for room in a group's queue.
pub const QUEUE_FULL: &str = "weft_ingest_queue_full_total";
/// Bytes waiting to be proposed.
pub const QUEUE_BYTES: &str = "weft_ingest_queue_bytes";
/// Bytes of unacknowledged batches, by place: `publish` = of all callers of this node, `forward` =
/// on their way to the leaders on other nodes.
pub const ROOM_BYTES: &str = "weft_ingest_room_bytes";
/// Events of the same.
pub const ROOM_EVENTS: &str = "weft_ingest_room_events";
/// Batches that found no room at first, by place.
pub const ROOM_WAITS: &str = "weft_ingest_room_waits_total";
/// Batches that were told to come back later, by place.
pub const ROOM_REFUSALS: &str = "weft_ingest_room_refusals_total";
/// Events in one log entry.
pub const ENTRY_BYTES: &str = "weft_ingest_entry_bytes";
/// From proposing an entry to its answer.
pub const COMMIT_SECONDS: &str = "weft_ingest_commit_seconds";
/// Events sent to readers and subscribers.
pub const READ_EVENTS: &str = "weft_read_events_total";
/// Bytes of the same.
pub const READ_BYTES: &str = "weft_read_bytes_total";
/// Events that retention took before a subscription had settled them.
pub const OVERTAKEN_EVENTS: &str = "weft_retention_overtaken_events_total";
/// Events whose time has not come, by group.
pub const DELAYED_WAITING: &str = "weft_delayed_events";
/// Events that were delivered when their time had come.
pub const DELAYED_DELIVERED: &str = "weft_delayed_delivered_events_total";
/// Events that subscriptions gave up.
pub const DEAD_LETTERS: &str = "weft_subscription_dead_letters_total";
/// Bytes of a group's log that replicas keep.
pub const LOG_BYTES: &str = "weft_retention_log_bytes";
/// 1 while nothing is trimmed by age because the clock cannot be trusted.
pub const CLOCK_SUSPECT: &str = "weft_retention_clock_suspect";
/// Whether this node leads a group.
pub const LEADS: &str = "weft_raft_leads";
/// Leaderships that this node gave to a node that shall have them.
pub const LEADER_MOVES: &str = "weft_raft_leader_moves_total";
/// Free bytes of the disk that holds the store.
pub const DISK_FREE_BYTES: &str = "weft_store_disk_free_bytes";
/// 1 while publishes are refused because the disk is nearly full.
pub const DISK_FULL: &str = "weft_store_disk_full";

/// Calls that showed no good credential.
pub const REFUSED_CREDENTIALS: &str = "weft_access_refused_credentials_total";
/// Records of refusals that found no room in the queue and were only counted.
pub const AUDIT_MISSED: &str = "weft_audit_missed_total";
/// Connections that were not accepted, or closed before anybody proved who they are, by port and
/// reason.
pub const REFUSED_CONNECTIONS: &str = "weft_listen_refused_connections_total";
/// When the certificate in use expires, in seconds since 1970, by port: `client` or `peer`.
pub const CERTIFICATE_EXPIRES: &str = "weft_security_certificate_expires_timestamp_seconds";
/// Changed files that are not in use because something is wrong with them, by set.
pub const REFUSED_FILES: &str = "weft_security_refused_files_total";

/// Tells the recorder what the metrics mean.
pub fn describe() {
    describe_counter!(REFUSED_CREDENTIALS, Unit::Count, "Calls without a good credential.");
    describe_counter!(AUDIT_MISSED, Unit::Count, "Refusals that were counted, not recorded.");
    describe_counter!(APPENDED_EVENTS, Unit::Count, "Events appended and acknowledged.");
    describe_counter!(APPENDED_BYTES, Unit::Bytes, "Bytes of events appended and acknowledged.");
    describe_counter!(REFUSED_EVENTS, Unit::Count, "Events refused, by reason.");
    describe_counter!(REPEATED_EVENTS, Unit::Count, "Events found stored by source and id.");
    describe_counter!(QUEUE_FULL, Unit::Count, "Batches that found a group's queue full.");
    describe_gauge!(QUEUE_BYTES, Unit::Bytes, "Bytes waiting to be proposed, by group.");
    describe_gauge!(ROOM_BYTES, Unit::Bytes, "Bytes of unacknowledged batches, by place.");
    describe_gauge!(ROOM_EVENTS, Unit::Count, "Unacknowledged events, by place.");
    describe_counter!(ROOM_WAITS, Unit::Count, "Batches that waited for room, by place.");
    describe_counter!(ROOM_REFUSALS, Unit::Count, "Batches told to come back later, by place.");
    describe_histogram!(ENTRY_BYTES, Unit::Bytes, "Size of proposed log entries.");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "From proposing an entry to its answer.");
    describe_counter!(READ_EVENTS, Unit::Count, "Events sent to readers and subscribers.");
    describe_counter!(READ_BYTES, Unit::Bytes, "Bytes of events sent to readers and subscribers.");
    describe_counter!(
        OVERTAKEN_EVENTS,
        Unit::Count,
        "Events that retention took before a subscription had settled them."
    );
    describe_gauge!(
        DELAYED_WAITING,
        "Events whose time has not come, of groups led here, by group."
    );
    describe_counter!(DELAYED_DELIVERED, "Events that were delivered when their time had come.");
    describe_counter!(DEAD_LETTERS, Unit::Count, "Events that subscriptions gave up.");
    describe_gauge!(
        LOG_BYTES,
        Unit::Bytes,
        "Bytes of a group's log between its floor and its end."
    );
    describe_gauge!(CLOCK_SUSPECT, "1 while nothing is trimmed by age: the clock jumped.");
    describe_gauge!(LEADS, "1 where this node leads the group.");
    describe_counter!(LEADER_MOVES, "Leaderships given to the node that shall have them.");
    describe_gauge!(DISK_FREE_BYTES, Unit::Bytes, "Free bytes of the disk that holds the store.");
    describe_gauge!(DISK_FULL, "1 while publishes are refused because the disk is nearly full.");
    describe_counter!(
        REFUSED_CONNECTIONS,
        Unit::Count,
        "Connections that were not accepted, or closed before anybody proved who they are."
    );
    describe_gauge!(CERTIFICATE_EXPIRES, Unit::Seconds, "When the certificate in use expires.");
    describe_counter!(
        REFUSED_FILES,
        Unit::Count,
        "Changed certificates, keys and authorities that cannot be used; the old ones are."
    );
}
