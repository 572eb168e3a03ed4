//! In the end every event that is stored was settled by each subscription, or is a dead letter.

use std::collections::BTreeMap;

use super::super::history::{Act, Desk, Key, Record, Value};
use super::super::{Class, Found};
use super::LATE;
use super::book::{Book, Books, Loan};

/// What is stored, by partition and offset.
pub(super) type Stored = BTreeMap<Key, BTreeMap<u64, Value>>;

pub(super) fn check(stored: &Stored, books: &Books, found: &mut Found) {
    // Without a list of dead letters nobody can tell.
    for (&subscription, terms) in &books.terms {
        if !books.letters.contains_key(&(subscription, 0)) {
            continue;
        }
        for (key, events) in stored.iter().filter(|(key, _)| key.stream == terms.stream) {
            check_key(subscription, *key, events, books, found);
        }
    }
}

/// What is stored in the end.
pub(super) fn stored(history: &[Record]) -> Stored {
    let mut stored = Stored::new();
    for record in history {
        if let Record::Final { key, seen, .. } = record {
            let events = seen.iter().map(|event| (event.offset, event.value));
            stored.entry(*key).or_default().extend(events);
        }
    }
    stored
}

fn check_key(
    subscription: u32,
    key: Key,
    events: &BTreeMap<u64, Value>,
    books: &Books,
    found: &mut Found,
) {
    let none = Book::default();
    let desk = Desk { subscription, key, redriven: false, job: 0 };
    let book = books.by_desk.get(&desk).unwrap_or(&none);
    let loans = books.by_value(&desk);
    for (&offset, value) in events {
        if is_skipped(book, offset) || books.is_letter(&desk, *value) {
            continue;
        }
        // After the cursor was moved back, all from there on is to be settled anew.
        let back = book.seeks.iter().filter(|seek| seek.to <= offset && seek.done.is_some());
        let since = back.map(|seek| seek.invoked).max().unwrap_or_default();
        let loans = loans.get(value).map(Vec::as_slice).unwrap_or_default();
        let acked = |loan: &&Loan| {
            let deeds = &loan.deeds;
            deeds.iter().any(|deed| deed.act == Act::Ack && deed.invoked >= since)
        };
        if !loans.iter().any(acked) {
            let times = loans.iter().filter(|loan| loan.t >= since).count();
            let what = format!(
                "subscription {subscription}: event {value:x} at {offset} was lent {times} times, \
                 and neither settled nor given up"
            );
            found.add(Class::Unseen, Some(key), what);
        }
    }
}

/// Whether the cursor was moved forward over it, or may have been.
fn is_skipped(book: &Book, offset: u64) -> bool {
    book.seeks.iter().any(|seek| {
        // Where it was further before, nothing is skipped; unless it was moved just then.
        let before = seek.invoked.saturating_sub(LATE);
        let others = book.seeks.iter().filter(|other| other.invoked < seek.invoked);
        let is_back = seek.was >= seek.to
            && !others.into_iter().any(|other| other.may_be_within(before, seek.invoked));
        seek.to > offset && !is_back
    })
}
