//! Rules against a brute-force oracle, keys, what a call stands on.

use std::sync::Arc;

use proptest::prelude::*;
use prost::Message as _;
use tokio::sync::watch;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::event::EventView;
use weft_proto::filter::Candidate;
use weft_proto::internal::catalog_command::Change;
use weft_proto::resource::{Effect, GrantSpec, Kind, Role, Verb};
use weft_proto::{Principal, QualifiedName, Reason, Timestamp, internal, v1};

use super::key::{self, Hasher};
use super::rules::{Decision, Rules};
use super::{Access, Certificate, Settings, Shown, authorize};
use crate::audit::{Audit, Outcome};
use crate::catalog::{self, State};
use crate::clock;

/// A catalog that is changed as the log would change it.
struct World {
    state: State,
    rules: watch::Sender<Arc<Rules>>,
}

impl World {
    fn new() -> Self {
        Self { state: State::new(1), rules: watch::Sender::default() }
    }

    fn change(&mut self, change: Change) -> Result<(), weft_proto::Error> {
        let command = internal::CatalogCommand { change: Some(change), principal: String::new() };
        let now = clock::now();
        let (reply, _) = self.state.apply(&catalog::encode(&command, now), now).unwrap();
        self.rules.send_replace(Arc::new(Rules::of(&self.state)));
        reply.outcome.map(drop).map_err(weft_proto::Error::from_refusal)
    }

    fn put(&mut self, kind: Kind, name: &str, spec: &str) {
        let name: QualifiedName = name.parse().unwrap();
        let resource = v1::Resource {
            kind: kind.as_str().to_owned(),
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            spec: spec.to_owned().into(),
            ..v1::Resource::default()
        };
        let put = internal::CatalogPut { resource: Some(resource), expected_generation: None };
        self.change(Change::Put(put)).unwrap();
    }

    fn grant(&mut self, name: &str, spec: &str) {
        self.put(Kind::Grant, name, spec);
    }

    fn delete_grant(&mut self, name: &str) {
        let name: QualifiedName = name.parse().unwrap();
        let delete = internal::CatalogDelete {
            kind: Kind::Grant.as_str().to_owned(),
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            expected_generation: None,
        };
        self.change(Change::Delete(delete)).unwrap();
    }

    /// The first key of the cluster.
    fn secure(&mut self) -> String {
        let (id, text) = key::generate().unwrap();
        let key = record(id.as_str(), "weft-system/bootstrap", &Hasher::new(&[7; 32]), &text);
        let secure = internal::CatalogSecure { key_secret: vec![7; 32].into(), key: Some(key) };
        self.change(Change::Secure(secure)).unwrap();
        text
    }

    fn key(&mut self, name: &str, expires: u64) -> Result<String, weft_proto::Error> {
        let (id, text) = key::generate().unwrap();
        let mut key = record(id.as_str(), name, &Hasher::new(&[7; 32]), &text);
        key.expires_us = expires;
        self.change(Change::AddKey(internal::CatalogAddKey { key: Some(key) }))?;
        Ok(text)
    }

    fn revoke(&mut self, key: &str) {
        let id = key::id_of(key).unwrap().to_owned();
        self.change(Change::RevokeKey(internal::CatalogRevokeKey { id })).unwrap();
    }

    fn access(&self) -> Access {
        self.access_with(Audit::none())
    }

    fn access_with(&self, audit: Audit) -> Access {
        let admins = vec!["cert:spiffe://acme/root".to_owned()];
        let settings = Settings { enforced: true, admins, audit_required: true };
        Access::new(settings, self.rules.subscribe(), None, audit)
    }
}

fn record(id: &str, name: &str, hasher: &Hasher, text: &str) -> internal::CatalogKey {
    let name: QualifiedName = name.parse().unwrap();
    internal::CatalogKey {
        id: id.to_owned(),
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        hash: hasher.hash(text).into(),
        ..internal::CatalogKey::default()
    }
}

fn event(ty: &str, subject: &str) -> Vec<u8> {
    use weft_proto::cloudevents::cloud_event::CloudEventAttributeValue;
    use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
    let value = CloudEventAttributeValue { attr: Some(Attr::CeString(subject.to_owned())) };
    CloudEvent {
        id: "1".to_owned(),
        source: "/s".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: ty.to_owned(),
        attributes: [("subject".to_owned(), value)].into(),
        ..CloudEvent::default()
    }
    .encode_to_vec()
}

