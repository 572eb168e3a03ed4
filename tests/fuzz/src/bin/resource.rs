//! Resources on the wire, a spec in JSON by kind: `weft_proto::resource::check`, which the catalog
//! applies to every put.

#![cfg_attr(fuzzing, no_main)]

use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_fuzz::chosen;
use weft_proto::resource::{
    ContainerPolicySpec, FunctionSpec, Kind, Manifest, ReplayJobSpec, SPEC_BYTES_MAX, SchemaSpec,
    StreamSpec, SubscriptionSpec, WebhookSpec, check, parse,
};
use weft_proto::v1;

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

/// Its own list, so that a new kind changes no input's meaning; append it here.
const KINDS: [Kind; 7] = [
    Kind::Schema,
    Kind::Stream,
    Kind::Subscription,
    Kind::Function,
    Kind::Webhook,
    Kind::ReplayJob,
    Kind::ContainerPolicy,
];

pub fn run(data: &[u8]) -> bool {
    let Some((&choice, spec)) = data.split_first() else { return false };
    let kind = KINDS[usize::from(choice) % KINDS.len()];
    let resource = v1::Resource {
        kind: kind.as_str().to_owned(),
        name: "fuzz".to_owned(),
        spec: spec.to_vec().into(),
        ..v1::Resource::default()
    };
    if check(&resource).is_err() {
        return false;
    }
    assert!(spec.len() <= SPEC_BYTES_MAX);
    match kind {
        Kind::Stream => survives::<StreamSpec>(kind, spec),
        Kind::Subscription => survives::<SubscriptionSpec>(kind, spec),
        Kind::Function => survives::<FunctionSpec>(kind, spec),
        Kind::Webhook => survives::<WebhookSpec>(kind, spec),
        Kind::ReplayJob => survives::<ReplayJobSpec>(kind, spec),
        Kind::ContainerPolicy => survives::<ContainerPolicySpec>(kind, spec),
        Kind::Schema => {
            let schema: SchemaSpec = parse(kind, spec).expect("it was checked");
            let hash = schema.hash().expect("a checked schema has a hash");
            let document = schema.document().expect("and a document").into_owned();
            let again = SchemaSpec { document, ..schema };
            assert_eq!(again.hash().expect("the document alone, too"), hash);
        }
        #[allow(unreachable_patterns, reason = "a kind that is not in KINDS yet")]
        _ => {}
    }
    let exported = Manifest::from_resource(&resource).expect("what is stored can be exported");
    exported.to_resource().expect("and applied again");
    true
}

fn survives<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(
    kind: Kind,
    spec: &[u8],
) {
    let parsed: T = parse(kind, spec).expect("it was checked");
    let text = serde_json::to_vec(&parsed).expect("a spec can be written");
    assert_eq!(parse::<T>(kind, &text).expect("and read"), parsed);
}

pub fn seeds() -> Vec<Vec<u8>> {
    let specs = [
        (
            Kind::Stream,
            r#"{"partitions":3,"retention":{"max_age":"forever","max_events":5},"schemas":[{"type":"a.*","schema":"n/s","version":2,"mode":"off"}]}"#,
        ),
        (Kind::Stream, r#"{"event_bytes_max":1000,"dedup":false,"subject_index":true}"#),
        (
            Kind::Subscription,
            r#"{"stream":"n/s","start":{"offset":7},"filters":[{"not":{"exact":{"type":"a"}}}],"mode":"exclusive"}"#,
        ),
        (Kind::Subscription, r#"{"stream":"s","start":{"time":"2026-01-02T03:04:05Z"}}"#),
        (
            Kind::Function,
            r#"{"command":["/a"],"env":[{"name":"A","value":"b"}],"timeout":"5s","concurrency":{"hard":3},"triggers":[{"name":"t","stream":"s","start":"earliest","retry":{"attempts":2,"base":"1s","cap":"1m"}}],"reply":{"stream":"r"},"scaling":{"min":1,"max":3,"idle":"30s"}}"#,
        ),
        (
            Kind::Webhook,
            r#"{"stream":"s","url":"https://[2001:db8::1]:8443/a?b","mode":{"batch":7},"ordered":false,"authorization":{"file":"t"},"secrets":[{"file":"a"},{"file":"b"}],"retry":{"attempts":0,"max_age":"3d"},"rate_per_minute":60}"#,
        ),
        (
            Kind::ReplayJob,
            r#"{"target":{"subscription":"n/b"},"from":{"offset":7},"to":{"time":"2026-01-02T03:04:05Z"},"filters":[{"sql":"type = 'a'"}],"pace":{"per_second":50},"state":"paused"}"#,
        ),
        (
            Kind::ReplayJob,
            r#"{"target":{"webhook":"b"},"pace":"original","resolved":{"target_uid":9,"partitions":[{"partition":1,"from":3,"to":9}]}}"#,
        ),
        (
            Kind::Schema,
            r#"{"format":"json-schema","document":{"b": 1.0, "a": [true, {"\u0041":1e400}]}}"#,
        ),
        (Kind::Schema, r#"{"document":"{\"maximum\":12345678901234567890123}"}"#),
        (Kind::Stream, "{"),
    ];
    let choice = |kind| KINDS.iter().position(|&other| other == kind).unwrap_or(0) as u8;
    specs.iter().map(|(kind, spec)| chosen(choice(*kind), spec)).collect()
}
