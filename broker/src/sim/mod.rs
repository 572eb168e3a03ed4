//! Deterministic simulation: whole clusters in one thread, by seed. See docs/simulation.md.
//!
//! Log, consensus, state machine and sequencer are the broker's own; disk, network, clock and
//! scheduling are simulated. Equal seeds give equal traces.

mod checks;
mod clients;
mod cluster;
mod disk;
mod faults;
mod lease_gap;
mod ledger;
mod link;
mod machine;
mod network;
mod node;
mod observer;
mod panics;
mod plan;
mod plant;
pub(crate) mod process;
pub(crate) mod random;
mod reading;
mod replicated;
mod run;
mod scripted;
mod subjects;
mod tests;
mod trace;
mod violation;
