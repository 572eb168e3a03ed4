//! Who does not hold an event any more does not settle it.

use super::super::history::{Act, Desk, Micros};
use super::super::{Class, Found};
use super::book::{Books, Deed, Loan, Terms};
use super::{LATE, named};

/// Times of members and of desks differ by less.
const NEAR: Micros = 100_000;

pub(super) fn check(books: &Books, found: &mut Found) {
    for (desk, book) in &books.by_desk {
        let Some(terms) = books.terms.get(&desk.subscription) else { continue };
        for loan in book.loans.values() {
            for (at, deed) in loan.deeds.iter().enumerate() {
                let earlier = &loan.deeds[..at];
                // An extension is a wish; doing the same again is no mistake.
                if matches!(deed.act, Act::Extend { .. })
                    || earlier.iter().any(|before| before.act == deed.act)
                {
                    continue;
                }
                let Some(done) = deed.ok() else { continue };
                if let Some(why) = why(books, desk, terms, loan, deed, done) {
                    report(desk, loan, deed, &why, found);
                    break;
                }
            }
        }
    }
}

fn report(desk: &Desk, loan: &Loan, deed: &Deed, why: &str, found: &mut Found) {
    let (offset, token, act) = (loan.event.offset, loan.token, deed.act);
    let what = format!("{}: {act:?} of {offset} as {token:?} was ok although {why}", named(desk));
    found.add(Class::StaleOwnerAck, Some(desk.key), what);
}

/// Why the lease was over when the member began to settle it.
fn why(
    books: &Books,
    desk: &Desk,
    terms: &Terms,
    loan: &Loan,
    deed: &Deed,
    done: Micros,
) -> Option<String> {
    let book = books.by_desk.get(desk)?;
    let begun = deed.invoked;
    let taken =
        book.of(loan.event.offset).find(|other| other.token > loan.token && other.t < begun);
    if let Some(other) = taken {
        return Some(format!("it was lent as {:?} before", other.token));
    }
    let before = |other: &&Deed| {
        !matches!(other.act, Act::Extend { .. }) && other.ok().is_some_and(|ok| ok < begun)
    };
    if let Some(other) = loan.deeds.iter().find(before) {
        return Some(format!("{:?} was ok before", other.act));
    }
    let moved = book.seeks.iter().any(|seek| {
        seek.invoked > loan.t
            && seek.done.is_some_and(|(done, epoch)| done < begun && loan.token.0 < epoch)
    });
    if moved {
        return Some("the cursor was moved before".to_owned());
    }
    let end = end_of(terms, loan)?;
    let renewed = is_renewed(books, desk, loan, done);
    (begun > end + NEAR && !renewed).then(|| {
        let late = (begun - end) / 1_000;
        format!("the lease had ended {late} ms before")
    })
}

/// A new desk takes leases on, for as long as new ones. Of the epochs of dead letters and of replay jobs
/// nobody is told, but they have their desk in common with the partition.
fn is_renewed(books: &Books, desk: &Desk, loan: &Loan, done: Micros) -> bool {
    let own = Desk { redriven: false, job: 0, ..*desk };
    let told = books.by_desk.get(&own).map_or(&[][..], |book| &book.told);
    let before = told.iter().filter(|told| told.t <= loan.t).map(|told| told.epoch).max();
    let since = if *desk == own { Some(loan.token.0) } else { before };
    told.iter().any(|told| Some(told.epoch) > since && told.t < done + LATE)
}

/// When the lease ends at the latest; nothing where an extension has no answer.
fn end_of(terms: &Terms, loan: &Loan) -> Option<Micros> {
    let mut end = loan.t + terms.lease;
    for deed in &loan.deeds {
        if let Act::Extend { by } = deed.act {
            end = end.max(deed.done?.0 + by);
        }
    }
    Some(end)
}
