//! One issuer: its keys as last heard, and the loop that asks for them.
//!
//! *Owns* the keys and when they were asked for; only the loop fetches, so that there is one fetch at
//! a time and a caller who goes away breaks none off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::algorithm::Algorithm;
use super::fetch::{FetchError, Fetcher};
use super::key::{self, Key, KeySet};
use super::url::Url;
use super::{IssuerConfig, JwtError, Limits};

/// An issuer and its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) config: IssuerConfig,
    pub(super) name: Arc<str>,
    source: Source,
    limits: Limits,
    state: watch::Sender<State>,
    /// Tells the loop that a key is missing.
    wanted: Notify,
    /// Callers that wait for keys.
    waiting: AtomicUsize,
}

/// Where keys come from.
#[derive(Debug)]
pub(super) enum Source {
    /// By discovery.
    Remote { url: Url, fetcher: Fetcher },
    /// A file.
    File,
}

#[derive(Debug, Default)]
struct State {
    keys: Vec<Arc<Key>>,
    /// When the keys were heard.
    heard: Option<Instant>,
    /// When they were last asked for.
    asked: Option<Instant>,
    /// Attempts that are over.
    attempts: u64,
    phase: Phase,
}

/// What becomes of the next attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// It comes when it is time.
    #[default]
    Quiet,
    /// A caller misses a key: the loop begins at once.
    Wanted,
    /// It goes on.
    Asking,
}

/// What the issuer says of itself; much more is of no interest here.
#[derive(Deserialize)]
struct Description {
    issuer: String,
    jwks_uri: String,
}

