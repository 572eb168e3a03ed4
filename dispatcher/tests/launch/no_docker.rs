//! In place of the cases of containers, where their launcher is not part of the build.

use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::task::TaskTracker;
use weft_dispatcher::launch::{Launch, Launcher, Secrets};

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}

pub(crate) fn is_here() -> bool {
    crate::skip("built without the feature docker");
    false
}

pub(crate) fn launcher(_secrets: Secrets, tasks: TaskTracker) -> Arc<dyn Launcher> {
    crate::process::processes(tasks)
}

pub(crate) fn launch(word: &str) -> Launch {
    crate::suite::launch(word)
}

pub(crate) fn containers() -> usize {
    0
}

pub(crate) fn measure() {
    println!("docker: not part of this build");
}

pub(crate) fn start_one_and_hang() -> ExitCode {
    ExitCode::FAILURE
}
