//! Configurations that make no sense, and addresses that somebody else has.

use std::fs;
use std::net::TcpListener;

use super::refused_start;
use crate::harness::Cluster;
use crate::harness::node::broker;
use crate::harness::ports::address;
use crate::harness::process::{finished, run, weft};

/// What is put into a good configuration, where, and what the refusal must say.
const WRONG: &[(&str, &str, &[&str])] = &[
    ("[store]", "[listen2]\nx = 1\n[store]", &["line", "listen2"]),
    ("data_groups = 2", "data_grups = 2", &["line 11", "data_grups", "data_groups"]),
    ("data_groups = 2", "data_groups = \"many\"", &["line 11", "data_groups", "many"]),
    ("data_groups = 2", "data_groups = -1", &["line 11", "data_groups", "-1"]),
    ("data_groups = 2", "data_groups = ", &["line 11", "data_groups"]),
    ("data_groups = 2", "data_groups = 0", &["line 11", "cluster.data_groups", "1..=100"]),
    ("data_groups = 2", "heartbeat_ms = 1", &["line 11", "cluster.heartbeat_ms", "20..=10000"]),
    ("founders = []", "founders = [\"a:1\", \"b:1\"]", &["line 10", "cluster.founders", "two"]),
    ("founders = []", "founders = [\"a\"]", &["line 10", "cluster.founders", "host:port"]),
    ("\"small\"", "\"tiny\"", &["line 14", "profile", "tiny", "small"]),
    ("[store]", "[security]\nkey = \"k.pem\"\n[store]", &["line 14", "security.key"]),
    ("[cluster]", "advertise = \"here\"\n[cluster]", &["line 9", "listen.advertise", "here"]),
];

#[tokio::test]
async fn a_broken_configuration_is_refused_with_key_and_line() {
    let cluster = Cluster::new(1).await;
    let node = &cluster.nodes[0];
    let file = cluster.place.dir.path().join("wrong.toml");

    for (good, wrong, told) in WRONG {
        let text = node.config();
        assert!(text.contains(good), "{text}");
        fs::write(&file, text.replace(good, wrong)).unwrap();

        let ended = finished(broker(weft(), &file), "").await;

        assert_eq!(ended.code, Some(1), "{wrong}: {ended:?}");
        let told = told.iter().copied().chain(["wrong.toml"]);
        let missing: Vec<_> = told.filter(|told| !ended.stderr.contains(told)).collect();
        assert!(missing.is_empty(), "{wrong}: {missing:?} is not told: {}", ended.stderr);
        assert!(!node.data().exists(), "{wrong}: the data folder was made");
    }
}

#[tokio::test]
async fn an_address_that_others_reach_needs_protection() {
    let cluster = Cluster::new(1).await;
    let node = &cluster.nodes[0];
    let file = cluster.place.dir.path().join("open.toml");
    let open = node.config().replace(&address(node.ports.grpc), "0.0.0.0:7400");
    fs::write(&file, open).unwrap();

    let ended = finished(broker(weft(), &file), "").await;

    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("listen.grpc"), "{}", ended.stderr);
    assert!(ended.stderr.contains("security.certificate"), "{}", ended.stderr);
    assert!(!node.data().exists());
}

#[tokio::test]
async fn a_missing_file_and_a_wrong_variable_are_named() {
    let cluster = Cluster::new(1).await;
    let node = &cluster.nodes[0];

    let missing = cluster.place.dir.path().join("missing.toml");
    let ended = finished(broker(weft(), &missing), "").await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("missing.toml"), "{}", ended.stderr);

    for (value, told) in [("many", "many"), ("0", "1..=100")] {
        let mut command = broker(weft(), &node.config_file());
        command.env("WEFT_CLUSTER__DATA_GROUPS", value);
        let ended = finished(command, "").await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let names = ["WEFT_CLUSTER__DATA_GROUPS", told];
        assert!(names.iter().all(|name| ended.stderr.contains(name)), "{}", ended.stderr);
    }
    assert!(!node.data().exists());
}

#[tokio::test]
async fn wrong_usage_is_told_apart_by_its_exit_code() {
    let _cluster = Cluster::new(1).await;

    for args in [&["broker", "--confg", "x"][..], &["brokr"], &["publish"], &["broker", "--config"]]
    {
        let ended = run(args, "").await;
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains("Usage") || ended.stderr.contains("--help"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_dispatcher_with_a_broken_configuration_is_refused_with_key_and_line() {
    let cluster = Cluster::new(1).await;
    let file = cluster.place.dir.path().join("wrong.toml");

    for (text, told) in [
        ("endpoints = []\n", &["line 1", "endpoints"][..]),
        ("endpoints = [\"h:1\"]\n[proces]\n", &["line 2", "proces"]),
        ("endpoints = [\"h:1\"]\n[process]\nenabled = 1\n", &["line 3", "enabled"]),
        (
            "endpoints = [\"127.0.0.1:1\"]\n[process]\nenabled = true\ndirectories = [\"bin\"]\n",
            &["line 4", "process.directories", "bin"],
        ),
    ] {
        fs::write(&file, text).unwrap();
        let mut command = weft();
        command.arg("dispatcher").arg("--config").arg(&file);
        let ended = finished(command, "").await;
        assert_eq!(ended.code, Some(1), "{text}: {ended:?}");
        let missing: Vec<_> = told.iter().filter(|told| !ended.stderr.contains(**told)).collect();
        assert!(missing.is_empty(), "{text}: {missing:?} is not told: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_key() {
    let cluster = Cluster::new(1).await;
    let node = &cluster.nodes[0];
    let ports = node.ports;

    for (key, port) in
        [("listen.grpc", ports.grpc), ("listen.http", ports.http), ("listen.peer", ports.peer)]
    {
        let _taken = TcpListener::bind(address(port)).unwrap();
        let ended = refused_start(node).await;
        let names = [key, &address(port), "in use"];
        assert!(names.iter().all(|name| ended.stderr.contains(name)), "{key}: {}", ended.stderr);
        assert!(!node.data().exists(), "{key}: the data folder was made");
    }
}
