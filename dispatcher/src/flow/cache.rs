//! Answers that are kept for a while.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use weft_proto::Timestamp;
use weft_proto::resource::flow::CacheSpec;

/// Bytes of all answers of one step.
const BYTES_MAX: usize = 4 << 20;

/// Answers by address.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: BTreeMap<String, (Timestamp, Bytes)>,
    by_age: VecDeque<(Timestamp, String)>,
    bytes: usize,
}

impl Cache {
    pub(super) fn get(&mut self, url: &str, spec: CacheSpec, now: Timestamp) -> Option<Bytes> {
        self.expire(spec, now);
        self.kept.get(url).map(|(_, answer)| answer.clone())
    }

    pub(super) fn put(&mut self, url: &str, answer: &Bytes, spec: CacheSpec, now: Timestamp) {
        // The first answer stands for as long as it was promised, also if a second one came.
        if self.kept.contains_key(url) {
            return;
        }
        self.bytes = self.bytes.saturating_add(url.len() + answer.len());
        self.kept.insert(url.to_owned(), (now, answer.clone()));
        self.by_age.push_back((now, url.to_owned()));
        self.expire(spec, now);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn expire(&mut self, spec: CacheSpec, now: Timestamp) {
        let entries_max = usize::try_from(spec.entries).unwrap_or(usize::MAX);
        while let Some((since, url)) = self.by_age.front()
            && (since.saturating_add(spec.ttl.0) <= now
                || self.by_age.len() > entries_max
                || self.bytes > BYTES_MAX)
        {
            if let Some((_, answer)) = self.kept.remove(url) {
                self.bytes = self.bytes.saturating_sub(url.len() + answer.len());
            }
            self.by_age.pop_front();
        }
    }
}
