//! One test per rule, then histories.

use proptest::prelude::*;
use weft_proto::resource::Kind;
use weft_proto::{Timestamp, internal, v1};

use super::{Changed, EntryError, Reply, State, encode};
use internal::catalog_command::Change as Wanted;

fn resource(kind: &str, name: &str, spec: &str) -> v1::Resource {
    v1::Resource {
        kind: kind.to_owned(),
        name: name.to_owned(),
        spec: spec.as_bytes().to_vec().into(),
        ..v1::Resource::default()
    }
}

fn put(kind: &str, name: &str, spec: &str, expected: Option<u64>) -> Wanted {
    let resource = Some(resource(kind, name, spec));
    Wanted::Put(internal::CatalogPut { resource, expected_generation: expected })
}

fn delete(kind: &str, name: &str) -> Wanted {
    Wanted::Delete(internal::CatalogDelete {
        kind: kind.to_owned(),
        name: name.to_owned(),
        ..internal::CatalogDelete::default()
    })
}

fn apply(state: &mut State, change: Wanted) -> Reply {
    let command = internal::CatalogCommand { change: Some(change), principal: String::new() };
    let payload = encode(&command, Timestamp::from_micros(7));
    state.apply(&payload, Timestamp::from_micros(7)).unwrap().0
}

fn reason(reply: Reply) -> (String, String) {
    let refusal = reply.outcome.unwrap_err();
    (refusal.reason, refusal.field)
}

fn stored(reply: &Reply) -> &v1::Resource {
    reply.outcome.as_ref().unwrap().as_ref().unwrap()
}

