//! What the cluster itself keeps beside a spec: placements, and the versions of a schema.

use weft_proto::resource::{
    self, FunctionStatus, Kind, PlacementStatus, SPEC_BYTES_MAX, SchemaSpec, SchemaStatus,
    SchemaVersion, StreamSpec, StreamStatus, WebhookStatus,
};
use weft_proto::{Error, Reason, v1};

use super::{State, take, view};

/// With a spec of 1 MiB a resource must still fit into one message of 4 MiB.
const HISTORY_BYTES_MAX: usize = 2 << 20;
const VERSIONS_LEN_MAX: usize = 1_000;
/// Numbers that a partition takes: its own, and those of its dead letters and delayed events.
const UIDS_LEN: u64 = 3;

impl State {
    /// The status of a resource that is put; on a refusal no number was taken.
    pub(super) fn status_of(
        &mut self,
        kind: Kind,
        new: &v1::Resource,
        old: Option<&v1::Resource>,
    ) -> Result<Vec<u8>, Error> {
        let written = |error| Error::internal("a status cannot be written").with_source(error);
        match (kind, old) {
            (Kind::Stream, None) => {
                let spec: StreamSpec = resource::parse(kind, &new.spec)?;
                let placements = (0..spec.partitions).map(|partition| self.place(partition));
                let placements = placements.collect::<Result<_, _>>()?;
                serde_json::to_vec(&StreamStatus { placements }).map_err(written)
            }
            (Kind::Schema, _) => {
                let spec: SchemaSpec = resource::parse(kind, &new.spec)?;
                let mut status = old.map(view::schema_status).unwrap_or_default();
                self.add_version(&spec, &mut status)?;
                serde_json::to_vec(&status).map_err(written)
            }
            (_, Some(old)) => Ok(old.status.to_vec()),
            (_, None) => Ok(b"{}".to_vec()),
        }
    }

    /// Spreads partitions over the data groups in turn, beginning with group 1.
    fn place(&mut self, partition: u32) -> Result<PlacementStatus, Error> {
        let uid = take(&mut self.next_partition_uid)?;
        let dead = take(&mut self.next_partition_uid)?;
        let delayed = take(&mut self.next_partition_uid)?;
        let turn = uid.saturating_sub(1) / UIDS_LEN % u64::from(self.data_groups.max(1));
        let group = u32::try_from(turn).unwrap_or(0) + 1;
        Ok(PlacementStatus { partition, uid, dead, delayed, group })
    }

    fn add_version(&mut self, spec: &SchemaSpec, status: &mut SchemaStatus) -> Result<(), Error> {
        let hash = spec.hash()?;
        // A document that comes back becomes the newest version again, under a number of its own:
        // `latest` must mean what was put last.
        if status.versions.last().is_some_and(|last| last.hash == hash) {
            return Ok(());
        }
        let document = spec.document()?.into_owned();
        let bytes = status.versions.iter().map(|version| version.document.get().len());
        let bytes = bytes.fold(document.get().len(), usize::saturating_add);
        if status.versions.len() >= VERSIONS_LEN_MAX || bytes > HISTORY_BYTES_MAX {
            let message = format!(
                "the schema would have {} versions with {bytes} bytes; up to {VERSIONS_LEN_MAX} \
                 with {HISTORY_BYTES_MAX} are kept, go on under another name",
                status.versions.len() + 1
            );
            return Err(Error::new(Reason::TooLarge, message).with_field("spec.document"));
        }
        let last = status.versions.last().map_or(0, |last| last.version);
        let exhausted = || Error::internal("the cluster has no schema id left");
        let version = last.checked_add(1).ok_or_else(exhausted)?;
        let id = self.next_schema_id;
        self.next_schema_id = id.checked_add(1).ok_or_else(exhausted)?;
        status.versions.push(SchemaVersion { version, id, hash, document });
        Ok(())
    }
}

/// Checks what a dispatcher reports.
pub(super) fn check_reported(kind: Kind, json: &[u8]) -> Result<(), Error> {
    if json.len() > SPEC_BYTES_MAX {
        let message = format!("the status has {} bytes, more than {SPEC_BYTES_MAX}", json.len());
        return Err(Error::new(Reason::TooLarge, message).with_field("status"));
    }
    let parsed = match kind {
        Kind::Webhook => serde_json::from_slice::<WebhookStatus>(json).map(drop),
        _ => serde_json::from_slice::<FunctionStatus>(json).map(drop),
    };
    parsed.map_err(|error| {
        let message = format!("the status is none of a {kind}: {error}");
        Error::invalid(message).with_field("status")
    })
}
