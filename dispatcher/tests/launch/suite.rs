//! What every launcher must do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::task::TaskTracker;
use weft_dispatcher::Policies;
use weft_dispatcher::delivery::{InstanceId, Outcome};
use weft_dispatcher::launch::fake::{Fakes, Program};
use weft_dispatcher::launch::guard::Guard;
use weft_dispatcher::launch::{
    Caps, Exit, Failure, FailureKind, Instance, Labels, Launch, Launcher, Line, Progress, Run,
    Secrets,
};
use weft_dispatcher::push::{Delivery, Target};
use weft_proto::QualifiedName;
use weft_proto::resource::{
    BytesText, DurationText, EnvVar, Policy, ProbeSpec, Protocol, ResourcesSpec, Rule,
    SecretKeyRef, SecuritySpec,
};

use crate::{Case, docker, process, programs};

pub(crate) const LONG: Duration = Duration::from_secs(30);
/// Long enough for what is wrong to happen.
const WHILE: Duration = Duration::from_millis(150);

/// All rules, for each launcher.
pub(crate) fn cases() -> Vec<Case> {
    macro_rules! for_each_launcher {
        ($($case:ident),* $(,)?) => {
            vec![$(
                (concat!("fake::", stringify!($case)), || run($case, Place::Fake)),
                (concat!("process::", stringify!($case)), || run($case, Place::Process)),
                (concat!("docker::", stringify!($case)), || run($case, Place::Docker)),
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
        what_does_not_exist_is_named,
        two_instances_do_not_share_an_address,
        a_parked_instance_answers_when_it_goes_on,
        a_parked_instance_ends_when_asked,
        a_slow_start_is_waited_for,
        who_is_not_ready_in_time_is_given_up,
        who_crashes_while_starting_is_not_waited_for,
        a_start_that_is_given_up_leaves_nothing,
        the_environment_has_values_and_secrets,
        a_secret_that_is_missing_is_named,
        a_policy_is_asked_before_the_start,
        what_is_demanded_is_enforced_or_refused,
        files_are_as_read_only_as_it_says,
        who_takes_too_much_memory_is_told,
    ]
}

/// Which launcher is tested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    Fake,
    Process,
    Docker,
}

pub(crate) struct Bench {
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) tasks: TaskTracker,
    pub(crate) place: Place,
    secrets: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(place: Place) -> Self {
        let tasks = TaskTracker::new();
        let secrets = tempfile::tempdir().unwrap();
        let folder = Secrets::new(Some(secrets.path().to_owned()), "secrets");
        let launcher: Arc<dyn Launcher> = match place {
            Place::Fake => Arc::new(fakes(tasks.clone(), folder)),
            Place::Process => process::with_secrets(folder, tasks.clone()),
            Place::Docker => docker::launcher(folder, tasks.clone()),
        };
        Self { launcher, tasks, place, secrets }
    }

    pub(crate) fn launch(&self, word: &str) -> Launch {
        match self.place {
            Place::Docker => docker::launch(word),
            _ => launch(word),
        }
    }

    pub(crate) async fn start(&self, launch: Launch) -> Result<Instance, Failure> {
        self.launcher.start(launch, Progress::unheard()).await
    }

    pub(crate) async fn run(&self, word: &str) -> (Instance, Target) {
        let instance = self.start(self.launch(word)).await.unwrap();
        let target = Target::new(instance.address, self.tasks.clone());
        (instance, target)
    }

    fn enforces(&self, rule: Rule) -> bool {
        let launch = self.launch("answer");
        self.launcher.caps(launch.runtime()).enforces.contains(&rule)
    }
}

fn fakes(tasks: TaskTracker, secrets: Secrets) -> Fakes {
    let find = |launch: &Launch| {
        let Run::Process { command } = &launch.run else { panic!("{launch:?}") };
        let word = command.last().cloned().unwrap_or_default();
        let program = programs::program(&word)
            .ok_or_else(|| Failure::config(format!("command {word:?} does not exist")))?;
        let env = launch.env.iter().filter(|_| word == "env");
        let env = env.map(|env| format!("{}={}", env.name, env.value.clone().unwrap()));
        Ok(Program { lines: env.chain(program.lines.clone()).collect(), ..program })
    };
    let caps = Caps { can_park: true, enforces: [Rule::NoEscalation].into(), count_max: None };
    Fakes::new(Arc::new(find), tasks).with(secrets, caps)
}

fn run<F: Future<Output = ()>>(case: fn(Bench) -> F, place: Place) {
    if place == Place::Docker && !docker::is_here() {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let bench = Bench::new(place);
        let tasks = bench.tasks.clone();
        tokio::time::timeout(LONG, case(bench)).await.unwrap();
        // What ends leaves nothing behind.
        tasks.close();
        tokio::time::timeout(LONG, tasks.wait()).await.unwrap();
    });
}

