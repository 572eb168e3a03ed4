//! Functions in a cluster that asks everybody who they are: the dispatcher is a caller like others.

use std::fs;
use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::Code;
use weft_proto::resource::{Kind, WebhookStatus};
use weft_proto::v1;

use super::wire::call;
use super::{SOON, Secured, event};
use crate::harness::daemon::Daemon;
use crate::harness::node::quoted;
use crate::harness::ports::address;
use crate::harness::process::weft;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_with_its_role_runs_functions_and_webhooks_of_its_namespace() {
    let secured = Secured::start(1).await;
    for stream in ["shop/orders", "shop/replies"] {
        secured.put(Kind::Stream, stream, json!({})).await;
    }
    let key = secured.with_role("dispatcher").await;
    let folder = secured.cluster.place.dir.path().to_owned();
    let token = folder.join("token");
    fs::write(&token, format!("{key}\n")).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_weft"));
    let config = format!(
        "endpoints = [{:?}]\ntoken_file = {}\n[process]\nenabled = true\ndirectories = [{}]\n",
        address(secured.cluster.nodes[0].ports.grpc),
        quoted(&token),
        quoted(binary.parent().unwrap()),
    );
    let file = folder.join("dispatcher.toml");
    fs::write(&file, config).unwrap();
    let mut command = weft();
    command.arg("dispatcher").arg("--config").arg(file);
    let _dispatcher = Daemon::start("the dispatcher", command, &folder.join("dispatcher.log"));
    let function = json!({
        "command": [binary.to_str().unwrap(), "sample-function"],
        "triggers": [{"stream": "shop/orders", "start": "earliest"}],
        "reply": {"stream": "shop/replies"},
    });
    secured.put(Kind::Function, "shop/confirm", function).await;
    let publish = v1::PublishRequest {
        stream: "shop/orders".to_owned(),
        events: vec![event("1", "shop.order.placed")],
        ..v1::PublishRequest::default()
    };
    let _: v1::PublishResponse =
        secured.ask(&secured.root, "/weft.v1.Publish/Publish", &publish).await.one();

    let latest = v1::Position { at: Some(v1::position::At::Latest(v1::Latest {})) };
    let read = v1::ReadRequest {
        stream: "shop/replies".to_owned(),
        to: Some(latest),
        ..v1::ReadRequest::default()
    };
    let until = Instant::now() + SOON;
    loop {
        let message = vec![read.encode_to_vec().into()];
        let path = "/weft.v1.Read/Read";
        let answer = call(&secured.endpoint(), Some(&secured.root), path, message).await;
        assert_eq!(answer.code, Code::Ok, "{answer:?}");
        if answer.contains("order.confirmed") {
            break;
        }
        assert!(Instant::now() < until, "no reply came: {answer:?}");
        sleep(Duration::from_millis(100)).await;
    }

    // A webhook: nothing is dialled, and that is what the dispatcher may tell.
    let webhook = json!({"stream": "shop/orders", "url": "https://127.0.0.1:8443/"});
    secured.put(Kind::Webhook, "shop/out", webhook).await;
    let get = v1::GetRequest {
        kind: "Webhook".to_owned(),
        name: "shop/out".to_owned(),
        min_generation: 0,
    };
    let until = Instant::now() + SOON;
    loop {
        let answer: v1::GetResponse =
            secured.ask(&secured.root, "/weft.v1.Catalog/Get", &get).await.one();
        let status = answer.resource.unwrap().status;
        let status: WebhookStatus = serde_json::from_slice(&status).unwrap();
        if status.consent.reason.contains("no address that may be dialled") {
            break;
        }
        assert!(Instant::now() < until, "the dispatcher says nothing of use: {status:?}");
        sleep(Duration::from_millis(100)).await;
    }
}
