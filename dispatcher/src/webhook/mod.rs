//! Webhooks: events of a stream, sent to an address outside.
//!
//! *Owns* the membership in each webhook's subscription. *Never* keeps an attempt, a pause or a
//! dead letter: the cluster does, since events are lent. Who may be dialled, with whose consent and
//! how often, the rules in `egress` say.

mod dial;
mod kind;
mod outside;
mod plan;
mod post;
#[cfg(test)]
mod post_tests;
mod report;
mod runner;
mod secret;
mod sign;
mod spans;

pub(crate) use dial::Dialer;
pub(crate) use kind::Webhooks;
pub(crate) use outside::Outside;
pub(crate) use secret::Secrets;

/// What a receiver says of a batch, for `tests/fuzz`: events that it did not take, by id and source, and
/// when they may come again.
#[cfg(feature = "fuzzing")]
pub(crate) fn untaken(body: &[u8]) -> Vec<(String, String, Option<std::time::Duration>)> {
    let untaken = crate::push::payload::untaken(body).into_iter();
    untaken.map(|one| (one.id.clone(), one.source.clone(), one.retry_after())).collect()
}
