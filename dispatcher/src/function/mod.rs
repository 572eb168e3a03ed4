//! One function: what it is, its instances, its status and the task that runs it.

mod deliver;
mod fleet;
mod plan;
mod report;
mod runner;

pub(crate) use plan::{Plan, name_of};
pub(crate) use report::refusal;
pub(crate) use runner::{Order, Parts, Runner};
