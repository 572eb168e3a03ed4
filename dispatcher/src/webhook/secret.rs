//! Secrets by reference: files in the operator's folder, each namespace in its own.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;
use weft_client::Secret;
use weft_proto::Name;
use weft_proto::resource::SecretRef;

use super::sign::Key;

/// A file that was replaced is read again after so long.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// Largest file with a secret.
const FILE_BYTES_MAX: u64 = 4_096;

/// What a webhook shows and signs with.
pub(crate) struct Shown {
    /// The value of `authorization`.
    pub(crate) authorization: Option<HeaderValue>,
    /// What requests are signed with.
    pub(super) keys: Vec<Key>,
}

/// The secrets of one webhook.
#[derive(Debug)]
pub(crate) struct Secrets {
    folder: Option<PathBuf>,
    authorization: Option<SecretRef>,
    keys: Vec<SecretRef>,
    shown: Mutex<Option<(Instant, std::sync::Arc<Shown>)>>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl Secrets {
    /// Those that the webhook of a namespace names, below the folder of all.
    pub(crate) fn new(
        folder: Option<PathBuf>,
        namespace: &Name,
        authorization: Option<SecretRef>,
        keys: Vec<SecretRef>,
    ) -> Self {
        let folder = folder.map(|folder| folder.join(namespace.as_str()));
        Self { folder, authorization, keys, shown: Mutex::new(None) }
    }

    /// What the files hold now, or did a moment ago.
    ///
    /// # Errors
    ///
    /// A sentence that names the file, and nothing of what is in it.
    pub(crate) async fn shown(&self) -> Result<std::sync::Arc<Shown>, String> {
        let known = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read, shown)) = known
            && read.elapsed() < READ_AGAIN
        {
            return Ok(shown);
        }
        let shown = std::sync::Arc::new(self.read().await?);
        let entry = Some((Instant::now(), std::sync::Arc::clone(&shown)));
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = entry;
        Ok(shown)
    }

    async fn read(&self) -> Result<Shown, String> {
        let mut authorization = None;
        if let Some(reference) = &self.authorization {
            let text = self.file(reference).await?;
            let wrong = |_| format!("the file {} holds no value of a header", reference.file);
            let mut value = HeaderValue::from_str(text.expose()).map_err(wrong)?;
            value.set_sensitive(true);
            authorization = Some(value);
        }
        let mut keys = Vec::new();
        for reference in &self.keys {
            let text = self.file(reference).await?;
            let wrong = |problem| format!("the file {} {problem}", reference.file);
            keys.push(Key::parse(text.expose()).map_err(wrong)?);
        }
        Ok(Shown { authorization, keys })
    }

    async fn file(&self, reference: &SecretRef) -> Result<Secret, String> {
        let Some(folder) = &self.folder else {
            return Err("the dispatcher has no folder for secrets (webhooks.secrets)".to_owned());
        };
        // The catalog has checked that it is the name of a file, and not a path.
        let name = std::path::Path::new(&reference.file);
        if name.components().count() != 1 || name.file_name() != Some(name.as_os_str()) {
            return Err(format!("{:?} is not the name of a file", reference.file));
        }
        let path = folder.join(name);
        let unreadable = |_| format!("the dispatcher cannot read the file {}", reference.file);
        let size = tokio::fs::metadata(&path).await.map_err(unreadable)?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("the file {} is larger than a secret", reference.file));
        }
        let text = Secret::new(tokio::fs::read_to_string(&path).await.map_err(unreadable)?);
        let trimmed = Secret::new(text.expose().trim());
        if trimmed.expose().is_empty() {
            return Err(format!("the file {} is empty", reference.file));
        }
        Ok(trimmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn files_of_the_own_namespace_are_read_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        for (namespace, text) in [("shop", "Bearer a\n"), ("other", "Bearer secret-of-others")] {
            std::fs::create_dir(folder.path().join(namespace)).unwrap();
            std::fs::write(folder.path().join(namespace).join("token"), text).unwrap();
        }
        let file = |name: &str| Some(SecretRef { file: name.to_owned() });
        let of = |reference| {
            let root = Some(folder.path().to_owned());
            Secrets::new(root, &"shop".parse().unwrap(), reference, Vec::new())
        };
        let secrets = of(file("token"));
        let value = |shown: std::sync::Arc<Shown>| {
            shown.authorization.as_ref().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(value(secrets.shown().await.unwrap()), "Bearer a");
        std::fs::write(folder.path().join("shop/token"), "Bearer b").unwrap();
        assert_eq!(value(secrets.shown().await.unwrap()), "Bearer a");
        tokio::time::advance(READ_AGAIN).await;
        assert_eq!(value(secrets.shown().await.unwrap()), "Bearer b");

        for wrong in ["../other/token", "/etc/passwd", "..", ".", "missing", "a/b"] {
            let told = of(file(wrong)).shown().await.unwrap_err();
            assert!(!told.contains("secret-of-others"), "{told}");
        }
        let none = Secrets::new(None, &"shop".parse().unwrap(), file("token"), Vec::new());
        assert!(none.shown().await.unwrap_err().contains("webhooks.secrets"));
    }
}