fn name(text: &str) -> QualifiedName {
    text.parse().unwrap()
}

fn certificate(uris: &[String], not_after: Timestamp) -> Certificate<'_> {
    Certificate { uris, not_after, thumbprint: [1; 32] }
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

fn decide(world: &World, who: &str, groups: &[&str], verb: Verb, resource: &str) -> Decision {
    let groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
    let table = world.rules.borrow().table(&Principal::new(who), &groups, false);
    table.decide(verb, &name(resource))
}

#[test]
fn nothing_is_allowed_without_a_grant_and_a_denial_wins() {
    let mut world = World::new();
    let alice = "key:shop/alice";
    assert_eq!(decide(&world, alice, &[], Verb::Read, "shop/orders"), Decision::Denied);

    world.grant("shop/readers", r#"{"principals":["key:shop/alice"],"role":"reader"}"#);
    assert_eq!(decide(&world, alice, &[], Verb::Read, "shop/orders"), Decision::Allowed);
    assert_eq!(decide(&world, alice, &[], Verb::Publish, "shop/orders"), Decision::Denied);
    // A grant holds in its own namespace, and for nobody else.
    assert_eq!(decide(&world, alice, &[], Verb::Read, "other/orders"), Decision::Denied);
    assert_eq!(decide(&world, "key:shop/bob", &[], Verb::Read, "shop/orders"), Decision::Denied);

    world.grant(
        "weft-system/no-secrets",
        r#"{"principals":["*"],"effect":"deny","verbs":["read"],"namespaces":["*"],"names":["secret-*"]}"#,
    );
    assert_eq!(decide(&world, alice, &[], Verb::Read, "shop/secret-plans"), Decision::Denied);
    assert_eq!(decide(&world, alice, &[], Verb::View, "shop/secret-plans"), Decision::Allowed);
    assert_eq!(decide(&world, alice, &[], Verb::Read, "shop/orders"), Decision::Allowed);

    world.grant(
        "shop/group",
        r#"{"principals":["group:corp:it"],"role":"operator","names":["o*"]}"#,
    );
    let bob = "jwt:corp:bob";
    assert_eq!(
        decide(&world, bob, &["group:corp:it"], Verb::Edit, "shop/orders"),
        Decision::Allowed
    );
    assert_eq!(decide(&world, bob, &["group:corp:it"], Verb::Edit, "shop/x"), Decision::Denied);
    assert_eq!(
        decide(&world, bob, &["group:corp:its"], Verb::Edit, "shop/orders"),
        Decision::Denied
    );

    world.delete_grant("shop/readers");
    assert_eq!(decide(&world, alice, &[], Verb::Read, "shop/orders"), Decision::Denied);
}

fn candidate(event: &[u8]) -> Candidate<'_> {
    Candidate::new(EventView::parse(event).unwrap())
}

#[test]
fn conditions_decide_event_by_event_and_only_about_events() {
    let mut world = World::new();
    world.grant(
        "shop/some",
        r#"{"principals":["*"],"role":"reader","types":["order.*"],"filters":[{"not":{"exact":{"subject":"vip"}}}]}"#,
    );
    world.grant(
        "shop/not-paid",
        r#"{"principals":["*"],"effect":"deny","role":"reader","types":["order.paid"]}"#,
    );
    let decision = decide(&world, "key:shop/a", &[], Verb::Read, "shop/orders");
    assert!(decision.is_by_event());
    for (ty, subject, passes) in [
        ("order.placed", "x", true),
        ("order.placed", "vip", false),
        ("order.paid", "x", false),
        ("cart.filled", "x", false),
    ] {
        let bytes = event(ty, subject);
        assert_eq!(decision.passes(&candidate(&bytes)), passes, "{ty} {subject}");
    }
    // The stream itself is neither hidden by the one nor by the other.
    assert_eq!(decide(&world, "key:shop/a", &[], Verb::View, "shop/orders"), Decision::Allowed);
}

