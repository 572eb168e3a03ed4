//! The credential of a call: one bearer token, from a file.

use std::fmt;
use std::sync::Arc;

use tonic::service::Interceptor;
use tonic::{Request, Status};
use weft_proto::{Error, Principal, Reason};

/// What callers must show; nothing on a listener that only this machine can reach.
#[derive(Clone, Default)]
pub struct Credential {
    token: Option<Arc<str>>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token itself never gets into a log.
        let token = if self.token.is_some() { "required" } else { "none" };
        f.debug_struct("Credential").field("token", &token).finish()
    }
}

impl Credential {
    /// Callers must send this token.
    pub fn token(token: &str) -> Self {
        Self { token: Some(token.into()) }
    }

    fn check(&self, request: &Request<()>) -> Result<Principal, Error> {
        let header = request.metadata().get("authorization");
        self.check_header(header.and_then(|value| value.to_str().ok()))
    }

    /// Says who shows this value of the header `authorization`.
    ///
    /// # Errors
    ///
    /// `Unauthenticated`.
    pub fn check_header(&self, header: Option<&str>) -> Result<Principal, Error> {
        let Some(wanted) = &self.token else { return Ok(Principal::anonymous()) };
        let given = header.and_then(|header| {
            let (scheme, token) = header.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        match given {
            Some(given) if is_same(given.as_bytes(), wanted.as_bytes()) => {
                Ok(Principal::new("token"))
            }
            Some(_) => Err(Error::new(Reason::Unauthenticated, "the token is not valid")),
            None => {
                let message = "a token is needed: send it as `authorization: Bearer TOKEN`";
                Err(Error::new(Reason::Unauthenticated, message))
            }
        }
    }
}

/// Takes the same time wherever the first difference is.
fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    let differences = given.iter().zip(wanted).fold(0_u8, |sum, (one, other)| sum | (one ^ other));
    differences == 0 && given.len() == wanted.len()
}

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let principal = self.check(&request)?;
        request.extensions_mut().insert(principal);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(credential: &Credential, header: Option<&str>) -> bool {
        let mut request = Request::new(());
        if let Some(header) = header {
            request.metadata_mut().insert("authorization", header.parse().unwrap());
        }
        credential.check(&request).is_ok()
    }

    #[test]
    fn only_the_token_opens() {
        let credential = Credential::token("secret");

        assert!(call(&credential, Some("Bearer secret")));
        assert!(call(&credential, Some("bearer secret")));
        for wrong in [
            None,
            Some("Bearer secre"),
            Some("Bearer secrets"),
            Some("Basic secret"),
            Some("Bearer "),
        ] {
            assert!(!call(&credential, wrong), "{wrong:?}");
        }
        assert!(call(&Credential::default(), None));
        assert!(!format!("{credential:?}").contains("secret"));
    }
}
