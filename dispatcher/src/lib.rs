//! Launches functions from streams and delivers events to them.
//!
//! An ordinary client of the mesh: it keeps no store, and whatever it does a user's program could
//! do. It may die at any time; what was in flight is then delivered again.

mod clock;
mod config;
pub mod delivery;
mod feed;
mod function;
pub mod launch;
mod metrics;
pub mod port;
pub mod push;
pub mod scale;
mod service;
mod tasks;

pub use config::{Config, Process, Tls};
pub use service::{run, run_with};
