//! Grants, limits and keys, compiled: what a principal may do.
//!
//! Pure. Nothing is allowed without a grant, and one that denies wins, event by event.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use weft_proto::filter::{Candidate, Compiled, Judgement};
use weft_proto::resource::{self, Effect, GrantSpec, Kind, LimitSpec, Verb};
use weft_proto::{Name, Pattern, Principal, QualifiedName, Timestamp, internal};

use super::key::Hasher;
use crate::catalog::State;
use crate::data::lock;

/// Decisions that a table remembers for each verb.
const REMEMBERED_MAX: usize = 1_024;

/// All grants, limits and keys at one generation of the catalog.
#[derive(Debug, Default)]
pub struct Rules {
    /// Generation of the catalog that made them.
    pub generation: u64,
    grants: Vec<Arc<Rule>>,
    limits: Vec<LimitSpec>,
    keys: BTreeMap<String, Key>,
    hasher: Option<Hasher>,
}

/// A key as it is checked.
#[derive(Debug)]
struct Key {
    principal: Principal,
    hash: Vec<u8>,
    expires: Option<Timestamp>,
}

/// A grant, compiled.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    grant: QualifiedName,
    principals: Vec<String>,
    effect: Effect,
    verbs: Vec<Verb>,
    names: Vec<Pattern>,
    namespaces: Namespaces,
    condition: Option<Arc<Condition>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Namespaces {
    One(Name),
    Matching(Vec<Pattern>),
}

/// What a grant asks of events.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Condition {
    types: Vec<Pattern>,
    filters: Compiled,
}

impl Condition {
    fn judge(&self, event: &Candidate<'_>) -> Judgement {
        let ty = event.event().ty;
        if !self.types.is_empty() && !self.types.iter().any(|pattern| pattern.matches(ty)) {
            return Judgement::Fails;
        }
        self.filters.judge(event)
    }

    /// For a grant that allows: in doubt it does not.
    fn surely_passes(&self, event: &Candidate<'_>) -> bool {
        self.judge(event) == Judgement::Passes
    }

    /// For a grant that denies: in doubt it does.
    fn may_pass(&self, event: &Candidate<'_>) -> bool {
        self.judge(event) != Judgement::Fails
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types: Vec<&str> = self.types.iter().map(Pattern::as_str).collect();
        let filters = serde_json::to_string(self.filters.filters()).unwrap_or_default();
        match (self.types.is_empty(), self.filters.is_empty()) {
            (_, true) => write!(f, "types {}", types.join(", ")),
            (true, false) => write!(f, "filters {filters}"),
            (false, false) => write!(f, "types {} and filters {filters}", types.join(", ")),
        }
    }
}

/// Whether something may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may not.
    Denied,
    /// It may.
    Allowed,
    /// With some events it may.
    Events(Arc<EventRule>),
}

impl Decision {
    /// Whether it may be done with this event.
    pub fn passes(&self, event: &Candidate<'_>) -> bool {
        match self {
            Self::Denied => false,
            Self::Allowed => true,
            Self::Events(rule) => rule.passes(event),
        }
    }

    /// Whether events must be looked at.
    pub const fn is_by_event(&self) -> bool {
        matches!(self, Self::Events(_))
    }

    /// Both must be given.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Denied, _) | (_, Self::Denied) => Self::Denied,
            (Self::Allowed, one) | (one, Self::Allowed) => one,
            (Self::Events(one), Self::Events(two)) if one == two => Self::Events(one),
            (Self::Events(one), two @ Self::Events(_)) => {
                let mut rule = EventRule::clone(&one);
                rule.also = Some(Box::new(two));
                Self::Events(Arc::new(rule))
            }
        }
    }
}

/// Which events are allowed: one of `allows` must pass, and none of `denies`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRule {
    /// Some grant allows all events.
    all: bool,
    allows: Vec<Arc<Condition>>,
    denies: Vec<Arc<Condition>>,
    also: Option<Box<Decision>>,
}

impl EventRule {
    /// An expression that fails, or a payload that cannot be read, allows nothing.
    fn passes(&self, event: &Candidate<'_>) -> bool {
        (self.all || self.allows.iter().any(|condition| condition.surely_passes(event)))
            && !self.denies.iter().any(|condition| condition.may_pass(event))
            && self.also.as_ref().is_none_or(|also| also.passes(event))
    }
}

/// Why something may be done or not.
#[derive(Debug)]
pub struct Explanation {
    /// What was decided.
    pub decision: Decision,
    /// The grants that apply, and whether each is one of those that decide.
    pub grants: Vec<(Explained, bool)>,
}

/// A grant that applies.
#[derive(Debug)]
pub struct Explained {
    /// Its name.
    pub grant: QualifiedName,
    /// Whether it allows.
    pub allows: bool,
    /// What it asks of events.
    pub condition: Option<String>,
}

