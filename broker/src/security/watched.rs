//! Values made of files that may change while the node runs: certificates, keys, tokens.
//!
//! *Owns* the value in use. A value that cannot be made of the new contents is refused and the old
//! one stays: a mistake must not take a node down that runs.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::ConfigError;
use crate::metrics::REFUSED_FILES;

/// Between two looks at the files.
const PERIOD: Duration = Duration::from_secs(5);
/// Larger ones are a mistake, and a device such as `/dev/zero` would never end.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file, and the key of the configuration that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As in `security.certificate`.
    pub key: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

impl File {
    /// A file that the configuration names.
    pub fn new(key: &'static str, path: impl Into<PathBuf>) -> Self {
        Self { key, path: path.into() }
    }

    /// What is wrong with it, in words that follow its name.
    pub fn wrong(&self, what: impl fmt::Display) -> ConfigError {
        ConfigError { key: self.key, problem: format!("{} {what}", self.path.display()) }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// Its key, and why it cannot be read.
    pub fn read(&self) -> Result<Vec<u8>, ConfigError> {
        use std::io::Read as _;
        let read = || {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(&self.path)?;
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > FILE_BYTES_MAX {
                return Err(std::io::Error::other(format!("more than {FILE_BYTES_MAX} bytes")));
            }
            Ok(bytes)
        };
        read().map_err(|error| {
            let problem = format!("cannot read {}: {error}", self.path.display());
            ConfigError { key: self.key, problem }
        })
    }
}

/// The contents of the files of a value, in their order.
pub type Contents = Vec<Vec<u8>>;

type Make<T> = dyn Fn(&[File], &Contents) -> Result<T, ConfigError> + Send + Sync;

/// A value made of files; clones share it.
pub struct Watched<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    name: &'static str,
    files: Vec<File>,
    make: Box<Make<T>>,
    seen: Mutex<Seen>,
    current: watch::Sender<Arc<T>>,
}

struct Seen {
    /// What the value in use is made of.
    used: Contents,
    /// The last look, if it found something that cannot be used: contents, or why there are none.
    bad: Option<Result<Contents, String>>,
    is_reported: bool,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the value: it may be a secret.
        f.debug_struct("Watched").field("files", &self.shared.files).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Makes a value of files; `name` is that of the set in logs and metrics.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used, by its key.
    pub fn load(
        name: &'static str,
        files: Vec<File>,
        make: impl Fn(&[File], &Contents) -> Result<T, ConfigError> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        let used = read_all(&files)?;
        let (current, _receiver) = watch::channel(Arc::new(make(&files, &used)?));
        let seen = Mutex::new(Seen { used, bad: None, is_reported: false });
        Ok(Self { shared: Arc::new(Shared { name, files, make: Box::new(make), seen, current }) })
    }

    /// The value in use.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.shared.current.borrow())
    }

    /// Tells of each new value.
    pub fn changes(&self) -> watch::Receiver<Arc<T>> {
        self.shared.current.subscribe()
    }
}

/// Something that may have to be made again.
pub trait Renew: Send + Sync {
    /// Looks at the files, and takes a new value into use if there is a good one. Blocks.
    fn look(&self);
}

impl<T: Send + Sync + 'static> Renew for Watched<T> {
    fn look(&self) {
        let Shared { name, files, make, seen, current } = &*self.shared;
        // Held while the value is made: two looks at once would only do the same.
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = read_all(files);
        if found.as_ref().is_ok_and(|found| *found == seen.used) {
            seen.bad = None;
            return;
        }
        let made = match &found {
            Ok(contents) => make(files, contents),
            Err(error) => Err(ConfigError { key: error.key, problem: error.problem.clone() }),
        };
        match (made, found) {
            (Ok(value), Ok(contents)) => {
                info!(set = name, "changed files are in use now");
                seen.used = contents;
                seen.bad = None;
                current.send_replace(Arc::new(value));
            }
            (Ok(_), Err(error)) | (Err(error), Err(_)) => {
                let found = Err(error.problem.clone());
                report(name, &mut seen, found, &error);
            }
            (Err(error), Ok(contents)) => report(name, &mut seen, Ok(contents), &error),
        }
    }
}

/// Complains once, and only of what two looks in a row have found: files of a set are written one
/// after the other, and between that they do not fit.
fn report(
    name: &'static str,
    seen: &mut Seen,
    found: Result<Contents, String>,
    problem: &ConfigError,
) {
    if seen.bad.as_ref() != Some(&found) {
        seen.bad = Some(found);
        seen.is_reported = false;
        return;
    }
    if !seen.is_reported {
        seen.is_reported = true;
        counter!(REFUSED_FILES, "set" => name).increment(1);
        error!(set = name, %problem, "changed files cannot be used; the old ones stay in use");
    }
}

fn read_all(files: &[File]) -> Result<Contents, ConfigError> {
    files.iter().map(File::read).collect()
}

/// Looks at everything that is watched, from time to time and when asked.
#[derive(Clone, Default)]
pub struct Watch {
    items: Arc<Mutex<Vec<Arc<dyn Renew>>>>,
    asked: Arc<Notify>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Adds something to look at.
    pub fn add(&self, item: Arc<dyn Renew>) {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    }

    /// Has a look taken soon.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Takes one look, now. Blocks.
    pub fn look(&self) {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for item in items {
            item.look();
        }
    }

    /// Looks until `stop`.
    ///
    /// # Errors
    ///
    /// Never.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.asked.notified() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
            let looking = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || looking.look()).await {
                error!(%error, "the look at changed files ended early");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(files: &[File], contents: &Contents) -> Result<u32, ConfigError> {
        let text = String::from_utf8_lossy(&contents[0]).trim().to_owned();
        text.parse().map_err(|error| files[0].wrong(error))
    }

    #[test]
    fn good_contents_are_taken_and_bad_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let watched = Watched::load("test", vec![File::new("a.b", &path)], number).unwrap();
        let mut changes = watched.changes();

        for (text, expected) in [("1", 1), ("2", 2), ("x", 2), ("3", 3), ("", 3)] {
            std::fs::write(&path, text).unwrap();
            watched.look();
            watched.look();
            assert_eq!(*watched.current(), expected, "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
        watched.look();

        assert_eq!(*watched.current(), 3);
        assert!(changes.has_changed().unwrap());
        assert_eq!(**changes.borrow_and_update(), 3);
    }

    #[test]
    fn a_mistake_is_reported_once_and_only_when_it_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let watched = Watched::load("test", vec![File::new("a.b", &path)], number).unwrap();
        let is_reported = || watched.shared.seen.lock().unwrap().is_reported;

        std::fs::write(&path, "half").unwrap();
        watched.look();
        assert!(!is_reported());
        std::fs::write(&path, "hal").unwrap();
        watched.look();
        assert!(!is_reported());
        watched.look();
        assert!(is_reported());
        std::fs::write(&path, "other").unwrap();
        watched.look();
        assert!(!is_reported());
    }

    #[test]
    fn the_key_and_the_file_are_named() {
        let missing = File::new("security.key", "/nowhere/at/all");
        let error = Watched::load("test", vec![missing], number).unwrap_err();

        assert!(error.to_string().starts_with("security.key: cannot read /nowhere/at/all: "));
        let endless = File::new("security.key", "/dev/zero").read().unwrap_err();
        assert!(endless.to_string().contains("more than 4194304 bytes"), "{endless}");
    }
}