#[test]
fn roles_are_what_the_table_in_the_docs_says() {
    let table =
        |role: Role| -> Vec<&str> { role.verbs().iter().map(|verb| verb.as_str()).collect() };
    assert_eq!(table(Role::Reader), ["view", "read", "subscribe"]);
    assert_eq!(table(Role::Writer), ["view", "publish"]);
    assert_eq!(table(Role::Operator), ["view", "edit", "operate"]);
    let dispatcher = ["view", "read", "subscribe", "publish", "edit", "report"];
    assert_eq!(table(Role::Dispatcher), dispatcher);
    assert_eq!(table(Role::Admin).len(), Verb::ALL.len());
}

#[test]
fn an_explanation_names_the_grants_that_decide() {
    let mut world = World::new();
    world.grant("shop/a", r#"{"principals":["*"],"role":"reader"}"#);
    world.grant("shop/b", r#"{"principals":["*"],"effect":"deny","verbs":["read"],"types":["x"]}"#);
    let explain = |world: &World| {
        let table = world.rules.borrow().table(&Principal::new("key:shop/a"), &[], false);
        let explained = table.explain(Verb::Read, &name("shop/orders"));
        let grants: Vec<String> = explained
            .grants
            .into_iter()
            .map(|(grant, decides)| format!("{} {} {decides}", grant.grant, grant.allows))
            .collect();
        (explained.decision.is_by_event(), grants)
    };
    assert_eq!(
        explain(&world),
        (true, vec!["shop/a true true".to_owned(), "shop/b false true".to_owned()])
    );
    world.grant("shop/c", r#"{"principals":["*"],"effect":"deny","verbs":["read"]}"#);
    let (by_event, grants) = explain(&world);
    assert!(!by_event);
    assert_eq!(grants, ["shop/c false true", "shop/a true false", "shop/b false false"]);
}

#[tokio::test]
async fn keys_open_until_they_are_revoked_or_over() {
    let mut world = World::new();
    let first = world.secure();
    let soon = clock::now().as_micros() + 400_000;
    let (a, b) = (world.key("shop/a", 0).unwrap(), world.key("shop/a", soon).unwrap());
    let access = world.access();
    let shows = |text: String| {
        let access = access.clone();
        async move {
            let shown = Shown { authorization: Some(&text), ..Shown::default() };
            access.authenticate(shown).await.map(|caller| caller.principal().to_string())
        }
    };

    assert_eq!(shows(bearer(&first)).await.unwrap(), "key:weft-system/bootstrap");
    assert_eq!(shows(bearer(&a)).await.unwrap(), "key:shop/a");
    assert_eq!(shows(format!("bEaReR {b}")).await.unwrap(), "key:shop/a");
    // Two at a time, so that one can take the place of the other.
    let third = world.key("shop/a", 0).unwrap_err();
    assert_eq!(third.reason(), Reason::FailedPrecondition);
    assert!(third.message().contains("revoke one first"), "{third}");

    world.revoke(&a);
    let refused = shows(bearer(&a)).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::Unauthenticated);
    assert!(!refused.message().contains(&a[..12]), "{refused}");
    world.key("shop/a", 0).unwrap();
    while clock::now().as_micros() < soon {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(shows(bearer(&b)).await.unwrap_err().reason(), Reason::Unauthenticated);
    // What is over makes room.
    world.key("shop/a", 0).unwrap();
    // A cluster is secured once.
    let before = world.state.keys().count();
    world.secure();
    assert_eq!(world.state.keys().count(), before);
    assert_eq!(shows(bearer(&first)).await.unwrap(), "key:weft-system/bootstrap");
}

#[tokio::test]
async fn what_is_no_credential_is_refused_and_soon_not_even_looked_at() {
    let mut world = World::new();
    let good = world.secure();
    let (audit, mut inbox) = Audit::new();
    let access = world.access_with(audit);
    let remote = Some("192.0.2.1".parse().unwrap());
    let wrong = [
        String::new(),
        good.clone(),
        format!("Basic {good}"),
        format!("Bearer  {good}"),
        format!("Bearer {good} "),
        format!("Bearer {}", good.to_uppercase()),
        format!("Bearer {}", &good[..good.len() - 1]),
        "Bearer weft_".to_owned(),
        "Bearer x".to_owned(),
        format!("Bearer {}", key::generate().unwrap().1),
    ];
    for text in &wrong {
        let shown = Shown { authorization: Some(text), remote, ..Shown::default() };
        let error = access.authenticate(shown).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Unauthenticated, "{text}");
        assert_eq!(error.message(), "the credential is not valid", "{text}");
    }
    let none = access.authenticate(Shown { remote, ..Shown::default() }).await.unwrap_err();
    assert!(none.message().contains("a credential is needed"), "{none}");
    let mut limited = 0;
    for _ in 0..60 {
        let shown = Shown { authorization: Some("Bearer x"), remote, ..Shown::default() };
        let error = access.authenticate(shown).await.unwrap_err();
        limited += u32::from(error.reason() == Reason::LimitReached);
    }
    assert!(limited >= 9, "{limited}");
    // Whoever was let in before is let in: a neighbour's mistakes are not theirs.
    let text = bearer(&good);
    let shown = Shown { authorization: Some(&text), remote: None, ..Shown::default() };
    access.authenticate(shown).await.unwrap();
    access.authenticate(Shown { remote, ..shown }).await.unwrap();
    // Each was recorded, none with what was shown.
    let record = inbox.entries.try_recv().unwrap().record;
    assert_eq!(
        (record.act, record.outcome, record.remote),
        ("unauthenticated", Outcome::Denied, remote)
    );
    while let Ok(entry) = inbox.entries.try_recv() {
        assert!(!format!("{entry:?}").contains(&good[18..]));
    }
}

#[tokio::test]
async fn two_headers_are_no_credential() {
    let mut world = World::new();
    let (good, other) = (bearer(&world.secure()), bearer(&key::generate().unwrap().1));
    let access = world.access();
    let admit = async |texts: &[&String]| {
        let mut headers = http::HeaderMap::new();
        for text in texts {
            headers.append(http::header::AUTHORIZATION, text.parse().unwrap());
        }
        let admitted = access.admit(&headers, &http::Extensions::new()).await;
        admitted.map_err(|refused| refused.error.reason())
    };

    assert!(admit(&[&good]).await.is_ok());
    for texts in [[&good, &other], [&other, &good], [&good, &good]] {
        assert_eq!(admit(&texts).await.unwrap_err(), Reason::Unauthenticated, "{texts:?}");
    }
}

#[tokio::test]
async fn a_certificate_is_the_principal_of_its_one_uri() {
    let world = World::new();
    let access = world.access();
    let now = clock::now().as_micros();
    let later = Timestamp::from_micros(now + 60_000_000);
    let uris = |uris: &[&str]| uris.iter().map(|&uri| uri.to_owned()).collect::<Vec<_>>();
    let one = uris(&["spiffe://acme/root"]);
    let shown = Shown { certificate: Some(certificate(&one, later)), ..Shown::default() };

    let caller = access.authenticate(shown).await.unwrap();

    assert_eq!(caller.principal().name(), "cert:spiffe://acme/root");
    assert_eq!(caller.expires(), Some(later));
    // It is an administrator by the configuration.
    assert_eq!(authorize(&caller, Verb::Govern, &name("any/thing")).unwrap(), Decision::Allowed);
    for wrong in [uris(&[]), uris(&["spiffe://a/b", "spiffe://a/c"])] {
        let shown = Shown { certificate: Some(certificate(&wrong, later)), ..Shown::default() };
        assert_eq!(access.authenticate(shown).await.unwrap_err().reason(), Reason::Unauthenticated);
    }
    let other = uris(&["spiffe://acme/other"]);
    let past = Timestamp::from_micros(now - 1);
    let over = Shown { certificate: Some(certificate(&other, past)), ..shown };
    assert_eq!(access.authenticate(over).await.unwrap_err().reason(), Reason::Unauthenticated);
    // What is shown on purpose counts: a wrong key is not saved by the connection.
    let both = Shown { authorization: Some("Bearer x"), ..shown };
    assert_eq!(access.authenticate(both).await.unwrap_err().reason(), Reason::Unauthenticated);
}

#[tokio::test]
async fn a_call_that_goes_on_ends_with_what_it_stands_on() {
    let mut world = World::new();
    world.secure();
    let key = world.key("shop/a", 0).unwrap();
    let access = world.access();
    let grant = r#"{"principals":["key:shop/a"],"role":"reader"}"#;
    let text = bearer(&key);
    let shown = Shown { authorization: Some(&text), ..Shown::default() };
    let orders = name("shop/orders");
    let ends = |caller: super::Caller| async move { caller.until_lost().await.reason() };

    // By the grant.
    world.grant("shop/g", grant);
    let caller = access.authenticate(shown).await.unwrap().standing();
    authorize(&caller, Verb::Read, &orders).unwrap();
    let lost = tokio::task::JoinSet::from_iter([ends(caller)]);
    world.grant("shop/other", r#"{"principals":["key:shop/z"],"role":"reader"}"#);
    tokio::task::yield_now().await;
    assert!(!lost.is_empty());
    world.delete_grant("shop/g");
    assert_eq!(lost.join_all().await, [Reason::PermissionDenied]);

    // By a decision that is another one.
    world.grant("shop/g", grant);
    let caller = access.authenticate(shown).await.unwrap().standing();
    authorize(&caller, Verb::Read, &orders).unwrap();
    let lost = tokio::task::JoinSet::from_iter([ends(caller)]);
    world.grant("shop/d", r#"{"principals":["*"],"effect":"deny","verbs":["read"],"types":["a"]}"#);
    assert_eq!(lost.join_all().await, [Reason::Unavailable]);

    // By everything.
    let caller = access.authenticate(shown).await.unwrap().standing();
    caller.stand_on_all();
    let lost = tokio::task::JoinSet::from_iter([ends(caller)]);
    world.delete_grant("shop/d");
    assert_eq!(lost.join_all().await, [Reason::Unavailable]);

    // By the key.
    let caller = access.authenticate(shown).await.unwrap().standing();
    authorize(&caller, Verb::Read, &orders).unwrap();
    let lost = tokio::task::JoinSet::from_iter([ends(caller)]);
    world.revoke(&key);
    assert_eq!(lost.join_all().await, [Reason::Unauthenticated]);

    // By time.
    let brief = world.key("shop/a", clock::now().as_micros() + 300_000).unwrap();
    let text = bearer(&brief);
    let shown = Shown { authorization: Some(&text), ..Shown::default() };
    let caller = access.authenticate(shown).await.unwrap().standing();
    assert_eq!(ends(caller).await, Reason::Unauthenticated);
}

#[tokio::test]
async fn what_the_cluster_writes_nobody_else_does() {
    let access = World::new().access();
    let open =
        Access::new(Settings::default(), World::new().rules.subscribe(), None, Audit::none());
    let anonymous = open.authenticate(Shown::default()).await.unwrap();
    let audit = QualifiedName::audit();

    assert!(anonymous.may(Verb::Read, &audit) && !anonymous.may(Verb::Publish, &audit));
    assert!(anonymous.may(Verb::Govern, &name("a/b")));
    assert!(access.system().may(Verb::Publish, &audit));
}

fn any_grant() -> impl Strategy<Value = (String, GrantSpec)> {
    let principal = prop_oneof![Just("*"), Just("key:a/x"), Just("key:a/y"), Just("group:i:g")];
    let pattern = prop_oneof![Just("*"), Just("s"), Just("s*"), Just("*t")];
    let patterns = proptest::collection::vec(pattern, 0..3);
    let namespace = prop_oneof![Just("a"), Just("b"), Just("weft-system")];
    let elsewhere = proptest::collection::vec(prop_oneof![Just("*"), Just("a"), Just("b*")], 0..2);
    let types = proptest::collection::vec(prop_oneof![Just("t"), Just("u*"), Just("*")], 0..3);
    let filters = proptest::sample::subsequence(FILTERS.to_vec(), 0..3);
    let verbs = proptest::sample::subsequence(Verb::ALL.to_vec(), 1..5);
    let own = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect::<Vec<_>>();
    (
        proptest::collection::vec(principal, 1..3),
        any::<bool>(),
        verbs,
        patterns,
        (namespace, elsewhere),
        (types, filters),
    )
        .prop_map(
            move |(principals, denies, verbs, names, (namespace, elsewhere), conditions)| {
                let (types, filters) = conditions;
                let is_system = namespace == "weft-system";
                let about_events = verbs.iter().any(|verb| verb.is_about_events());
                let spec = GrantSpec {
                    principals: own(principals),
                    effect: if denies { Effect::Deny } else { Effect::Allow },
                    role: None,
                    verbs,
                    names: own(names),
                    namespaces: if is_system { own(elsewhere) } else { Vec::new() },
                    types: if about_events { own(types) } else { Vec::new() },
                    filters: filters
                        .into_iter()
                        .filter(|_| about_events)
                        .map(|(text, _)| serde_json::from_str(text).unwrap())
                        .collect(),
                };
                (namespace.to_owned(), spec)
            },
        )
}

/// Filters, and whether the events below pass; nothing where an error decides.
const FILTERS: [(&str, Option<bool>); 6] = [
    (r#"{"exact":{"subject":"x"}}"#, Some(true)),
    (r#"{"sql":"subject = 'y'"}"#, Some(false)),
    (r#"{"not":{"sql":"EXISTS tenant"}}"#, Some(true)),
    (r#"{"sql":"tenant = 'x'"}"#, None),
    (r#"{"not":{"sql":"tenant = 'x'"}}"#, None),
    (r#"{"cel":"data.total > 5"}"#, None),
];

/// The promise, read literally: one event, every grant, one after the other.
fn oracle(
    grants: &[(String, GrantSpec)],
    (who, groups): (&str, &[&str]),
    verb: Verb,
    resource: &QualifiedName,
    ty: &str,
) -> bool {
    fn glob(pattern: &str, text: &str) -> bool {
        match pattern.split_once('*') {
            None => pattern == text,
            Some((head, "")) => text.starts_with(head),
            Some(("", tail)) => text.ends_with(tail),
            Some(_) => unreachable!(),
        }
    }
    let any = |patterns: &[String], text: &str| {
        patterns.is_empty() || patterns.iter().any(|pattern| glob(pattern, text))
    };
    let mut allowed = false;
    for (namespace, grant) in grants {
        let for_me = grant
            .principals
            .iter()
            .any(|one| one == "*" || one == who || groups.contains(&one.as_str()));
        let here = if grant.namespaces.is_empty() {
            namespace == resource.namespace.as_str()
        } else {
            any(&grant.namespaces, resource.namespace.as_str())
        };
        let says = grant.verbs.contains(&verb) && any(&grant.names, resource.name.as_str());
        if !(for_me && here && says) {
            continue;
        }
        let denies = grant.effect == Effect::Deny;
        if verb.is_about_events() {
            let matches = grant.filters.iter().map(|filter| {
                let text = serde_json::to_string(filter).unwrap();
                FILTERS.iter().find(|(known, _)| *known == text).unwrap().1
            });
            let matches: Vec<Option<bool>> = matches.collect();
            let is_certain = !matches.contains(&None);
            if !any(&grant.types, ty) || matches.contains(&Some(false)) || !(denies || is_certain) {
                continue;
            }
        } else if denies && !(grant.types.is_empty() && grant.filters.is_empty()) {
            continue;
        }
        if denies {
            return false;
        }
        allowed = true;
    }
    allowed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_table_agrees_with_the_promise_for_every_event(
        grants in proptest::collection::vec(any_grant(), 0..8),
    ) {
        let mut world = World::new();
        for (number, (namespace, spec)) in grants.iter().enumerate() {
            let spec = serde_json::to_string(spec).unwrap();
            world.grant(&format!("{namespace}/g{number}"), &spec);
        }
        for (who, groups) in [("key:a/x", &[][..]), ("key:a/z", &[]), ("jwt:i:y", &["group:i:g"])] {
            for verb in Verb::ALL {
                for resource in ["a/s", "a/st", "b/t", "bb/s", "weft-system/s"] {
                    let decision = decide(&world, who, groups, verb, resource);
                    for ty in ["t", "u", "ux", "v"] {
                        let bytes = event(ty, "x");
                        let passes = decision.passes(&candidate(&bytes));
                        let wanted = oracle(&grants, (who, groups), verb, &name(resource), ty);
                        prop_assert_eq!(passes, wanted, "{} {} {} {}", who, verb, resource, ty);
                    }
                }
            }
        }
    }
}
