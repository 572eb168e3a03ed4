//! `weft.v1.Access`: keys, and why a decision is as it is.

use std::time::Duration;

use tonic::{Request, Response, Status};
use weft_proto::internal::catalog_command::Change;
use weft_proto::resource::{Verb, check_principal};
use weft_proto::v1::access_server::Access as Api;
use weft_proto::{Error, Principal, QualifiedName, Reason, Result, Timestamp, internal, v1};

use super::caller_of;
use crate::access::{Caller, Decision, authorize, key};
use crate::clock;
use crate::resources::Resources;

/// A key that outlives this is one that nobody rotates.
const EXPIRES_MAX: Duration = Duration::from_hours(10 * 366 * 24);

/// The service.
#[derive(Clone, Debug)]
pub struct Service {
    resources: Resources,
    cluster_uid: String,
}

impl Service {
    /// The service over this node's catalog.
    pub fn new(resources: Resources, cluster_uid: String) -> Self {
        Self { resources, cluster_uid }
    }

    async fn create(
        &self,
        caller: &Caller,
        request: v1::CreateKeyRequest,
    ) -> Result<v1::CreateKeyResponse> {
        let name = named(&request.name, "name")?;
        authorize(caller, Verb::Govern, &name)?;
        if !caller.access().is_enforced() {
            let message = "this cluster asks for no credentials: set `access.enforced = true` on \
                           its nodes first";
            return Err(Error::new(Reason::FailedPrecondition, message));
        }
        let rules = caller.access().rules();
        let Some(hasher) = rules.hasher() else {
            // Somebody came by the configuration of this node before there was a key.
            let message = "the first key of this cluster is not made yet";
            let error = Error::unavailable(message).with_not_applied();
            return Err(error.with_retry_after(Duration::from_millis(100)));
        };
        let lasts = Duration::from_secs(request.expires_in_seconds);
        if lasts > EXPIRES_MAX {
            let message = "a key lasts 10 years at most";
            return Err(Error::invalid(message).with_field("expires_in_seconds"));
        }
        let micros = u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX);
        let expires = clock::now().as_micros().saturating_add(micros);
        let (id, secret) = key::generate()?;
        let key = internal::CatalogKey {
            id: id.to_string(),
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            hash: hasher.hash(&secret).into(),
            created_us: 0,
            expires_us: if lasts.is_zero() { 0 } else { expires },
            created_by: caller.principal().to_string(),
        };
        caller.act("create-key", format!("{} for key:{name}", key.id)).await?;
        let add = internal::CatalogAddKey { key: Some(key) };
        let reply = self.resources.change(caller.principal(), Change::AddKey(add)).await?;
        reply.outcome.map_err(Error::from_refusal)?;
        let stored = self.resources.snapshot().key(id.as_str()).map(key_out);
        Ok(v1::CreateKeyResponse { key: stored, secret, catalog_generation: reply.generation })
    }

    async fn revoke(
        &self,
        caller: &Caller,
        request: v1::RevokeKeyRequest,
    ) -> Result<v1::RevokeKeyResponse> {
        let unknown = || {
            let message = format!("there is no key {:?}", request.id);
            Error::new(Reason::UnknownResource, message).with_field("id")
        };
        let stored = self.resources.snapshot().key(&request.id).cloned().ok_or_else(unknown)?;
        // Whoever may not govern its namespace is told the same as for one that is not there.
        let name = named(&format!("{}/{}", stored.namespace, stored.name), "id")?;
        authorize(caller, Verb::Govern, &name).map_err(|_denied| unknown())?;
        caller.act("revoke-key", format!("{} of key:{name}", request.id)).await?;
        let revoke = internal::CatalogRevokeKey { id: request.id };
        let reply = self.resources.change(caller.principal(), Change::RevokeKey(revoke)).await?;
        reply.outcome.map_err(Error::from_refusal)?;
        Ok(v1::RevokeKeyResponse { catalog_generation: reply.generation })
    }

    fn list(&self, caller: &Caller, namespace: &str) -> v1::ListKeysResponse {
        let catalog = self.resources.snapshot();
        let shown = catalog.keys().filter(|key| {
            let name = format!("{}/{}", key.namespace, key.name).parse::<QualifiedName>();
            let wanted = namespace.is_empty() || namespace == key.namespace;
            wanted && name.is_ok_and(|name| caller.may(Verb::Govern, &name))
        });
        let mut keys: Vec<_> = shown.map(|key| (key.created_us, key_out(key))).collect();
        keys.sort_by(|one, two| (&one.1.principal, one.0).cmp(&(&two.1.principal, two.0)));
        v1::ListKeysResponse { keys: keys.into_iter().map(|(_, key)| key).collect() }
    }

    fn explain(caller: &Caller, request: &v1::ExplainRequest) -> Result<v1::ExplainResponse> {
        let verb: Verb = request.verb.parse()?;
        let resource = named(&request.resource, "resource")?;
        let is_own = request.principal.is_empty()
            || request.principal == caller.principal().name() && request.groups.is_empty();
        let (principal, groups) = if is_own {
            (caller.principal().clone(), caller.groups().to_vec())
        } else {
            check_principal(&request.principal)
                .map_err(|message| Error::invalid(message).with_field("principal"))?;
            // What others may do is the business of whoever grants it.
            authorize(caller, Verb::Govern, &resource)?;
            (Principal::new(request.principal.clone()), request.groups.clone())
        };
        let table = caller.access().table(&principal, &groups);
        let explained = table.explain(verb, &resource);
        let is_enforced = caller.access().is_enforced();
        let decision = if is_enforced { explained.decision } else { Decision::Allowed };
        let deciding = explained.grants.iter().filter(|(_, decides)| *decides);
        let names: Vec<String> = deciding.map(|(grant, _)| grant.grant.to_string()).collect();
        let by = names.join(", ");
        let reason = match (&decision, names.is_empty()) {
            _ if !is_enforced => "this cluster asks for no credentials".to_owned(),
            (Decision::Allowed, _) if table.is_admin() => {
                format!("{principal} is an administrator by the configuration of this node")
            }
            (Decision::Allowed, _) => format!("allowed by {by}"),
            (Decision::Denied, true) => {
                format!("no grant lets {principal} {verb} {resource}")
            }
            (Decision::Denied, false) => format!("denied by {by}"),
            (Decision::Events(_), _) => format!("some events, by {by}"),
        };
        let verdict = match decision {
            Decision::Allowed => v1::Verdict::Allowed,
            Decision::Denied => v1::Verdict::Denied,
            Decision::Events(_) => v1::Verdict::SomeEvents,
        };
        let grants = explained.grants.into_iter().map(|(grant, decides)| v1::ExplainedGrant {
            grant: grant.grant.to_string(),
            allows: grant.allows,
            decides,
            condition: grant.condition.unwrap_or_default(),
        });
        Ok(v1::ExplainResponse { verdict: verdict.into(), reason, grants: grants.collect() })
    }
}

fn named(text: &str, field: &str) -> Result<QualifiedName> {
    text.parse()
        .map_err(|error: weft_proto::NameError| Error::invalid(error.to_string()).with_field(field))
}

fn key_out(key: &internal::CatalogKey) -> v1::Key {
    let time = |micros: u64| (micros > 0).then(|| Timestamp::from_micros(micros).into());
    v1::Key {
        id: key.id.clone(),
        principal: format!("key:{}/{}", key.namespace, key.name),
        created: time(key.created_us),
        expires: time(key.expires_us),
        created_by: key.created_by.clone(),
    }
}

#[tonic::async_trait]
impl Api for Service {
    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(v1::WhoAmIResponse {
            principal: caller.principal().to_string(),
            groups: caller.groups().to_vec(),
            expires: caller.expires().map(Into::into),
            enforced: caller.access().is_enforced(),
            cluster_uid: self.cluster_uid.clone(),
        }))
    }

    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::CreateKeyResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.create(&caller, request.into_inner()).await?))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.list(&caller, &request.get_ref().namespace)))
    }

    async fn revoke_key(
        &self,
        request: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::RevokeKeyResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.revoke(&caller, request.into_inner()).await?))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(Self::explain(&caller, request.get_ref())?))
    }
}
