//! Webhooks: events of a stream, sent to an address outside.
//!
//! *Owns* the membership in each webhook's subscription. *Never* keeps an attempt, a pause or a
//! dead letter: the cluster does, since events are lent. Who may be dialled, with whose consent and
//! how often, the rules in `egress` say.

mod dial;
mod outside;
mod payload;
mod plan;
mod post;
#[cfg(test)]
mod post_tests;
mod report;
mod runner;
mod secret;
mod service;
mod sign;

pub(crate) use outside::Outside;
pub(crate) use service::Webhooks;
