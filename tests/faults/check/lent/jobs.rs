//! A replay job delivers all of its range, and nothing else. How often and in which order is judged like
//! what is new.

use super::super::history::{Act, Desk, JobEnd, Key, Micros};
use super::super::sends::Sends;
use super::super::{Class, Found};
use super::book::{Book, Books, Job, Loan};
use super::named;
use super::unseen::Stored;

pub(super) fn check(stored: &Stored, books: &Books, sends: &Sends, found: &mut Found) {
    for (desk, book) in books.by_desk.iter().filter(|(desk, _)| desk.job != 0) {
        check_range(desk, book, stored, books, found);
    }
    for (&number, job) in &books.jobs {
        if let Some(&asked) = books.asked.get(&number) {
            check_reach(number, job, asked, books, sends, found);
        }
        // Without a list of dead letters nobody can tell.
        if job.end == JobEnd::Done && books.letters.contains_key(&(job.subscription, 0)) {
            for (&key, &range) in &job.ranges {
                let desk =
                    Desk { subscription: job.subscription, key, redriven: false, job: number };
                check_seen(&desk, range, stored, books, found);
            }
        }
    }
}

/// Nothing outside of the range, and at each place the event that is stored there. Of a job that nobody
/// asked for, any loan is one too many.
fn check_range(desk: &Desk, book: &Book, stored: &Stored, books: &Books, found: &mut Found) {
    if books.asked.contains_key(&desk.job) && !books.jobs.contains_key(&desk.job) {
        return;
    }
    let job = books.jobs.get(&desk.job).filter(|job| job.subscription == desk.subscription);
    let range = job.and_then(|job| job.ranges.get(&desk.key).copied());
    let all = stored.get(&desk.key);
    for loan in book.loans.values() {
        let offset = loan.event.offset;
        let is_in = range.is_some_and(|(from, to)| (from..to).contains(&offset));
        let is_same = all.and_then(|all| all.get(&offset)).is_none_or(|at| *at == loan.event.value);
        if !is_in || !is_same {
            let (value, range) = (loan.event.value, range.unwrap_or_default());
            let what = format!("{}: event {value:x} at {offset}, of {range:?}", named(desk));
            found.add(Class::ReplayRange, Some(desk.key), what);
            return;
        }
    }
}

/// What was acknowledged before somebody asked for the job is in its range.
fn check_reach(
    number: u64,
    job: &Job,
    (began, from): (Micros, u64),
    books: &Books,
    sends: &Sends,
    found: &mut Found,
) {
    let Some(terms) = books.terms.get(&job.subscription) else { return };
    let is_in = |key: &Key, offset: u64| {
        job.ranges.get(key).is_some_and(|&(from, to)| (from..to).contains(&offset))
    };
    for op in &sends.ops {
        let Some((acked, key, offsets)) = &op.acked else { continue };
        let last = offsets.iter().copied().max();
        let missing = last.filter(|&last| last >= from && !is_in(key, last));
        if *acked < began
            && key.stream == terms.stream
            && let Some(last) = missing
        {
            let what = format!("replay job {number}: {last} was acknowledged before it was made");
            found.add(Class::ReplayRange, Some(*key), what);
            return;
        }
    }
}

/// Each event was settled for the job, or is a dead letter of it.
fn check_seen(
    desk: &Desk,
    (from, to): (u64, u64),
    stored: &Stored,
    books: &Books,
    found: &mut Found,
) {
    let loans = books.by_value(desk);
    let redriven = books.redriven(desk);
    // One that was delivered again as a dead letter may have become one of the subscription itself.
    let own = Desk { job: 0, ..*desk };
    let is_letter = |value| {
        books.is_letter(desk, value) || redriven.contains(&value) && books.is_letter(&own, value)
    };
    let events = stored.get(&desk.key).into_iter().flat_map(|all| all.range(from..to));
    for (offset, value) in events.filter(|(_, value)| !is_letter(**value)) {
        let loans = loans.get(value).map(Vec::as_slice).unwrap_or_default();
        let acked = |loan: &&Loan| loan.deeds.iter().any(|deed| deed.act == Act::Ack);
        if !loans.iter().any(acked) {
            let (name, times) = (named(desk), loans.len());
            let what = format!(
                "{name}: event {value:x} at {offset} was lent {times} times, and neither settled nor \
                 given up"
            );
            found.add(Class::Unseen, Some(desk.key), what);
        }
    }
}
