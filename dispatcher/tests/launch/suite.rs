//! What every launcher must do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::task::TaskTracker;
use weft_dispatcher::delivery::{InstanceId, Outcome};
use weft_dispatcher::launch::fake::Fakes;
use weft_dispatcher::launch::{
    Exit, Failure, FailureKind, Instance, Labels, Launch, Launcher, Progress, Run,
};
use weft_dispatcher::push::{Delivery, Target};
use weft_proto::QualifiedName;
use weft_proto::resource::{EnvVar, Protocol, ResourcesSpec, SecuritySpec};

use crate::{Case, process, programs};

const LONG: Duration = Duration::from_secs(20);

/// All rules, for each launcher.
pub(crate) fn cases() -> Vec<Case> {
    macro_rules! for_each_launcher {
        ($($case:ident),* $(,)?) => {
            vec![$(
                (concat!("fake::", stringify!($case)), || run($case, fakes)),
                (concat!("process::", stringify!($case)), || run($case, process::processes)),
            )*]
        };
    }
    for_each_launcher![
        an_instance_takes_events_as_soon_as_it_is_started,
        an_idle_instance_ends_when_asked,
        what_is_in_flight_is_finished_before_the_end,
        who_does_not_end_in_time_is_killed,
        a_crash_is_reported_with_its_last_words,
        a_dropped_instance_ends,
        an_unknown_command_is_named,
        two_instances_do_not_share_an_address,
    ]
}

struct Bench {
    launcher: Arc<dyn Launcher>,
    tasks: TaskTracker,
}

impl Bench {
    async fn start(&self, launch: Launch) -> Result<Instance, Failure> {
        self.launcher.start(launch, Progress::unheard()).await
    }
}

fn fakes(tasks: TaskTracker) -> Arc<dyn Launcher> {
    let find = |launch: &Launch| {
        let Run::Process { command } = &launch.run else { panic!("{launch:?}") };
        let word = command.last().cloned().unwrap_or_default();
        programs::program(&word)
            .ok_or_else(|| Failure::config(format!("command {word:?} does not exist")))
    };
    Arc::new(Fakes::new(Arc::new(find), tasks))
}

fn run<F: Future<Output = ()>>(case: fn(Bench) -> F, make: fn(TaskTracker) -> Arc<dyn Launcher>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let tasks = TaskTracker::new();
        let bench = Bench { launcher: make(tasks.clone()), tasks };
        tokio::time::timeout(LONG, case(bench)).await.unwrap();
    });
}

pub(crate) fn launch(word: &str) -> Launch {
    let own = process::own_path();
    let command = match word {
        "no-such-program" => vec![word.to_owned()],
        word => vec![own.to_str().unwrap().to_owned(), "as-program".to_owned(), word.to_owned()],
    };
    Launch {
        id: InstanceId(1),
        function: name(),
        revision: "f-00001".to_owned(),
        run: Run::Process { command },
        env: Vec::new(),
        resources: ResourcesSpec::default(),
        probe: None,
        protocol: Protocol::Auto,
        security: SecuritySpec::default(),
        policy: "restricted".parse().unwrap(),
        instances: 1,
        grace: LONG,
        labels: Labels::default(),
    }
}

pub(crate) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), secret_ref: None }
}

fn name() -> QualifiedName {
    "default/f".parse().unwrap()
}

fn event() -> Bytes {
    use prost::Message as _;
    let event = weft_proto::cloudevents::CloudEvent {
        id: "1".to_owned(),
        source: "/s".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "t".to_owned(),
        ..Default::default()
    };
    event.encode_to_vec().into()
}

async fn push(target: &Target) -> Outcome {
    let delivery = Delivery {
        id: "1".to_owned(),
        attempt: 1,
        partition: 0,
        offset: 0,
        timeout: LONG,
        is_batch: false,
        takes_reply: false,
        trace: None,
    };
    target.push(&[event()], &delivery, &name()).await.outcome
}

async fn an_instance_takes_events_as_soon_as_it_is_started(bench: Bench) {
    let instance = bench.start(launch("answer")).await.unwrap();
    let target = Target::new(instance.address, bench.tasks);

    assert_eq!(push(&target).await, Outcome::Done);
    assert_eq!(push(&target).await, Outcome::Done);
}

async fn an_idle_instance_ends_when_asked(bench: Bench) {
    let mut instance = bench.start(launch("answer")).await.unwrap();
    let line = instance.lines.recv().await.unwrap();
    assert_eq!(line.text, "ready");
    let target = Target::new(instance.address, bench.tasks);
    assert_eq!(push(&target).await, Outcome::Done);

    instance.stop.stop(LONG);

    assert_eq!(instance.exit.await.unwrap(), Exit::Stopped);
    assert_ne!(push(&target).await, Outcome::Done);
}

async fn what_is_in_flight_is_finished_before_the_end(bench: Bench) {
    let mut instance = bench.start(launch("slow")).await.unwrap();
    let target = Target::new(instance.address, bench.tasks);
    assert_eq!(push(&target).await, Outcome::Done);
    let started = Instant::now();
    let pushing = push(&target);
    let stopping = async {
        tokio::time::sleep(programs::SLOW / 3).await;
        instance.stop.stop(LONG);
        (&mut instance.exit).await.unwrap()
    };

    let (outcome, exit) = tokio::join!(pushing, stopping);

    assert_eq!((outcome, exit), (Outcome::Done, Exit::Stopped));
    assert!(started.elapsed() >= programs::SLOW);
}

async fn who_does_not_end_in_time_is_killed(bench: Bench) {
    let mut instance = bench.start(launch("stubborn")).await.unwrap();
    assert_eq!(instance.lines.recv().await.unwrap().text, "ready");
    let target = Target::new(instance.address, bench.tasks);
    assert_eq!(push(&target).await, Outcome::Done);

    instance.stop.stop(Duration::from_millis(200));

    assert_eq!(instance.exit.await.unwrap(), Exit::Killed);
    assert_ne!(push(&target).await, Outcome::Done);
}

async fn a_crash_is_reported_with_its_last_words(bench: Bench) {
    let mut instance = bench.start(launch("crash")).await.unwrap();

    let exit = (&mut instance.exit).await.unwrap();

    let Exit::Crashed(crash) = exit else { panic!("{exit:?}") };
    assert_eq!((crash.kind, crash.exit_code), (FailureKind::CrashLoop, Some(3)));
    assert_eq!(crash.message, "exited with code 3");
    assert_eq!(instance.lines.recv().await.unwrap().text, "going down");
    assert_eq!(instance.lines.recv().await, None);
}

async fn a_dropped_instance_ends(bench: Bench) {
    let instance = bench.start(launch("answer")).await.unwrap();
    let target = Target::new(instance.address, bench.tasks);
    assert_eq!(push(&target).await, Outcome::Done);

    let exit = instance.exit;
    drop((instance.stop, instance.lines));

    assert_eq!(exit.await.unwrap(), Exit::Killed);
}

async fn an_unknown_command_is_named(bench: Bench) {
    let error = bench.start(launch("no-such-program")).await.unwrap_err();

    assert_eq!(error.kind, FailureKind::Config);
    assert!(error.message.contains("no-such-program"), "{error}");
}

async fn two_instances_do_not_share_an_address(bench: Bench) {
    let one = bench.start(launch("answer")).await.unwrap();
    let two = bench.start(launch("answer")).await.unwrap();

    assert_ne!(one.address, two.address);
}
