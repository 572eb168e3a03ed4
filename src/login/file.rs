//! What `weft login` stores: where the cluster is, and what to show there. One file, for its owner
//! alone.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use weft_client::Secret;

/// What is stored.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    /// The only addresses that the credential is for.
    pub(crate) endpoints: Vec<String>,
    pub(crate) ca_file: Option<PathBuf>,
    /// Who the cluster said that it is, for people who look into the file.
    pub(crate) principal: String,
    pub(crate) credential: Secret,
}

/// The same as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    principal: String,
    credential: String,
}

impl Login {
    /// Reads the file; `None` when there is none. One that others may read is refused: what is in it
    /// may be known to them.
    pub(crate) fn load(path: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        let shown = path.display();
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        let mode = file.metadata()?.permissions().mode();
        if mode & 0o077 != 0 {
            bail!(
                "{shown} holds a credential, and others may read or change it; run: chmod 600 {shown}"
            );
        }
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| format!("cannot read {shown}"))?;
        let text = Secret::new(text);
        // What the parser says might show the line with the credential.
        let written: Written = toml::from_str(text.expose()).map_err(|_secret| {
            anyhow::anyhow!("{shown} is not usable; write it anew: weft login")
        })?;
        let Written { endpoints, ca_file, principal, credential } = written;
        Ok(Some(Self { endpoints, ca_file, principal, credential: Secret::new(credential) }))
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn store(self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().context("the login file is in no folder")?;
        let shown = path.display();
        let written = Written {
            endpoints: self.endpoints,
            ca_file: self.ca_file,
            principal: self.principal,
            credential: self.credential.expose().to_owned(),
        };
        let text = Secret::new(toml::to_string(&written)?);
        drop(Secret::new(written.credential));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o700)))
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        // Made for its owner alone.
        let mut file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("cannot write into {}", folder.display()))?;
        file.write_all(text.expose().as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .with_context(|| format!("cannot write {shown}"))?;
        file.persist(path).with_context(|| format!("cannot write {shown}"))?;
        Ok(())
    }

    /// Whether all these addresses are among those that it was made for.
    pub(crate) fn is_for(&self, endpoints: &[String]) -> bool {
        // Scheme and host know no case; nothing else is taken for the same.
        let plain = |text: &str| text.trim_end_matches('/').to_ascii_lowercase();
        let own: Vec<_> = self.endpoints.iter().map(|own| plain(own)).collect();
        !endpoints.is_empty() && endpoints.iter().all(|wanted| own.contains(&plain(wanted)))
    }
}

/// Removes the file; whether there was one.
pub(crate) fn remove(path: &Path) -> anyhow::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login {
            endpoints: vec!["https://a:1".to_owned()],
            ca_file: Some("/etc/ca.pem".into()),
            principal: "key:shop/a".to_owned(),
            credential: Secret::new("hunter2"),
        }
    }

    #[test]
    fn what_is_stored_is_for_its_owner_alone_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config/weft/login.toml");
        assert!(Login::load(Some(&path)).unwrap().is_none());
        assert!(Login::load(None).unwrap().is_none());

        login().store(&path).unwrap();
        login().store(&path).unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let found = Login::load(Some(&path)).unwrap().unwrap();
        assert_eq!((found.endpoints, found.ca_file), (login().endpoints, login().ca_file));
        assert_eq!(found.credential.expose(), "hunter2");
        assert!(!format!("{:?}", login()).contains("hunter2"));
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
    }

    #[test]
    fn one_that_others_may_read_is_refused_with_the_command_that_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("login.toml");
        login().store(&path).unwrap();
        for mode in [0o640, 0o604, 0o622] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = Login::load(Some(&path)).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
    }

    #[test]
    fn a_damaged_file_does_not_show_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("login.toml");
        for text in
            ["credential = \"hunter2\"\n", "credential = hunter2", "credential = [\"hunter2\"]"]
        {
            login().store(&path).unwrap();
            fs::write(&path, text).unwrap();
            let error = Login::load(Some(&path)).unwrap_err();
            assert!(error.to_string().contains("weft login"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