/// Why the keys could not be had.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the issuer does not describe itself")]
    NoDescription(#[source] serde_json::Error),
    #[error("the issuer calls itself otherwise")]
    OtherName,
    #[error("the address of the keys {0}")]
    Address(&'static str),
    #[error("{0}")]
    Keys(&'static str),
    #[error("cannot read the file with the keys")]
    File(#[source] std::io::Error),
    #[error("the file with the keys is larger than it may be")]
    LargeFile,
}

impl Issuer {
    pub(super) fn new(config: IssuerConfig, source: Source, limits: Limits) -> Self {
        let phase = match source {
            Source::Remote { .. } => Phase::Asking,
            Source::File => Phase::Quiet,
        };
        let state = State { phase, ..State::default() };
        Self {
            name: config.name.as_str().into(),
            config,
            source,
            limits,
            state: watch::Sender::new(state),
            wanted: Notify::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes the keys out of a file that was read when the broker started.
    pub(super) fn start_with(&self, text: &[u8]) -> Result<(), &'static str> {
        let set = KeySet::read(text, &self.config.algorithms, &[])?;
        self.state.send_modify(|state| {
            state.keys = set.keys;
            state.heard = Some(Instant::now());
            state.attempts = 1;
        });
        Ok(())
    }

    /// The key that a token names. A key that is not known is asked for, unless that was done just
    /// now.
    pub(super) async fn key(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<Key>, JwtError> {
        let seen = match self.find(id, algorithm) {
            (Err(JwtError::KeyUnknown | JwtError::KeysUnavailable), seen) => seen,
            (result, _) => return result,
        };
        if self.is_worth_waiting(seen) {
            let place = Place::take(&self.waiting, self.limits.waiting_max);
            let _place = place.ok_or(JwtError::Busy)?;
            // The loop needs at most two fetches; it may not run at all.
            let longest = self.limits.fetch_timeout.saturating_mul(3);
            let mut states = self.state.subscribe();
            // What it hands out is a lock on the state: it goes before the state is looked at again.
            let answered = async { states.wait_for(|state| state.attempts > seen).await.is_ok() };
            if !timeout(longest, answered).await.unwrap_or(false) {
                return Err(JwtError::KeysUnavailable);
            }
        }
        self.find(id, algorithm).0
    }

    /// The key among those that are known, and after how many attempts they were.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> (Result<Arc<Key>, JwtError>, u64) {
        let state = self.state.borrow();
        let found = match key::select(&state.keys, id, algorithm) {
            Err(JwtError::KeyUnknown) if state.heard.is_none() => Err(JwtError::KeysUnavailable),
            found => found,
        };
        (found, state.attempts)
    }

    /// Asks the loop for the keys, if it may ask the issuer now. Whether there is, or will be, more
    /// than was seen.
    fn is_worth_waiting(&self, seen: u64) -> bool {
        let (mut is_wanted, mut is_coming) = (false, false);
        self.state.send_if_modified(|state| {
            is_coming = state.phase != Phase::Quiet || state.attempts > seen;
            let may_ask = state.asked.is_none_or(|at| at.elapsed() >= self.limits.retry_min);
            is_wanted = may_ask && !is_coming;
            if is_wanted {
                state.phase = Phase::Wanted;
            }
            // Nobody waits for a wish.
            false
        });
        if is_wanted {
            self.wanted.notify_one();
        }
        is_wanted || is_coming
    }

    /// Keeps the keys fresh until the stop.
    pub(super) async fn keep(&self, stop: &CancellationToken) {
        let mut failures = 0_u32;
        let mut next = match self.source {
            Source::Remote { .. } => Instant::now(),
            Source::File => Instant::now() + self.pause(failures),
        };
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep_until(next) => {}
                // Left over when both came at once: nothing is missing any more.
                () = self.wanted.notified() => if self.state.borrow().phase != Phase::Wanted {
                    continue;
                },
            }
            self.state.send_modify(|state| {
                state.phase = Phase::Asking;
                state.asked = Some(Instant::now());
            });
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = self.read() => result,
            };
            failures = if result.is_ok() { 0 } else { failures.saturating_add(1) };
            self.finish(result);
            next = Instant::now() + self.pause(failures);
        }
    }

    async fn read(&self) -> Result<KeySet, RefreshError> {
        let text = match &self.source {
            Source::Remote { url, fetcher } => {
                let description = fetcher.get(&url.discovery()).await?;
                let description: Description =
                    serde_json::from_slice(&description).map_err(RefreshError::NoDescription)?;
                if description.issuer != self.config.url {
                    return Err(RefreshError::OtherName);
                }
                let keys = Url::named_by(url, &description.jwks_uri);
                fetcher.get(&keys.map_err(RefreshError::Address)?).await?.into()
            }
            Source::File => self.read_file().await?,
        };
        // Only the loop changes the keys: these are still there when the new ones take their place.
        let before = self.state.borrow().keys.clone();
        KeySet::read(&text, &self.config.algorithms, &before).map_err(RefreshError::Keys)
    }

    async fn read_file(&self) -> Result<Vec<u8>, RefreshError> {
        let path = self.config.jwks_file.as_deref().unwrap_or_else(|| "".as_ref());
        let size = tokio::fs::metadata(path).await.map_err(RefreshError::File)?.len();
        if size > self.limits.document_bytes_max as u64 {
            return Err(RefreshError::LargeFile);
        }
        tokio::fs::read(path).await.map_err(RefreshError::File)
    }

    /// Puts new keys in place; keeps the old ones for a while when there are none.
    fn finish(&self, result: Result<KeySet, RefreshError>) {
        let new = match result {
            Ok(set) => {
                self.log(&set);
                Some(set.keys)
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(issuer = %self.name, error, "cannot refresh the keys of the issuer");
                None
            }
        };
        self.state.send_modify(|state| {
            let is_old = state.heard.is_some_and(|at| at.elapsed() >= self.limits.keys_kept);
            if new.is_none() && is_old {
                warn!(issuer = %self.name, "the keys of the issuer are too old to be used");
                state.heard = None;
            }
            let keys = match new {
                Some(keys) => {
                    state.heard = Some(Instant::now());
                    keys
                }
                None if is_old => Vec::new(),
                None => state.keys.clone(),
            };
            for key in &state.keys {
                if !keys.iter().any(|kept| Arc::ptr_eq(kept, key)) {
                    key.remove();
                }
            }
            state.keys = keys;
            state.attempts += 1;
            state.phase = Phase::Quiet;
        });
    }

    fn log(&self, set: &KeySet) {
        let (keys, unusable) = (set.keys.len(), set.unusable.len());
        if keys == unusable {
            warn!(issuer = %self.name, unusable, "the issuer has no usable key");
        }
        for problem in &set.unusable {
            debug!(issuer = %self.name, problem, "a key of the issuer is not used");
        }
        let state = self.state.borrow();
        let is_same = state.keys.len() == keys
            && state.keys.iter().zip(&set.keys).all(|(one, other)| Arc::ptr_eq(one, other));
        if !is_same {
            info!(issuer = %self.name, keys, unusable, "the issuer has new keys");
        }
    }

    /// How long to wait before the next attempt: many nodes do not ask at once.
    fn pause(&self, failures: u32) -> Duration {
        let Limits { refresh, retry_min, .. } = self.limits;
        let pause = match failures {
            0 => refresh,
            _ => retry_min.saturating_mul(1 << (failures - 1).min(16)).min(refresh),
        };
        pause.mul_f64(rand::random_range(0.9..1.1)).max(retry_min)
    }

    /// Attempts that are over.
    #[cfg(test)]
    pub(super) fn attempts(&self) -> u64 {
        self.state.borrow().attempts
    }

    /// Waits for an attempt that begins after this was called.
    #[cfg(test)]
    pub(super) async fn asked_again(&self) {
        let mut states = self.state.subscribe();
        let before = self.state.borrow();
        let seen = before.attempts + u64::from(before.phase == Phase::Asking);
        drop(before);
        states.wait_for(|state| state.attempts > seen).await.unwrap();
    }
}

/// A place among those who wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let place = Self(waiting);
        // Dropping the place gives it back, also when it is one too many.
        (waiting.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
