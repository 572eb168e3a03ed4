//! Rules for calling strangers: which addresses, with whose consent, how often, and when to stop.
//!
//! *Never* resolves, connects, or reads a clock: time and answers come as arguments.

pub mod address;
pub mod circuit;
pub mod consent;
pub mod rate;
#[cfg(test)]
mod tricks;
