//! What a call shows: a bearer token, given once or read from a file that may be replaced.
//!
//! *Owns* the token that was read last. *Never* shows it, be it in `Debug` or in an error.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use weft_proto::{Error, Result};
use zeroize::Zeroizing;

use crate::options::Secret;

/// A file is looked at again this long after the last look, when a call is made.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What calls show to say who makes them. Clones share it.
///
/// It is a tonic interceptor, so that programs with channels of their own can use it as well.
///
/// # Examples
///
/// ```
/// use weft_client::{Credential, Secret};
///
/// let credential = Credential::token(&Secret::new("weft_0123"))?;
/// assert_eq!(format!("{credential:?}"), "Credential");
/// # Ok::<(), weft_client::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Credential(Option<Arc<Source>>);

enum Source {
    Given(Header),
    File { path: PathBuf, last: Mutex<Last> },
}

type Header = MetadataValue<Ascii>;

/// Tells a file that was replaced from the one that was read. Without, as for a pipe, it is read
/// once.
type Stamp = Option<std::result::Result<(SystemTime, u64), io::ErrorKind>>;

struct Last {
    header: Header,
    /// Rises with each other token.
    version: u64,
    stamp: Stamp,
    looked: Instant,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "Credential(none)" } else { "Credential" })
    }
}

impl Credential {
    /// Nothing is shown.
    pub fn none() -> Self {
        Self::default()
    }

    /// Always this token.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is empty or cannot be sent.
    pub fn token(token: &Secret) -> Result<Self> {
        let header = header(token.expose()).map_err(|problem| {
            Error::invalid(format!("the token {problem}")).with_field("token")
        })?;
        Ok(Self(Some(Arc::new(Source::Given(header)))))
    }

    /// The token in a file, read now and again when the file has changed: it is looked at with a
    /// call, at most once a second, and when a node refuses the token. While the file is missing
    /// or unusable, the last token is shown.
    ///
    /// # Errors
    ///
    /// `Invalid` when the file cannot be read now or holds no token. Neither is in the message.
    pub fn file(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        // First the stamp: what is written in between is then seen as another.
        let stamp = stamp(&path);
        let header = read(&path)?;
        let last = Last { header, version: 0, stamp, looked: Instant::now() };
        Ok(Self(Some(Arc::new(Source::File { path, last: Mutex::new(last) }))))
    }

    /// Whether nothing is shown.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// A number for what is shown now; another token has another one.
    pub fn version(&self) -> u64 {
        match self.0.as_deref() {
            Some(Source::File { last, .. }) => lock(last).version,
            Some(Source::Given(_)) | None => 0,
        }
    }

    /// Whether there is something else to show than what had this number: a call that was refused
    /// may then be made once more. Reads the file.
    pub fn has_changed_since(&self, version: u64) -> bool {
        let Some(Source::File { path, last }) = self.0.as_deref() else { return false };
        let mut last = lock(last);
        if last.version == version && last.stamp.is_some() {
            last.read_again(path, stamp(path));
        }
        last.version != version
    }

    fn header(&self) -> Option<Header> {
        match self.0.as_deref()? {
            Source::Given(header) => Some(header.clone()),
            Source::File { path, last } => {
                let mut last = lock(last);
                last.look(path);
                Some(last.header.clone())
            }
        }
    }
}

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = self.header() {
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}

impl Last {
    fn look(&mut self, path: &Path) {
        if self.stamp.is_none() || self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        let stamp = stamp(path);
        if stamp != self.stamp {
            self.read_again(path, stamp);
        }
    }

    fn read_again(&mut self, path: &Path, stamp: Stamp) {
        // A pipe took the place of the file: it was not given for that.
        let Some(stamp) = stamp else { return };
        self.stamp = Some(stamp);
        match read(path) {
            Ok(header) if header != self.header => {
                self.header = header;
                self.version += 1;
                tracing::info!(path = %path.display(), "another token is shown from now on");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the last token is shown: there is no other one");
            }
        }
    }
}

fn lock(last: &Mutex<Last>) -> MutexGuard<'_, Last> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).and_then(|found| {
        let modified = found.modified()?;
        Ok(found.is_file().then_some((modified, found.len())))
    });
    found.map_err(|error| error.kind()).transpose()
}

fn read(path: &Path) -> Result<Header> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        Error::invalid(message).with_field("token_file").with_source(error)
    })?;
    header(text.trim()).map_err(|problem| {
        let message = format!("the token in {} {problem}", path.display());
        Error::invalid(message).with_field("token_file")
    })
}

/// The header; the text in it is overwritten when the last copy goes.
fn header(token: &str) -> Result<Header, &'static str> {
    if token.is_empty() {
        return Err("is empty");
    }
    let wrong = "has characters that cannot be sent; is there a line break or a space?";
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong);
    }
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut header = Header::try_from(Bytes::from_owner(text)).map_err(|_error| wrong)?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(credential: &Credential) -> String {
        let request = credential.clone().call(Request::new(())).unwrap();
        request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_without_being_told() {
        for wrong in ["", "hunter 2", "hunter\n2", "hunter\u{e4}"] {
            let error = Credential::token(&Secret::new(wrong)).unwrap_err();
            assert_eq!(error.field(), Some("token"), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
        }
        let credential = Credential::token(&Secret::new("hunter2")).unwrap();
        assert_eq!(shown(&credential), "Bearer hunter2");
        assert!(!format!("{credential:?} {:?}", credential.header()).contains("hunter"));
        assert!(!credential.has_changed_since(credential.version()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_looked_at_again_after_a_while_or_when_it_was_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let credential = Credential::file(&path).unwrap();
        let before = credential.version();
        assert_eq!(shown(&credential), "Bearer one");
        assert!(!credential.has_changed_since(before));

        std::fs::write(&path, "number-two\n").unwrap();
        assert_eq!(shown(&credential), "Bearer one");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(shown(&credential), "Bearer number-two");
        assert!(credential.has_changed_since(before));

        let before = credential.version();
        std::fs::write(&path, "three").unwrap();
        assert!(credential.has_changed_since(before));
        assert!(!credential.has_changed_since(credential.version()));
        assert_eq!(shown(&credential), "Bearer three");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_token_stays_while_the_file_is_missing_or_unusable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let credential = Credential::file(&path).unwrap();

        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(shown(&credential), "Bearer one");
        std::fs::write(&path, "").unwrap();
        assert!(!credential.has_changed_since(credential.version()));
        assert_eq!(shown(&credential), "Bearer one");
        std::fs::write(&path, "two").unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(shown(&credential), "Bearer two");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for text in [None, Some(""), Some("\n"), Some("hunter\n2")] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let error = Credential::file(&path).unwrap_err();
            assert_eq!(error.field(), Some("token_file"), "{error}");
            assert!(error.message().contains("token"), "{error}");
            assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
        }
    }
}
