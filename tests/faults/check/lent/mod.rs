//! Whether subscriptions keep what they promise to their members and publishers.
//!
//! Time tells less than leases do: what was lent is numbered in the order in which it was lent, while
//! members note it when it has reached them.

mod book;
mod cursor;
mod keys;
mod repeats;
mod stale;
mod unseen;

use super::Found;
use super::history::{Micros, Record};
use book::Books;

/// An attempt that was given up may take hold so long after another one was answered.
const LATE: Micros = 5_000_000;

pub(super) fn check(history: &[Record], found: &mut Found) {
    let books = Books::new(history);
    repeats::check(&books, found);
    stale::check(&books, found);
    keys::check(&books, found);
    cursor::check(&books, found);
    unseen::check(history, &books, found);
}
