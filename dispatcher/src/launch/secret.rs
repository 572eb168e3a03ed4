//! Secrets for environments: files in the operator's folder, `NAMESPACE/NAME/KEY`.

use std::path::{Path, PathBuf};

use weft_client::Secret;
use weft_proto::Name;
use weft_proto::resource::{EnvVar, SecretKeyRef};

use super::Failure;

/// Largest value of a secret.
const FILE_BYTES_MAX: u64 = 64 * 1_024;

/// Where secrets of functions are found.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    folder: Option<PathBuf>,
    /// The setting that names the folder.
    setting: &'static str,
}

impl Secrets {
    /// Those below a folder, which `setting` names.
    pub const fn new(folder: Option<PathBuf>, setting: &'static str) -> Self {
        Self { folder, setting }
    }

    /// An environment with what its references stand for.
    ///
    /// # Errors
    ///
    /// `Config`, with a sentence that names the secret, and nothing of what is in it.
    pub(super) async fn env(
        &self,
        namespace: &Name,
        env: &[EnvVar],
    ) -> Result<Vec<(String, Secret)>, Failure> {
        let mut values = Vec::with_capacity(env.len());
        for variable in env {
            let value = match (&variable.secret_ref, &variable.value) {
                (Some(secret), _) => self.read(namespace, secret).await.map_err(|problem| {
                    let name = &variable.name;
                    Failure::config(format!("the variable {name} has no value: {problem}"))
                })?,
                (None, value) => Secret::new(value.clone().unwrap_or_default()),
            };
            values.push((variable.name.clone(), value));
        }
        Ok(values)
    }

    async fn read(&self, namespace: &Name, secret: &SecretKeyRef) -> Result<Secret, String> {
        let Some(folder) = &self.folder else {
            return Err(format!("the dispatcher has no folder for secrets ({})", self.setting));
        };
        // The catalog has checked that these are names of files, and not paths.
        let is_plain = |text: &str| {
            let path = Path::new(text);
            path.components().count() == 1 && path.file_name() == Some(path.as_os_str())
        };
        let SecretKeyRef { name, key } = secret;
        if !is_plain(name) || !is_plain(key) {
            return Err(format!("{name:?} and {key:?} are not the names of files"));
        }
        let path = folder.join(namespace.as_str()).join(name).join(key);
        let unreadable = |_| format!("the dispatcher cannot read the secret {name}, key {key}");
        let size = tokio::fs::metadata(&path).await.map_err(unreadable)?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("the secret {name}, key {key}, is larger than a secret"));
        }
        let text = Secret::new(tokio::fs::read_to_string(&path).await.map_err(unreadable)?);
        // The end of line that editors add is not meant.
        let whole = text.expose();
        let value = whole.strip_suffix('\n').unwrap_or(whole);
        if value.contains('\0') {
            return Err(format!("the secret {name}, key {key}, holds NUL"));
        }
        Ok(Secret::new(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn references_are_followed_within_the_own_namespace() {
        let folder = tempfile::tempdir().unwrap();
        for (namespace, text) in [("shop", "mine\n"), ("other", "secret-of-others")] {
            let place = folder.path().join(namespace).join("db");
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("password"), text).unwrap();
        }
        let shop = "shop".parse().unwrap();
        let of = |name: &str, key: &str| EnvVar {
            name: "A".to_owned(),
            value: None,
            secret_ref: Some(SecretKeyRef { name: name.to_owned(), key: key.to_owned() }),
        };
        let plain = EnvVar { name: "B".to_owned(), value: Some("b".to_owned()), secret_ref: None };
        let secrets = Secrets::new(Some(folder.path().to_owned()), "process.secrets");

        let env = secrets.env(&shop, &[of("db", "password"), plain]).await.unwrap();

        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(env, [("A", "mine"), ("B", "b")]);
        for (name, key) in [
            ("..", "other"),
            ("db", "../../other/db/password"),
            ("db", "none"),
            ("db", "/etc/passwd"),
        ] {
            let failure = secrets.env(&shop, &[of(name, key)]).await.unwrap_err();
            assert!(!failure.message.contains("secret-of-others"), "{failure}");
        }
        let none = Secrets::new(None, "process.secrets");
        let failure = none.env(&shop, &[of("db", "password")]).await.unwrap_err();
        assert!(failure.message.contains("process.secrets"), "{failure}");
    }
}
