//! The catalog: its state as a checkpoint from disk or from another node, and its commands.
//!
//! First byte even: a checkpoint. Odd: commands with their length in front, applied one after
//! another on two replicas, which must agree; a command may be refused, it may not break.

#![cfg_attr(fuzzing, no_main)]

use prost::Message as _;
use weft_broker::catalog::{Reply, State, decode, encode};
use weft_fuzz::{Input, chosen, chunk};
use weft_proto::internal::{
    CatalogAdmit, CatalogCommand, CatalogDelete, CatalogExpel, CatalogNode, CatalogPut,
    CatalogSetStatus, catalog_command::Change,
};
use weft_proto::{Timestamp, v1};

weft_fuzz::target!();

pub const MAX_LEN: usize = 8_192;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    if input.u8() & 1 == 0 {
        let Ok(mut state) = State::decode(input.rest()) else { return false };
        let twin = State::decode(&state.encode()).expect("we read what we write");
        assert_eq!(twin.encode().len(), state.encode().len());
        // Whatever it holds, a command must not break on it.
        for command in commands() {
            let payload = encode(&command, Timestamp::from_micros(1));
            state.apply(&payload, Timestamp::from_micros(1)).expect("commands of ours apply");
        }
        return true;
    }
    let (mut state, mut accepted) = (State::new(2), false);
    let mut time = 0;
    while !input.is_empty() {
        let bytes = input.chunk();
        let Ok(command) = CatalogCommand::decode(bytes) else { continue };
        time += 1;
        let now = Timestamp::from_micros(time);
        let payload = encode(&command, now);
        assert_eq!(decode(&payload).as_ref(), Ok(&command));
        let mut twin = State::decode(&state.encode()).expect("we read what we write");
        let before = state.generation();
        match (state.apply(&payload, now), twin.apply(&payload, now)) {
            (Ok((reply, change)), Ok((twins_reply, twins_change))) => {
                assert_eq!(reply, twins_reply, "replicas answer the same");
                assert_eq!(change, twins_change, "and see the same change");
                assert_eq!(Reply::decode(&reply.encode()).expect("a reply is read"), reply);
                assert_eq!(state.generation(), before + u64::from(change.is_some()));
                accepted |= reply.outcome.is_ok();
            }
            (Err(error), Err(twins)) => assert_eq!(error, twins),
            (one, other) => panic!("replicas part: {one:?} and {other:?}"),
        }
        assert_eq!(twin, state, "replicas agree");
    }
    accepted
}

fn commands() -> Vec<CatalogCommand> {
    let put = |kind: &str, name: &str, spec: &str| {
        let resource = v1::Resource {
            kind: kind.to_owned(),
            name: name.to_owned(),
            spec: spec.as_bytes().to_vec().into(),
            ..v1::Resource::default()
        };
        Change::Put(CatalogPut { resource: Some(resource), expected_generation: None })
    };
    let node = CatalogNode {
        id: 1,
        grpc_address: "h:1".to_owned(),
        http_address: "h:2".to_owned(),
        peer_address: "h:3".to_owned(),
        node_uid: "u".to_owned(),
        ..CatalogNode::default()
    };
    let changes = [
        put("Schema", "order", r#"{"document":{"type":"object"}}"#),
        put("Stream", "orders", r#"{"partitions":3,"schemas":[{"type":"a.*","schema":"order"}]}"#),
        put("Schema", "order", r#"{"document":{"type":"array"}}"#),
        put("Subscription", "sub", r#"{"stream":"orders","filters":[{"exact":{"type":"a"}}]}"#),
        put(
            "Function",
            "fun",
            r#"{"command":["/a"],"triggers":[{"stream":"orders"}],"reply":{"stream":"orders"}}"#,
        ),
        put("Stream", "orders", r#"{"partitions":4}"#),
        Change::SetStatus(CatalogSetStatus {
            kind: "Function".to_owned(),
            name: "fun".to_owned(),
            uid: 4,
            status: b"{}".to_vec().into(),
            ..CatalogSetStatus::default()
        }),
        Change::Node(node),
        Change::Admit(CatalogAdmit {
            node_uid: "v".to_owned(),
            peer_address: "h:9".to_owned(),
            above: 3,
        }),
        Change::Expel(CatalogExpel { id: 1, above: 1 }),
        Change::Delete(CatalogDelete {
            kind: "Stream".to_owned(),
            name: "orders".to_owned(),
            ..CatalogDelete::default()
        }),
        Change::Delete(CatalogDelete {
            kind: "Function".to_owned(),
            name: "fun".to_owned(),
            expected_generation: Some(5),
            ..CatalogDelete::default()
        }),
    ];
    let command = |change| CatalogCommand { change: Some(change), principal: "me".to_owned() };
    changes.into_iter().map(command).collect()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let commands = commands();
    let all: Vec<u8> =
        commands.iter().flat_map(|command| chunk(&command.encode_to_vec())).collect();
    let mut state = State::new(2);
    for command in &commands {
        let time = Timestamp::from_micros(3);
        state.apply(&encode(command, time), time).expect("commands of ours apply");
    }
    let mut seeds =
        vec![chosen(1, all), chosen(0, state.encode()), chosen(0, State::new(1).encode())];
    seeds.extend(commands.iter().map(|command| chosen(1, chunk(&command.encode_to_vec()))));
    seeds.push(vec![0, 0xff]);
    seeds
}
