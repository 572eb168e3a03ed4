//! Who calls, and what they may do: the one door of all calls.
//!
//! *Owns* the identities of this moment and what they use of this node. *Never* reads the catalog
//! itself: its rules come compiled, with every change.

mod bootstrap;
mod caller;
mod door;
pub mod gcra;
mod identify;
pub mod jwt;
pub mod key;
mod meter;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use weft_proto::resource::Verb;
use weft_proto::{Error, Principal, QualifiedName, Reason, Result, Timestamp};

pub use bootstrap::{Announce, run as bootstrap};
pub use caller::Caller;
use caller::Identity;
pub use door::{Admitted, Door, DoorLayer, Need, needs, tell_left};
use identify::Failures;
pub use identify::{Certificate, Shown};
pub use meter::{Left, Meter, Refused, Taken, whole_seconds};
pub use rules::{Decision, Explanation, Limits, Rules, Table};

use crate::access::jwt::Issuers;
use crate::audit::{Audit, Outcome, Record};
use crate::data::lock;

/// Identities that are remembered; when there are more, all are looked up again.
const IDENTITIES_MAX: usize = 16_384;

/// What an operator decides about access.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Settings {
    /// Whether callers must show who they are; without, everybody may do everything.
    pub enforced: bool,
    /// Principals and groups that may do everything, whatever the grants say.
    pub admins: Vec<String>,
    /// Whether what cannot be recorded is not done.
    pub audit_required: bool,
}

/// The door; clones share it.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    settings: Settings,
    rules: watch::Receiver<Arc<Rules>>,
    known: Mutex<Known>,
    meters: Mutex<BTreeMap<Principal, Arc<Meter>>>,
    failures: Failures,
    issuers: Option<Issuers>,
    audit: Audit,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// Identities as of one generation of the rules.
#[derive(Default)]
struct Known {
    generation: u64,
    /// By a hash of what they showed.
    by_credential: BTreeMap<[u8; 32], Arc<Identity>>,
    /// Of calls that another node let in.
    forwarded: BTreeMap<(String, Vec<String>), Arc<Identity>>,
}

impl Access {
    /// A door with these rules.
    pub fn new(
        settings: Settings,
        rules: watch::Receiver<Arc<Rules>>,
        issuers: Option<Issuers>,
        audit: Audit,
    ) -> Self {
        Self(Arc::new(Inner {
            settings,
            issuers,
            rules,
            known: Mutex::default(),
            meters: Mutex::default(),
            failures: Failures::default(),
            audit,
        }))
    }

    /// Whether callers must show who they are.
    pub fn is_enforced(&self) -> bool {
        self.0.settings.enforced
    }

    /// What is done and refused is told to it.
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// The rules of this moment.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.rules.borrow())
    }

    fn watch(&self) -> watch::Receiver<Arc<Rules>> {
        self.0.rules.clone()
    }

    /// Somebody on whose behalf another node calls: that node has let them in.
    pub fn on_behalf(&self, principal: String, groups: Vec<String>) -> Caller {
        let key = (principal, groups);
        let mut known = self.known();
        if let Some(identity) = known.forwarded.get(&key) {
            return Caller::new(Arc::clone(identity), self.clone());
        }
        let (principal, groups) = (Principal::new(key.0.clone()), key.1.clone());
        let identity = Arc::new(self.identity(principal, groups, None, None));
        if known.forwarded.len() >= IDENTITIES_MAX {
            known.forwarded.clear();
        }
        known.forwarded.insert(key, Arc::clone(&identity));
        drop(known);
        Caller::new(identity, self.clone())
    }

    /// The broker itself.
    pub fn system(&self) -> Caller {
        let identity = self.identity(Principal::system(), Vec::new(), None, None);
        Caller::new(Arc::new(identity), self.clone())
    }

    /// What a principal may do, as the rules are now.
    pub fn table(&self, principal: &Principal, groups: &[String]) -> Arc<Table> {
        let admins = &self.0.settings.admins;
        let is_admin = admins.iter().any(|one| one == principal.name() || groups.contains(one));
        Arc::new(self.rules().table(principal, groups, is_admin))
    }

    fn identity(
        &self,
        principal: Principal,
        groups: Vec<String>,
        expires: Option<Timestamp>,
        key: Option<String>,
    ) -> Identity {
        let table = self.table(&principal, &groups);
        let meter = self.meter(&principal);
        Identity { principal, groups, expires, key, token: None, meter, table: Mutex::new(table) }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        let generation = self.0.rules.borrow().generation;
        let mut known = lock(&self.0.known);
        if known.generation != generation {
            *known = Known { generation, ..Known::default() };
        }
        known
    }

    fn meter(&self, principal: &Principal) -> Arc<Meter> {
        let mut meters = lock(&self.0.meters);
        if let Some(meter) = meters.get(principal) {
            return Arc::clone(meter);
        }
        if meters.len() >= IDENTITIES_MAX {
            // Whoever uses nothing now gets a full rate, which is what a pause gives, too.
            meters.retain(|_, meter| Arc::strong_count(meter) > 1 || !meter.is_idle());
        }
        let meter = Arc::new(Meter::default());
        meters.insert(principal.clone(), Arc::clone(&meter));
        meter
    }
}

/// Decides whether a caller may do something with a resource, and remembers it where the call goes
/// on: it ends when the decision does. Of events, [`Decision::passes`] has the last word.
///
/// Asked *before* the resource is looked up, so that the answer says nothing about whether it
/// exists.
///
/// # Errors
///
/// `PermissionDenied`, which is recorded.
pub fn authorize(caller: &Caller, verb: Verb, resource: &QualifiedName) -> Result<Decision> {
    let decision = caller.decide(verb, resource);
    caller.stand_on(verb, resource, &decision);
    if decision != Decision::Denied {
        return Ok(decision);
    }
    let record = Record::new("denied", caller.principal(), Outcome::Denied);
    caller.access().audit().note(record.on(verb.as_str(), resource.to_string()));
    Err(denied(caller.principal(), verb, resource))
}

fn denied(principal: &Principal, verb: Verb, resource: &QualifiedName) -> Error {
    let message = format!(
        "{principal} may not {verb} {resource}; `weft access explain {principal} {verb} {resource}` \
         says why"
    );
    Error::new(Reason::PermissionDenied, message)
}
