//! What a filter costs per event: the goal is 1 µs for a CESQL expression of five terms.
//!
//! `cargo bench -p weft-proto --bench filter`

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up ends")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use prost::Message as _;
use weft_proto::event::{EventView, from_json};
use weft_proto::filter::{Candidate, Compiled, Filter};

/// An order of some 400 bytes, with three extensions.
const EVENT: &str = r#"{"specversion":"1.0","id":"order-4711","source":"/shop/eu","type":"com.example.order.placed",
    "subject":"customer/17","time":"2026-03-01T12:00:00Z","datacontenttype":"application/json",
    "tenant":"acme","priority":"7","region":"eu-west",
    "data":{"total":129.5,"currency":"EUR","customer":{"id":17,"tier":"gold"},
    "lines":[{"sku":"a-1","n":2,"price":40.0},{"sku":"b-7","n":1,"price":49.5}]}}"#;

const CASES: [(&str, &str); 8] = [
    ("exact type", r#"[{"exact":{"type":"com.example.order.placed"}}]"#),
    ("prefix type", r#"[{"prefix":{"type":"com.example.order."}}]"#),
    ("exact tenant", r#"[{"exact":{"tenant":"acme"}}]"#),
    ("sql one term", r#"[{"sql":"type LIKE 'com.example.order.%'"}]"#),
    (
        "sql five terms",
        r#"[{"sql":"type LIKE 'com.example.order.%' AND source = '/shop/eu' AND tenant IN ('acme', 'umbrella') AND priority > 5 AND NOT EXISTS debug"}]"#,
    ),
    ("sql missing attribute", r#"[{"sql":"nothing = 'x' AND tenant = 'acme'"}]"#),
    ("cel one term", r#"[{"cel":"data.total > 100"}]"#),
    (
        "cel five terms",
        r#"[{"cel":"data.total > 100 && data.currency == 'EUR' && data.customer.tier == 'gold' && data.lines.exists(l, l.n > 1) && ce.tenant == 'acme'"}]"#,
    ),
];

fn filters(bench: &mut Criterion) {
    let event = from_json(EVENT.as_bytes()).unwrap().encode_to_vec();
    let mut group = bench.benchmark_group("filter");
    // In all others, too: a filter is asked about an encoded event.
    group.bench_function("find the parts of the event", |b| {
        b.iter(|| black_box(EventView::parse(black_box(&event))).unwrap());
    });
    for (name, text) in CASES {
        let filters: Vec<Filter> = serde_json::from_str(text).unwrap();
        let filters = Compiled::new(&filters).unwrap();
        let view = EventView::parse(&event).unwrap();
        let passes = filters.passes(&Candidate::new(view));
        assert_eq!(passes, !name.contains("missing"), "{name}");
        group.bench_function(name, |b| {
            b.iter(|| filters.passes(&Candidate::new(*black_box(&view))));
        });
    }
    group.finish();
}

criterion_group!(benches, filters);
criterion_main!(benches);
