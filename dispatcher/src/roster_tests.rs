//! A third kind, whose runners only tell what they are told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Span, info_span};
use weft_proto::v1::Resource;
use weft_proto::{Error, Generation, QualifiedName, Result};

use crate::port::memory::MemoryMesh;
use crate::port::{FUNCTION, Mesh as _, SUBSCRIPTION};
use crate::roster::{Roster, Runs};

const TOY: &str = "Toy";

#[derive(Clone)]
struct Toys(Arc<Mutex<Vec<String>>>);

impl Runs for Toys {
    const KIND: &'static str = TOY;
    const WORD: &'static str = "toy";
    const LABEL: &'static str = "weft.toy";
    type Plan = String;
    type Order = String;

    fn plan(&self, resource: &Resource) -> Result<String> {
        let spec = String::from_utf8_lossy(&resource.spec).into_owned();
        if spec == "bad" { Err(Error::invalid("it is bad")) } else { Ok(spec) }
    }

    fn revised(plan: String) -> String {
        format!("now {plan}")
    }

    fn refused(message: String) -> String {
        format!("refused: {message}")
    }

    fn deleted() -> String {
        "gone".to_owned()
    }

    fn noted(resource: &Resource) -> Option<String> {
        Some(format!("noted {}", String::from_utf8_lossy(&resource.status)))
    }

    fn refusal(generation: Generation, error: &Error) -> Vec<u8> {
        format!("{generation}: {}", error.message()).into_bytes()
    }

    fn span(name: &QualifiedName) -> Span {
        info_span!("toy", %name)
    }

    fn run(
        &self,
        plan: String,
        _seed: u64,
        mut orders: mpsc::Receiver<String>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        let told = Arc::clone(&self.0);
        Box::pin(async move {
            let tell = |line: String| told.lock().unwrap().push(line);
            assert_ne!(plan, "panic", "as it was told");
            tell(format!("run {plan}"));
            loop {
                let order = tokio::select! {
                    () = stop.cancelled() => break,
                    order = orders.recv() => order,
                };
                let order = order.unwrap();
                tell(order.clone());
                if order == "gone" {
                    break;
                }
            }
            tell(format!("end {plan}"));
        })
    }
}

fn toy(name: &str, spec: &str) -> Resource {
    Resource {
        kind: TOY.to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        spec: spec.to_owned().into(),
        ..Resource::default()
    }
}

fn name(text: &str) -> QualifiedName {
    text.parse().unwrap()
}

struct Ran {
    mesh: MemoryMesh,
    told: Toys,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

fn start(mesh: MemoryMesh) -> Ran {
    let told = Toys(Arc::default());
    let roster = Roster::new(told.clone(), Arc::new(mesh.clone()), TaskTracker::new());
    let stop = CancellationToken::new();
    let task = TaskTracker::new().spawn(roster.run(stop.clone()));
    Ran { mesh, told, stop, task }
}

impl Ran {
    /// Waits for what was told so far.
    async fn told(&self, lines: &[&str]) {
        until(async || *self.told.0.lock().unwrap() == lines).await;
    }
}

/// Waits for something; the time is paused, so that the limit only ends what would hang.
async fn until(is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_mins(10), waiting).await.expect("it never came");
}

#[tokio::test(start_paused = true)]
async fn each_resource_of_a_kind_has_a_runner_that_hears_of_its_changes() {
    let ran = start(MemoryMesh::default());
    ran.mesh.put(Resource { kind: FUNCTION.to_owned(), ..toy("other", "kind") }).await.unwrap();
    ran.mesh.put(toy("a", "one")).await.unwrap();
    ran.told(&["run one"]).await;

    ran.mesh.put(toy("a", "two")).await.unwrap();
    ran.mesh.put(toy("a", "bad")).await.unwrap();
    ran.told(&["run one", "now two", "refused: it is bad"]).await;

    ran.mesh.delete(TOY, &name("default/a")).await.unwrap();
    ran.mesh.put(toy("a", "three")).await.unwrap();
    let all =
        ["run one", "now two", "refused: it is bad", "gone", "end one", "run three", "end three"];
    // The second of a name begins when the first has ended.
    ran.told(&all[..6]).await;

    ran.stop.cancel();
    ran.task.await.unwrap().unwrap();
    assert_eq!(*ran.told.0.lock().unwrap(), all, "what runs has ended before the roster");
}

#[tokio::test(start_paused = true)]
async fn what_never_ran_is_refused_in_its_status() {
    let ran = start(MemoryMesh::default());
    ran.mesh.put(toy("a", "bad")).await.unwrap();

    let told = || async {
        let found = ran.mesh.get(TOY, &name("default/a")).await.unwrap().unwrap();
        String::from_utf8_lossy(&found.status).into_owned()
    };
    until(async || told().await == "1: it is bad").await;
    assert_eq!(*ran.told.0.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn subscriptions_of_what_went_unseen_are_deleted_and_no_others() {
    let mesh = MemoryMesh::default();
    mesh.create_stream(&name("default/orders"));
    mesh.put(toy("here", "one")).await.unwrap();
    let owned = |of: &str, label: &str| Resource {
        kind: SUBSCRIPTION.to_owned(),
        labels: [(label.to_owned(), of.to_owned())].into(),
        ..toy(&format!("of-{of}-{}", label.len()), r#"{"stream":"default/orders"}"#)
    };
    for (of, label) in [("here", "weft.toy"), ("gone", "weft.toy"), ("gone", "weft.function")] {
        mesh.put(owned(of, label)).await.unwrap();
    }

    let _ran = start(mesh.clone());

    let left = || async { mesh.list(SUBSCRIPTION).await.unwrap() };
    until(async || left().await.len() != 3).await;
    let left: Vec<_> = left().await.into_iter().map(|one| one.name).collect();
    assert_eq!(left, ["of-gone-13", "of-here-8"]);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_panics_ends_the_roster() {
    let ran = start(MemoryMesh::default());
    ran.mesh.put(toy("a", "panic")).await.unwrap();

    let error = ran.task.await.unwrap().unwrap_err();

    assert_eq!(error.message(), "the task of a toy panicked");
}
