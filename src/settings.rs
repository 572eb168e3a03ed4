//! How the command line reaches a cluster: flags, else the environment, else what `weft login`
//! stored. The only reader of the environment.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use weft_client::{Client, Options, Secret, Tls};

use crate::login::Login;

/// Where `weft broker` listens when its configuration says nothing.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7400";
const DEFAULT_TLS_ENDPOINT: &str = "https://127.0.0.1:7400";

/// How to reach the cluster.
#[expect(clippy::doc_markdown, reason = "the command line shows these comments as they are")]
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
pub(crate) struct Connection {
    /// Client address of a node; several, by commas or by repetition, for the case that one is
    /// down. Default: $WEFT_ENDPOINT, else that of weft login, else http://127.0.0.1:7400
    #[arg(
        long,
        global = true,
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Connection"
    )]
    endpoint: Vec<String>,

    /// File with the key or token to show; read again when it is replaced. Default:
    /// $WEFT_TOKEN_FILE, else the token in $WEFT_TOKEN, else that of weft login for its endpoint
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    token_file: Option<PathBuf>,

    /// File with the certificates (PEM) of the authorities to trust; needed for https endpoints.
    /// Default: $WEFT_CA_FILE, else that of weft login
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    ca_file: Option<PathBuf>,

    /// File with the certificate (PEM) to show to nodes that ask for one. Default: $WEFT_CERT_FILE
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    cert_file: Option<PathBuf>,

    /// File with the private key (PEM) of the certificate. Default: $WEFT_KEY_FILE
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    key_file: Option<PathBuf>,
}

/// What a command shows to say who calls.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    Nothing,
    File(PathBuf),
    /// The token in the environment.
    Variable(Secret),
    /// What `weft login` stored for these endpoints.
    Login(Secret),
}

/// What counts, after all that was said.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) endpoints: Vec<String>,
    pub(crate) shown: Shown,
    pub(crate) ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Connection {
    /// The addresses to try, in this order; none when the settings are unusable.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.settled().map(|settled| settled.endpoints).unwrap_or_default()
    }

    /// What counts for a command.
    pub(crate) fn settled(&self) -> anyhow::Result<Settled> {
        self.settle(&variable, || Login::load(login_file().as_deref()))
    }

    /// What counts for `weft login`: what is stored already tells only where the cluster is.
    pub(crate) fn settled_for_login(&self) -> anyhow::Result<Settled> {
        let stored = || Ok(Login::load(login_file().as_deref()).ok().flatten());
        let settled = self.settle(&variable, stored)?;
        let shown = self.token_file.clone().map_or(Shown::Nothing, Shown::File);
        Ok(Settled { shown, ..settled })
    }

    /// A handle to the cluster. Connects later, when something is asked.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.settled()?.options()?)?)
    }

    /// How to reach the cluster at addresses that were given in another way.
    pub(crate) fn options_of(&self, endpoints: Vec<String>) -> anyhow::Result<Options> {
        Self { endpoint: endpoints, ..self.clone() }.settled()?.options()
    }

    /// Weighs what was said. The login is read only if it may matter.
    fn settle(
        &self,
        variable: Lookup<'_>,
        login: impl FnOnce() -> anyhow::Result<Option<Login>>,
    ) -> anyhow::Result<Settled> {
        let file = |flag: &Option<PathBuf>, name| {
            flag.clone().or_else(|| variable(name).map(PathBuf::from))
        };
        let list = |text: String| text.split(',').map(|part| part.trim().to_owned()).collect();
        let given: Option<Vec<String>> = match self.endpoint.as_slice() {
            [] => variable("WEFT_ENDPOINT").map(list),
            endpoints => Some(endpoints.to_vec()),
        };
        let shown = match (&self.token_file, variable("WEFT_TOKEN_FILE"), variable("WEFT_TOKEN")) {
            (Some(path), ..) => Some(Shown::File(path.clone())),
            (None, Some(_), Some(_)) => {
                bail!("WEFT_TOKEN_FILE and WEFT_TOKEN are both set: unset one of them")
            }
            (None, Some(path), None) => Some(Shown::File(path.into())),
            (None, None, Some(token)) => Some(Shown::Variable(Secret::new(token))),
            (None, None, None) => None,
        };
        let login = if given.is_some() && shown.is_some() { None } else { login()? };
        // What was stored for one place is of no use at another, and none of its business.
        let login = login.filter(|login| given.as_ref().is_none_or(|given| login.is_for(given)));
        let (stored, stored_ca, credential) = match login {
            Some(Login { endpoints, ca_file, credential, .. }) => {
                (Some(endpoints), ca_file, Some(credential))
            }
            None => (None, None, None),
        };
        let ca_file = file(&self.ca_file, "WEFT_CA_FILE").or(stored_ca);
        let usual = if ca_file.is_some() { DEFAULT_TLS_ENDPOINT } else { DEFAULT_ENDPOINT };
        Ok(Settled {
            endpoints: given.or(stored).unwrap_or_else(|| vec![usual.to_owned()]),
            shown: shown.or_else(|| credential.map(Shown::Login)).unwrap_or(Shown::Nothing),
            ca_file,
            cert_file: file(&self.cert_file, "WEFT_CERT_FILE"),
            key_file: file(&self.key_file, "WEFT_KEY_FILE"),
        })
    }
}

