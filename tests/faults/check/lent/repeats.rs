//! What is settled does not come again; what is not comes again only for a reason.

use super::super::history::{Act, Desk};
use super::super::{Class, Found};
use super::book::{Book, Books, Loan, Terms};
use super::{named, owner};

pub(super) fn check(books: &Books, found: &mut Found) {
    for (desk, book) in &books.by_desk {
        let Some(terms) = books.terms.get(&desk.subscription) else { continue };
        for token in &book.twice {
            report(desk, found, format!("the lease {token:?} was given twice"));
        }
        for offset in book.by_offset.keys() {
            let loans: Vec<&Loan> = book.of(*offset).collect();
            check_settled(desk, book, &loans, found);
            for pair in loans.windows(2) {
                if !has_reason(books, terms, pair[0], pair[1]) {
                    let (first, again) = (pair[0].token, pair[1].token);
                    let what = format!("{offset} was lent as {again:?}, {first:?} had not ended");
                    report(desk, found, what);
                }
            }
        }
    }
}

fn report(desk: &Desk, found: &mut Found, what: impl std::fmt::Display) {
    let what = format!("{}: {what}", named(desk));
    found.add(Class::DupBeyondBound, Some(desk.key), what);
}

/// Nothing that was lent later than what was settled.
fn check_settled(desk: &Desk, book: &Book, loans: &[&Loan], found: &mut Found) {
    for (at, loan) in loans.iter().enumerate() {
        let Some(deed) = loan.deeds.iter().find(|deed| deed.is_final() && deed.ok().is_some())
        else {
            continue;
        };
        let offset = loan.event.offset;
        let moved = |again: &Loan| {
            let seeks = book.seeks.iter().filter(|seek| seek.to <= offset);
            again.token.0 != loan.token.0
                && seeks.into_iter().any(|seek| seek.may_be_within(deed.invoked, again.t))
        };
        // What was noted before was lent before: then it is the settling that was wrong.
        let again = loans[at + 1..].iter().find(|again| again.t > deed.invoked && !moved(again));
        if let Some(again) = again {
            let (act, token) = (deed.act, loan.token);
            let what =
                format!("{offset} was lent as {:?} after {act:?} of {token:?} was ok", again.token);
            return report(desk, found, what);
        }
    }
}

/// Whether the earlier loan may have ended before the later one, which is the next.
fn has_reason(books: &Books, terms: &Terms, first: &Loan, again: &Loan) -> bool {
    // The next desk does not know of all leases of the one before.
    let by_another_desk = first.token.0 != again.token.0;
    let settled = first
        .deeds
        .iter()
        .any(|deed| !matches!(deed.act, Act::Extend { .. }) && deed.invoked < again.t);
    // Members note late what they are lent.
    let over = again.t < first.t || again.t - first.t >= terms.lease / 2;
    let gone = books.left(first.process).is_some_and(|left| left < again.t);
    let from = first.t.saturating_sub(terms.lease);
    let taken_over = terms.exclusive && owner::is_newer(books, again.process, first.process);
    by_another_desk || settled || over || gone || taken_over || books.is_disturbed(from, again.t)
}
