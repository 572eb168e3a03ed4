//! What an operator says of the issuers of tokens.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::url::Url;
use crate::config::ConfigError;

const LEEWAY_S_MAX: u64 = 300;
const NAME_LEN_MAX: usize = 63;
const AUDIENCE_LEN_MAX: usize = 1_024;

/// An identity provider whose tokens are accepted: one `[[access.issuers]]`.
///
/// Addresses come from here and from the issuer's own description only, never from a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// A short name, `[a-z0-9-]{1,63}`; it stands before the subject in the names of callers.
    pub name: String,
    /// The issuer exactly as in its tokens' `iss`: `https`, or `http` on loopback.
    pub url: String,
    /// What its tokens must have in `aud`: the name of this cluster at the provider.
    pub audience: String,
    /// The signature algorithms that it may use; `none` and HMAC can never be among them.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// The claim that lists the groups of a caller; none are read without.
    #[serde(default)]
    pub groups_claim: Option<String>,
    /// File with the authorities that may vouch for the provider, in PEM; needed with `https`. No
    /// authority of the system is trusted on its own.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// By how much the clocks may differ, in seconds, at most 300.
    #[serde(default = "leeway_s")]
    pub leeway_s: u64,
    /// File with the keys (a JWKS) for places without a network: nothing is fetched then, and the
    /// file is read again every few minutes.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
}

fn leeway_s() -> u64 {
    30
}

impl IssuerConfig {
    /// An issuer with the default for everything that can be left out.
    pub fn new(name: &str, url: &str, audience: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            audience: audience.to_owned(),
            algorithms: algorithms(),
            groups_claim: None,
            ca_file: None,
            leeway_s: leeway_s(),
            jwks_file: None,
        }
    }

    /// Checks everything that can be checked without touching the machine.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, problem: String| Err(ConfigError { key, problem });
        let name = &self.name;
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(is_name) {
            let problem = format!("{name:?} is not of the form [a-z0-9-]{{1,{NAME_LEN_MAX}}}");
            return refuse("access.issuers.name", problem);
        }
        let url = match Url::issuer(&self.url) {
            Ok(url) => url,
            Err(problem) => {
                return refuse("access.issuers.url", format!("{:?} {problem}", self.url));
            }
        };
        if self.audience.is_empty() || self.audience.len() > AUDIENCE_LEN_MAX {
            let problem = format!("of {name} has not 1 to {AUDIENCE_LEN_MAX} characters");
            return refuse("access.issuers.audience", problem);
        }
        if self.algorithms.is_empty() {
            return refuse("access.issuers.algorithms", format!("of {name} is empty"));
        }
        if self.groups_claim.as_ref().is_some_and(String::is_empty) {
            return refuse("access.issuers.groups_claim", format!("of {name} is empty"));
        }
        if self.leeway_s > LEEWAY_S_MAX {
            let problem = format!("{} is not in 0..={LEEWAY_S_MAX}", self.leeway_s);
            return refuse("access.issuers.leeway_s", problem);
        }
        let needs_ca = !url.is_plain && self.jwks_file.is_none();
        if needs_ca && self.ca_file.is_none() {
            let problem = format!(
                "{name} needs the authorities that may vouch for it, for example \
                 /etc/ssl/certs/ca-certificates.crt, or a jwks_file"
            );
            return refuse("access.issuers.ca_file", problem);
        }
        if !needs_ca && self.ca_file.is_some() {
            let problem = format!("nothing is fetched from {name} that it could vouch for");
            return refuse("access.issuers.ca_file", problem);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        issuers: Vec<IssuerConfig>,
    }

    fn read(text: &str) -> Result<IssuerConfig, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        Ok(file.issuers.into_iter().next().unwrap())
    }

    #[test]
    fn what_is_left_out_has_a_safe_default() {
        let config = read(
            "[[issuers]]\nname = \"staff\"\nurl = \"http://localhost:1\"\naudience = \"weft\"\n",
        )
        .unwrap();

        assert_eq!(config, IssuerConfig::new("staff", "http://localhost:1", "weft"));
        assert!(config.check().is_ok());
        assert_eq!(config.leeway_s, 30);
        assert_eq!(config.algorithms, [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]);
    }

    #[test]
    fn algorithms_with_a_shared_secret_cannot_be_written() {
        for name in ["none", "None", "HS256", "HS512", "ES256K", "RSA1_5", "rs256", "dir", ""] {
            let text = format!(
                "[[issuers]]\nname = \"a\"\nurl = \"http://localhost:1\"\naudience = \"weft\"\n\
                 algorithms = [\"RS256\", \"{name}\"]\n"
            );
            assert!(read(&text).unwrap_err().contains("unknown variant"), "{name}");
        }
        let text =
            "[[issuers]]\nname = \"a\"\nurl = \"b\"\naudience = \"c\"\nalgorithm = \"ES256\"";
        assert!(read(text).unwrap_err().contains("unknown field"));
    }

    #[test]
    fn each_wrong_value_names_its_key() {
        let key_of = |change: fn(&mut IssuerConfig)| {
            let mut config = IssuerConfig::new("a", "https://id.example", "weft");
            config.ca_file = Some("ca.pem".into());
            change(&mut config);
            config.check().err().map(|error| error.key)
        };

        assert_eq!(key_of(|_| {}), None);
        assert_eq!(key_of(|c| c.name = String::new()), Some("access.issuers.name"));
        assert_eq!(key_of(|c| c.name = "a:b".to_owned()), Some("access.issuers.name"));
        assert_eq!(key_of(|c| c.name = "A".to_owned()), Some("access.issuers.name"));
        assert_eq!(key_of(|c| c.name = "a".repeat(64)), Some("access.issuers.name"));
        assert_eq!(key_of(|c| c.url = "http://id.example".to_owned()), Some("access.issuers.url"));
        assert_eq!(key_of(|c| c.audience = String::new()), Some("access.issuers.audience"));
        assert_eq!(key_of(|c| c.algorithms = vec![]), Some("access.issuers.algorithms"));
        let empty = |c: &mut IssuerConfig| c.groups_claim = Some(String::new());
        assert_eq!(key_of(empty), Some("access.issuers.groups_claim"));
        assert_eq!(key_of(|c| c.leeway_s = 301), Some("access.issuers.leeway_s"));
        assert_eq!(key_of(|c| c.ca_file = None), Some("access.issuers.ca_file"));
        assert_eq!(key_of(|c| c.jwks_file = Some("k".into())), Some("access.issuers.ca_file"));
    }
}
