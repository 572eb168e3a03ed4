//! One function: what it is, its instances, its status and the task that runs it.

mod deliver;
mod fleet;
mod kind;
mod plan;
mod report;
mod runner;

pub(crate) use kind::Functions;
pub(crate) use plan::{Plan, name_of};