/// A program of the host.
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

fn secret(name: &str, key: &str) -> EnvVar {
    let secret_ref = Some(SecretKeyRef { name: "db".to_owned(), key: key.to_owned() });
    EnvVar { name: name.to_owned(), value: None, secret_ref }
}

fn probe(budget: Duration) -> ProbeSpec {
    ProbeSpec { path: Some("/ready".to_owned()), initial_budget: DurationText(budget) }
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

pub(crate) async fn push(target: &Target) -> Outcome {
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

/// What it writes until it says that it is ready.
pub(crate) async fn first_lines(instance: &mut Instance) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(Line { text, .. }) = instance.lines.recv().await {
        if text == "ready" {
            break;
        }
        lines.push(text);
    }
    lines
}

async fn an_instance_takes_events_as_soon_as_it_is_started(bench: Bench) {
    let (_instance, target) = bench.run("answer").await;

    assert_eq!(push(&target).await, Outcome::Done);
    assert_eq!(push(&target).await, Outcome::Done);
}

async fn an_idle_instance_ends_when_asked(bench: Bench) {
    let (mut instance, target) = bench.run("answer").await;
    let line = instance.lines.recv().await.unwrap();
    assert_eq!(line.text, "ready");
    assert_eq!(push(&target).await, Outcome::Done);

    instance.stop.stop(LONG);

    assert_eq!(instance.exit.await.unwrap(), Exit::Stopped);
    assert_ne!(push(&target).await, Outcome::Done);
}

async fn what_is_in_flight_is_finished_before_the_end(bench: Bench) {
    let (mut instance, target) = bench.run("slow").await;
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
    let (mut instance, target) = bench.run("stubborn").await;
    assert_eq!(instance.lines.recv().await.unwrap().text, "ready");
    assert_eq!(push(&target).await, Outcome::Done);

    instance.stop.stop(Duration::from_millis(200));

    assert_eq!(instance.exit.await.unwrap(), Exit::Killed);
    assert_ne!(push(&target).await, Outcome::Done);
}

/// One that listens already is started and then reported; of one that does not, the start fails.
async fn a_crash_is_reported_with_its_last_words(bench: Bench) {
    let (crash, words) = match bench.start(bench.launch("crash")).await {
        Err(failure) => {
            let words = failure.log_tail.clone();
            (failure, words)
        }
        Ok(mut instance) => {
            let Exit::Crashed(crash) = (&mut instance.exit).await.unwrap() else { panic!() };
            let mut words = Vec::new();
            while let Some(line) = instance.lines.recv().await {
                words.push(line.text);
            }
            (crash, words)
        }
    };

    assert_eq!((crash.kind, crash.exit_code), (FailureKind::CrashLoop, Some(3)));
    assert_eq!(crash.message, "exited with code 3");
    assert_eq!(words, ["going down"]);
}

async fn a_dropped_instance_ends(bench: Bench) {
    let (instance, target) = bench.run("answer").await;
    assert_eq!(push(&target).await, Outcome::Done);

    let exit = instance.exit;
    drop((instance.stop, instance.lines, instance.park));

    assert_eq!(exit.await.unwrap(), Exit::Killed);
}

async fn what_does_not_exist_is_named(bench: Bench) {
    let failure = bench.start(bench.launch("no-such-program")).await.unwrap_err();

    let kind = match bench.place {
        Place::Docker => FailureKind::ImagePull,
        _ => FailureKind::Config,
    };
    assert_eq!(failure.kind, kind, "{failure}");
    assert!(failure.message.contains("no-such-program"), "{failure}");
}

async fn two_instances_do_not_share_an_address(bench: Bench) {
    let (one, _) = bench.run("answer").await;
    let two = bench.start(Launch { id: InstanceId(2), ..bench.launch("answer") }).await.unwrap();

    assert_ne!(one.address, two.address);
}

async fn a_parked_instance_answers_when_it_goes_on(bench: Bench) {
    let (instance, target) = bench.run("answer").await;
    assert_eq!(push(&target).await, Outcome::Done);

    instance.park.set(true).await.unwrap();
    instance.park.set(true).await.unwrap();
    let pushing = push(&target);
    tokio::pin!(pushing);
    assert!(tokio::time::timeout(WHILE, &mut pushing).await.is_err(), "it is not parked");
    instance.park.set(false).await.unwrap();

    assert_eq!(pushing.await, Outcome::Done);
    instance.park.set(false).await.unwrap();
    assert_eq!(push(&target).await, Outcome::Done);
    drop(instance.stop);
    instance.exit.await.unwrap();
    assert!(instance.park.set(true).await.is_err());
}

async fn a_parked_instance_ends_when_asked(bench: Bench) {
    let (mut instance, _) = bench.run("answer").await;
    assert_eq!(instance.lines.recv().await.unwrap().text, "ready");
    instance.park.set(true).await.unwrap();

    instance.stop.stop(LONG);

    assert_eq!(instance.exit.await.unwrap(), Exit::Stopped);
    let (two, _) = bench.run("answer").await;
    two.park.set(true).await.unwrap();
    drop((two.stop, two.park));
    assert_eq!(two.exit.await.unwrap(), Exit::Killed);
}

async fn a_slow_start_is_waited_for(bench: Bench) {
    let launch = Launch { probe: Some(probe(LONG)), ..bench.launch("late") };
    let instance = bench.start(launch).await.unwrap();
    let target = Target::new(instance.address, bench.tasks);

    assert_eq!(push(&target).await, Outcome::Done);
}

async fn who_is_not_ready_in_time_is_given_up(bench: Bench) {
    let launch = Launch { probe: Some(probe(programs::SLOW)), ..bench.launch("never") };

    let failure = bench.start(launch).await.unwrap_err();

    assert_eq!(failure.kind, FailureKind::StartTimeout, "{failure}");
    assert!(failure.is_retryable);
}

async fn who_crashes_while_starting_is_not_waited_for(bench: Bench) {
    let launch = Launch { probe: Some(probe(LONG * 10)), ..bench.launch("crash") };

    let failure = bench.start(launch).await.unwrap_err();

    assert_eq!((failure.kind, failure.exit_code), (FailureKind::CrashLoop, Some(3)), "{failure}");
    assert_eq!(failure.log_tail, ["going down"]);
}

async fn a_start_that_is_given_up_leaves_nothing(bench: Bench) {
    let launch = Launch { probe: Some(probe(LONG * 10)), ..bench.launch("never") };
    for pause in [0, 3, 30, 300] {
        let start = bench.start(launch.clone());
        assert!(tokio::time::timeout(Duration::from_millis(pause), start).await.is_err());
    }

    bench.tasks.close();
    bench.tasks.wait().await;

    if bench.place == Place::Docker {
        assert_eq!(docker::containers(), 0);
    }
}

async fn the_environment_has_values_and_secrets(bench: Bench) {
    let folder = bench.secrets.path().join("default/db");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("password"), "hush\n").unwrap();
    let env = vec![variable("GREETING", "hello world"), secret("PASSWORD", "password")];
    let launch = Launch { env, ..bench.launch("env") };
    assert!(!format!("{launch:?}").contains("hush"));

    let mut instance = bench.start(launch).await.unwrap();

    let lines = first_lines(&mut instance).await;
    for wanted in ["GREETING=hello world", "PASSWORD=hush"] {
        assert!(lines.iter().any(|line| line == wanted), "{lines:?}");
    }
}

