//! Webhooks as a kind of resource that is run.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Span, info_span};
use weft_client::Client;
use weft_proto::resource::WEBHOOK_LABEL;
use weft_proto::trace::Tracer;
use weft_proto::v1::Resource;
use weft_proto::{Error, Generation, QualifiedName, Result};

use super::Outside;
use super::plan::{Plan, disabled};
use super::report::{Now, Report};
use super::runner::{self, Order, Parts};
use crate::Config;
use crate::port::{WEBHOOK, options};
use crate::roster::Runs;

/// What all webhooks share.
pub(crate) struct Webhooks {
    client: Client,
    outside: Arc<Outside>,
    tasks: TaskTracker,
    member: String,
    tracer: Tracer,
}

impl Webhooks {
    /// Prepares for the webhooks of a mesh.
    ///
    /// # Errors
    ///
    /// `Invalid` when the settings cannot work.
    pub(crate) fn new(
        config: &Config,
        tasks: TaskTracker,
        member: String,
        tracer: Tracer,
    ) -> Result<Self> {
        let client = Client::connect(&options(config)?)?;
        let outside = Arc::new(Outside::new(&config.webhooks)?);
        Ok(Self { client, outside, tasks, member, tracer })
    }

    /// Where what ends by itself runs.
    pub(crate) fn tasks(&self) -> TaskTracker {
        self.tasks.clone()
    }
}

impl Runs for Webhooks {
    const KIND: &'static str = WEBHOOK;
    const WORD: &'static str = "webhook";
    const LABEL: &'static str = WEBHOOK_LABEL;
    type Plan = Plan;
    type Order = Order;

    fn plan(&self, resource: &Resource) -> Result<Plan> {
        let plan = Plan::of(resource)?;
        self.outside.check_plain(&plan.spec.url)?;
        Ok(plan)
    }

    fn revised(plan: Plan) -> Order {
        Order::Revise(Box::new(plan))
    }

    fn refused(message: String) -> Order {
        Order::Refuse(message)
    }

    fn deleted() -> Order {
        Order::Delete
    }

    /// Another dispatcher may have been told that the receiver is gone.
    fn noted(resource: &Resource) -> Option<Order> {
        disabled(resource).map(Order::Disable)
    }

    fn refusal(generation: Generation, error: &Error) -> Vec<u8> {
        let mut report = Report::default();
        report.spec_trouble = Some(error.message().to_owned());
        let status = report.status(Now { generation, circuit: "closed", ..Now::default() });
        serde_json::to_vec(&status).unwrap_or_default()
    }

    fn span(name: &QualifiedName) -> Span {
        info_span!("webhook", %name)
    }

    fn run(
        &self,
        plan: Plan,
        seed: u64,
        orders: mpsc::Receiver<Order>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        let parts = Parts {
            client: self.client.clone(),
            outside: Arc::clone(&self.outside),
            tasks: self.tasks.clone(),
            member: self.member.clone(),
            seed,
            tracer: self.tracer.clone(),
        };
        Box::pin(runner::run(plan, parts, orders, stop))
    }
}
