//! Launches functions from streams and delivers events to them, and to addresses outside.
//!
//! An ordinary client of the mesh: it keeps no store, and whatever it does a user's program could
//! do. It may die at any time; what was in flight is then delivered again.

mod clock;
mod config;
pub mod delivery;
pub mod egress;
mod feed;
pub mod flow;
#[cfg_attr(not(test), expect(dead_code, reason = "functions do not run flows yet"))]
mod flow_target;
mod function;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod launch;
mod metrics;
mod policies;
pub mod port;
pub mod push;
mod roster;
#[cfg(test)]
mod roster_tests;
pub mod scale;
mod service;
mod tasks;
mod webhook;

pub use config::{Config, Connect, DockerEngine, Process, Pull, Tls, Webhooks};
pub use policies::Policies;
pub use service::{run, run_with};
