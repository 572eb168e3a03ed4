//! Resources as people write them, in YAML or JSON: manifest to resource and back, as `weft apply`
//! and the catalog do it.

#![cfg_attr(fuzzing, no_main)]

use weft_fuzz::chosen;
use weft_proto::resource::{Manifest, check, identify};

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

pub fn run(data: &[u8]) -> bool {
    let Some((&form, data)) = data.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let manifests: Vec<Manifest> = if form & 1 == 0 {
        let Ok(manifests) = serde_saphyr::from_multiple(text) else { return false };
        manifests
    } else {
        let Ok(manifest) = serde_json::from_str(text) else { return false };
        vec![manifest]
    };
    let mut accepted = false;
    for manifest in manifests {
        let Ok(resource) = manifest.to_resource() else { continue };
        accepted = true;
        check(&resource).expect("a resource of a manifest was checked");
        identify(&resource).expect("and has a name");
        let exported = Manifest::from_resource(&resource).expect("it can be exported");
        let text = serde_json::to_string(&exported).expect("as JSON");
        let read: Manifest = serde_json::from_str(&text).expect("and read again");
        let again = read.to_resource().expect("and applied");
        assert_eq!(identify(&again).unwrap(), identify(&resource).unwrap());
        assert_eq!(again.labels, resource.labels);
    }
    accepted
}

pub fn seeds() -> Vec<Vec<u8>> {
    let yaml = [
        "apiVersion: weft/v1\nkind: Stream\nmetadata:\n  name: orders\n  labels: {team: a}\nspec:\n  partitions: 3\n  retention:\n    max_age: 24h\n    max_bytes: 1000\n  schemas:\n  - type: com.*\n    schema: order\n    version: 2\n    mode: enforce\n",
        "apiVersion: weft/v1\nkind: Schema\nmetadata:\n  name: order\n  namespace: shop\nspec:\n  document: {type: object, properties: {a: {maximum: 5}}}\n---\napiVersion: weft/v1\nkind: Subscription\nmetadata: {name: s}\nspec: {stream: orders, start: {offset: 3}, filters: [{exact: {type: a}}]}\n",
        "apiVersion: weft/v1\nkind: Function\nmetadata: &a {name: f}\nspec:\n  command: [/bin/f, --x]\n  env: [{name: A, value: b}]\n  timeout: 5s\n  triggers: [{stream: orders, start: earliest, retry: {attempts: 3}}]\n  reply: {stream: out}\n  scaling: {min: 0, max: 4}\n",
        "a: [",
    ];
    let json = [
        r#"{"apiVersion":"weft/v1","kind":"Schema","metadata":{"name":"a"},"spec":{"document":"{\"maximum\":1e400}"}}"#,
        r#"{"apiVersion":"weft/v1","kind":"Stream","metadata":{"name":"a"},"spec":{"retention":{"max_age":"forever"},"subject_index":true}}"#,
        r#"{"apiVersion":"weft/v1","kind":"Function","metadata":{"name":"a"},"spec":{"image":"x","triggers":[{"stream":"s","start":{"time":"2026-01-02T03:04:05Z"}}]}}"#,
    ];
    let yaml = yaml.iter().map(|text| chosen(0, text));
    yaml.chain(json.iter().map(|text| chosen(1, text))).collect()
}
