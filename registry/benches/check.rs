//! What a check costs: parse and check of an order of about one kilobyte.

#![expect(clippy::expect_used, reason = "a benchmark whose input is wrong must not go on")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use weft_registry::{
    Binding, Bindings, Document, Event, Gate, Governed, Limits, Mode, Pin, Schema, SchemaId,
    VersionNumber,
};

const SCHEMA: &str = r##"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["order_id", "customer", "items", "currency", "total", "placed_at", "status"],
  "additionalProperties": false,
  "properties": {
    "order_id": {"type": "string", "pattern": "^ord_[0-9a-f]{16}$"},
    "status": {"enum": ["placed", "paid", "shipped", "cancelled"]},
    "currency": {"type": "string", "minLength": 3, "maxLength": 3},
    "total": {"type": "number", "minimum": 0},
    "placed_at": {"type": "string", "format": "date-time"},
    "note": {"type": ["string", "null"], "maxLength": 500},
    "customer": {
      "type": "object",
      "required": ["id", "email"],
      "properties": {
        "id": {"type": "integer", "minimum": 1},
        "email": {"type": "string", "minLength": 3},
        "address": {"$ref": "#/$defs/address"}
      }
    },
    "items": {
      "type": "array",
      "minItems": 1,
      "maxItems": 100,
      "items": {"$ref": "#/$defs/item"}
    },
    "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 20, "uniqueItems": true}
  },
  "$defs": {
    "address": {
      "type": "object",
      "required": ["street", "city", "country"],
      "properties": {
        "street": {"type": "string"},
        "city": {"type": "string"},
        "postcode": {"type": "string"},
        "country": {"type": "string", "minLength": 2, "maxLength": 2}
      }
    },
    "item": {
      "type": "object",
      "required": ["sku", "qty", "price"],
      "additionalProperties": false,
      "properties": {
        "sku": {"type": "string", "minLength": 1, "maxLength": 40},
        "name": {"type": "string"},
        "qty": {"type": "integer", "minimum": 1},
        "price": {"type": "number", "exclusiveMinimum": 0}
      }
    }
  }
}"##;

fn order() -> String {
    let items: Vec<String> = (1..=9)
        .map(|n| {
            let name = "Sturdy linen bag, natural";
            format!(r#"{{"sku":"LB-{n:04}","name":"{name}","qty":{n},"price":{n}9.95}}"#)
        })
        .collect();
    format!(
        r#"{{"order_id":"ord_0123456789abcdef","status":"paid","currency":"EUR","total":539.55,"placed_at":"2026-11-24T08:30:00Z","note":null,"customer":{{"id":42017,"email":"ada@example.org","address":{{"street":"12 Weavers' Lane","city":"Ghent","postcode":"9000","country":"BE"}}}},"items":[{}],"tags":["gift","express"]}}"#,
        items.join(",")
    )
}

fn gate(schema: Schema) -> Gate {
    let bindings = Bindings::new(vec![Binding {
        event_type: "com.shop.order.*".to_owned(),
        schema: "order".to_owned(),
        pin: Pin::Latest,
        mode: Mode::Enforce,
    }]);
    let governed = Governed {
        schema: "order".into(),
        id: SchemaId(1),
        version: VersionNumber(1),
        compiled: schema,
    };
    let bindings = bindings.expect("bindings are sound");
    Gate::new(bindings, &std::iter::once(governed).collect()).expect("the schema is known")
}

fn checks(c: &mut Criterion) {
    let schema = Schema::compile(SCHEMA.as_bytes(), &Limits::default()).expect("schema compiles");
    let order = order();
    let bytes = order.as_bytes();
    let document = Document::parse(bytes).expect("order is JSON");
    let broken = order.replace("\"qty\":8", "\"qty\":0");
    let gate = gate(schema.clone());
    let event = Event {
        event_type: "com.shop.order.paid",
        datacontenttype: Some("application/json"),
        data: Some(bytes),
        has_dataref: false,
    };
    assert!(matches!(gate.check(&event), weft_registry::Decision::Accepted { .. }));

    let mut group = c.benchmark_group(format!("order of {} bytes", bytes.len()));
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("parse", |b| b.iter(|| Document::parse(black_box(bytes))));
    group.bench_function("check, parsed", |b| {
        b.iter(|| schema.check_document(black_box(&document)));
    });
    group.bench_function("gate: binding, parse, check", |b| {
        b.iter(|| gate.check(black_box(&event)));
    });
    group.bench_function("refuse and explain", |b| {
        b.iter(|| schema.check(black_box(broken.as_bytes())));
    });
    group.bench_function("parse with serde_json", |b| {
        b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(bytes)));
    });
    group.finish();
    c.bench_function("compile the order schema", |b| {
        b.iter(|| Schema::compile(black_box(SCHEMA.as_bytes()), &Limits::default()));
    });
}

/// The most a check can cost: a schema that visits each level of the payload thrice as often as
/// the one above, until the budget of steps is spent.
fn bomb(c: &mut Criterion) {
    let branch = r##"{"properties": {"next": {"$ref": "#"}}, "required": ["end"]}"##;
    let schema = format!(r#"{{"anyOf": [{branch}, {branch}, {branch}]}}"#);
    let schema = Schema::compile(schema.as_bytes(), &Limits::default()).expect("schema compiles");
    let payload = "{\"next\":".repeat(100) + "1" + &"}".repeat(100);

    let mut group = c.benchmark_group("bomb");
    group.sample_size(10);
    group.bench_function("check until it is given up", |b| {
        b.iter(|| schema.check(black_box(payload.as_bytes())));
    });
    group.finish();
}

criterion_group!(benches, checks, bomb);
criterion_main!(benches);
