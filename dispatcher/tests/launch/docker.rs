//! Containers, where there is an engine for them: one that `WEFT_TEST_DOCKER` names the socket of,
//! or that of the host.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, OnceLock};

use tokio_util::task::TaskTracker;
use weft_dispatcher::delivery::Outcome;
use weft_dispatcher::launch::docker::{Config, Containers};
use weft_dispatcher::launch::{FailureKind, Launch, Launcher, Progress, Run, Secrets};
use weft_dispatcher::push::Target;
use weft_dispatcher::{Connect, Pull};

use crate::process::{Dispatcher, own_path};
use crate::suite::{self, LONG, first_lines, push};
use crate::{Case, measure};

const PORT: u16 = 8_080;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("docker::an_instance_has_no_rights", || run(an_instance_has_no_rights)),
        ("docker::what_a_dead_dispatcher_left_is_removed", || run(leftovers_are_removed)),
        ("docker::instances_may_use_the_network_of_the_host", || run(host_network)),
        ("docker::an_engine_that_is_not_there_is_named", || run(no_engine)),
        ("docker::what_cannot_run_is_no_image_of_a_function", || run(no_program)),
    ]
}

fn run<F: Future<Output = ()>>(case: fn(TaskTracker) -> F) {
    if !is_here() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = TaskTracker::new();
        tokio::time::timeout(LONG, case(tasks.clone())).await.unwrap();
        tasks.close();
        tokio::time::timeout(LONG, tasks.wait()).await.unwrap();
    });
    assert_eq!(containers(), 0);
}

fn socket() -> PathBuf {
    let named = std::env::var_os("WEFT_TEST_DOCKER");
    named.map_or_else(|| PathBuf::from("/var/run/docker.sock"), PathBuf::from)
}

/// Whether there is an engine. Where one was named there has to be.
pub(crate) fn is_here() -> bool {
    let is_here = UnixStream::connect(socket()).is_ok();
    let is_named = std::env::var_os("WEFT_TEST_DOCKER").is_some();
    assert!(is_here || !is_named, "no container engine listens at {}", socket().display());
    if !is_here {
        crate::skip(&format!("no container engine listens at {}", socket().display()));
    }
    is_here
}

fn cluster() -> String {
    // The dispatcher that is killed belongs to the cluster of the test.
    std::env::var("WEFT_TEST_CLUSTER").unwrap_or_else(|_| format!("test-{}", std::process::id()))
}

fn config(secrets: Secrets) -> Config {
    Config {
        socket: socket(),
        network: "bridge".to_owned(),
        connect: Connect::Bridge,
        pull: Pull::Missing,
        secrets,
        cluster: cluster(),
        owner: "test".to_owned(),
    }
}

pub(crate) fn launcher(secrets: Secrets, tasks: TaskTracker) -> Arc<dyn Launcher> {
    Arc::new(Containers::new(config(secrets), tasks).unwrap())
}

fn engine(args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.arg("-H").arg(format!("unix://{}", socket().display())).args(args);
    command
}

/// Containers of this test that are there, running or not.
pub(crate) fn containers() -> usize {
    let filter = format!("label=weft.cluster={}", cluster());
    let output = engine(&["ps", "-aq", "--filter", &filter]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().count()
}

/// An image of this very program and the libraries that it needs, and nothing else.
fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let name = format!("weft-launch-test:{}", cluster());
        let root = tempfile::tempdir().unwrap();
        let own = own_path();
        std::fs::copy(&own, root.path().join("launch")).unwrap();
        let libraries = Command::new("ldd").arg(&own).output().unwrap();
        for line in String::from_utf8(libraries.stdout).unwrap().lines() {
            let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) else {
                continue;
            };
            let target = root.path().join(Path::new(path).strip_prefix("/").unwrap());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(path, target).unwrap();
        }
        let mut tar = Command::new("tar");
        tar.arg("-c").arg("--mode=a+rX").arg("-C").arg(root.path()).arg(".");
        let mut tar = tar.stdout(Stdio::piped()).spawn().unwrap();
        let mut import =
            engine(&["import", "--change", "ENTRYPOINT [\"/launch\"]", "-", name.as_str()]);
        let import = import.stdin(tar.stdout.take().unwrap()).output().unwrap();
        assert!(import.status.success() && tar.wait().unwrap().success(), "{import:?}");
        name
    })
}

pub(crate) fn launch(word: &str) -> Launch {
    let (image, args) = match word {
        // Nothing listens there, so it cannot be fetched, either.
        "no-such-program" => ("127.0.0.1:1/no-such-program:1".to_owned(), Vec::new()),
        word => (image().to_owned(), vec!["as-program".to_owned(), word.to_owned()]),
    };
    Launch { run: Run::Container { image, args, port: PORT }, ..suite::launch(word) }
}

