//! The real binary, as real processes: clusters that are killed, stopped, fed with what is wrong.
//!
//! Every test starts its own brokers on ports of loopback and ends them. Few run at a time.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]
#![expect(clippy::panic, reason = "a failed step is a failed test")]
#![expect(clippy::print_stderr, reason = "a failed test shows the logs of its processes")]

mod access;
mod access_cli;
mod catalog;
mod checker;
mod checker_tests;
mod crash;
mod delayed;
mod drain;
mod filters;
mod functions;
mod harness;
mod hooks;
mod http;
mod lent;
mod load;
mod overload;
mod places;
mod planned;
mod reads;
mod refusals;
mod repeats;
mod replay_jobs;
mod replicas;
mod retention;
mod rotation;
mod stop;
mod stripped;
mod subjects;
mod surface;
mod suspect;
mod trace;
mod webhooks;
