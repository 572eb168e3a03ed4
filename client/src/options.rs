//! How to reach a cluster, and how long to try.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

/// How to reach a cluster.
///
/// # Examples
///
/// ```
/// use weft_client::Options;
///
/// let options = Options::new(["http://127.0.0.1:7401", "http://127.0.0.1:7402"]);
/// assert_eq!(options.endpoints.len(), 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Client addresses of any nodes: `http://host:port`, or `https://host:port` for TLS. A bare
    /// `host:port` means `https` when `tls` is given, else `http`. They are tried in this order.
    pub endpoints: Vec<String>,
    /// Bearer token that goes with every call.
    pub token: Option<Secret>,
    /// File with the token; instead of `token`. When it is replaced, later calls show what it holds
    /// then, see [`crate::Credential::file`]: a long-running program takes up a new key by itself.
    pub token_file: Option<PathBuf>,
    /// Certificates for `https` endpoints.
    pub tls: Option<Tls>,
    /// How long to try.
    pub timeouts: Timeouts,
}

impl Options {
    /// Options for these endpoints, without credentials.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// Certificates for `https` endpoints, as the text of PEM files.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Authorities to trust. Required: no authority of the system is trusted on its own.
    pub ca_pem: String,
    /// Certificate, with its chain, and private key of this client, where the cluster asks for one.
    /// Read once: for another certificate, make another [`crate::Client`].
    pub identity_pem: Option<(String, Secret)>,
    /// Name to expect in the server's certificate, if it is not the endpoint's host.
    pub server_name: Option<String>,
}

/// How long to try.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For one connection to be made.
    pub connect: Duration,
    /// For one attempt of a call to be answered; then another node is asked.
    pub attempt: Duration,
    /// For a call with all its attempts.
    pub call: Duration,
    /// For a publish with all its attempts; then its fate is reported as unknown.
    pub publish: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            attempt: Duration::from_secs(5),
            call: Duration::from_secs(20),
            publish: Duration::from_mins(1),
        }
    }
}

/// A text that is never shown by accident, and overwritten in memory when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Hides the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for whoever must pass it on. Neither log it nor put it into an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_token_and_the_key() {
        let secret = || Secret::new("hunter2");
        let tls = Tls { identity_pem: Some((String::new(), secret())), ..Tls::default() };
        let options =
            Options { token: Some(secret()), tls: Some(tls), ..Options::new(["http://a:1"]) };

        assert!(!format!("{options:?}").contains("hunter2"));
        assert_eq!(secret().expose(), "hunter2");
    }
}
