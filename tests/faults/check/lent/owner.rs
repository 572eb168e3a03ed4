//! Of an exclusive subscription one member is served at a time, the newest, in the order of the
//! partition. What failed comes again beside later events, and is told by its attempt.

use super::super::history::{Act, Process};
use super::super::{Class, Found};
use super::book::{Book, Books, Loan};
use super::{LATE, named};

pub(super) fn check(books: &Books, found: &mut Found) {
    for (desk, book, _) in books.plain().filter(|(_, _, terms)| terms.exclusive) {
        if let Some((before, loan)) = disorder(books, book) {
            let what = format!(
                "{}: {} was lent as {:?} to process {}, which had {} before as {:?}",
                named(desk),
                loan.event.offset,
                loan.token,
                loan.process,
                before.event.offset,
                before.token
            );
            found.add(Class::KeyOrder, Some(desk.key), what);
        }
        if let Some((owner, loan)) = usurper(books, book) {
            let what = format!(
                "{}: {} was lent as {:?} to process {}, process {} had taken over by {:?}",
                named(desk),
                loan.event.offset,
                loan.token,
                loan.process,
                owner.process,
                owner.token
            );
            found.add(Class::TwoOwners, Some(desk.key), what);
        }
    }
}

/// Whether a member came after another one.
pub(super) fn is_newer(books: &Books, one: Process, other: Process) -> bool {
    let (one, other) = (books.joined(one), books.joined(other));
    one.zip(other).is_some_and(|(one, other)| one > other)
}

/// A first try that one desk lent to a member, since it took over, after that of a later event. That goes for
/// what it took over as well: it was not tried, and comes before all else. What somebody gave back may not
/// count, and still be put off.
fn disorder<'a>(books: &Books, book: &'a Book) -> Option<(&'a Loan, &'a Loan)> {
    let mut last: Option<&Loan> = None;
    let mut highest: Option<&Loan> = None;
    for loan in book.loans.values() {
        let is_new = last.is_none_or(|last| is_another(books, last, loan));
        last = Some(loan);
        if is_new {
            highest = None;
        }
        if loan.event.attempt > 1 {
            continue;
        }
        match highest {
            Some(before) if before.event.offset > loan.event.offset => {
                let was_put_off = book
                    .of(loan.event.offset)
                    .filter(|earlier| earlier.token < loan.token)
                    .any(|earlier| earlier.deeds.iter().any(|deed| deed.act == Act::Nack));
                if !was_put_off {
                    return Some((before, loan));
                }
            }
            _ => highest = Some(loan),
        }
    }
    None
}

/// Whether somebody took over between two loans that follow each other. Who vanished in between may have been
/// lent what nobody noted.
fn is_another(books: &Books, last: &Loan, loan: &Loan) -> bool {
    let between = last.t.saturating_sub(LATE)..loan.t.max(last.t) + LATE;
    let is_gap = last.token.1 + 1 < loan.token.1;
    (last.process, last.token.0) != (loan.process, loan.token.0)
        || is_gap && books.someone_left(&between, loan.process)
}

/// Who is served after a newer member, which is still there. After a fault sessions begin anew, and anyone
/// may have the newest.
fn usurper<'a>(books: &Books, book: &'a Book) -> Option<(&'a Loan, &'a Loan)> {
    let mut owner: Option<&Loan> = None;
    for loan in book.loans.values() {
        if let Some(owner) = owner.filter(|owner| owner.process != loan.process) {
            let is_left = books.left(owner.process).is_some_and(|left| left <= loan.t + LATE);
            let is_new_desk = owner.token.0 != loan.token.0;
            let from = owner.t.min(loan.t).saturating_sub(LATE);
            let is_excused = is_left || is_new_desk || books.is_disturbed(from, loan.t);
            if !is_excused && is_newer(books, owner.process, loan.process) {
                return Some((owner, loan));
            }
        }
        owner = Some(loan);
    }
    None
}