async fn a_secret_that_is_missing_is_named(bench: Bench) {
    let env = vec![secret("PASSWORD", "missing")];

    let failure = bench.start(Launch { env, ..bench.launch("env") }).await.unwrap_err();

    assert_eq!((failure.kind, failure.is_retryable), (FailureKind::Config, false), "{failure}");
    for word in ["PASSWORD", "db", "missing"] {
        assert!(failure.message.contains(word), "{failure}");
    }
}

fn guarded(bench: &Bench, policy: &str) -> Guard {
    let policy = serde_json::from_str(policy).unwrap();
    let policies = Policies::fixed([("default/restricted".parse().unwrap(), policy)]);
    let (one, other) = (Arc::clone(&bench.launcher), Arc::clone(&bench.launcher));
    Guard::new(one, other, policies, Labels::default())
}

async fn a_policy_is_asked_before_the_start(bench: Bench) {
    let lax = r#""allow_unenforced":true"#;
    for (policy, field) in [
        (format!(r#"{{{lax},"max":{{"memory":"8Mi"}}}}"#), "spec.resources.memory"),
        (format!(r#"{{{lax},"secrets":[]}}"#), "spec.env[0].secretRef.name"),
        (format!(r#"{{{lax},"runtimes":[]}}"#), "runtimes"),
    ] {
        let launch = Launch { env: vec![secret("A", "a")], ..bench.launch("answer") };
        let start = guarded(&bench, &policy);
        let failure = start.start(launch, Progress::unheard()).await.unwrap_err();

        assert_eq!(failure.kind, FailureKind::PolicyDenied, "{policy}: {failure}");
        assert!(failure.message.contains(field), "{failure}");
    }
    let other = Launch { policy: "other".parse().unwrap(), ..bench.launch("answer") };
    let failure = guarded(&bench, "{}").start(other, Progress::unheard()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::PolicyDenied, "{failure}");
}

async fn what_is_demanded_is_enforced_or_refused(bench: Bench) {
    let launch = || bench.launch("answer");
    let runtime = launch().runtime();
    let enforces = bench.launcher.caps(runtime).enforces;
    let policy = Policy::new(&"default/p".parse().unwrap(), serde_json::from_str("{}").unwrap());
    let missing: Vec<Rule> = policy.demands(runtime).difference(&enforces).copied().collect();

    let strict = guarded(&bench, "{}").start(launch(), Progress::unheard()).await;

    match (missing.first(), strict) {
        (None, Ok(_)) => {}
        (Some(rule), Err(failure)) => {
            assert_eq!(failure.kind, FailureKind::PolicyDenied);
            assert!(failure.message.contains(&rule.to_string()), "{failure}");
        }
        (missing, strict) => panic!("{missing:?} is missing, and yet: {strict:?}"),
    }
    assert_eq!(missing.is_empty(), bench.place == Place::Docker, "{missing:?}");
    let lax = guarded(&bench, r#"{"allow_unenforced":true}"#);
    assert!(lax.start(launch(), Progress::unheard()).await.is_ok());
}

async fn files_are_as_read_only_as_it_says(bench: Bench) {
    if !bench.enforces(Rule::ReadOnlyRoot) {
        return;
    }
    let (mut instance, _) = bench.run("write").await;

    assert_eq!(first_lines(&mut instance).await, ["root=false", "scratch=true", "null=true"]);
    // As root in a container nothing else keeps it from doing so.
    let user = if bench.place == Place::Docker { 0 } else { 65_532 };
    let security =
        SecuritySpec { read_only_root: false, run_as_user: user, ..SecuritySpec::default() };
    let mut loose = bench.start(Launch { security, ..bench.launch("write") }).await.unwrap();
    let lines = first_lines(&mut loose).await;
    let may_write = bench.place == Place::Docker || !bench.enforces(Rule::NonRoot);
    assert_eq!(lines[0], format!("root={may_write}"));
}

async fn who_takes_too_much_memory_is_told(bench: Bench) {
    if !bench.enforces(Rule::Memory) {
        return;
    }
    let resources = ResourcesSpec { memory: BytesText::mebi(48), ..ResourcesSpec::default() };
    let instance = bench.start(Launch { resources, ..bench.launch("hungry") }).await.unwrap();

    let exit = instance.exit.await.unwrap();

    let Exit::Crashed(crash) = exit else { panic!("{exit:?}") };
    assert_eq!(crash.kind, FailureKind::Oom, "{crash}");
    assert!(crash.message.contains("48Mi"), "{crash}");
}

/// Where programs of the host may be.
pub(crate) fn directories() -> Vec<PathBuf> {
    vec![process::own_path().parent().unwrap().to_owned()]
}
