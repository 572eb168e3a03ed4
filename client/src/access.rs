//! Who may do what: who the caller is, API keys, and why a decision is as it is.

use std::time::Duration;

use weft_proto::resource::Verb;
use weft_proto::v1::access_client::AccessClient;
use weft_proto::{Error, Result, v1};

use crate::channels::Transport;
use crate::client::{Client, MESSAGE_BYTES_MAX, Repeat};
use crate::options::Secret;

/// Keys, and why a decision is as it is. Grants and limits are resources, see [`crate::Catalog`].
#[derive(Clone, Debug)]
pub struct Access {
    client: Client,
}

/// A key that was just made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What the cluster tells of it from now on.
    pub key: v1::Key,
    /// The key itself: it is here and nowhere else.
    pub secret: Secret,
}

impl Client {
    /// Who may do what in the cluster.
    pub fn access(&self) -> Access {
        Access { client: self.clone() }
    }
}

impl Access {
    /// Who the caller is, as grants name it, and whether the cluster asks at all.
    ///
    /// # Errors
    ///
    /// `Denied` when no or no valid credential is shown; `Unavailable`.
    pub async fn who_am_i(&self) -> Result<v1::WhoAmIResponse> {
        let who =
            |transport| async move { service(transport).who_am_i(v1::WhoAmIRequest {}).await };
        self.client.call(Repeat::Always, who).await
    }

    /// Makes a key. `name` is `name` or `namespace/name`: whoever shows the key is the principal
    /// `key:namespace/name`. It lasts so long, or, without, until it is revoked.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field; `Conflict` when the name has two keys, or the cluster asks for no
    /// credentials; `Denied`; `Unavailable`, and then a key that nobody knows may have been made:
    /// [`Access::list_keys`] shows it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the key back, and nobody will know it.
    pub async fn create_key(&self, name: &str, expires_in: Option<Duration>) -> Result<NewKey> {
        let seconds = match expires_in {
            Some(lasts) if lasts < Duration::from_secs(1) => {
                let message = "a key lasts at least one second";
                return Err(Error::invalid(message).with_field("expires_in_seconds"));
            }
            Some(lasts) => lasts.as_secs(),
            None => 0,
        };
        let request = v1::CreateKeyRequest { name: name.to_owned(), expires_in_seconds: seconds };
        let create = |transport| {
            let request = request.clone();
            async move { service(transport).create_key(request).await }
        };
        // A second attempt would make a second key.
        let response = self.client.call(Repeat::IfNotApplied, create).await?;
        self.client.saw_generation(response.catalog_generation);
        let secret = Secret::new(response.secret);
        let key = response.key.ok_or_else(|| Error::internal("the answer has no key"))?;
        Ok(NewKey { key, secret })
    }

    /// All keys of a namespace that the caller may see, by their principals, then by their age. An
    /// empty namespace means all of them.
    ///
    /// # Errors
    ///
    /// `Denied`; `Unavailable`.
    pub async fn list_keys(&self, namespace: &str) -> Result<Vec<v1::Key>> {
        let request = v1::ListKeysRequest { namespace: namespace.to_owned() };
        let list = |transport| {
            let request = request.clone();
            async move { service(transport).list_keys(request).await }
        };
        Ok(self.client.call(Repeat::Always, list).await?.keys)
    }

    /// Ends a key, named by its public part. Open calls that showed it end within a second.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is none, or none that the caller may see; `Unavailable`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the revocation back.
    pub async fn revoke_key(&self, id: &str) -> Result<()> {
        let request = v1::RevokeKeyRequest { id: id.to_owned() };
        let revoke = |transport| {
            let request = request.clone();
            async move { service(transport).revoke_key(request).await }
        };
        // After an attempt of unknown fate, a second one might report its own success as NotFound.
        let response = self.client.call(Repeat::IfNotApplied, revoke).await?;
        self.client.saw_generation(response.catalog_generation);
        Ok(())
    }

    /// Whether a principal may do something with a resource, and which grants say so. An empty
    /// principal is the caller; `groups` are those that an identity provider says it is in. The
    /// resource is `name` or `namespace/name`, and need not exist.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field; `Denied` when it is about somebody else and the caller does not
    /// govern the resource; `Unavailable`.
    pub async fn explain(
        &self,
        principal: &str,
        groups: &[String],
        verb: Verb,
        resource: &str,
    ) -> Result<v1::ExplainResponse> {
        let request = v1::ExplainRequest {
            principal: principal.to_owned(),
            groups: groups.to_vec(),
            verb: verb.as_str().to_owned(),
            resource: resource.to_owned(),
        };
        let explain = |transport| {
            let request = request.clone();
            async move { service(transport).explain(request).await }
        };
        self.client.call(Repeat::Always, explain).await
    }
}

fn service(transport: Transport) -> AccessClient<Transport> {
    AccessClient::new(transport).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
