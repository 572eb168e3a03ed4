//! The policies of the catalog, as far as this dispatcher may see them.
//!
//! *Owns* what is known of them, and follows the catalog. *Never* judges: that is the policy's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use weft_proto::resource::{self, ContainerPolicySpec, Kind, Policy, RESTRICTED};
use weft_proto::{Name, QualifiedName, Result};

use crate::function::name_of;
use crate::launch::{Failure, FailureKind};
use crate::port::{CONTAINER_POLICY, Change, Mesh};

/// Longest wait for the first look at the catalog.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// Pause before the catalog is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// What is known; nothing for a policy that cannot be read, by a newer release perhaps.
type Known = BTreeMap<QualifiedName, Option<ContainerPolicySpec>>;

/// What is known of the policies: a cheap handle.
#[derive(Clone, Debug)]
pub struct Policies(watch::Receiver<Option<Known>>);

/// Follows the policies of the catalog.
#[derive(Debug)]
pub(crate) struct Follower(watch::Sender<Option<Known>>);

impl Policies {
    /// What a follower learns. Nothing starts before it has looked once.
    pub(crate) fn followed() -> (Self, Follower) {
        let (known_tx, known_rx) = watch::channel(None);
        (Self(known_rx), Follower(known_tx))
    }

    /// Exactly these.
    pub fn fixed(policies: impl IntoIterator<Item = (QualifiedName, ContainerPolicySpec)>) -> Self {
        let known = policies.into_iter().map(|(name, spec)| (name, Some(spec))).collect();
        Self(watch::channel(Some(known)).1)
    }

    /// The policy of this name for functions of a namespace.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be known: what nobody allows is not run.
    pub(crate) async fn of(&self, namespace: &Name, policy: &Name) -> Result<Policy, Failure> {
        let mut known = self.0.clone();
        let known = timeout(FIRST_LOOK, known.wait_for(Option::is_some)).await;
        let Ok(Ok(known)) = known else {
            let mut failure = Failure::denied("the policies of the catalog are not known yet");
            failure.is_retryable = true;
            return Err(failure);
        };
        let known = known.as_ref().into_iter().flatten().collect::<BTreeMap<_, _>>();
        for place in Policy::places(namespace, policy) {
            match known.get(&place) {
                Some(Some(spec)) => {
                    return Ok(Policy::new(&place, ContainerPolicySpec::clone(spec)));
                }
                Some(None) => {
                    let message =
                        format!("the ContainerPolicy {place} cannot be read by this dispatcher");
                    return Err(Failure::denied(message));
                }
                None => {}
            }
        }
        if policy.as_str() == RESTRICTED {
            return Ok(Policy::built_in());
        }
        let message = format!("there is no ContainerPolicy {policy} for {namespace}");
        Err(Failure::new(FailureKind::PolicyDenied, message))
    }
}

impl Follower {
    /// Follows the catalog until stopped. What was known last holds while it is out of reach.
    pub(crate) async fn run(self, mesh: Arc<dyn Mesh>, stop: CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                result = self.follow(&*mesh) => {
                    if let Err(error) = result
                        && !error.is_retryable()
                    {
                        warn!(%error, "cannot follow the policies");
                    }
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep(RETRY) => {}
            }
        }
    }

    async fn follow(&self, mesh: &dyn Mesh) -> Result<()> {
        let mut changes = mesh.watch(CONTAINER_POLICY).await?;
        // What was deleted meanwhile is missing in the first list.
        let mut first = Some(Known::new());
        while let Some(change) = changes.next().await {
            let change = change?;
            if matches!(change, Change::Synced) {
                self.0.send_replace(Some(first.take().unwrap_or_default()));
            } else if let Some(first) = &mut first {
                note(first, change);
            } else {
                self.0.send_modify(|known| note(known.get_or_insert_default(), change));
            }
        }
        Ok(())
    }
}

fn note(known: &mut Known, change: Change) {
    match change {
        Change::Put(stored) => {
            let Ok(name) = name_of(&stored) else { return };
            let spec = resource::parse(Kind::ContainerPolicy, &stored.spec);
            known.insert(name, spec.ok());
        }
        Change::Deleted { name, .. } => {
            known.remove(&name);
        }
        Change::Synced => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;
    use weft_proto::v1::Resource;

    use super::*;
    use crate::port::memory::MemoryMesh;

    fn stored(namespace: &str, name: &str, spec: &str) -> Resource {
        Resource {
            kind: CONTAINER_POLICY.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            spec: spec.to_owned().into(),
            ..Resource::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_catalog_is_followed_and_what_is_not_known_is_not_allowed() {
        let (shop, own): (Name, Name) = ("shop".parse().unwrap(), "own".parse().unwrap());
        let restricted: Name = RESTRICTED.parse().unwrap();
        let (policies, follower) = Policies::followed();
        assert!(policies.of(&shop, &restricted).await.unwrap_err().is_retryable);
        let mesh = MemoryMesh::default();
        mesh.put(stored("shop", "own", r#"{"require_digest":true}"#)).await.unwrap();
        mesh.put(stored("shop", "bad", r#"{"of_the_future":true}"#)).await.unwrap();
        let ending = CancellationToken::new();
        let follows =
            TaskTracker::new().spawn(follower.run(Arc::new(mesh.clone()), ending.clone()));

        let found = policies.of(&shop, &own).await.unwrap();
        let spec = ContainerPolicySpec { require_digest: true, ..ContainerPolicySpec::default() };
        assert_eq!(found, Policy::new(&"shop/own".parse().unwrap(), spec));
        assert_eq!(policies.of(&shop, &restricted).await.unwrap(), Policy::built_in());
        for unknown in ["bad", "none"] {
            let failure = policies.of(&shop, &unknown.parse().unwrap()).await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::PolicyDenied);
        }

        let mut known = policies.0.clone();
        known.mark_unchanged();
        mesh.put(stored("weft-system", "own", "{}")).await.unwrap();
        known.changed().await.unwrap();
        let found = policies.of(&shop, &own).await.unwrap();
        assert_eq!(
            found,
            Policy::new(&"weft-system/own".parse().unwrap(), ContainerPolicySpec::default())
        );
        mesh.delete(CONTAINER_POLICY, &"weft-system/own".parse().unwrap()).await.unwrap();
        mesh.delete(CONTAINER_POLICY, &"shop/own".parse().unwrap()).await.unwrap();
        known.changed().await.unwrap();
        while policies.of(&shop, &own).await.is_ok() {
            known.changed().await.unwrap();
        }
        ending.cancel();
        follows.await.unwrap().unwrap();
    }
}
