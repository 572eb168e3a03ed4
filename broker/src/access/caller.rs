//! A caller: an identity, and what its call stands on.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weft_proto::resource::Verb;
use weft_proto::{Error, Principal, QualifiedName, Reason, Result, Timestamp};

use super::jwt::Verified;
use super::meter::Meter;
use super::rules::{Decision, Limits, Table};
use super::{Access, denied};
use crate::audit::{Outcome, Record};
use crate::clock;
use crate::data::lock;

/// Decisions that a call remembers; a call asks for a few resources at most.
const STANDING_MAX: usize = 64;
/// Between two looks at the clock, which may be set, and at the key that signed a token.
const CLOCK_MAX: Duration = Duration::from_millis(500);

/// Who somebody is, as they have shown.
pub(super) struct Identity {
    pub(super) principal: Principal,
    pub(super) groups: Vec<String>,
    pub(super) expires: Option<Timestamp>,
    /// The API key that was shown.
    pub(super) key: Option<String>,
    /// What the token that was shown proved.
    pub(super) token: Option<Arc<Verified>>,
    pub(super) meter: Arc<Meter>,
    pub(super) table: Mutex<Arc<Table>>,
}

/// Who calls. Every core function takes one.
#[derive(Clone)]
pub struct Caller {
    identity: Arc<Identity>,
    access: Access,
    standing: Option<Arc<Standing>>,
}

/// What a call that goes on was allowed.
#[derive(Default)]
struct Standing(Mutex<Stands>);

#[derive(Default)]
struct Stands {
    decisions: Vec<(Verb, QualifiedName, Decision)>,
    /// On everything that its caller may do.
    table: Option<Arc<Table>>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caller").field(&self.identity.principal.name()).finish()
    }
}

impl Caller {
    pub(super) fn new(identity: Arc<Identity>, access: Access) -> Self {
        Self { identity, access, standing: None }
    }

    /// The same caller in a call that goes on.
    #[must_use]
    pub fn standing(self) -> Self {
        Self { standing: Some(Arc::default()), ..self }
    }

    /// Its name.
    pub fn principal(&self) -> &Principal {
        &self.identity.principal
    }

    /// Groups that an identity provider says it is in.
    pub fn groups(&self) -> &[String] {
        &self.identity.groups
    }

    /// When its credential ends.
    pub fn expires(&self) -> Option<Timestamp> {
        self.identity.expires
    }

    /// The door it came through.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// What it uses of this node.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.identity.meter
    }

    /// How much it may use.
    pub fn limits(&self) -> Limits {
        *self.table().limits()
    }

    /// What it may do now.
    pub fn table(&self) -> Arc<Table> {
        let generation = self.access.0.rules.borrow().generation;
        let mut table = lock(&self.identity.table);
        if table.generation != generation {
            *table = self.access.table(&self.identity.principal, &self.identity.groups);
        }
        Arc::clone(&table)
    }

    fn is_trusted(&self) -> bool {
        !self.access.is_enforced() || self.identity.principal.is_system()
    }

    /// Whether it may do something, without leaving a trace: for what is shown of a list.
    pub fn may(&self, verb: Verb, resource: &QualifiedName) -> bool {
        self.decide(verb, resource) != Decision::Denied
    }

    /// What it may do, without leaving a trace.
    pub(crate) fn decide(&self, verb: Verb, resource: &QualifiedName) -> Decision {
        // What happened is written by the cluster alone.
        let is_own = resource.name.is_reserved() && verb == Verb::Publish;
        if is_own && !self.identity.principal.is_system() {
            return Decision::Denied;
        }
        if self.is_trusted() {
            return Decision::Allowed;
        }
        self.table().decide(verb, resource)
    }

    pub(super) fn stand_on(&self, verb: Verb, resource: &QualifiedName, decision: &Decision) {
        let Some(standing) = &self.standing else { return };
        let mut stands = lock(&standing.0);
        let is_known = |one: &(Verb, QualifiedName, Decision)| one.0 == verb && one.1 == *resource;
        if stands.decisions.len() < STANDING_MAX && !stands.decisions.iter().any(is_known) {
            stands.decisions.push((verb, resource.clone(), decision.clone()));
        }
    }

    /// The call ends with any change of what its caller may do: for one that shows what it may see.
    pub fn stand_on_all(&self) {
        if let Some(standing) = &self.standing {
            lock(&standing.0).table = Some(self.table());
        }
    }

    /// Why the call may not go on, if it may not.
    fn lost(&self, now: Timestamp) -> Option<Error> {
        let over = |what: &str| Some(Error::new(Reason::Unauthenticated, what));
        if self.expires().is_some_and(|expires| expires <= now) {
            return over("the credential of this call has expired");
        }
        if self.identity.token.as_ref().is_some_and(|token| !token.is_vouched_for()) {
            return over("the issuer has withdrawn the key that signed the token of this call");
        }
        if self.is_trusted() {
            return None;
        }
        if let Some(key) = &self.identity.key
            && !self.access.rules().has_key(key, now)
        {
            return over("the key of this call was revoked");
        }
        let stands = lock(&self.standing.as_ref()?.0);
        let changed = || {
            let error = Error::unavailable("what this caller may do has changed: call again");
            Some(error.with_retry_after(Duration::from_millis(10)))
        };
        if stands.table.as_ref().is_some_and(|table| !table.is_same(&self.table())) {
            return changed();
        }
        for (verb, resource, before) in &stands.decisions {
            let decision = self.decide(*verb, resource);
            if decision == Decision::Denied {
                return Some(denied(self.principal(), *verb, resource));
            }
            if decision != *before {
                return changed();
            }
        }
        None
    }

    /// Waits until the call may not go on, and says why.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until_lost(self) -> Error {
        let mut rules = self.access.watch();
        loop {
            rules.mark_unchanged();
            let now = clock::now();
            if let Some(error) = self.lost(now) {
                let record = Record::new("ended", self.principal(), Outcome::Denied);
                self.access.audit().note(record.because(error.message()));
                return error;
            }
            let left = self.expires().map(|expires| {
                let left = expires.as_micros().saturating_sub(now.as_micros());
                Duration::from_micros(left).min(CLOCK_MAX)
            });
            let at = left.map(|left| tokio::time::Instant::now() + left);
            tokio::select! {
                changed = rules.changed() => if changed.is_err() {
                    // The node stops, and ends its calls itself.
                    std::future::pending::<()>().await;
                },
                () = clock::sleep_until(at) => {}
            }
        }
    }

    /// Records an act before it is done.
    ///
    /// # Errors
    ///
    /// `Unavailable` when it cannot be recorded and must be: then it must not be done.
    pub async fn act(&self, act: &'static str, resource: impl Into<String>) -> Result<()> {
        let record = Record::new(act, self.principal(), Outcome::Allowed).on(act, resource);
        let written = self.access.audit().write(record).await;
        match written {
            Err(error) if self.access.0.settings.audit_required => Err(error.with_not_applied()),
            _ => Ok(()),
        }
    }
}
