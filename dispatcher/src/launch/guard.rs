//! Chooses the launcher of an instance, and asks its policy before each start.

use std::sync::Arc;

use futures::future::BoxFuture;
use weft_proto::resource::{Denial, Runtime};

use super::{Caps, Failure, Instance, Labels, Launch, Launcher, Progress};
use crate::policies::Policies;

/// A launcher for each kind of instance, behind one policy.
#[derive(Debug)]
pub struct Guard {
    process: Arc<dyn Launcher>,
    container: Arc<dyn Launcher>,
    policies: Policies,
    labels: Labels,
}

impl Guard {
    /// One that starts processes and containers by these, for a dispatcher of this name.
    pub fn new(
        process: Arc<dyn Launcher>,
        container: Arc<dyn Launcher>,
        policies: Policies,
        labels: Labels,
    ) -> Self {
        Self { process, container, policies, labels }
    }

    fn launcher(&self, runtime: Runtime) -> &dyn Launcher {
        match runtime {
            Runtime::Process => &*self.process,
            Runtime::Container => &*self.container,
        }
    }

    async fn launch(&self, mut launch: Launch, progress: Progress) -> Result<Instance, Failure> {
        let policy = self.policies.of(&launch.function.namespace, &launch.policy).await?;
        let runtime = launch.runtime();
        let launcher = self.launcher(runtime);
        policy.judge(&launch.asked()).map_err(denied)?;
        let caps = launcher.caps(runtime);
        // A launcher that does nothing says so itself, and better.
        if caps != Caps::default() {
            policy.admits(runtime, &caps.enforces).map_err(denied)?;
        }
        launch.labels = self.labels.clone();
        launcher.start(launch, progress).await
    }
}

impl Launcher for Guard {
    fn caps(&self, runtime: Runtime) -> Caps {
        self.launcher(runtime).caps(runtime)
    }

    fn start(
        &self,
        launch: Launch,
        progress: Progress,
    ) -> BoxFuture<'_, Result<Instance, Failure>> {
        Box::pin(self.launch(launch, progress))
    }
}

fn denied(denial: Denial) -> Failure {
    Failure::denied(denial.message)
}