async fn an_instance_has_no_rights(tasks: TaskTracker) {
    let launcher = launcher(Secrets::default(), tasks);
    let mut instance = launcher.start(launch("self"), Progress::unheard()).await.unwrap();

    let lines = first_lines(&mut instance).await;

    for wanted in [
        "Uid:\t65532\t65532\t65532\t65532",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(lines.iter().any(|line| line == wanted), "{wanted}: {lines:?}");
    }
}

/// The part of a dispatcher that is killed.
pub(crate) fn start_one_and_hang() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let launcher = launcher(Secrets::default(), TaskTracker::new());
        let image = std::env::var("WEFT_TEST_IMAGE").unwrap();
        let args = vec!["as-program".to_owned(), "answer".to_owned()];
        let run = Run::Container { image, args, port: PORT };
        let launch = Launch { run, ..suite::launch("answer") };
        let instance = launcher.start(launch, Progress::unheard()).await.unwrap();
        println!("{}", instance.address);
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

async fn leftovers_are_removed(tasks: TaskTracker) {
    use std::io::BufRead as _;
    let config = config(Secrets::default());
    let other = Config { owner: "other".to_owned(), ..config.clone() };
    let mut dead = Dispatcher::start_with(
        "as-docker-dispatcher",
        &[("WEFT_TEST_IMAGE", image()), ("WEFT_TEST_CLUSTER", &cluster())],
    );
    let mut address = String::new();
    let mut output = std::io::BufReader::new(dead.0.stdout.take().unwrap());
    output.read_line(&mut address).unwrap();
    assert!(address.contains(':'), "{address:?}");
    let living = Containers::new(config.clone(), tasks.clone()).unwrap();
    let instance = living.start(launch("answer"), Progress::unheard()).await.unwrap();
    // Its dispatcher still lives.
    assert_eq!(living.remove_leftovers().await.unwrap(), 0);
    drop(dead);
    assert_eq!(containers(), 2);

    let foreign = Containers::new(other, tasks.clone()).unwrap();
    assert_eq!(foreign.remove_leftovers().await.unwrap(), 0);
    let next = Containers::new(config, tasks.clone()).unwrap();
    assert_eq!(next.remove_leftovers().await.unwrap(), 1);

    assert_eq!(containers(), 1);
    let target = Target::new(instance.address, tasks);
    assert_eq!(push(&target).await, Outcome::Done);
}

async fn host_network(tasks: TaskTracker) {
    let config = Config { connect: Connect::Host, ..config(Secrets::default()) };
    let launcher = Containers::new(config, tasks.clone()).unwrap();
    let one = launcher.start(launch("answer"), Progress::unheard()).await.unwrap();
    let two = launcher.start(launch("answer"), Progress::unheard()).await.unwrap();

    assert!(one.address.ip().is_loopback() && one.address != two.address);
    assert_eq!(push(&Target::new(two.address, tasks)).await, Outcome::Done);
}

async fn no_engine(tasks: TaskTracker) {
    let socket = PathBuf::from("/no/such/engine.sock");
    let config = Config { socket, ..config(Secrets::default()) };
    let launcher = Containers::new(config, tasks).unwrap();

    let failure = launcher.start(launch("answer"), Progress::unheard()).await.unwrap_err();

    assert_eq!((failure.kind, failure.is_retryable), (FailureKind::Engine, true), "{failure}");
    assert!(failure.message.contains("/no/such/engine.sock"), "{failure}");
}

async fn no_program(tasks: TaskTracker) {
    let name = format!("weft-launch-empty:{}", cluster());
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("text"), "no program").unwrap();
    let mut tar = Command::new("tar")
        .arg("-c")
        .arg("-C")
        .arg(root.path())
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut import = engine(&["import", "--change", "ENTRYPOINT [\"/missing\"]", "-", &name]);
    assert!(import.stdin(tar.stdout.take().unwrap()).output().unwrap().status.success());
    tar.wait().unwrap();
    let launcher = launcher(Secrets::default(), tasks);
    let run = Run::Container { image: name.clone(), args: Vec::new(), port: PORT };

    let failure = launcher.start(Launch { run, ..launch("answer") }, Progress::unheard()).await;

    let failure = failure.unwrap_err();
    assert_eq!((failure.kind, failure.is_retryable), (FailureKind::BadImage, false), "{failure}");
    engine(&["rmi", &name]).output().unwrap();
}

/// Starts to the first answer, in each way.
pub(crate) fn measure() {
    if !is_here() {
        return;
    }
    for (name, connect) in [("docker, bridge", Connect::Bridge), ("docker, host", Connect::Host)] {
        let make = move |tasks| -> Arc<dyn Launcher> {
            let config = Config { connect, ..config(Secrets::default()) };
            Arc::new(Containers::new(config, tasks).unwrap())
        };
        measure::starts(name, 20, make, launch);
    }
    measure::unparks("docker, parked", 20, |tasks| launcher(Secrets::default(), tasks), launch);
}
