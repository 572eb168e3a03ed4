//! Whether subscriptions keep what they promise to their members and publishers.
//!
//! Time tells less than leases do: what was lent is numbered in the order in which it was lent, while
//! members note it when it has reached them.

mod book;
mod cursor;
mod jobs;
mod keys;
mod owner;
mod repeats;
mod stale;
mod unseen;

use super::Found;
use super::history::{Desk, Micros, Record};
use super::sends::Sends;
use book::Books;

/// An attempt that was given up may take hold so long after another one was answered.
const LATE: Micros = 5_000_000;

pub(super) fn check(history: &[Record], sends: &Sends, found: &mut Found) {
    let books = Books::new(history);
    repeats::check(&books, found);
    stale::check(&books, found);
    keys::check(&books, found);
    cursor::check(&books, found);
    owner::check(&books, found);
    let stored = unseen::stored(history);
    unseen::check(&stored, &books, found);
    jobs::check(&stored, &books, sends, found);
}

/// A desk in a report.
fn named(desk: &Desk) -> String {
    match desk.job {
        0 => format!("subscription {}", desk.subscription),
        job => format!("subscription {}, replay job {job}", desk.subscription),
    }
}
