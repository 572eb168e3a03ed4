//! Which events were there before.
//!
//! An event counts only once it is done: what is alike and comes meanwhile waits, and takes its place
//! if it fails. So a first is never dropped for the sake of one that came to nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use weft_proto::Timestamp;
use weft_proto::resource::flow::{DedupStep, Template};

use super::failure::Failure;
use super::parts::digest;
use super::render::{Escape, Scope};
use super::types::{ItemId, RunId};

/// A deduplication, ready for use.
#[derive(Debug)]
pub(super) struct Dedup {
    key: Option<Template>,
    window: Duration,
    entries_max: usize,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    known: BTreeMap<String, State>,
    /// Those that are done, the oldest first.
    done: VecDeque<(Timestamp, String)>,
}

#[derive(Debug)]
enum State {
    /// One is on its way; these wait for what becomes of it.
    Open { run: RunId, waiting: VecDeque<ItemId> },
    /// One was done then.
    Done(Timestamp),
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passes.
    First,
    /// It was there before.
    Repeat,
    /// Another is on its way: ask again when it is done or has failed.
    Wait,
}

impl Dedup {
    pub(super) fn new(spec: &DedupStep) -> Result<Self, String> {
        Ok(Self {
            key: spec.key.as_deref().map(Template::parse).transpose()?,
            window: spec.window.0,
            entries_max: usize::try_from(spec.entries).unwrap_or(usize::MAX),
        })
    }

    /// What events that are alike have in common.
    pub(super) fn key(&self, event: &Bytes) -> Result<String, Failure> {
        let scope = Scope::new(event)?;
        let key = if let Some(key) = &self.key {
            scope.text(key, Escape::Nothing)?
        } else {
            let view = scope.view();
            // A length keeps ("ab", "c") and ("a", "bc") apart.
            format!("{}:{}{}", view.source.len(), view.source, view.id)
        };
        // Long ones take no more room than short ones.
        Ok(if key.len() <= KEY_BYTES_MAX { format!("={key}") } else { digest(&[&key]) })
    }

    /// What an event of a run is. One that is told to wait is put into the queue.
    pub(super) fn ask(
        &self,
        seen: &mut Seen,
        key: &str,
        (item, run): (ItemId, RunId),
        now: Timestamp,
    ) -> Verdict {
        self.expire(seen, now);
        match seen.known.get_mut(key) {
            Some(State::Done(_)) => Verdict::Repeat,
            // Another of the same event: waiting for it would be waiting for itself.
            Some(State::Open { run: other, .. }) if *other == run => Verdict::Repeat,
            Some(State::Open { waiting, .. }) => {
                waiting.push_back(item);
                Verdict::Wait
            }
            None => {
                let waiting = VecDeque::new();
                seen.known.insert(key.to_owned(), State::Open { run, waiting });
                Verdict::First
            }
        }
    }

    /// The run that has a key was done, or failed; who waited asks again.
    pub(super) fn end(
        &self,
        seen: &mut Seen,
        key: &str,
        run: RunId,
        done: Option<Timestamp>,
    ) -> VecDeque<ItemId> {
        match seen.known.get(key) {
            Some(State::Open { run: other, .. }) if *other == run => {}
            _ => return VecDeque::new(),
        }
        let Some(State::Open { waiting, .. }) = seen.known.remove(key) else {
            return VecDeque::new();
        };
        if let Some(now) = done {
            seen.known.insert(key.to_owned(), State::Done(now));
            seen.done.push_back((now, key.to_owned()));
            self.expire(seen, now);
        }
        waiting
    }

    fn expire(&self, seen: &mut Seen, now: Timestamp) {
        while let Some((done, key)) = seen.done.front()
            && (done.saturating_add(self.window) <= now || seen.done.len() > self.entries_max)
        {
            if matches!(seen.known.get(key), Some(State::Done(at)) if at == done) {
                seen.known.remove(key);
            }
            seen.done.pop_front();
        }
    }
}

impl Seen {
    /// Lets go of an event that is not there any more.
    pub(super) fn forget(&mut self, item: ItemId) {
        for state in self.known.values_mut() {
            if let State::Open { waiting, .. } = state {
                waiting.retain(|other| *other != item);
            }
        }
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.known.len().saturating_mul(ENTRY_BYTES)
    }
}

/// Longest key that is kept as it is.
const KEY_BYTES_MAX: usize = 64;
/// A key, twice, and what is around it.
const ENTRY_BYTES: usize = 256;
