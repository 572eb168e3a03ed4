//! Real payloads against their real schema: 329 GitHub webhooks, a `oneOf` over 66 kinds.
//!
//! The data is not ours to ship. The folder is found by `WEFT_WEBHOOKS`, or beside the workspace.

#![expect(clippy::unwrap_used, reason = "a broken corpus is a failed test")]
#![expect(clippy::print_stderr, reason = "a test that did not run must say so")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use weft_registry::{Draft, Limits, Schema, Verdict, Violation};

struct Corpus {
    schema: Vec<u8>,
    /// Name of the webhook and its payload.
    events: Vec<(String, Vec<u8>)>,
}

fn corpus() -> Option<Corpus> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/github-webhooks");
    let nearby = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/github-webhooks");
    let named = std::env::var_os("WEFT_WEBHOOKS").map(PathBuf::from);
    let folders = named.map_or_else(|| vec![beside.into(), nearby.into()], |named| vec![named]);
    let Some(folder) = folders.iter().find(|folder| folder.join("events.jsonl").is_file()) else {
        eprintln!("SKIPPED: no webhook payloads in {folders:?}; set WEFT_WEBHOOKS to their folder");
        return None;
    };
    let lines = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();
    let event = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        (line["event"].as_str().unwrap().to_owned(), serde_json::to_vec(&line["payload"]).unwrap())
    };
    Some(Corpus {
        schema: std::fs::read(folder.join("schema.json")).unwrap(),
        events: lines.lines().map(event).collect(),
    })
}

fn violations(corpus: &Corpus) -> Vec<(&str, Value, Violation)> {
    let schema = Schema::compile(&corpus.schema, &Limits::default()).unwrap();
    assert_eq!(schema.draft(), Draft::Draft7);
    let mut found = Vec::new();
    for (name, payload) in &corpus.events {
        if let Verdict::Violation(violation) = schema.check(payload) {
            found.push((name.as_str(), serde_json::from_slice(payload).unwrap(), violation));
        }
    }
    found
}

#[test]
fn fifty_two_of_the_payloads_are_refused() {
    let Some(corpus) = corpus() else { return };

    let refused = violations(&corpus).len();

    assert_eq!((corpus.events.len(), refused), (329, 52));
}

#[test]
fn every_refusal_names_a_place_inside_the_payload() {
    let Some(corpus) = corpus() else { return };
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();

    for (name, payload, violation) in violations(&corpus) {
        let Violation { pointer, message, schema_pointer, .. } = &violation;
        assert!(payload.pointer(pointer).is_some(), "{name}: {violation:?}");
        assert!(!message.is_empty() && message.len() <= 200, "{name}: {violation:?}");
        // Not the `oneOf` itself, but what went wrong in the branch that was meant.
        assert!(schema_pointer.starts_with("/definitions/"), "{name}: {violation:?}");
        assert!(!message.starts_with("fits none"), "{name}: {violation:?}");
        *reasons.entry(format!("{name} {pointer} {message} +{}", violation.more)).or_default() += 1;
    }

    for (reason, count) in &reasons {
        println!("{count:3} {reason}");
    }
    // Three events miss a member of their outermost object; all others are pointed into.
    assert_eq!(reasons.keys().filter(|reason| reason.contains("  ")).count(), 3, "{reasons:#?}");
    let template = "misses the member \"is_template\"";
    assert_eq!(reasons.keys().filter(|reason| reason.contains(template)).count(), 32);
}
