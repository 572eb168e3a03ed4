//! What a launcher is asked to start, and what it can do.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use weft_proto::resource::{
    Asked, EnvVar, ProbeSpec, Protocol, ResourcesSpec, Rule, Runtime, SecuritySpec,
};
use weft_proto::{Name, QualifiedName};

use super::Failure;
use crate::delivery::InstanceId;

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Identity of the new instance.
    pub id: InstanceId,
    /// The function it belongs to.
    pub function: QualifiedName,
    /// Which state of the function's template: a name within the namespace.
    pub revision: String,
    /// What is run.
    pub run: Run,
    /// The whole environment, less what the launcher adds.
    pub env: Vec<EnvVar>,
    /// What it may use.
    pub resources: ResourcesSpec,
    /// When it counts as ready; when it accepts connections, if absent.
    pub probe: Option<ProbeSpec>,
    /// What it speaks. Carried for who needs to know it.
    pub protocol: Protocol,
    /// What it runs as.
    pub security: SecuritySpec,
    /// The policy that must allow all this.
    pub policy: Name,
    /// So many instances the function has at most.
    pub instances: u32,
    /// The longest it may take to end, for launchers that must say so at the start.
    pub grace: Duration,
    /// Whose it is.
    pub labels: Labels,
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// A program of the host.
    Process {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// A container.
    Container {
        /// Reference to the image.
        image: String,
        /// Arguments for the program of the image.
        args: Vec<String>,
        /// Where it listens.
        port: u16,
    },
}

/// Whose an instance is, for those who look at a container engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The cluster.
    pub cluster: String,
    /// The dispatcher.
    pub dispatcher: String,
}

impl Launch {
    /// What runs it.
    pub const fn runtime(&self) -> Runtime {
        match self.run {
            Run::Process { .. } => Runtime::Process,
            Run::Container { .. } => Runtime::Container,
        }
    }

    /// What a policy must judge.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            namespace: &self.function.namespace,
            image: match &self.run {
                Run::Process { .. } => None,
                Run::Container { image, .. } => Some(image),
            },
            resources: &self.resources,
            security: &self.security,
            env: &self.env,
            instances: self.instances,
        }
    }
}

/// What a launcher can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Whether instances can be parked.
    pub can_park: bool,
    /// What it enforces.
    pub enforces: BTreeSet<Rule>,
    /// Instances that it can have at most, if it knows.
    pub count_max: Option<u32>,
}

/// Tells what holds up a start while it goes on.
#[derive(Clone, Debug)]
pub struct Progress(watch::Sender<Option<Failure>>);

impl Progress {
    /// A teller, and what is told. The end of the one is the end of the start.
    pub fn new() -> (Self, watch::Receiver<Option<Failure>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }

    /// One that nobody listens to.
    pub fn unheard() -> Self {
        Self::new().0
    }

    /// The start goes on, and this is in its way.
    pub fn trouble(&self, failure: Failure) {
        self.0.send_if_modified(|told| {
            let is_new = told.as_ref() != Some(&failure);
            *told = Some(failure);
            is_new
        });
    }

    /// Nothing is in its way any more.
    pub fn clear(&self) {
        self.0.send_if_modified(|told| told.take().is_some());
    }
}
