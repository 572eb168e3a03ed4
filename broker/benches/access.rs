//! What it costs to find out who calls, what they may do, and how much: the goal is 3 µs of CPU for a
//! unary call.
//!
//! `cargo bench -p weft-broker --bench access`

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up ends")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::FutureExt as _;
use http::{Extensions, HeaderMap, HeaderValue, header};
use tokio::sync::watch;
use weft_broker::access::key::{self, Hasher};
use weft_broker::access::{Access, Rules, Settings, authorize};
use weft_broker::audit::Audit;
use weft_broker::catalog::{self, State};
use weft_proto::internal::catalog_command::Change;
use weft_proto::resource::Verb;
use weft_proto::{QualifiedName, Timestamp, internal, v1};

/// Other grants and keys of the cluster.
const OTHERS: usize = 1_000;

fn change(state: &mut State, change: Change) {
    let command = internal::CatalogCommand { change: Some(change), principal: String::new() };
    let time = Timestamp::from_micros(1);
    let (reply, _) = state.apply(&catalog::encode(&command, time), time).unwrap();
    reply.outcome.unwrap();
}

fn put(state: &mut State, kind: &str, namespace: &str, name: &str, spec: &str) {
    let resource = v1::Resource {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        spec: spec.to_owned().into(),
        ..v1::Resource::default()
    };
    let put = internal::CatalogPut { resource: Some(resource), expected_generation: None };
    change(state, Change::Put(put));
}

fn add_key(state: &mut State, name: &str) -> String {
    let (id, text) = key::generate().unwrap();
    let key = internal::CatalogKey {
        id: id.to_string(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        hash: Hasher::new(&[7; 32]).hash(&text).into(),
        ..internal::CatalogKey::default()
    };
    let is_first = state.key_secret().is_none();
    if is_first {
        let key_secret = vec![7; 32].into();
        change(state, Change::Secure(internal::CatalogSecure { key_secret, key: Some(key) }));
    } else {
        change(state, Change::AddKey(internal::CatalogAddKey { key: Some(key) }));
    }
    text
}

/// A cluster with many grants and keys, and the key of one principal with a few grants and limits.
fn cluster() -> (Access, String, watch::Sender<Arc<Rules>>) {
    let mut state = State::new(3);
    let text = add_key(&mut state, "writer");
    for number in 0..OTHERS {
        let name = format!("other-{number}");
        add_key(&mut state, &name);
        let spec = format!(r#"{{"principals":["key:shop/{name}"],"role":"reader"}}"#);
        put(&mut state, "Grant", "shop", &name, &spec);
    }
    for (number, spec) in [
        r#"{"principals":["key:shop/writer"],"role":"writer","names":["orders-*"]}"#,
        r#"{"principals":["key:shop/writer"],"role":"writer","names":["orders"]}"#,
        r#"{"principals":["key:shop/writer"],"role":"reader"}"#,
        r#"{"principals":["*"],"effect":"deny","verbs":["read"],"names":["secret-*"]}"#,
    ]
    .into_iter()
    .enumerate()
    {
        put(&mut state, "Grant", "shop", &format!("own-{number}"), spec);
    }
    let limit = r#"{"principals":["*"],"requests_per_second":1000000000,"open_calls":1000000,
        "publish_bytes_per_second":1000000000000,"in_flight_bytes":1000000000}"#;
    put(&mut state, "Limit", "weft-system", "all", limit);
    let (rules, seen) = watch::channel(Arc::new(Rules::of(&state)));
    let settings = Settings { enforced: true, ..Settings::default() };
    (Access::new(settings, seen, None, Audit::none()), text, rules)
}

fn headers(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::try_from(format!("Bearer {text}")).unwrap();
    headers.insert(header::AUTHORIZATION, value);
    headers
}

fn unary(c: &mut Criterion) {
    let (access, text, _rules) = cluster();
    let (headers, extensions) = (headers(&text), Extensions::new());
    let orders: QualifiedName = "shop/orders".parse().unwrap();
    let admit = || access.admit(&headers, &extensions).now_or_never().unwrap().unwrap();
    let mut group = c.benchmark_group("access");
    group.bench_function("authenticate", |b| b.iter(|| black_box(admit())));
    let admitted = admit();
    group.bench_function("authorize", |b| {
        b.iter(|| authorize(black_box(&admitted.caller), Verb::Publish, &orders).unwrap());
    });
    group.bench_function("limit", |b| {
        b.iter(|| {
            let (caller, limits) = (&admitted.caller, admitted.caller.limits());
            caller.meter().publish(caller.principal(), &limits, 1_000).unwrap();
            caller.meter().in_flight(caller.principal(), &limits, 1_000).unwrap()
        });
    });
    // All that a unary publish asks: at the service, and where the batch is queued.
    group.bench_function("unary publish", |b| {
        b.iter(|| {
            let admitted = admit();
            let caller = &admitted.caller;
            let limits = caller.limits();
            authorize(caller, Verb::Publish, &orders).unwrap();
            authorize(caller, Verb::Publish, &orders).unwrap();
            let flight = caller.meter().in_flight(caller.principal(), &limits, 1_000).unwrap();
            caller.meter().publish(caller.principal(), &limits, 1_000).unwrap();
            black_box((admitted, flight))
        });
    });
    group.finish();
}

criterion_group!(benches, unary);
criterion_main!(benches);
