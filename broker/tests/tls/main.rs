//! Certificates and the token on running brokers: who is let in, and what others are told.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod clients;
mod cluster;
mod matrix;
mod node;
mod peers;
#[path = "../../../tests/harness/pki.rs"]
mod pki;
mod refusals;
