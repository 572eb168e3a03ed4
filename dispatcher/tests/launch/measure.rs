//! How long a start takes to its first answer: `cargo test ... --test launch -- measure`. Prints
//! figures and asserts none.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;
use weft_dispatcher::delivery::Outcome;
use weft_dispatcher::launch::{Instance, Launch, Launcher, Progress};
use weft_dispatcher::push::Target;

use crate::suite::{self, push};
use crate::{docker, process};

const COUNT: usize = 100;

pub(crate) fn run() -> ExitCode {
    starts("process", COUNT, process::processes, suite::launch);
    unparks("process, parked", COUNT, process::processes, suite::launch);
    docker::measure();
    ExitCode::SUCCESS
}

pub(crate) fn starts(
    name: &str,
    count: usize,
    make: impl FnOnce(TaskTracker) -> Arc<dyn Launcher>,
    launch: fn(&str) -> Launch,
) {
    let times = block_on(async {
        let tasks = TaskTracker::new();
        let launcher = make(tasks.clone());
        let mut times = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            let (instance, _) = answered(&*launcher, &tasks, launch("answer")).await;
            times.push(began.elapsed());
            end(instance).await;
        }
        tasks.close();
        tasks.wait().await;
        times
    });
    print(name, times);
}

pub(crate) fn unparks(
    name: &str,
    count: usize,
    make: impl FnOnce(TaskTracker) -> Arc<dyn Launcher>,
    launch: fn(&str) -> Launch,
) {
    let times = block_on(async {
        let tasks = TaskTracker::new();
        let launcher = make(tasks.clone());
        let (instance, target) = answered(&*launcher, &tasks, launch("answer")).await;
        let mut times = Vec::new();
        for _ in 0..count {
            instance.park.set(true).await.unwrap();
            let began = Instant::now();
            instance.park.set(false).await.unwrap();
            assert_eq!(push(&target).await, Outcome::Done);
            times.push(began.elapsed());
        }
        end(instance).await;
        tasks.close();
        tasks.wait().await;
        times
    });
    print(name, times);
}

async fn answered(
    launcher: &dyn Launcher,
    tasks: &TaskTracker,
    launch: Launch,
) -> (Instance, Target) {
    let instance = launcher.start(launch, Progress::unheard()).await.unwrap();
    let target = Target::new(instance.address, tasks.clone());
    assert_eq!(push(&target).await, Outcome::Done);
    (instance, target)
}

async fn end(instance: Instance) {
    let exit = instance.exit;
    drop((instance.stop, instance.park, instance.lines));
    exit.await.unwrap();
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(future)
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!(
        "{name}: n {}, p50 {:.1?}, p90 {:.1?}, max {:.1?}",
        times.len(),
        at(50),
        at(90),
        at(100)
    );
}