impl Settled {
    /// The same for the client library.
    pub(crate) fn options(&self) -> anyhow::Result<Options> {
        let (token, token_file) = match &self.shown {
            Shown::Nothing => (None, None),
            Shown::File(path) => (None, Some(path.clone())),
            Shown::Variable(secret) | Shown::Login(secret) => (Some(secret.clone()), None),
        };
        let identity_pem = match (&self.cert_file, &self.key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((read(certificate)?, Secret::new(read(key)?))),
            (Some(_), None) => bail!("a certificate is given without its key: add --key-file FILE"),
            (None, Some(_)) => {
                bail!("a key is given without its certificate: add --cert-file FILE")
            }
        };
        let tls = match (&self.ca_file, identity_pem) {
            (Some(path), identity_pem) => {
                Some(Tls { ca_pem: read(path)?, identity_pem, server_name: None })
            }
            (None, Some(_)) => {
                bail!("a certificate is shown to nodes that are trusted: add --ca-file FILE")
            }
            (None, None) => None,
        };
        Ok(Options { token, token_file, tls, ..Options::new(self.endpoints.clone()) })
    }
}

/// Where `weft login` stores what other commands use.
pub(crate) fn login_file() -> Option<PathBuf> {
    login_file_of(&variable)
}

fn login_file_of(variable: Lookup<'_>) -> Option<PathBuf> {
    // Relative paths are to be ignored, says the specification of base directories.
    let absolute = |text: String| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let folder = variable("XDG_CONFIG_HOME").and_then(absolute).or_else(|| {
        let home = variable("HOME").and_then(absolute)?;
        Some(home.join(".config"))
    });
    Some(folder?.join("weft").join("login.toml"))
}

/// A variable that says something.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the environment")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as the file is read")]
    fn login() -> anyhow::Result<Option<Login>> {
        Ok(Some(Login {
            endpoints: vec!["https://a:1".to_owned(), "https://b:1".to_owned()],
            ca_file: Some("stored-ca".into()),
            principal: "key:shop/a".to_owned(),
            credential: Secret::new("stored"),
        }))
    }

    /// Endpoints, authority and what is shown, by the flags and the environment given.
    fn settled(endpoint: &[&str], token_file: Option<&str>, set: &[(&str, &str)]) -> String {
        let connection = Connection {
            endpoint: endpoint.iter().map(|&endpoint| endpoint.to_owned()).collect(),
            token_file: token_file.map(PathBuf::from),
            ..Connection::default()
        };
        let variable = |wanted: &str| {
            set.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        };
        let settled = connection.settle(&variable, login).unwrap();
        let shown = match settled.shown {
            Shown::Nothing => "nothing".to_owned(),
            Shown::File(path) => format!("file {}", path.display()),
            Shown::Variable(secret) => format!("variable {}", secret.expose()),
            Shown::Login(secret) => format!("login {}", secret.expose()),
        };
        let ca = settled.ca_file.unwrap_or_default();
        format!("{} | {} | {shown}", settled.endpoints.join(","), ca.display())
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_login() {
        let stored = "https://a:1,https://b:1 | stored-ca";
        for (endpoint, token_file, set, expected) in [
            (&[][..], None, &[][..], format!("{stored} | login stored")),
            (&[], None, &[("WEFT_TOKEN", "t")], format!("{stored} | variable t")),
            (&[], None, &[("WEFT_TOKEN_FILE", "f")], format!("{stored} | file f")),
            (&[], Some("flag"), &[("WEFT_TOKEN", "t")], format!("{stored} | file flag")),
            (
                &[],
                None,
                &[("WEFT_CA_FILE", "c")],
                "https://a:1,https://b:1 | c | login stored".into(),
            ),
            (&["h:1"], None, &[("WEFT_ENDPOINT", "e:1")], "h:1 |  | nothing".into()),
            (&[], Some("f"), &[("WEFT_ENDPOINT", "e:1, e:2")], "e:1,e:2 |  | file f".into()),
        ] {
            assert_eq!(settled(endpoint, token_file, set), expected, "{set:?}");
        }
    }

    #[test]
    fn a_stored_credential_goes_to_no_other_endpoint_than_its_own() {
        for own in ["https://a:1", "https://b:1/", "HTTPS://A:1"] {
            let expected = format!("{own} | stored-ca | login stored");
            assert_eq!(settled(&[own], None, &[]), expected);
        }
        for other in [
            &["https://c:1"][..],
            &["https://a:1", "https://c:1"],
            &["http://a:1"],
            &["a:1"],
            &["https://a:11"],
            &["https://a"],
            &["https://a:1.example"],
            &["https://a:1@c:1"],
        ] {
            let expected = format!("{} |  | nothing", other.join(","));
            assert_eq!(settled(other, None, &[]), expected);
            let set = [("WEFT_ENDPOINT", &*other.join(","))];
            assert_eq!(settled(&[], None, &set), expected);
        }
    }

    #[test]
    fn two_tokens_in_the_environment_are_one_too_many() {
        let variable = |name: &str| name.starts_with("WEFT_TOKEN").then(|| "x".to_owned());
        assert!(Connection::default().settle(&variable, login).is_err());
    }

    #[test]
    fn the_file_is_where_the_base_directories_say() {
        let file = |set: &[(&str, &str)]| {
            let variable = |wanted: &str| {
                set.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
            };
            login_file_of(&variable).unwrap_or_default().display().to_string()
        };
        assert_eq!(file(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")]), "/c/weft/login.toml");
        assert_eq!(file(&[("HOME", "/h")]), "/h/.config/weft/login.toml");
        assert_eq!(file(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "c")]), "/h/.config/weft/login.toml");
        assert_eq!(file(&[]), "");
    }
}
