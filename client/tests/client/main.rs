//! The client against nodes that lose connections, refuse, delay and repeat.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod ending;
mod fake;
mod publish;
mod read;
mod subscribe;
mod tls;
