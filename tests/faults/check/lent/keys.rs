//! Events of one key come one after the other, each after the one before is settled.

use std::collections::BTreeMap;

use super::super::{Class, Found};
use super::book::{Book, Books, Loan};
use super::named;

pub(super) fn check(books: &Books, found: &mut Found) {
    for (desk, book, terms) in books.plain() {
        if !terms.keyed {
            continue;
        }
        let mut names: BTreeMap<u64, Vec<&Loan>> = BTreeMap::new();
        for loan in book.loans.values() {
            names.entry(loan.event.name).or_default().push(loan);
        }
        let redriven = books.redriven(desk);
        let is_letter = |loan: &Loan| {
            let value = loan.event.value;
            redriven.contains(&value) || books.is_letter(desk, value)
        };
        for (name, loans) in names {
            let what = back(book, &loans).or_else(|| early(book, &loans, &is_letter));
            if let Some(what) = what {
                let what = format!("{}, key {name}: {what}", named(desk));
                found.add(Class::KeyOrder, Some(desk.key), what);
            }
        }
    }
}

/// An event that was lent after a later one.
fn back(book: &Book, loans: &[&Loan]) -> Option<String> {
    let mut highest: Option<&Loan> = None;
    for &loan in loans {
        let before = highest.filter(|before| !book.may_have_moved(before, loan));
        match before {
            Some(before) if before.event.offset > loan.event.offset => {
                return Some(format!(
                    "{} was lent as {:?}, {} before as {:?}",
                    loan.event.offset, loan.token, before.event.offset, before.token
                ));
            }
            _ => highest = Some(loan),
        }
    }
    None
}

/// An event that was lent although nobody had settled the one before.
fn early(book: &Book, loans: &[&Loan], is_letter: &dyn Fn(&Loan) -> bool) -> Option<String> {
    let mut offsets: Vec<u64> = loans.iter().map(|loan| loan.event.offset).collect();
    offsets.sort_unstable();
    offsets.dedup();
    for pair in offsets.windows(2) {
        let (before, offset) = (pair[0], pair[1]);
        let first = book.of(offset).min_by_key(|loan| loan.t)?;
        let is_letter = book.of(before).any(is_letter);
        let settled = book
            .of(before)
            .flat_map(|loan| &loan.deeds)
            .any(|deed| deed.is_final() && deed.invoked < first.t);
        let skipped = book.seeks.iter().any(|seek| seek.to > before && seek.invoked < first.t);
        if !settled && !is_letter && !skipped {
            return Some(format!(
                "{offset} was lent as {:?}, nobody had settled {before}",
                first.token
            ));
        }
    }
    None
}
