//! Functions as a kind of resource that is run.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Span, info_span};
use weft_proto::trace::Tracer;
use weft_proto::v1::Resource;
use weft_proto::{Error, Generation, QualifiedName, Result};

use super::Plan;
use super::report::refusal;
use super::runner::{Order, Parts, Runner};
use crate::feed::FUNCTION_LABEL;
use crate::launch::Launcher;
use crate::port::{FUNCTION, Mesh};
use crate::roster::Runs;

/// What all functions share.
pub(crate) struct Functions {
    pub(crate) mesh: Arc<dyn Mesh>,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) tasks: TaskTracker,
    /// Name of this dispatcher among the members of a subscription.
    pub(crate) member: String,
    pub(crate) tracer: Tracer,
}

impl Runs for Functions {
    const KIND: &'static str = FUNCTION;
    const WORD: &'static str = "function";
    const LABEL: &'static str = FUNCTION_LABEL;
    type Plan = Plan;
    type Order = Order;

    fn plan(&self, resource: &Resource) -> Result<Plan> {
        Plan::of(resource)
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

    fn refusal(generation: Generation, error: &Error) -> Vec<u8> {
        refusal(generation, error)
    }

    fn span(name: &QualifiedName) -> Span {
        info_span!("function", %name)
    }

    fn run(
        &self,
        plan: Plan,
        seed: u64,
        orders: mpsc::Receiver<Order>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        let parts = Parts {
            mesh: Arc::clone(&self.mesh),
            launcher: Arc::clone(&self.launcher),
            tasks: self.tasks.clone(),
            member: self.member.clone(),
            seed,
            tracer: self.tracer.clone(),
        };
        Box::pin(async move { Runner::new(plan, parts).run(orders, stop).await })
    }
}
