//! Addresses of webhooks: one way to write each, so that no two parsers can disagree about where it leads.
//!
//! What browsers forgive is refused: numbers for addresses (`2130706433`, `0x7f.1`, `127.1`), escapes
//! and spaces in hosts, backslashes, user names, fragments.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Longest address.
const URL_BYTES_MAX: usize = 2_048;
/// Longest name in DNS, and its longest part.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Where events are sent: `https`, or `http` to a host that is by its name on this machine or in a
/// private network (whether that is allowed, the dispatcher's operator says).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebhookUrl {
    text: String,
    is_plain: bool,
    host: Host,
    port: u16,
    /// Of the path in `text`.
    path_at: usize,
}

/// Whom an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name to be resolved, in lower case.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl WebhookUrl {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > URL_BYTES_MAX {
            return Err("is too long");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has characters that must be percent-encoded");
        }
        if text.bytes().any(|byte| {
            matches!(byte, b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
        }) {
            return Err("has characters that must be percent-encoded");
        }
        if text.contains('#') {
            return Err("has a fragment");
        }
        let (scheme, rest) = text.split_once("://").ok_or("is not https://HOST/PATH")?;
        let is_plain = match scheme {
            "https" => false,
            "http" => true,
            _ => return Err("is not https"),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("has a user name");
        }
        if path.starts_with('?') {
            return Err("has a query and no path: write / before the ?");
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None if is_plain => 80,
            None => 443,
            Some(port) => number(port)?,
        };
        let host = Host::parse(host)?;
        if is_plain && !host.is_near() {
            return Err("is not https");
        }
        Ok(Self { text: text.to_owned(), is_plain, host, port, path_at: text.len() - path.len() })
    }

    /// Whether it is `http`.
    pub const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whom it names.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port, also where none is written.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as in the header `host`.
    pub fn authority(&self) -> &str {
        let authority = self.text.get(..self.path_at).unwrap_or_default();
        authority.split_once("://").map_or(authority, |(_, authority)| authority)
    }

    /// Path and query, as in the first line of a request.
    pub fn path(&self) -> &str {
        match self.text.get(self.path_at..) {
            Some("") | None => "/",
            Some(path) => path,
        }
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (_, after) = rest.split_once(']').ok_or("has no usable host")?;
        let host = authority.get(..authority.len() - after.len()).unwrap_or_default();
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err("has no usable host"),
        };
    }
    Ok(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

/// A port has one way to be written as well.
fn number(text: &str) -> Result<u16, &'static str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain).ok_or("has no usable port")
}

impl Host {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').unwrap_or(inner);
            // No zone (`%eth0`): it would name an interface of the dispatcher's host.
            let address = inner.parse::<Ipv6Addr>().map_err(|_error| "has no usable host")?;
            return Ok(Self::Address(IpAddr::V6(address)));
        }
        let last = text.rsplit('.').next().unwrap_or_default();
        // The rule of browsers: a host that ends in a number is an address. Ours: in its usual form.
        let digits = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
        let is_hex = digits.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if is_hex || !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
            let address = text.parse::<Ipv4Addr>();
            return address
                .map(|address| Self::Address(IpAddr::V4(address)))
                .map_err(|_error| "has an address that is not written as usual");
        }
        let is_label = |label: &str| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() > NAME_BYTES_MAX || !text.split('.').all(is_label) {
            return Err("has no usable host");
        }
        Ok(Self::Name(text.to_ascii_lowercase()))
    }

    /// Whether it is by its name on this machine or in a private network.
    fn is_near(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Self::Address(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
            Self::Address(IpAddr::V6(address)) => {
                address.is_loopback() || address.is_unique_local()
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for WebhookUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|problem| format!("the address of a webhook {problem}"))
    }
}

impl From<WebhookUrl> for String {
    fn from(url: WebhookUrl) -> Self {
        url.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_found() {
        for (text, host, port, authority, path) in [
            ("https://h.example", "h.example", 443, "h.example", "/"),
            ("https://H.Example/", "h.example", 443, "H.Example", "/"),
            ("https://h.example:8443/a/b?c=d&e", "h.example", 8443, "h.example:8443", "/a/b?c=d&e"),
            ("https://192.0.2.7/x", "192.0.2.7", 443, "192.0.2.7", "/x"),
            ("https://[2001:db8::1]:8443/x", "2001:db8::1", 8443, "[2001:db8::1]:8443", "/x"),
            ("https://a_b.example/?q", "a_b.example", 443, "a_b.example", "/?q"),
            ("http://127.0.0.1:8080/x", "127.0.0.1", 8080, "127.0.0.1:8080", "/x"),
            ("http://localhost/x", "localhost", 80, "localhost", "/x"),
            ("http://10.1.2.3/", "10.1.2.3", 80, "10.1.2.3", "/"),
        ] {
            let url = WebhookUrl::parse(text).unwrap();
            let found = (url.host().to_string(), url.port(), url.authority(), url.path());
            assert_eq!(found, (host.to_owned(), port, authority, path), "{text}");
            assert_eq!(String::from(url), text);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, problem) in [
            ("http://h.example/", "is not https"),
            ("http://192.0.2.7/", "is not https"),
            ("ftp://h.example/", "is not https"),
            ("h.example", "is not https://HOST/PATH"),
            ("https://u@h.example/", "has a user name"),
            ("https://h.example/#f", "has a fragment"),
            ("https://h.example?q", "has a query and no path: write / before the ?"),
            ("https://h.example:0/", "has no usable port"),
            ("https:///x", "has no usable host"),
            ("https://127.1/", "has an address that is not written as usual"),
        ] {
            assert_eq!(WebhookUrl::parse(text), Err(problem), "{text}");
        }
        let long = format!("https://h.example/{}", "a".repeat(URL_BYTES_MAX));
        assert_eq!(WebhookUrl::parse(&long), Err("is too long"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics_and_what_is_taken_is_one_line_of_a_request(
            text in "https?://[a-z0-9.:%@\\[\\]/?#\\\\ -]{0,40}",
        ) {
            if let Ok(url) = WebhookUrl::parse(&text) {
                prop_assert!(url.path().starts_with('/'));
                prop_assert!(!url.authority().contains(['/', '?', '@', '#', '%', ' ']));
                prop_assert_eq!(url.to_string(), text);
            }
        }
    }
}
