//! A cursor goes back only where somebody moves it.

use std::collections::BTreeMap;

use super::super::history::Process;
use super::super::{Class, Found};
use super::book::{Book, Books, Told};

pub(super) fn check(books: &Books, found: &mut Found) {
    for (desk, book) in &books.by_desk {
        if let Some((before, after)) = back(book) {
            let what = format!(
                "subscription {}: {} under epoch {}, then {} under epoch {}",
                desk.subscription, before.watermark, before.epoch, after.watermark, after.epoch
            );
            found.add(Class::CursorRegress, Some(desk.key), what);
        }
    }
}

/// What one desk tells does not lie below what an earlier one told, nor below what it told the same
/// member before. Desks of older epochs may be heard later.
fn back(book: &Book) -> Option<(Told, Told)> {
    let mut by_epoch: BTreeMap<u64, Vec<Told>> = BTreeMap::new();
    for told in &book.told {
        by_epoch.entry(told.epoch).or_default().push(*told);
    }
    let mut most: Option<Told> = None;
    for told in by_epoch.values() {
        let mut own: BTreeMap<Process, Told> = BTreeMap::new();
        for &told in told {
            let last = own.insert(told.process, told);
            if let Some(last) = last.filter(|last| last.watermark > told.watermark) {
                return Some((last, told));
            }
            if let Some(most) = most
                && most.watermark > told.watermark
                && !book.seeks.iter().any(|seek| seek.may_be_within(most.t, told.t))
            {
                return Some((most, told));
            }
        }
        // After the cursor was moved, only what is told from then on counts.
        let moved = most.is_some_and(|most| {
            let last = told.iter().map(|told| told.t).max().unwrap_or_default();
            book.seeks.iter().any(|seek| seek.may_be_within(most.t, last))
        });
        let highest = told.iter().max_by_key(|told| told.watermark).copied();
        most = if moved {
            highest
        } else {
            most.into_iter().chain(highest).max_by_key(|told| told.watermark)
        };
    }
    None
}