#[test]
fn putting_the_same_changes_nothing() {
    let mut state = State::new(3);

    let created = apply(&mut state, put("Stream", "orders", "{}", None));
    let again = apply(&mut state, put("Stream", "orders", r#"{"partitions":1}"#, None));

    assert_eq!(created.change, v1::Change::Created);
    assert_eq!(again.change, v1::Change::Unchanged);
    assert_eq!(again.generation, created.generation);
    assert_eq!(stored(&created).generation, created.generation);
}

#[test]
fn compare_and_set_lets_one_writer_win() {
    let mut state = State::new(3);
    let first = apply(&mut state, put("Schema", "s", r#"{"document":{"a":1}}"#, Some(0)));
    let generation = stored(&first).generation;

    let won = apply(&mut state, put("Schema", "s", r#"{"document":{"a":2}}"#, Some(generation)));
    let lost = apply(&mut state, put("Schema", "s", r#"{"document":{"a":3}}"#, Some(generation)));
    let exists = apply(&mut state, put("Schema", "s", r#"{"document":{"a":4}}"#, Some(0)));

    assert_eq!(won.change, v1::Change::Updated);
    assert_eq!(reason(lost).0, "FAILED_PRECONDITION");
    assert_eq!(reason(exists).0, "ALREADY_EXISTS");
}

#[test]
fn schema_documents_make_versions() {
    let mut state = State::new(3);
    for document in [r#"{"a":1}"#, r#"{ "a" : 1 }"#, r#"{"a":2}"#, r#"{"a":1}"#] {
        apply(&mut state, put("Schema", "s", &format!(r#"{{"document":{document}}}"#), None));
    }
    let name = "s".parse().unwrap();

    let status = super::view::schema_status(state.get(Kind::Schema, &name).unwrap());

    let numbers: Vec<_> = status.versions.iter().map(|version| (version.version, version.id)).collect();
    assert_eq!(numbers, [(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn references_must_exist_and_keep_what_they_need() {
    let mut state = State::new(3);
    let bound = r#"{"schemas":[{"type":"*","schema":"s"}]}"#;

    let early = apply(&mut state, put("Stream", "orders", bound, None));
    assert_eq!(reason(early), ("UNKNOWN_RESOURCE".to_owned(), "spec.schemas[0].schema".to_owned()));
    apply(&mut state, put("Schema", "s", r#"{"document":{}}"#, None));
    let pinned = r#"{"schemas":[{"type":"*","schema":"s","version":2}]}"#;
    let wrong = apply(&mut state, put("Stream", "orders", pinned, None));
    assert_eq!(reason(wrong).1, "spec.schemas[0].version");
    apply(&mut state, put("Stream", "orders", bound, None));
    let used = apply(&mut state, delete("Schema", "s"));
    assert_eq!(reason(used).0, "FAILED_PRECONDITION");

    let orphan = apply(&mut state, put("Subscription", "sub", r#"{"stream":"none"}"#, None));
    assert_eq!(reason(orphan), ("UNKNOWN_STREAM".to_owned(), "spec.stream".to_owned()));
    apply(&mut state, put("Subscription", "sub", r#"{"stream":"orders"}"#, None));
    let used = apply(&mut state, delete("Stream", "orders"));
    assert!(used.outcome.unwrap_err().message.contains("Subscription default/sub"));
    let function = r#"{"command":["x"],"triggers":[{"stream":"none"}]}"#;
    let orphan = apply(&mut state, put("Function", "f", function, None));
    assert_eq!(reason(orphan).1, "spec.triggers[0].stream");
}

#[test]
fn what_a_cursor_or_key_depends_on_is_fixed() {
    let mut state = State::new(3);
    apply(&mut state, put("Stream", "orders", "{}", None));
    apply(&mut state, put("Subscription", "sub", r#"{"stream":"orders"}"#, None));

    let grown = apply(&mut state, put("Stream", "orders", r#"{"partitions":2}"#, None));
    let moved = put("Subscription", "sub", r#"{"stream":"orders","start":"earliest"}"#, None);
    let moved = apply(&mut state, moved);
    let filtered = r#"{"stream":"orders","filters":[{"exact":{"type":"a"}}]}"#;
    let filtered = apply(&mut state, put("Subscription", "sub", filtered, None));

    assert_eq!(reason(grown).1, "spec.partitions");
    assert_eq!(reason(moved).1, "spec");
    assert_eq!(filtered.change, v1::Change::Updated);
}

#[test]
fn status_leaves_the_generation_and_needs_the_same_resource() {
    let mut state = State::new(3);
    apply(&mut state, put("Stream", "orders", "{}", None));
    let function = r#"{"command":["x"],"triggers":[{"stream":"orders"}]}"#;
    let made = apply(&mut state, put("Function", "f", function, None));
    let status = |uid| {
        Wanted::SetStatus(internal::CatalogSetStatus {
            kind: "Function".to_owned(),
            name: "f".to_owned(),
            uid,
            status: b"{\"observed_generation\":2}".to_vec().into(),
            ..internal::CatalogSetStatus::default()
        })
    };

    let other = apply(&mut state, status(99));
    let set = apply(&mut state, status(stored(&made).uid));

    assert_eq!(reason(other).0, "UNKNOWN_RESOURCE");
    assert_eq!(stored(&set).generation, stored(&made).generation);
    assert!(set.generation > made.generation);
}

#[test]
fn unknown_entries_stop_the_node() {
    let mut state = State::new(1);
    let time = Timestamp::from_micros(1);
    let mut good = encode(&internal::CatalogCommand::default(), time).to_vec();

    assert_eq!(state.apply(&good, time).unwrap_err(), EntryError::UnknownCommand);
    good[1] = 33;
    assert_eq!(state.apply(&good, time).unwrap_err(), EntryError::UnknownKind(33));
    good[0] = 1;
    assert_eq!(state.apply(&good, time).unwrap_err(), EntryError::UnknownFormat(1));
    assert_eq!(state.apply(&[0], time).unwrap_err(), EntryError::Truncated);
}

#[test]
fn the_bytes_of_a_command_never_change() {
    let command = internal::CatalogCommand {
        change: Some(delete("Stream", "a")),
        principal: "p".to_owned(),
    };

    let bytes = encode(&command, Timestamp::from_micros(1));

    let golden = b"\x00\x20\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x12\x0b\x0a\x06Stream\x1a\x01a\x7a\x01p";
    assert_eq!(&bytes[..], golden);
}

fn any_change() -> impl Strategy<Value = Wanted> {
    let name = "[ab]";
    let expected = proptest::option::of(0..6_u64);
    prop_oneof![
        (name, 1..3_u32, expected.clone()).prop_map(|(name, partitions, expected)| {
            put("Stream", &name, &format!(r#"{{"partitions":{partitions}}}"#), expected)
        }),
        (name, 0..3_u32, expected.clone()).prop_map(|(name, number, expected)| {
            put("Schema", &name, &format!(r#"{{"document":{{"a":{number}}}}}"#), expected)
        }),
        (name, name, expected).prop_map(|(name, stream, expected)| {
            put("Subscription", &name, &format!(r#"{{"stream":"{stream}"}}"#), expected)
        }),
        ("(Stream|Schema|Subscription)", name).prop_map(|(kind, name)| delete(&kind, &name)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn histories_keep_the_promises(changes in proptest::collection::vec(any_change(), 1..40)) {
        let (mut state, mut replica) = (State::new(3), State::new(3));
        let mut uids = std::collections::BTreeMap::new();
        let mut partitions = std::collections::BTreeSet::new();
        for (time, change) in (1..).map(Timestamp::from_micros).zip(changes) {
            let before = state.clone();
            let command = internal::CatalogCommand { change: Some(change), principal: String::new() };
            let payload = encode(&command, time);
            let (reply, changed) = state.apply(&payload, time).unwrap();

            // What a dry run on a copy says is what happens.
            prop_assert_eq!(&before.clone().apply(&payload, time).unwrap().0, &reply);
            replica.apply(&payload, time).unwrap();
            prop_assert_eq!(state.state_hash(), replica.state_hash());
            prop_assert_eq!(&State::decode(&state.encode()).unwrap(), &state);
            prop_assert_eq!(&Reply::decode(&reply.encode()).unwrap(), &reply);
            match changed {
                Some(change) => prop_assert_eq!(change.generation, before.generation() + 1),
                None => prop_assert_eq!(state.generation(), before.generation()),
            }
            if let Some(super::Change { what: Changed::Put(resource), .. }) = changed_of(&before, &payload, time)
                && before.get(kind_of(&resource), &name_of(&resource)).is_none()
            {
                prop_assert!(uids.insert(resource.uid, ()).is_none(), "uid {} came twice", resource.uid);
                for placement in super::view::stream_status(&resource).placements {
                    prop_assert!(partitions.insert(placement.uid));
                    prop_assert!((1..=3).contains(&placement.group));
                }
            }
        }
    }
}

fn changed_of(before: &State, payload: &[u8], time: Timestamp) -> Option<super::Change> {
    before.clone().apply(payload, time).unwrap().1
}

fn kind_of(resource: &v1::Resource) -> Kind {
    resource.kind.parse().unwrap()
}

fn name_of(resource: &v1::Resource) -> weft_proto::QualifiedName {
    weft_proto::resource::identify(resource).unwrap().1
}
