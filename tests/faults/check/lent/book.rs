//! All that members did and were told, by subscription and partition.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::super::history::{
    Act, Answer, Desk, Injected, JobEnd, Key, Lent, Micros, Process, Record, Value,
};
use super::LATE;

/// Names a lease, in the order in which they were given: epoch and number.
pub(super) type Token = (u64, u64);

/// What was done with a lease.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub(super) act: Act,
    pub(super) invoked: Micros,
    /// When it was answered, and whether with ok.
    pub(super) done: Option<(Micros, bool)>,
}

impl Deed {
    /// When it was answered with ok.
    pub(super) fn ok(&self) -> Option<Micros> {
        self.done.and_then(|(t, ok)| ok.then_some(t))
    }

    /// Whether nothing comes after it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.act, Act::Ack | Act::Reject)
    }
}

/// An event that was lent, once.
#[derive(Clone, Debug)]
pub(super) struct Loan {
    pub(super) token: Token,
    pub(super) event: Lent,
    /// When the member noted it: not before it was lent.
    pub(super) t: Micros,
    pub(super) process: Process,
    pub(super) deeds: Vec<Deed>,
}

/// A cursor was moved, or may have been.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seek {
    pub(super) invoked: Micros,
    /// When that was answered, and which epoch is the first that is not void.
    pub(super) done: Option<(Micros, u64)>,
    pub(super) to: u64,
    /// Where it was at least.
    pub(super) was: u64,
}

impl Seek {
    /// Whether it may have taken hold between these times.
    pub(super) fn may_be_within(&self, from: Micros, to: Micros) -> bool {
        self.invoked < to && self.done.is_none_or(|(done, _)| done + LATE > from)
    }
}

/// What a member was told of a cursor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) t: Micros,
    pub(super) process: Process,
    pub(super) epoch: u64,
    pub(super) watermark: u64,
}

/// One partition of one subscription.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) loans: BTreeMap<Token, Loan>,
    /// The same, by event.
    pub(super) by_offset: BTreeMap<u64, Vec<Token>>,
    /// Leases that were told twice.
    pub(super) twice: Vec<Token>,
    pub(super) seeks: Vec<Seek>,
    pub(super) told: Vec<Told>,
}

/// What is known of a subscription.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "as it is recorded")]
pub(super) struct Terms {
    pub(super) stream: u32,
    pub(super) keyed: bool,
    pub(super) exclusive: bool,
    pub(super) lease: Micros,
}

/// A replay job as it was in the end.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) subscription: u32,
    pub(super) ranges: BTreeMap<Key, (u64, u64)>,
    pub(super) end: JobEnd,
}

/// All of a history.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) terms: BTreeMap<u32, Terms>,
    pub(super) by_desk: BTreeMap<Desk, Book>,
    /// Replay jobs that there are in the end.
    pub(super) jobs: BTreeMap<u64, Job>,
    /// When somebody asked for one, and where it shall begin.
    pub(super) asked: BTreeMap<u64, (Micros, u64)>,
    /// Dead letters of each subscription, by replay job; none where they were not asked for.
    pub(super) letters: BTreeMap<(u32, u64), BTreeSet<Value>>,
    /// When members came.
    joined: HashMap<Process, Micros>,
    /// When members were gone.
    left: HashMap<Process, Micros>,
    /// From when until when something was done to the cluster.
    faults: Vec<(Micros, Micros)>,
}

impl Book {
    /// The loans of one event, in their order.
    pub(super) fn of(&self, offset: u64) -> impl Iterator<Item = &Loan> {
        let tokens = self.by_offset.get(&offset).into_iter().flatten();
        tokens.filter_map(|token| self.loans.get(token))
    }

    /// Whether the cursor may have been moved between two loans, which are in order.
    pub(super) fn may_have_moved(&self, from: &Loan, to: &Loan) -> bool {
        from.token.0 != to.token.0 && self.seeks.iter().any(|seek| seek.may_be_within(from.t, to.t))
    }
}