impl Rules {
    /// Compiles those of a catalog. A grant that cannot be read, of a newer release perhaps, denies
    /// everything where it holds: it might be one that denies.
    pub fn of(catalog: &State) -> Self {
        let grants = catalog.of_kind(Kind::Grant).map(|(name, stored)| {
            let spec = resource::parse(Kind::Grant, &stored.spec);
            let rule = spec.and_then(|spec: GrantSpec| {
                let filters = Compiled::new(&spec.filters)?;
                Ok(Rule::new(name.clone(), &spec, &filters))
            });
            Arc::new(rule.unwrap_or_else(|_unreadable| Rule::deny_all(name.clone())))
        });
        let limits = catalog
            .of_kind(Kind::Limit)
            .filter_map(|(_, stored)| resource::parse(Kind::Limit, &stored.spec).ok());
        let keys = catalog.keys().map(|key| (key.id.clone(), Key::of(key)));
        Self {
            generation: catalog.generation(),
            grants: grants.collect(),
            limits: limits.collect(),
            keys: keys.collect(),
            hasher: catalog.key_secret().map(Hasher::new),
        }
    }

    /// Whose key this is, and until when; nothing when it is none that is valid now.
    pub fn principal_of_key(
        &self,
        id: &str,
        key: &str,
        now: Timestamp,
    ) -> Option<(Principal, Option<Timestamp>)> {
        let (stored, hasher) = (self.keys.get(id)?, self.hasher.as_ref()?);
        let is_good = hasher.is_key_of(&stored.hash, key) && stored.is_live(now);
        is_good.then(|| (stored.principal.clone(), stored.expires))
    }

    /// Whether a key is still there.
    pub fn has_key(&self, id: &str, now: Timestamp) -> bool {
        self.keys.get(id).is_some_and(|key| key.is_live(now))
    }

    /// Hashes keys as this cluster does; nothing before it asks for credentials.
    pub fn hasher(&self) -> Option<&Hasher> {
        self.hasher.as_ref()
    }

    /// What a principal may do.
    pub fn table(&self, principal: &Principal, groups: &[String], is_admin: bool) -> Table {
        let applies = |rule: &&Arc<Rule>| rule.is_for(principal, groups);
        let rules = self.grants.iter().filter(applies).map(Arc::clone).collect();
        let limits =
            self.limits.iter().filter(|limit| is_for(&limit.principals, principal, groups));
        let limits = limits.fold(Limits::default(), Limits::with);
        let memory = Verb::ALL.iter().map(|_| Mutex::default()).collect();
        Table { generation: self.generation, rules, is_admin, limits, memory }
    }
}

impl Key {
    fn of(key: &internal::CatalogKey) -> Self {
        let expires = (key.expires_us > 0).then(|| Timestamp::from_micros(key.expires_us));
        let principal = Principal::new(format!("key:{}/{}", key.namespace, key.name));
        Self { principal, hash: key.hash.to_vec(), expires }
    }

