//! What only processes have: directories, environments, orphans.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;
use weft_dispatcher::launch::process::{Config, Processes, Shim};
use weft_dispatcher::launch::{
    Failure, FailureKind, Instance, Launch, Launcher, Progress, Run, Secrets,
};

use crate::Case;
use crate::suite::{directories, first_lines, launch, variable};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("process::only_allowed_directories_serve", only_allowed_directories_serve),
        ("process::the_environment_is_the_declared_one", the_environment_is_the_declared_one),
        ("process::no_child_outlives_its_dispatcher", no_child_outlives_its_dispatcher),
        ("process::what_cannot_be_run_says_so", what_cannot_be_run_says_so),
        ("process::nothing_is_gained_and_little_can_be_written", nothing_is_gained),
    ]
}

pub(crate) fn own_path() -> PathBuf {
    std::env::current_exe().unwrap().canonicalize().unwrap()
}

pub(crate) fn with_secrets(secrets: Secrets, tasks: TaskTracker) -> Arc<dyn Launcher> {
    let shim = Shim { program: "/proc/self/exe".into(), args: vec!["launch-shim".into()] };
    let scratch = std::env::temp_dir();
    let config = Config { directories: directories(), shim, secrets, scratch };
    Arc::new(Processes::new(config, tasks).unwrap())
}

pub(crate) fn processes(tasks: TaskTracker) -> Arc<dyn Launcher> {
    with_secrets(Secrets::default(), tasks)
}

fn with_directories(directories: Vec<PathBuf>, tasks: TaskTracker) -> Arc<dyn Launcher> {
    let shim = Shim { program: "/proc/self/exe".into(), args: vec!["launch-shim".into()] };
    let (secrets, scratch) = (Secrets::default(), std::env::temp_dir());
    Arc::new(Processes::new(Config { directories, shim, secrets, scratch }, tasks).unwrap())
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(future)
}

fn start(directories: Vec<PathBuf>, command: &[&str]) -> Result<Instance, Failure> {
    block_on(async {
        let launcher = with_directories(directories, TaskTracker::new());
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let run = Run::Process { command };
        launcher.start(Launch { run, ..launch("answer") }, Progress::unheard()).await
    })
}

fn only_allowed_directories_serve() {
    let allowed = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let directories = || vec![allowed.path().to_owned()];
    std::os::unix::fs::symlink(own_path(), allowed.path().join("linked")).unwrap();
    std::os::unix::fs::symlink(own_path(), other.path().join("outside")).unwrap();
    std::fs::write(allowed.path().join("text"), "no program").unwrap();
    let outside = other.path().join("outside");
    let around = allowed.path().join("..").join(other.path().file_name().unwrap()).join("outside");

    assert!(start(directories(), &["linked", "as-program", "answer"]).is_ok());
    for command in [outside.to_str().unwrap(), around.to_str().unwrap()] {
        let error = start(directories(), &[command]).unwrap_err();
        assert!(error.kind == FailureKind::PolicyDenied, "{error:?}");
    }
    for command in ["text", "missing", "./linked", "", "/", ".."] {
        let error = start(directories(), &[command]).unwrap_err();
        assert!(error.kind == FailureKind::Config, "{command:?}: {error:?}");
    }
    assert!(matches!(start(directories(), &[]), Err(error) if error.kind == FailureKind::Config));
    let error = start(Vec::new(), &[outside.to_str().unwrap()]).unwrap_err();
    assert!(error.to_string().contains("none is configured"), "{error}");
}

fn the_environment_is_the_declared_one() {
    let lines = block_on(async {
        let launcher = processes(TaskTracker::new());
        let mut launch = launch("env");
        launch.env = vec![variable("GREETING", "hello"), variable("PORT", "1")];
        let mut instance = launcher.start(launch, Progress::unheard()).await.unwrap();
        let mut lines = vec![format!("address={}", instance.address.port())];
        lines.extend(first_lines(&mut instance).await);
        lines
    });
    let get = |name: &str| {
        let found = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned)
    };

    assert_eq!(get("GREETING").as_deref(), Some("hello"));
    assert_eq!(get("PORT"), get("address"));
    assert_eq!(get("LISTEN_FDS").as_deref(), Some("1"));
    assert_eq!(get("WEFT_LISTEN_FD").as_deref(), Some("3"));
    assert_eq!(get("LISTEN_PID"), get("pid"));
    assert_eq!(get("WEFT_FUNCTION").as_deref(), Some("default/f"));
    assert_eq!(get("PATH"), None);
    assert_eq!(get("HOME"), None);
}

fn nothing_is_gained() {
    let lines = block_on(async {
        let launcher = processes(TaskTracker::new());
        let mut instance = launcher.start(launch("self"), Progress::unheard()).await.unwrap();
        first_lines(&mut instance).await
    });

    assert!(lines.iter().any(|line| line == "NoNewPrivs:\t1"), "{lines:?}");
}

fn what_cannot_be_run_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();

    let line = block_on(async {
        let launcher = with_directories(vec![directory.path().to_owned()], TaskTracker::new());
        let command = vec!["script".to_owned()];
        let launch = Launch { run: Run::Process { command }, ..launch("answer") };
        let mut instance = launcher.start(launch, Progress::unheard()).await.unwrap();
        instance.lines.recv().await.unwrap().text
    });

    assert!(line.contains("cannot run"), "{line}");
}

/// A dispatcher that dies without warning.
pub(crate) struct Dispatcher(pub(crate) std::process::Child);

impl Dispatcher {
    pub(crate) fn start(word: &str) -> Self {
        Self::start_with(word, &[])
    }

    pub(crate) fn start_with(word: &str, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(own_path());
        command.arg(word).envs(env.iter().copied()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The part of a dispatcher that is killed: it starts one instance and tells its address.
pub(crate) fn start_one_and_hang() -> ExitCode {
    block_on(async {
        let launcher = processes(TaskTracker::new());
        let instance = launcher.start(launch("stubborn"), Progress::unheard()).await.unwrap();
        println!("{}", instance.address);
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

fn no_child_outlives_its_dispatcher() {
    use std::io::BufRead as _;
    let mut dispatcher = Dispatcher::start("as-dispatcher");
    let mut address = String::new();
    let mut output = std::io::BufReader::new(dispatcher.0.stdout.take().unwrap());
    output.read_line(&mut address).unwrap();
    let address: std::net::SocketAddr = address.trim().parse().unwrap();
    assert!(std::net::TcpStream::connect(address).is_ok());

    drop(dispatcher);

    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "the child still listens");
        std::thread::sleep(Duration::from_millis(10));
    }
}
