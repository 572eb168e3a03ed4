//! The whole dispatcher: gRPC on one side, real processes on the other.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use prost::Message as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_dispatcher::port::memory::MemoryMesh;
use weft_dispatcher::port::{FUNCTION, Mesh as _};
use weft_dispatcher::{Config, Process, run};
use weft_proto::QualifiedName;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::trace::Tracer;
use weft_proto::v1::Resource;

use crate::{Case, process, wire};

const LONG: Duration = Duration::from_secs(20);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("whole::events_reach_processes_and_are_acknowledged", events_reach_processes),
        ("whole::a_disabled_launcher_says_so", a_disabled_launcher_says_so),
    ]
}

fn name(text: &str) -> QualifiedName {
    text.parse().unwrap()
}

async fn publish(mesh: &MemoryMesh, ids: std::ops::Range<u32>) {
    for id in ids {
        let event = CloudEvent {
            id: id.to_string(),
            source: "/s".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "t".to_owned(),
            ..CloudEvent::default()
        };
        mesh.publish(&name("orders"), vec![event.encode_to_vec().into()]).await.unwrap();
    }
}

async fn define(mesh: &MemoryMesh) {
    let own = process::own_path();
    let spec = json!({
        "command": [own.to_str().unwrap(), "as-program", "answer"],
        "triggers": [{ "name": "t", "stream": "orders", "start": "earliest" }],
    });
    let resource = Resource {
        kind: FUNCTION.to_owned(),
        namespace: "default".to_owned(),
        name: "f".to_owned(),
        spec: spec.to_string().into(),
        ..Resource::default()
    };
    mesh.put(resource).await.unwrap();
}

async fn wait(mesh: &MemoryMesh, is_so: impl FnMut(&MemoryMesh) -> bool) {
    tokio::time::timeout(LONG, mesh.wait_until(is_so)).await.unwrap();
}

fn with_dispatcher(config: fn() -> Process, case: impl AsyncFnOnce(&MemoryMesh)) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let mesh = MemoryMesh::default();
        mesh.create_stream(&name("orders"));
        let endpoints = vec![wire::serve(mesh.clone()).await];
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let config = Config { endpoints, process: config(), ..Config::default() };
        let running =
            tokio::spawn(run(config, Tracer::default(), async move { stopped.cancelled().await }));

        case(&mesh).await;

        stop.cancel();
        tokio::time::timeout(LONG, running).await.unwrap().unwrap().unwrap();
    });
}

fn events_reach_processes() {
    let config = || Process {
        enabled: true,
        directories: vec![process::own_path().parent().unwrap().to_owned()],
        ..Process::default()
    };
    with_dispatcher(config, async |mesh| {
        define(mesh).await;
        wait(mesh, |mesh| mesh.acked(&name("fn-f-t")).is_empty() && has_status(mesh)).await;
        let started = Instant::now();
        publish(mesh, 0..1).await;
        wait(mesh, |mesh| mesh.acked(&name("fn-f-t")).len() == 1).await;
        println!("  cold start, publish to acknowledged: {:?}", started.elapsed());

        let started = Instant::now();
        publish(mesh, 1..2).await;
        wait(mesh, |mesh| mesh.acked(&name("fn-f-t")).len() == 2).await;
        println!("  warm, publish to acknowledged: {:?}", started.elapsed());

        let started = Instant::now();
        publish(mesh, 2..2000).await;
        let all: BTreeSet<u64> = (0..2000).collect();
        wait(mesh, |mesh| mesh.acked(&name("fn-f-t")) == all).await;

        let rate = 2000.0 / started.elapsed().as_secs_f64();
        println!("  warm: {rate:.0} events/s through publish, push and acknowledgement");
    });
}

fn has_status(mesh: &MemoryMesh) -> bool {
    !mesh.status(&name("f")).is_empty()
}

fn a_disabled_launcher_says_so() {
    with_dispatcher(Process::default, async |mesh| {
        publish(mesh, 0..1).await;
        define(mesh).await;

        wait(mesh, |mesh| {
            let status: Value =
                serde_json::from_slice(&mesh.status(&name("f"))).unwrap_or_default();
            status.to_string().contains("not enabled")
        })
        .await;
    });
}
