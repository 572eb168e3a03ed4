//! Flows: what happens to an event, step by step, without a program.
//!
//! *Owns* the rules of each kind of step and, in the [`Engine`], the events that are on their way
//! through the steps. *Never* sends, publishes, acknowledges, or reads a clock: all of that it asks of
//! its caller.

mod aggregate;
mod cache;
mod call;
mod dedup;
mod delay;
mod engine;
mod failure;
mod parts;
#[cfg(test)]
mod piece_tests;
mod plan;
mod render;
mod split;
mod transform;
mod types;

pub use call::{ANSWER_BYTES_MAX, Answer, HttpRequest};
pub use engine::Engine;
pub use failure::Failure;
pub use parts::HOPS_MAX;
pub use plan::Plan;
pub use types::{
    Action, Admission, CallId, Delivered, Limits, Note, PublicationId, RunId, Stored, Token,
};
