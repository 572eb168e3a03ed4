//! Grants and limits: those that the catalog takes are compiled, and decide as the promise says when
//! it is read literally, grant by grant and event by event.
//!
//! First byte even: resources as JSON. Odd: choices, from which grants are made that are about the
//! same few things.

#![cfg_attr(fuzzing, no_main)]

use serde::Deserialize;
use weft_broker::access::{Limits, Rules};
use weft_broker::catalog::State;
use weft_fuzz::door::put;
use weft_fuzz::{Input, chosen, sample};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::event::EventView;
use weft_proto::filter::{Candidate, Compiled, Judgement};
use weft_proto::resource::{Effect, GrantSpec, LimitSpec, Role, Verb};
use weft_proto::{Principal, QualifiedName};

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

const RESOURCES_MAX: usize = 8;
const NAMESPACES: [&str; 3] = ["shop", "shed", "weft-system"];
const PRINCIPALS: [&str; 5] = ["*", "key:shop/a", "key:shop/b", "group:i:g", "jwt:i:a"];
const PATTERNS: [&str; 8] = ["*", "s", "sh*", "*p", "s*p", "*o*", "s*h*p", "shop"];
const FILTERS: [&str; 5] = [
    r#"{"sql":"count / (count + 7) > 1 OR type = 'shop'"}"#,
    r#"{"cel":"event.type.startsWith('s')"}"#,
    r#"{"exact":{"subject":"cart/7"}}"#,
    r#"{"not":{"prefix":{"source":"/sh"}}}"#,
    r#"{"any":[{"suffix":{"type":"paid"}},{"exact":{"flag":"true"}}]}"#,
];

#[derive(Deserialize)]
struct Resource {
    namespace: String,
    name: String,
    #[serde(default)]
    is_limit: bool,
    spec: Box<serde_json::value::RawValue>,
}

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mut state = State::new(1);
    let (mut grants, mut limits) = (Vec::new(), Vec::new());
    if input.u8() & 1 == 0 {
        let list = serde_json::from_slice::<Vec<Resource>>(input.rest());
        let Ok(list) = list else { return false };
        for (number, one) in list.iter().take(RESOURCES_MAX).enumerate() {
            // One of the same name takes the place of the one before.
            let name = format!("{}-{number}", one.name);
            let kind = if one.is_limit { "Limit" } else { "Grant" };
            let spec = one.spec.get().as_bytes();
            if !put(&mut state, kind, &one.namespace, &name, spec) {
                continue;
            }
            if one.is_limit {
                let spec = serde_json::from_slice::<LimitSpec>(spec);
                limits.push(spec.expect("what was taken can be read"));
            } else {
                let spec = serde_json::from_slice::<GrantSpec>(spec);
                grants.push((one.namespace.clone(), spec.expect("what was taken can be read")));
            }
        }
        if grants.is_empty() && limits.is_empty() {
            return false;
        }
    } else {
        for number in 0..input.u8() % 8 {
            let (namespace, spec) = choose(&mut input);
            let text = serde_json::to_vec(&spec).expect("a grant can be written");
            if put(&mut state, "Grant", namespace, &format!("g{number}"), &text) {
                grants.push((namespace.to_owned(), spec));
            }
        }
    }
    compare(&Rules::of(&state), &grants, &limits);
    true
}

fn choose(input: &mut Input<'_>) -> (&'static str, GrantSpec) {
    fn some(input: &mut Input<'_>, from: &[&str]) -> Vec<String> {
        let chosen = input.u8();
        let is_chosen = |place: &usize| chosen >> place & 1 == 1;
        (0..from.len()).filter(is_chosen).map(|place| from[place].to_owned()).collect()
    }
    let namespace = NAMESPACES[usize::from(input.u8()) % NAMESPACES.len()];
    let how = input.u8();
    let verbs = some(input, &Verb::ALL.map(Verb::as_str));
    let roles = [Role::Reader, Role::Writer, Role::Operator, Role::Dispatcher, Role::Admin];
    let role = (how & 2 != 0).then(|| roles[usize::from(how >> 4) % roles.len()]);
    let spec = GrantSpec {
        principals: some(input, &PRINCIPALS),
        effect: if how & 1 == 0 { Effect::Allow } else { Effect::Deny },
        role,
        verbs: if role.is_some() {
            Vec::new()
        } else {
            verbs.iter().map(|verb| verb.parse().expect("a verb")).collect()
        },
        names: some(input, &PATTERNS),
        namespaces: if how & 4 != 0 { some(input, &PATTERNS) } else { Vec::new() },
        types: if how & 8 != 0 { some(input, &PATTERNS) } else { Vec::new() },
        filters: some(input, &FILTERS)
            .iter()
            .map(|filter| serde_json::from_str(filter).expect("a filter"))
            .collect(),
    };
    (namespace, spec)
}

