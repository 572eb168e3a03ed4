//! Attacks by hand on the three ports of a real broker: each has one expected answer, and after each
//! group the broker works as before and has not grown.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![expect(clippy::print_stderr, reason = "a failed test shows the log of its broker")]

mod attack;
mod bodies;
mod connections;
#[path = "../harness/daemon.rs"]
#[expect(dead_code, reason = "the cluster tests use more of it")]
mod daemon;
mod frames;
mod h1;
mod h2;
#[path = "../harness/pki.rs"]
#[expect(dead_code, reason = "the cluster tests use more of it")]
mod pki;
#[path = "../harness/ports.rs"]
mod ports;
#[path = "../harness/probe.rs"]
mod probe;
mod requests;
mod server;
mod tls;
