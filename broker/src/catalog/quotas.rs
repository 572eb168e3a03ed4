//! How much a namespace may hold: exact, because every replica counts the same.

use weft_proto::resource::{self, Kind, LimitSpec, StreamSpec};
use weft_proto::{Error, Pattern, QualifiedName, Reason, v1};

use super::{State, view};

impl State {
    /// Refuses what would be more than a limit allows. What is there already stays.
    pub(super) fn check_quotas(
        &self,
        kind: Kind,
        name: &QualifiedName,
        new: &v1::Resource,
        old: Option<&v1::Resource>,
    ) -> Result<(), Error> {
        if !matches!(kind, Kind::Stream | Kind::Subscription) {
            return Ok(());
        }
        for (limit, stored) in self.of_kind(Kind::Limit) {
            let spec: LimitSpec = resource::parse(Kind::Limit, &stored.spec)?;
            let namespace = name.namespace.as_str();
            let is_for =
                |text: &String| Pattern::new(text).is_ok_and(|pattern| pattern.matches(namespace));
            if !spec.namespaces.iter().any(is_for) {
                continue;
            }
            let refuse = |what: &str, has: u64, most: u64| {
                let message = format!(
                    "the namespace {namespace} would have {has} {what}, more than the {most} of \
                     Limit {limit}"
                );
                Err(Error::new(Reason::QuotaExceeded, message))
            };
            let others = |of: Kind| {
                let others =
                    self.of_kind(of).filter(|(other, _)| other.namespace == name.namespace);
                others.filter(move |(other, _)| of != kind || *other != name)
            };
            if kind == Kind::Stream {
                let count = others(kind).count() as u64 + 1;
                if let Some(most) = spec.streams.map(u64::from)
                    && old.is_none()
                    && count > most
                {
                    return refuse("streams", count, most);
                }
                if let Some(most) = spec.stored_bytes {
                    let new: StreamSpec = resource::parse(kind, &new.spec)?;
                    let Some(bytes) = bytes_max(&new) else {
                        let message = format!(
                            "Limit {limit} bounds the bytes of the namespace {namespace}: a stream \
                             needs `retention.max_bytes`"
                        );
                        let error = Error::new(Reason::QuotaExceeded, message);
                        return Err(error.with_field("spec.retention.max_bytes"));
                    };
                    let before = old.and_then(|old| bytes_max(&view::stream_spec(old)));
                    let rest =
                        others(kind).filter_map(|(_, one)| bytes_max(&view::stream_spec(one)));
                    let sum = rest.fold(bytes, u64::saturating_add);
                    // Whoever is over it already may still make less of it.
                    if sum > most && before.is_none_or(|before| bytes > before) {
                        return refuse("bytes", sum, most);
                    }
                }
            } else if let Some(most) = spec.subscriptions.map(u64::from) {
                let count = others(kind).count() as u64 + 1;
                if old.is_none() && count > most {
                    return refuse("subscriptions", count, most);
                }
            }
        }
        Ok(())
    }
}

/// What a stream may hold at most.
fn bytes_max(spec: &StreamSpec) -> Option<u64> {
    Some(spec.retention.max_bytes?.saturating_mul(u64::from(spec.partitions)))
}