fn compare(rules: &Rules, grants: &[(String, GrantSpec)], limits: &[LimitSpec]) {
    let typed = |ty: &str, source: &str| CloudEvent {
        r#type: ty.to_owned(),
        source: source.to_owned(),
        ..sample::event()
    };
    let events = [sample::event(), typed("shop", "/elsewhere"), typed("s", "/shop")];
    let events = events.map(|event| sample::encode(&event));
    let views = events.each_ref().map(|bytes| EventView::parse(bytes).expect("an event"));
    let nobody: &[String] = &[];
    let groups = ["group:i:g".to_owned()];
    for (who, groups) in [("key:shop/a", nobody), ("key:shop/c", nobody), ("jwt:i:a", &groups)] {
        for is_admin in [false, true] {
            let table = rules.table(&Principal::new(who), groups, is_admin);
            assert_eq!(*table.limits(), lowest(limits, who, groups));
            for verb in Verb::ALL {
                for name in ["shop/shop", "shed/s", "weft-system/soap", "default/x"] {
                    let name: QualifiedName = name.parse().expect("a name");
                    let decision = table.decide(verb, &name);
                    assert_eq!(table.decide(verb, &name), decision, "remembered as decided");
                    assert_eq!(table.explain(verb, &name).decision, decision);
                    assert!(!decision.is_by_event() || verb.is_about_events());
                    for view in &views {
                        let by_hand = oracle(grants, (who, groups), is_admin, verb, &name, view);
                        assert_eq!(
                            decision.passes(&Candidate::new(*view)),
                            by_hand,
                            "{who} {verb} {name}"
                        );
                    }
                }
            }
        }
    }
}

fn is_for(principals: &[String], who: &str, groups: &[String]) -> bool {
    principals.iter().any(|one| one == "*" || one == who || groups.contains(one))
}

/// The promise: something that allows, and nothing that denies.
fn oracle(
    grants: &[(String, GrantSpec)],
    (who, groups): (&str, &[String]),
    is_admin: bool,
    verb: Verb,
    resource: &QualifiedName,
    event: &EventView<'_>,
) -> bool {
    let any = |patterns: &[String], text: &str| {
        patterns.is_empty()
            || patterns.iter().any(|pattern| glob(pattern.as_bytes(), text.as_bytes()))
    };
    let mut allowed = is_admin;
    for (namespace, grant) in grants {
        let is_here = if grant.namespaces.is_empty() {
            namespace == resource.namespace.as_str()
        } else {
            any(&grant.namespaces, resource.namespace.as_str())
        };
        if !is_here
            || !is_for(&grant.principals, who, groups)
            || !grant.verbs().contains(&verb)
            || !any(&grant.names, resource.name.as_str())
        {
            continue;
        }
        let denies = grant.effect == Effect::Deny;
        let has_condition = !(grant.types.is_empty() && grant.filters.is_empty());
        if verb.is_about_events() {
            let judged = grant.filters.iter().map(|filter| {
                let alone = Compiled::new(std::slice::from_ref(filter)).expect("it was taken");
                alone.judge(&Candidate::new(*event))
            });
            let judged: Vec<Judgement> = judged.collect();
            // In doubt, what allows does not, and what denies does.
            let fits = if denies {
                !judged.contains(&Judgement::Fails)
            } else {
                judged.iter().all(|one| *one == Judgement::Passes)
            };
            if !(any(&grant.types, event.ty) && fits) {
                continue;
            }
        } else if denies && has_condition {
            continue;
        }
        if denies {
            return false;
        }
        allowed = true;
    }
    allowed
}

/// `*` is any run of characters. By table, so that many stars take no longer.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Whether the pattern so far matches the first so many bytes of the text.
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    for &one in pattern {
        let before = fits.clone();
        fits[0] = one == b'*' && before[0];
        for place in 1..=text.len() {
            fits[place] = match one {
                b'*' => before[place] || fits[place - 1],
                byte => before[place - 1] && text[place - 1] == byte,
            };
        }
    }
    fits[text.len()]
}

fn lowest(limits: &[LimitSpec], who: &str, groups: &[String]) -> Limits {
    let mine = || limits.iter().filter(|limit| is_for(&limit.principals, who, groups));
    Limits {
        requests_per_second: mine().filter_map(|limit| limit.requests_per_second).min(),
        publish_bytes_per_second: mine().filter_map(|limit| limit.publish_bytes_per_second).min(),
        read_bytes_per_second: mine().filter_map(|limit| limit.read_bytes_per_second).min(),
        connections: mine().filter_map(|limit| limit.connections).min(),
        open_calls: mine().filter_map(|limit| limit.open_calls).min(),
        in_flight_bytes: mine().filter_map(|limit| limit.in_flight_bytes).min(),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"[{"namespace":"shop","name":"g","spec":{"principals":["*"],"role":"reader"}}]"#,
        r#"[{"namespace":"shop","name":"g","spec":{"principals":["key:shop/a"],"verbs":["publish","view"],"names":["s*p"],"types":["com.*paid"]}},
            {"namespace":"weft-system","name":"g","spec":{"principals":["group:i:g"],"effect":"deny","role":"admin","namespaces":["sh*"],"filters":[{"exact":{"subject":"cart/7"}}]}}]"#,
        r#"[{"namespace":"weft-system","name":"l","is_limit":true,"spec":{"principals":["*"],"requests_per_second":5,"open_calls":2}},
            {"namespace":"weft-system","name":"l","is_limit":true,"spec":{"principals":["jwt:i:a","group:i:g"],"requests_per_second":9,"connections":1}}]"#,
        r#"[{"namespace":"shop","name":"g","spec":{"principals":["*"],"role":"reader","namespaces":["*"]}}]"#,
        r#"[{"namespace":"shop","name":"g","spec":{"principals":["bob"],"role":"reader"}}]"#,
        r#"{}"#,
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| chosen(0, text)).collect();
    seeds.push(vec![1, 2, 0, 0, 0xff, 1, 0, 0, 0, 8, 7, 0xff, 2, 4, 1]);
    seeds.push(vec![1, 3, 2, 4, 0xff, 1, 0, 4, 1, 0x12, 0, 8, 2, 0, 0, 9, 1, 1, 8, 0x20]);
    seeds
}