    fn is_live(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

fn is_for(principals: &[String], principal: &Principal, groups: &[String]) -> bool {
    principals.iter().any(|one| one == "*" || one == principal.name() || groups.contains(one))
}

fn patterns(texts: &[String]) -> Vec<Pattern> {
    // They were checked when they were stored.
    texts.iter().filter_map(|text| Pattern::new(text).ok()).collect()
}

impl Rule {
    fn new(grant: QualifiedName, spec: &GrantSpec, filters: &Compiled) -> Self {
        let has_condition = !(spec.types.is_empty() && filters.is_empty());
        let condition = || Condition { types: patterns(&spec.types), filters: filters.clone() };
        let namespaces = if spec.namespaces.is_empty() {
            Namespaces::One(grant.namespace.clone())
        } else {
            Namespaces::Matching(patterns(&spec.namespaces))
        };
        Self {
            principals: spec.principals.clone(),
            effect: spec.effect,
            verbs: spec.verbs().to_vec(),
            names: patterns(&spec.names),
            namespaces,
            condition: has_condition.then(|| Arc::new(condition())),
            grant,
        }
    }

    fn deny_all(grant: QualifiedName) -> Self {
        let spec = GrantSpec {
            principals: vec!["*".to_owned()],
            effect: Effect::Deny,
            role: None,
            verbs: Verb::ALL.to_vec(),
            names: Vec::new(),
            namespaces: if grant.namespace.is_system() { vec!["*".to_owned()] } else { vec![] },
            types: Vec::new(),
            filters: Vec::new(),
        };
        Self::new(grant, &spec, &Compiled::all())
    }

    fn is_for(&self, principal: &Principal, groups: &[String]) -> bool {
        is_for(&self.principals, principal, groups)
    }

    /// Whether it says something about a verb and a resource. One that has conditions says nothing
    /// about what has no events: it neither hides a stream nor shows it in full, so it allows to see
    /// it, and does not deny it.
    fn covers(&self, verb: Verb, name: &QualifiedName) -> bool {
        let namespace = name.namespace.as_str();
        let in_namespace = match &self.namespaces {
            Namespaces::One(one) => *one == name.namespace,
            Namespaces::Matching(some) => some.iter().any(|one| one.matches(namespace)),
        };
        let named = self.names.is_empty()
            || self.names.iter().any(|pattern| pattern.matches(name.name.as_str()));
        let says =
            verb.is_about_events() || self.condition.is_none() || self.effect == Effect::Allow;
        in_namespace && named && says && self.verbs.contains(&verb)
    }

    fn condition(&self, verb: Verb) -> Option<&Arc<Condition>> {
        self.condition.as_ref().filter(|_| verb.is_about_events())
    }
}

/// What one principal may do, as of one generation.
#[derive(Debug)]
pub struct Table {
    /// Generation of the rules.
    pub generation: u64,
    rules: Vec<Arc<Rule>>,
    is_admin: bool,
    limits: Limits,
    /// What was decided before, by verb.
    memory: Vec<Mutex<BTreeMap<QualifiedName, Decision>>>,
}

impl Table {
    /// Decides.
    pub fn decide(&self, verb: Verb, name: &QualifiedName) -> Decision {
        let memory = Verb::ALL.iter().position(|one| *one == verb);
        let Some(memory) = memory.and_then(|place| self.memory.get(place)) else {
            return Decision::Denied;
        };
        if let Some(known) = lock(memory).get(name) {
            return known.clone();
        }
        let decision = self.look(verb, name);
        let mut memory = lock(memory);
        if memory.len() >= REMEMBERED_MAX {
            memory.clear();
        }
        memory.insert(name.clone(), decision.clone());
        decision
    }

    fn look(&self, verb: Verb, name: &QualifiedName) -> Decision {
        let (mut all, mut allows, mut denies) = (self.is_admin, Vec::new(), Vec::new());
        for rule in self.rules.iter().filter(|rule| rule.covers(verb, name)) {
            match (rule.effect, rule.condition(verb)) {
                (Effect::Deny, None) => return Decision::Denied,
                (Effect::Deny, Some(condition)) => denies.push(Arc::clone(condition)),
                (Effect::Allow, None) => all = true,
                (Effect::Allow, Some(condition)) => allows.push(Arc::clone(condition)),
            }
        }
        if all {
            allows.clear();
        }
        match (all, allows.is_empty(), denies.is_empty()) {
            (true, _, true) => Decision::Allowed,
            (false, true, _) => Decision::Denied,
            _ => Decision::Events(Arc::new(EventRule { all, allows, denies, also: None })),
        }
    }

    /// Decides, and says why.
    pub fn explain(&self, verb: Verb, name: &QualifiedName) -> Explanation {
        let decision = self.look(verb, name);
        let applies = || self.rules.iter().filter(|rule| rule.covers(verb, name));
        // The first that denies without condition decides alone; without one, all have a say.
        let last_word = |rule: &Rule| rule.effect == Effect::Deny && rule.condition(verb).is_none();
        let ends = applies().any(|rule| last_word(rule));
        let mut grants: Vec<(Explained, bool)> = applies()
            .map(|rule| {
                let explained = Explained {
                    grant: rule.grant.clone(),
                    allows: rule.effect == Effect::Allow,
                    condition: rule.condition(verb).map(ToString::to_string),
                };
                (explained, !ends || last_word(rule))
            })
            .collect();
        grants.sort_by_key(|(_, decides)| !decides);
        Explanation { decision, grants }
    }

    /// Whether the configuration makes it an administrator.
    pub fn is_admin(&self) -> bool {
        self.is_admin
    }

    /// How much the principal may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether another table allows, denies and limits the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.is_admin == other.is_admin && self.limits == other.limits && self.rules == other.rules
    }
}

/// How much a principal may use; nothing = as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Calls begun.
    pub requests_per_second: Option<u64>,
    /// Bytes published.
    pub publish_bytes_per_second: Option<u64>,
    /// Bytes sent to it.
    pub read_bytes_per_second: Option<u64>,
    /// Connections.
    pub connections: Option<u32>,
    /// Calls at the same time.
    pub open_calls: Option<u32>,
    /// Bytes sent and not acknowledged.
    pub in_flight_bytes: Option<u64>,
}

impl Limits {
    fn with(self, limit: &LimitSpec) -> Self {
        fn lower<T: Ord>(one: Option<T>, two: Option<T>) -> Option<T> {
            match (one, two) {
                (Some(one), Some(two)) => Some(one.min(two)),
                (one, two) => one.or(two),
            }
        }
        Self {
            requests_per_second: lower(self.requests_per_second, limit.requests_per_second),
            publish_bytes_per_second: lower(
                self.publish_bytes_per_second,
                limit.publish_bytes_per_second,
            ),
            read_bytes_per_second: lower(self.read_bytes_per_second, limit.read_bytes_per_second),
            connections: lower(self.connections, limit.connections),
            open_calls: lower(self.open_calls, limit.open_calls),
            in_flight_bytes: lower(self.in_flight_bytes, limit.in_flight_bytes),
        }
    }
}