impl Books {
    pub(super) fn new(history: &[Record]) -> Self {
        let mut books = Self::default();
        let mut acts: HashMap<u64, (Desk, Token, usize)> = HashMap::new();
        let mut seeks: HashMap<u64, (Desk, usize)> = HashMap::new();
        for record in history {
            match record {
                Record::Subscription { subscription, stream, keyed, exclusive, lease, .. } => {
                    let (stream, lease) = (*stream, *lease);
                    let terms = Terms { stream, keyed: *keyed, exclusive: *exclusive, lease };
                    books.terms.insert(*subscription, terms);
                }
                Record::AskJob { t, job, from } => _ = books.asked.insert(*job, (*t, *from)),
                Record::Job { job, subscription, ranges, end, .. } => {
                    let ranges = ranges.iter().map(|&(key, from, to)| (key, (from, to))).collect();
                    let of = Job { subscription: *subscription, ranges, end: *end };
                    books.jobs.insert(*job, of);
                }
                Record::Join { t, process, .. } => _ = books.joined.insert(*process, *t),
                Record::Leave { t, process, .. } => _ = books.left.insert(*process, *t),
                Record::Cursor { t, process, desk, epoch, watermark } => {
                    let told = (*t, *process, *epoch, *watermark);
                    let (t, process, epoch, watermark) = told;
                    let told = Told { t, process, epoch, watermark };
                    books.by_desk.entry(*desk).or_default().told.push(told);
                }
                Record::Lend { t, process, desk, epoch, events } => {
                    let book = books.by_desk.entry(*desk).or_default();
                    for event in events {
                        book.lend(*t, *process, *epoch, event);
                    }
                }
                Record::Settle { t, op, desk, epoch, lease, act, .. } => {
                    let token = (*epoch, *lease);
                    let deed = Deed { act: *act, invoked: *t, done: None };
                    let book = books.by_desk.get_mut(desk);
                    if let Some(loan) = book.and_then(|book| book.loans.get_mut(&token)) {
                        acts.insert(*op, (*desk, token, loan.deeds.len()));
                        loan.deeds.push(deed);
                    }
                }
                Record::Settled { t, op, answer } => {
                    if let Some(place) = acts.get(op) {
                        books.answered(place, *t, answer);
                    }
                }
                Record::Seek { t, op, desk, to, was } => {
                    let book = books.by_desk.entry(*desk).or_default();
                    seeks.insert(*op, (*desk, book.seeks.len()));
                    book.seeks.push(Seek { invoked: *t, done: None, to: *to, was: *was });
                }
                Record::Sought { t, op, to, epoch } => {
                    let place = seeks.get(op).copied();
                    let seek = place
                        .and_then(|(desk, at)| books.by_desk.get_mut(&desk)?.seeks.get_mut(at));
                    if let Some(seek) = seek {
                        (seek.done, seek.to) = (Some((*t, *epoch)), *to);
                    }
                }
                Record::Letters { subscription, job, letters, .. } => {
                    books.letters.entry((*subscription, *job)).or_default().extend(letters);
                }
                Record::Fault { t, state, .. } => books.fault(*t, *state),
                _ => {}
            }
        }
        books
    }

    fn answered(&mut self, (desk, token, at): &(Desk, Token, usize), t: Micros, answer: &Answer) {
        let book = self.by_desk.get_mut(desk);
        let loan = book.and_then(|book| book.loans.get_mut(token));
        let Some(deed) = loan.and_then(|loan| loan.deeds.get_mut(*at)) else { return };
        deed.done = match answer {
            Answer::Ok => Some((t, true)),
            Answer::Refused { .. } => Some((t, false)),
            Answer::Open { .. } => None,
        };
    }

    fn fault(&mut self, t: Micros, state: Injected) {
        match state {
            Injected::Begun => self.faults.push((t, Micros::MAX)),
            Injected::Healed | Injected::Indeterminate => {
                if let Some((_, until)) = self.faults.last_mut() {
                    *until = t;
                }
            }
            Injected::Installed | Injected::Skipped => {}
        }
    }

    /// Whether something was done to the cluster that may still be felt between these times.
    pub(super) fn is_disturbed(&self, from: Micros, to: Micros) -> bool {
        self.faults.iter().any(|(begin, end)| *begin < to && end.saturating_add(LATE) > from)
    }

    /// When this member was gone.
    pub(super) fn left(&self, process: Process) -> Option<Micros> {
        self.left.get(&process).copied()
    }

    /// Whether anybody else was gone in this time.
    pub(super) fn someone_left(&self, when: &Range<Micros>, but: Process) -> bool {
        self.left.iter().any(|(process, t)| *process != but && when.contains(t))
    }

    /// When this member came.
    pub(super) fn joined(&self, process: Process) -> Option<Micros> {
        self.joined.get(&process).copied()
    }

    /// Books about partitions themselves, new events and old, not about their dead letters.
    pub(super) fn plain(&self) -> impl Iterator<Item = (&Desk, &Book, &Terms)> {
        let plain = self.by_desk.iter().filter(|(desk, _)| !desk.redriven);
        plain.filter_map(|(desk, book)| Some((desk, book, self.terms.get(&desk.subscription)?)))
    }

    /// Whether it is a dead letter of a subscription, or of a job to it, in the end.
    pub(super) fn is_letter(&self, desk: &Desk, value: Value) -> bool {
        let letters = self.letters.get(&(desk.subscription, desk.job));
        letters.is_some_and(|letters| letters.contains(&value))
    }

    /// Events that were dead letters of a partition once: they were delivered again as such.
    pub(super) fn redriven(&self, desk: &Desk) -> BTreeSet<Value> {
        let book = self.by_desk.get(&Desk { redriven: true, job: 0, ..*desk });
        let loans = book.into_iter().flat_map(|book| book.loans.values());
        loans.map(|loan| loan.event.value).collect()
    }

    /// All loans of the events of a desk, of its dead letters too.
    pub(super) fn by_value(&self, desk: &Desk) -> HashMap<Value, Vec<&Loan>> {
        let mut by_value: HashMap<Value, Vec<&Loan>> = HashMap::new();
        for desk in [*desk, Desk { redriven: true, job: 0, ..*desk }] {
            for loan in self.by_desk.get(&desk).into_iter().flat_map(|book| book.loans.values()) {
                by_value.entry(loan.event.value).or_default().push(loan);
            }
        }
        by_value
    }
}

impl Book {
    fn lend(&mut self, t: Micros, process: Process, epoch: u64, event: &Lent) {
        let token = (epoch, event.lease);
        if self.loans.contains_key(&token) {
            self.twice.push(token);
            return;
        }
        self.loans.insert(token, Loan { token, event: *event, t, process, deeds: Vec::new() });
        let tokens = self.by_offset.entry(event.offset).or_default();
        let at = tokens.partition_point(|before| *before < token);
        tokens.insert(at, token);
    }
}
