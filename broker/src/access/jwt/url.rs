//! Addresses that keys may be fetched from: `https`, or `http` that does not leave this machine.

use std::net::IpAddr;

use hyper::Uri;

const URL_LEN_MAX: usize = 1_024;

/// An address that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// Plain text, and only to loopback.
    pub(super) is_plain: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port as in the header `host`.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
}

impl Url {
    /// The address of an issuer.
    pub(super) fn issuer(text: &str) -> Result<Self, &'static str> {
        let url = Self::parse(text)?;
        if text.contains('?') {
            return Err("has a query");
        }
        Ok(url)
    }

    /// Where the issuer describes itself, by `OpenID` Connect Discovery 1.0, section 4.
    pub(super) fn discovery(&self) -> Self {
        let path = self.path.trim_end_matches('/');
        Self { path: format!("{path}/.well-known/openid-configuration"), ..self.clone() }
    }

    /// An address that the issuer names. Only an issuer on this machine may name one on this
    /// machine in plain text.
    pub(super) fn named_by(issuer: &Self, text: &str) -> Result<Self, &'static str> {
        let url = Self::parse(text)?;
        if url.is_plain && !issuer.is_plain { Err("is not https") } else { Ok(url) }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > URL_LEN_MAX {
            return Err("is too long");
        }
        // The parser drops fragments.
        if text.contains('#') {
            return Err("has a fragment");
        }
        let uri: Uri = text.parse().map_err(|_error| "is no address")?;
        let authority = uri.authority().ok_or("is no address")?;
        if authority.as_str().contains('@') {
            return Err("has a user name");
        }
        let is_plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err("is not https"),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("has no host");
        }
        if is_plain && !is_loopback(&host) {
            return Err("is not https, and not on loopback");
        }
        // The parser takes a port that is none for the default one.
        let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or(":") {
            "" if is_plain => 80,
            "" => 443,
            port => {
                let port = port.strip_prefix(':').unwrap_or(port);
                let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
                let number = port.parse().ok().filter(|&number| is_number && number > 0);
                number.ok_or("has no usable port")?
            }
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { is_plain, host, port, authority: authority.as_str().to_owned(), path })
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_addresses() {
        for good in [
            "https://id.example",
            "https://id.example:8443/realms/a",
            "https://10.0.0.1/",
            "https://[2001:db8::1]:443/",
            "http://127.0.0.1:1",
            "http://localhost/x",
            "http://[::1]:80/",
        ] {
            assert!(Url::issuer(good).is_ok(), "{good}");
        }
        for (wrong, why) in [
            ("", "is no address"),
            ("id.example", "is not https"),
            ("/jwks", "is no address"),
            ("file:///etc/passwd", "is no address"),
            ("ftp://id.example/", "is not https"),
            ("http://id.example/", "is not https, and not on loopback"),
            ("http://10.0.0.1/", "is not https, and not on loopback"),
            ("http://localhost.example/", "is not https, and not on loopback"),
            ("http://127.0.0.1@id.example/", "has a user name"),
            ("https://a:b@id.example/", "has a user name"),
            ("https://id.example/#a", "has a fragment"),
            ("https://id.example/?a", "has a query"),
            ("https://id.example:/", "has no usable port"),
            ("https://id.example:0/", "has no usable port"),
            ("https://id.example:99999/", "has no usable port"),
            ("https://id.example:+1/", "has no usable port"),
            ("https://id.example/ x", "is no address"),
            ("https://id.example/\r\nx: y", "is no address"),
        ] {
            assert_eq!(Url::issuer(wrong).map(|_| ()), Err(why), "{wrong}");
        }
        let long = format!("https://id.example/{}", "a".repeat(URL_LEN_MAX));
        assert_eq!(Url::issuer(&long), Err("is too long"));
    }

    #[test]
    fn an_issuer_describes_itself_below_its_path() {
        for (issuer, at) in [
            ("https://a", "/.well-known/openid-configuration"),
            ("https://a/", "/.well-known/openid-configuration"),
            ("https://a/b", "/b/.well-known/openid-configuration"),
            ("https://a/b/", "/b/.well-known/openid-configuration"),
        ] {
            assert_eq!(Url::issuer(issuer).unwrap().discovery().path, at);
        }
    }

    #[test]
    fn an_issuer_elsewhere_cannot_name_this_machine_in_plain_text() {
        let (here, there) =
            (Url::issuer("http://localhost:1").unwrap(), Url::issuer("https://a").unwrap());

        assert!(Url::named_by(&here, "http://127.0.0.1:2/keys?v=1").is_ok());
        assert!(Url::named_by(&there, "https://keys.example/?v=1").is_ok());
        assert_eq!(Url::named_by(&there, "http://127.0.0.1:2/keys"), Err("is not https"));
        assert!(Url::named_by(&here, "http://10.0.0.1/keys").is_err());
    }
}
