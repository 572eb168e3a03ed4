//! One test per rule, then histories.

use proptest::prelude::*;
use weft_proto::resource::Kind;
use weft_proto::{QualifiedName, SchemaId, Timestamp, internal, v1};

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

fn name(text: &str) -> QualifiedName {
    text.parse().unwrap()
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
fn a_function_is_judged_by_the_policy_that_it_names() {
    let mut state = State::new(3);
    apply(&mut state, put("Stream", "s", "{}", None));
    let function = |policy: &str| {
        let spec = format!(r#"{{"image":"f:1","triggers":[{{"stream":"s"}}]{policy}}}"#);
        put("Function", "f", &spec, None)
    };
    let digest = r#"{"require_digest":true}"#;
    let in_system = |spec: &str| {
        let resource = resource("ContainerPolicy", "restricted", spec);
        let resource = v1::Resource { namespace: "weft-system".to_owned(), ..resource };
        Wanted::Put(internal::CatalogPut { resource: Some(resource), expected_generation: None })
    };

    // Built in.
    assert_eq!(apply(&mut state, function("")).change, v1::Change::Created);
    let root = apply(&mut state, function(r#","security":{"run_as_user":0}"#));
    let field = "spec.security.run_as_user".to_owned();
    assert_eq!(reason(root), ("FAILED_PRECONDITION".to_owned(), field));
    let unknown = reason(apply(&mut state, function(r#","policy":"strict""#)));
    assert_eq!(unknown, ("UNKNOWN_RESOURCE".to_owned(), "spec.policy".to_owned()));

    apply(&mut state, put("ContainerPolicy", "strict", digest, None));
    let strict = reason(apply(&mut state, function(r#","policy":"strict""#)));
    assert_eq!(strict.1, "spec.image");
    apply(&mut state, put("ContainerPolicy", "strict", "{}", None));
    assert!(apply(&mut state, function(r#","policy":"strict""#)).outcome.is_ok());
    let used = reason(apply(&mut state, delete("ContainerPolicy", "strict")));
    assert_eq!(used.0, "FAILED_PRECONDITION");

    // That of the whole cluster comes before one of the same name.
    apply(&mut state, put("ContainerPolicy", "restricted", "{}", None));
    assert!(apply(&mut state, function("")).outcome.is_ok());
    assert!(apply(&mut state, delete("ContainerPolicy", "strict")).outcome.is_ok());
    assert!(apply(&mut state, in_system(digest)).outcome.is_ok());
    assert_eq!(reason(apply(&mut state, function(""))).1, "spec.image");
    assert!(apply(&mut state, delete("ContainerPolicy", "restricted")).outcome.is_ok());
}

#[test]
fn schema_documents_make_versions() {
    let mut state = State::new(3);
    for document in [r#"{"a":1}"#, r#"{ "a" : 1 }"#, r#"{"a":2}"#, r#"{"a":1}"#] {
        apply(&mut state, put("Schema", "s", &format!(r#"{{"document":{document}}}"#), None));
    }
    let name = "s".parse().unwrap();

    let status = super::view::schema_status(state.get(Kind::Schema, &name).unwrap());

    let numbers: Vec<_> =
        status.versions.iter().map(|version| (version.version, version.id)).collect();
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
    let indexed = apply(&mut state, put("Stream", "orders", r#"{"subject_index":true}"#, None));
    let (_, field) = reason(indexed);
    assert_eq!(field, "spec.subject_index");
    let moved = put("Subscription", "sub", r#"{"stream":"orders","start":"earliest"}"#, None);
    let moved = apply(&mut state, moved);
    let filtered = r#"{"stream":"orders","filters":[{"exact":{"type":"a"}}]}"#;
    let filtered = apply(&mut state, put("Subscription", "sub", filtered, None));

    assert_eq!(reason(grown).1, "spec.partitions");
    let full =
        apply(&mut state, put("Subscription", "sub", r#"{"stream":"default/orders"}"#, None));
    let other = apply(&mut state, put("Stream", "other", "{}", None));
    let redirected = apply(&mut state, put("Subscription", "sub", r#"{"stream":"other"}"#, None));

    assert_eq!(reason(moved).1, "spec");
    assert_eq!(filtered.change, v1::Change::Updated);
    assert_eq!(full.change, v1::Change::Updated);
    assert_eq!(other.change, v1::Change::Created);
    assert_eq!(reason(redirected).1, "spec");
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
    let command =
        internal::CatalogCommand { change: Some(delete("Stream", "a")), principal: "p".to_owned() };

    let bytes = encode(&command, Timestamp::from_micros(1));

    let golden =
        b"\x00\x20\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x12\x0b\x0a\x06Stream\x1a\x01a\x7a\x01p";
    assert_eq!(&bytes[..], golden);
}

#[test]
fn partitions_go_round_the_groups_from_the_first() {
    let mut state = State::new(3);
    apply(&mut state, put("Stream", "a", r#"{"partitions":4}"#, None));
    apply(&mut state, put("Stream", "b", "{}", None));

    let placed: Vec<_> = state
        .partitions()
        .map(|(name, at)| (name.to_string(), at.partition.get(), at.uid.get(), at.group.get()))
        .collect();

    let of_a = (0..4).map(|at| ("default/a".to_owned(), at, u64::from(at) * 3 + 1, at % 3 + 1));
    let all: Vec<_> = of_a.chain([("default/b".to_owned(), 0, 13, 2)]).collect();
    assert_eq!(placed, all);
}

#[test]
fn lookups_follow_what_is_put_and_deleted() {
    let mut state = State::new(3);
    let schema = |state: &State, id| {
        state.schema_by_id(SchemaId(id)).map(|(name, version)| (name.to_string(), version))
    };
    apply(&mut state, put("Schema", "s", r#"{"document":{"a":1}}"#, None));
    apply(&mut state, put("Schema", "s", r#"{"document":"{\"a\": 2}"}"#, None));
    apply(&mut state, put("Stream", "orders", r#"{"partitions":2}"#, None));
    apply(&mut state, put("Subscription", "sub", r#"{"stream":"orders"}"#, None));

    assert_eq!(schema(&state, 2), Some(("default/s".to_owned(), 2)));
    let status = super::view::schema_status(state.get(Kind::Schema, &name("s")).unwrap());
    assert_eq!(status.versions[1].document.get(), r#"{"a": 2}"#);
    let stream = state.stream(&name("orders")).unwrap();
    assert_eq!((stream.spec.partitions, stream.placements.len()), (2, 2));
    let subscription = state.subscription(&name("sub")).unwrap();
    assert_eq!(subscription.stream, name("orders"));

    for (kind, gone) in [("Subscription", "sub"), ("Stream", "orders"), ("Schema", "s")] {
        assert!(apply(&mut state, delete(kind, gone)).outcome.is_ok());
    }
    assert_eq!(schema(&state, 2), None);
    assert!(state.stream(&name("orders")).is_none() && state.partitions().next().is_none());
    assert!(state.subscription(&name("sub")).is_none());
    assert_eq!(reason(apply(&mut state, delete("Stream", "orders"))).0, "UNKNOWN_STREAM");
}

#[test]
fn a_stream_made_again_is_another_one() {
    let mut state = State::new(3);
    let first = apply(&mut state, put("Stream", "a", "{}", None));
    apply(&mut state, delete("Stream", "a"));
    let again = apply(&mut state, put("Stream", "a", r#"{"partitions":2}"#, Some(0)));

    assert_eq!(again.change, v1::Change::Created);
    assert_ne!(stored(&first).uid, stored(&again).uid);
    let uids: Vec<_> = state.partitions().map(|(_, placement)| placement.uid.get()).collect();
    assert_eq!(uids, [4, 7]);
}

#[test]
fn triggers_keep_the_subscriptions_they_own() {
    let mut state = State::new(3);
    apply(&mut state, put("Stream", "a", "{}", None));
    apply(&mut state, put("Stream", "b", "{}", None));
    let function = |triggers: &str| format!(r#"{{"command":["x"],"triggers":[{triggers}]}}"#);
    let of_a = function(r#"{"name":"t-u","stream":"a"}"#);
    apply(&mut state, put("Function", "f", &of_a, None));

    let moved = function(r#"{"name":"t-u","stream":"b"}"#);
    let moved = apply(&mut state, put("Function", "f", &moved, None));
    let started = function(r#"{"name":"t-u","stream":"a","start":"earliest"}"#);
    let started = apply(&mut state, put("Function", "f", &started, None));
    let filtered =
        function(r#"{"name":"t-u","stream":"default/a","filters":[{"exact":{"type":"x"}}]}"#);
    let filtered = apply(&mut state, put("Function", "f", &filtered, None));
    let clash = function(r#"{"name":"v","stream":"a"},{"name":"u","stream":"a"}"#);
    let clash = apply(&mut state, put("Function", "f-t", &clash, None));
    let free = function(r#"{"name":"v","stream":"a"}"#);
    let free = apply(&mut state, put("Function", "f-t", &free, None));

    assert_eq!(reason(moved).1, "spec.triggers[0]");
    assert_eq!(reason(started).1, "spec.triggers[0]");
    assert_eq!(filtered.change, v1::Change::Updated);
    assert_eq!(reason(clash).1, "spec.triggers[1].name");
    assert_eq!(free.change, v1::Change::Created);
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let mut state = State::new(3);
    let endless =
        apply(&mut state, put("Stream", "a", r#"{"retention":{"max_age":"forever"}}"#, None));
    let spec = |reply| {
        format!(
            r#"{{"command":["x"],"triggers":[{{"stream":"a"}}],"reply":{{"stream":"{reply}"}}}}"#
        )
    };
    apply(&mut state, put("Stream", "b", "{}", None));

    let looping = apply(&mut state, put("Function", "f", &spec("default/a"), None));
    let straight = apply(&mut state, put("Function", "f", &spec("b"), None));
    let nowhere = apply(&mut state, put("Function", "f", &spec("c"), None));

    assert!(endless.warnings[0].contains("retention"), "{:?}", endless.warnings);
    assert!(looping.warnings[0].contains("default/a"), "{:?}", looping.warnings);
    assert!(straight.warnings.is_empty(), "{:?}", straight.warnings);
    assert_eq!(reason(nowhere), ("UNKNOWN_STREAM".to_owned(), "spec.reply.stream".to_owned()));
}

#[test]
fn streams_of_a_flow_exist_and_are_in_use() {
    let mut state = State::new(3);
    for stream in ["a", "b"] {
        apply(&mut state, put("Stream", stream, "{}", None));
    }
    let spec = |stream: &str| {
        format!(
            r#"{{"triggers":[{{"stream":"a"}}],"flow":{{"steps":[{{"publish":{{"stream":"{stream}"}}}}]}}}}"#
        )
    };

    let nowhere = apply(&mut state, put("Function", "f", &spec("c"), None));
    let looping = apply(&mut state, put("Function", "f", &spec("a"), None));
    let straight = apply(&mut state, put("Function", "f", &spec("b"), None));
    let deleted = apply(&mut state, delete("Stream", "b"));

    assert_eq!(reason(nowhere).1, "spec.flow.steps[0].publish.stream");
    assert!(looping.warnings[0].contains("default/a"), "{:?}", looping.warnings);
    assert!(straight.warnings.is_empty(), "{:?}", straight.warnings);
    assert_eq!(reason(deleted).0, "FAILED_PRECONDITION");
}

#[test]
fn sizes_are_bounded() {
    let mut state = State::new(3);
    let document = |number: usize, len: usize| {
        format!(r#"{{"document":{{"title":"{number}{}"}}}}"#, "x".repeat(len))
    };

    let large = apply(&mut state, put("Schema", "s", &document(0, 1 << 20), None));
    assert_eq!(reason(large).1, "spec");
    for number in 0..2 {
        assert!(
            apply(&mut state, put("Schema", "s", &document(number, 1_000_000), None))
                .outcome
                .is_ok()
        );
    }
    let before = state.clone();
    let full = apply(&mut state, put("Schema", "s", &document(2, 1_000_000), None));
    assert_eq!(reason(full).0, "TOO_LARGE");
    assert_eq!(state.encode(), before.encode());
    let small = apply(&mut state, put("Schema", "s", &document(3, 10), None));
    assert_eq!(super::view::schema_status(stored(&small)).versions[2].id, 3);

    for number in 0..12 {
        apply(&mut state, put("Subscription", &format!("s{number}"), r#"{"stream":"a"}"#, None));
    }
    apply(&mut state, put("Stream", "a", "{}", None));
    for number in 0..12 {
        apply(&mut state, put("Subscription", &format!("s{number}"), r#"{"stream":"a"}"#, None));
    }
    let used = apply(&mut state, delete("Stream", "a")).outcome.unwrap_err();
    assert!(used.message.contains("Subscription default/s0,"), "{}", used.message);
    assert!(used.message.contains("and 2 more"), "{}", used.message);
}

#[test]
fn equal_states_have_equal_bytes_whatever_the_order_of_labels() {
    let labelled = |names: &[u32]| {
        let mut resource = resource("Stream", "a", "{}");
        resource.labels =
            names.iter().map(|name| (format!("label{name}"), "x".to_owned())).collect();
        Wanted::Put(internal::CatalogPut { resource: Some(resource), expected_generation: None })
    };
    let (mut one, mut other) = (State::new(3), State::new(3));
    let (up, down): (Vec<_>, Vec<_>) = ((0..20).collect(), (0..20).rev().collect());
    apply(&mut one, labelled(&up));
    apply(&mut other, labelled(&down));

    assert_eq!(one.encode(), other.encode());
    assert_eq!(State::decode(&one.encode()).unwrap().state_hash(), one.state_hash());
}

#[test]
fn the_bytes_of_a_checkpoint_never_change() {
    let mut state = State::new(3);
    let mut labelled = resource("Stream", "a", r#"{"partitions":2}"#);
    labelled.labels = [("b", "1"), ("a", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let labelled = internal::CatalogPut { resource: Some(labelled), expected_generation: Some(0) };
    let node = internal::CatalogNode { id: 1, ..internal::CatalogNode::default() };
    for change in [
        Wanted::Put(labelled),
        put("Schema", "s", r#"{"document":{"b":1.0,"a":[]}}"#, None),
        put("Subscription", "r", r#"{"stream":"a"}"#, None),
        put("Function", "f", r#"{"command":["x"],"triggers":[{"stream":"a"}]}"#, None),
        Wanted::Node(node),
    ] {
        assert!(apply(&mut state, change).outcome.is_ok());
    }

    // A release that gives other bytes to the same entries cannot run beside this one.
    assert_eq!((state.encode().len(), state.state_hash()), (541, 17_897_112_276_298_365_381));
}

#[test]
fn checkpoints_of_other_formats_are_refused() {
    let newer = internal::CatalogState { format: 1, ..internal::CatalogState::default() };
    let newer = prost::Message::encode_to_vec(&newer);

    assert!(State::decode(&newer).unwrap_err().contains("format 1"));
    assert!(State::decode(&[0xff]).is_err());
}

#[test]
fn a_node_tells_its_addresses_once() {
    let mut state = State::new(3);
    let node = |id, grpc: &str| {
        let grpc_address = grpc.to_owned();
        Wanted::Node(internal::CatalogNode { id, grpc_address, ..internal::CatalogNode::default() })
    };

    let first = apply(&mut state, node(1, "a:1"));
    let again = apply(&mut state, node(1, "a:1"));
    let moved = apply(&mut state, node(1, "b:1"));
    let nobody = apply(&mut state, node(0, "c:1"));

    assert_eq!([first.generation, again.generation, moved.generation], [1, 1, 2]);
    assert_eq!(reason(nobody).1, "id");
    let addresses: Vec<_> = state.nodes().map(|node| node.grpc_address.as_str()).collect();
    assert_eq!(addresses, ["b:1"]);
}

#[test]
fn id_reuse() {
    let mut state = State::new(3);
    let admit = |uid: &str, address: &str| {
        let (node_uid, peer_address) = (uid.to_owned(), address.to_owned());
        Wanted::Admit(internal::CatalogAdmit { node_uid, peer_address, above: 3 })
    };
    let expel = |id| Wanted::Expel(internal::CatalogExpel { id, above: 3 });
    let node = |id: u64| {
        let peer_address = format!("h:{id}");
        Wanted::Node(internal::CatalogNode { id, peer_address, ..Default::default() })
    };
    let message = |reply: Reply| reply.outcome.unwrap_err().message;
    let id_of = |state: &State, uid: &str| {
        state.nodes().find(|node| node.node_uid == uid).map(|node| node.id)
    };
    apply(&mut state, node(1));
    apply(&mut state, node(3));

    // The address of a node that may live is not taken over; that of a removed one is.
    let taken = apply(&mut state, admit("new", "h:3"));
    assert!(message(taken).contains("weft node remove 3"));
    assert!(apply(&mut state, expel(3)).outcome.is_ok());
    assert!(apply(&mut state, expel(3)).outcome.is_ok());
    assert!(apply(&mut state, admit("new", "h:3")).outcome.is_ok());
    assert_eq!(id_of(&state, "new"), Some(4));
    apply(&mut state, admit("new", "h:3"));
    assert_eq!(id_of(&state, "new"), Some(4));
    // Neither a removed founder nor a removed folder comes back, and no id comes twice.
    assert!(message(apply(&mut state, node(3))).contains("was removed"));
    apply(&mut state, expel(4));
    assert!(message(apply(&mut state, admit("new", "h:9"))).contains("was removed"));
    apply(&mut state, admit("newer", "h:4"));
    assert_eq!(id_of(&state, "newer"), Some(5));
    // 1, 2 and 5 are left; then 1 and 5; and that is the least.
    apply(&mut state, expel(2));
    assert!(message(apply(&mut state, expel(1))).contains("add another one first"));
    let known = State::decode(&state.encode()).unwrap();
    assert_eq!(known, state);
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
        (name, name, 1..9_u32).prop_map(|(name, stream, timeout)| {
            let spec = format!(
                r#"{{"command":["x"],"timeout":"{timeout}s","triggers":[{{"stream":"{stream}"}}]}}"#
            );
            put("Function", &name, &spec, None)
        }),
        (name, 0..4_u64, 0..3_u32).prop_map(|(name, uid, delivered)| {
            let status = format!(r#"{{"observed_generation":{delivered}}}"#).into();
            Wanted::SetStatus(internal::CatalogSetStatus {
                kind: "Function".to_owned(),
                namespace: String::new(),
                name,
                uid,
                status,
            })
        }),
        (0..3_u64, "[ab]").prop_map(|(id, peer_address)| {
            Wanted::Node(internal::CatalogNode {
                id,
                peer_address,
                ..internal::CatalogNode::default()
            })
        }),
        ("(Stream|Schema|Subscription|Function)", name)
            .prop_map(|(kind, name)| delete(&kind, &name)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn histories_keep_the_promises(changes in proptest::collection::vec(any_change(), 1..40)) {
        let (mut state, mut replica) = (State::new(3), State::new(3));
        let mut uids = std::collections::BTreeSet::new();
        let mut partitions = std::collections::BTreeSet::new();
        let mut schema_ids = std::collections::BTreeSet::new();
        let mut watched = std::collections::BTreeMap::new();
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
            // A writer wins only over the generation that it looked at.
            if let (Ok(Some(after)), Some(expected)) = (&reply.outcome, wanted_generation(&command)) {
                let looked_at = before.get(kind_of(after), &name_of(after));
                prop_assert_eq!(looked_at.map_or(0, |resource| resource.generation), expected);
            }
            // Changes alone keep a watcher up to date.
            match changed.as_ref().map(|change| &change.what) {
                Some(Changed::Put(put)) => {
                    watched.insert((kind_of(put), name_of(put)), std::sync::Arc::clone(put));
                    let versions = super::view::schema_status(put).versions;
                    let known = before.get(kind_of(put), &name_of(put))
                        .map_or(0, |old| super::view::schema_status(old).versions.len());
                    for version in versions.iter().skip(known) {
                        prop_assert!(schema_ids.insert(version.id), "schema id came twice");
                    }
                }
                Some(Changed::Deleted(old)) => {
                    watched.remove(&(kind_of(old), name_of(old)));
                }
                Some(Changed::Node | Changed::Access) | None => {}
            }
            prop_assert_eq!(&watched, state.resources());
            let risen = u64::from(changed.is_some());
            prop_assert_eq!(state.generation(), before.generation() + risen);
            if let Some(super::Change { what: Changed::Put(resource), .. }) = changed_of(&before, &payload, time)
                && before.get(kind_of(&resource), &name_of(&resource)).is_none()
            {
                prop_assert!(uids.insert(resource.uid), "uid {} came twice", resource.uid);
                for placement in super::view::stream_status(&resource).placements {
                    for uid in [placement.uid, placement.dead, placement.delayed] {
                        prop_assert!(partitions.insert(uid));
                    }
                    prop_assert!((1..=3).contains(&placement.group));
                }
            }
        }
    }
}

fn wanted_generation(command: &internal::CatalogCommand) -> Option<u64> {
    match &command.change {
        Some(Wanted::Put(put)) => put.expected_generation,
        _ => None,
    }
}

fn changed_of(before: &State, payload: &[u8], time: Timestamp) -> Option<super::Change> {
    before.clone().apply(payload, time).unwrap().1
}

fn kind_of(resource: &v1::Resource) -> Kind {
    resource.kind.parse().unwrap()
}

fn name_of(resource: &v1::Resource) -> QualifiedName {
    weft_proto::resource::identify(resource).unwrap().1
}
