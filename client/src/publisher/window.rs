//! The batches of one producer in one partition that are not settled yet. Pure.
//!
//! Decides what is sent next, what is sent again and when, and what to tell about a batch. Time
//! is the duration since some start; the caller holds the connection.
//!
//! *Owns* the numbering. *Never* sends a batch of unknown fate under another number, so that the
//! broker recognises every retry.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::retry::Backoff;

/// Batches sent ahead. The broker remembers the last 64 of a producer; a retry must be among them.
pub(super) const BATCHES_MAX: u64 = 32;

/// What a window keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes sent ahead; one larger batch alone is allowed.
    pub(super) bytes_max: usize,
    /// A batch without an answer for this long means that the connection is dead.
    pub(super) attempt: Duration,
}

/// What a server says about one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is stored; `empty` when each event of it was refused, so that nothing was.
    Stored { empty: bool },
    /// A limit is reached: later, at the same place.
    Later { certain: bool, after: Option<Duration> },
    /// The batch before it is missing.
    OutOfOrder,
    /// The producer is not remembered any more.
    UnknownProducer,
    /// A newer run of the producer took over.
    Fenced,
    /// It will never be stored.
    Refused,
}

/// A batch that left the window, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By the answer that is being handled.
    Answered,
    /// It may be stored or not.
    Unknown,
    /// It is certainly not stored.
    NotStored,
}

/// What to do with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Continue,
    /// This producer is over: its numbering can no longer protect from duplicates.
    Over,
}

/// What to send: the identity, and the place of the batch in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Send {
    pub(super) tag: u64,
    pub(super) epoch: u64,
    pub(super) sequence: u64,
    pub(super) previous: u64,
    pub(super) slot: usize,
}

#[derive(Debug)]
struct Slot<B> {
    sequence: u64,
    previous: u64,
    /// What precedes this batch if all events of the batch before it were refused.
    instead: Option<u64>,
    /// Tag and time of the attempt that is out.
    sent: Option<(u64, Duration)>,
    /// An earlier attempt went unanswered: it may be stored.
    open: bool,
    bytes: usize,
    deadline: Duration,
    body: B,
}

impl<B> Slot<B> {
    /// The newest batch that the broker remembers for certain when this one is refused.
    fn base(&self) -> u64 {
        self.instead.unwrap_or(self.previous)
    }
}

#[derive(Debug)]
pub(super) struct Window<B> {
    limits: Limits,
    slots: VecDeque<Slot<B>>,
    /// Attempts of the present connection that are not answered: tag to sequence.
    attempts: BTreeMap<u64, u64>,
    epoch: u64,
    next_sequence: u64,
    next_tag: u64,
    /// `previous` and `instead` of the next new batch.
    tail: (u64, Option<u64>),
    bytes_out: usize,
    backoff: Backoff,
    /// Nothing is sent before.
    pause_until: Duration,
}

impl<B> Window<B> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: VecDeque::new(),
            attempts: BTreeMap::new(),
            epoch: 1,
            next_sequence: 1,
            next_tag: 1,
            tail: (0, None),
            bytes_out: 0,
            backoff: Backoff::default(),
            pause_until: Duration::ZERO,
        }
    }

    /// Sends no more than so many bytes ahead from now on; what is out stays out.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.limits.bytes_max = bytes_max;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether one more batch may be pushed.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let span = self.slots.front().map_or(0, |head| self.next_sequence - head.sequence);
        let held: usize = self.slots.iter().map(|slot| slot.bytes).sum();
        span < BATCHES_MAX && (held == 0 || held + bytes <= self.limits.bytes_max)
    }

    /// Takes a batch, to be settled by `deadline`.
    pub(super) fn push(&mut self, body: B, bytes: usize, deadline: Duration) {
        let (previous, instead) = self.tail;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.tail = (sequence, None);
        let slot =
            Slot { sequence, previous, instead, sent: None, open: false, bytes, deadline, body };
        self.slots.push_back(slot);
    }

    /// What may be sent now; calling it means that it is sent.
    pub(super) fn poll_send(&mut self, now: Duration) -> Option<Send> {
        if now < self.pause_until {
            return None;
        }
        let place = self.slots.iter().position(|slot| slot.sent.is_none())?;
        let slot = self.slots.get_mut(place)?;
        if self.bytes_out > 0 && self.bytes_out + slot.bytes > self.limits.bytes_max {
            return None;
        }
        let tag = self.next_tag;
        self.next_tag += 1;
        slot.sent = Some((tag, now));
        self.bytes_out += slot.bytes;
        self.attempts.insert(tag, slot.sequence);
        Some(Send {
            tag,
            epoch: self.epoch,
            sequence: slot.sequence,
            previous: slot.previous,
            slot: place,
        })
    }

    /// Whether a connection is wanted at `now`.
    pub(super) fn may_connect(&self, now: Duration) -> bool {
        !self.slots.is_empty() && now >= self.pause_until
    }

    /// Whether something waits to be sent at `now`.
    pub(super) fn wants_to_send(&self, now: Duration) -> bool {
        now >= self.pause_until
            && self.slots.iter().find(|slot| slot.sent.is_none()).is_some_and(|slot| {
                self.bytes_out == 0 || self.bytes_out + slot.bytes <= self.limits.bytes_max
            })
    }

    /// The batch at a place that `poll_send` named.
    pub(super) fn body(&self, place: usize) -> Option<&B> {
        self.slots.get(place).map(|slot| &slot.body)
    }

    /// Handles the answer to an attempt; `done` gets the batches that are settled by it.
    pub(super) fn handle_answer(
        &mut self,
        tag: u64,
        answer: Answer,
        (now, random): (Duration, u32),
        done: &mut Vec<(B, End)>,
    ) -> Verdict {
        let Some(sequence) = self.attempts.remove(&tag) else { return Verdict::Continue };
        let Ok(place) = self.slots.binary_search_by_key(&sequence, |slot| slot.sequence) else {
            // Settled by another attempt.
            return Verdict::Continue;
        };
        if let Answer::Stored { empty } = answer {
            self.stored(place, empty, done);
            return Verdict::Continue;
        }
        let Some(slot) = self.slots.get_mut(place) else { return Verdict::Continue };
        // Whichever attempt it was, the batch may be stored.
        slot.open |= matches!(answer, Answer::Later { certain: false, .. });
        if slot.sent.is_none_or(|(current, _)| current != tag) {
            // A newer attempt is out or due: what became of an old one no longer matters.
            return Verdict::Continue;
        }
        match answer {
            Answer::Stored { .. } => Verdict::Continue,
            Answer::Later { after, .. } => {
                self.send_again_from(place);
                self.pause(after, now, random);
                Verdict::Continue
            }
            Answer::OutOfOrder => {
                self.out_of_order(place, now, random);
                Verdict::Continue
            }
            Answer::UnknownProducer if place > 0 => {
                self.send_again_from(place);
                Verdict::Continue
            }
            Answer::UnknownProducer if !slot.open => {
                // An idle producer was forgotten. No attempt at this batch is open, and what
                // follows it cannot be stored without it: a new run is safe.
                self.send_again_from(0);
                self.slots.iter_mut().for_each(|slot| slot.open = false);
                self.renew();
                Verdict::Continue
            }
            Answer::UnknownProducer | Answer::Fenced => {
                slot.sent = None;
                self.bytes_out = self.bytes_out.saturating_sub(slot.bytes);
                Verdict::Over
            }
            Answer::Refused => {
                self.refused(place, done);
                Verdict::Continue
            }
        }
    }

    /// The connection broke: everything that is out goes again, in order, to whoever leads now.
    pub(super) fn handle_broken(&mut self, after: Option<Duration>, now: Duration, random: u32) {
        self.leave_open();
        self.slots.iter_mut().for_each(|slot| slot.sent = None);
        self.bytes_out = 0;
        self.pause(after, now, random);
    }

    /// Whether an attempt waits for its answer for too long.
    pub(super) fn is_stuck(&self, now: Duration) -> bool {
        let oldest = self.slots.iter().filter_map(|slot| slot.sent).map(|(_, at)| at).min();
        oldest.is_some_and(|at| now >= at + self.limits.attempt)
    }

    /// Gives up what is past its deadline.
    pub(super) fn handle_deadline(&mut self, now: Duration, done: &mut Vec<(B, End)>) {
        let expired = self.slots.iter().rposition(|slot| slot.deadline <= now);
        if let Some(last) = expired {
            self.give_up(last, done);
        }
    }

    /// When to look again, whatever arrives.
    pub(super) fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let due = self.slots.iter().map(|slot| slot.deadline).min();
        let sent = self.slots.iter().filter_map(|slot| slot.sent).map(|(_, at)| at).min();
        let stuck = sent.map(|at| at + self.limits.attempt);
        let pause = (now < self.pause_until && !self.slots.is_empty()).then_some(self.pause_until);
        [due, stuck, pause].into_iter().flatten().min()
    }

    /// Empties the window.
    pub(super) fn drain(&mut self, done: &mut Vec<(B, End)>) {
        self.give_up(self.slots.len().saturating_sub(1), done);
        done.extend(self.slots.drain(..).map(|slot| (slot.body, End::NotStored)));
    }

    fn stored(&mut self, place: usize, empty: bool, done: &mut Vec<(B, End)>) {
        let Some(slot) = self.slots.remove(place) else { return };
        if slot.sent.is_some() {
            self.bytes_out = self.bytes_out.saturating_sub(slot.bytes);
        }
        if empty {
            self.follow_instead(place, slot.sequence, slot.base());
        }
        self.backoff.reset();
        done.push((slot.body, End::Answered));
    }

    /// The batch `sequence` took no place in the log: its successor follows `base`.
    fn follow_instead(&mut self, place: usize, sequence: u64, base: u64) {
        match self.slots.get_mut(place) {
            // It may be stored with the number it was sent with; its answer will tell.
            Some(next) if next.previous == sequence || next.instead == Some(sequence) => {
                next.instead = Some(base);
            }
            None if self.tail.0 == sequence => self.tail = (base, None),
            Some(_) | None => {}
        }
    }

    fn out_of_order(&mut self, place: usize, now: Duration, random: u32) {
        self.send_again_from(place);
        let Some(slot) = self.slots.get_mut(place) else { return };
        match slot.instead.take() {
            Some(base) => slot.previous = base,
            // The answer for the batch before it is on its way; if that is stored, then a node is
            // behind and will catch up.
            None => self.pause(None, now, random),
        }
    }

    /// What was sent after a batch that failed is not stored without it; the answers of these
    /// attempts are of no interest unless they say otherwise.
    fn send_again_from(&mut self, place: usize) {
        for slot in self.slots.range_mut(place..) {
            if slot.sent.take().is_some() {
                self.bytes_out = self.bytes_out.saturating_sub(slot.bytes);
            }
        }
    }

    fn refused(&mut self, place: usize, done: &mut Vec<(B, End)>) {
        let Some(slot) = self.slots.get(place) else { return };
        if slot.open || self.attempts.values().any(|&sequence| sequence == slot.sequence) {
            // An earlier attempt may be stored, and the numbering with it.
            self.give_up(place, done);
            return;
        }
        self.send_again_from(place);
        let Some(slot) = self.slots.remove(place) else { return };
        self.follow_refused(place, slot.sequence, slot.base());
        done.push((slot.body, End::Answered));
    }

    /// Unlike after an empty batch, the successor cannot be stored with the number it was sent
    /// with: its predecessor is not.
    fn follow_refused(&mut self, place: usize, sequence: u64, base: u64) {
        if let Some(next) = self.slots.get_mut(place) {
            (next.previous, next.instead) = (base, None);
        } else if self.tail.0 == sequence {
            self.tail = (base, None);
        }
    }

    /// Gives up all batches up to `last`, and those behind that may be stored. The rest follows
    /// under a new epoch: what the broker still holds of the old one can then no longer be stored
    /// between or behind it.
    fn give_up(&mut self, last: usize, done: &mut Vec<(B, End)>) {
        self.leave_open();
        for (place, slot) in std::mem::take(&mut self.slots).into_iter().enumerate() {
            match slot.open {
                true => done.push((slot.body, End::Unknown)),
                false if place <= last => done.push((slot.body, End::NotStored)),
                false => self.slots.push_back(Slot { sent: None, ..slot }),
            }
        }
        self.bytes_out = 0;
        self.renew();
    }

    /// Whatever has no answer yet gets none: it may be stored.
    fn leave_open(&mut self) {
        for sequence in std::mem::take(&mut self.attempts).into_values() {
            if let Ok(place) = self.slots.binary_search_by_key(&sequence, |slot| slot.sequence)
                && let Some(slot) = self.slots.get_mut(place)
            {
                slot.open = true;
            }
        }
    }

    fn renew(&mut self) {
        self.epoch += 1;
        // Batches that stay follow each other whatever was taken out between them.
        let mut previous = 0;
        for slot in &mut self.slots {
            (slot.previous, slot.instead) = (previous, None);
            previous = slot.sequence;
        }
        self.tail = (previous, None);
        self.attempts.clear();
    }

    fn pause(&mut self, after: Option<Duration>, now: Duration, random: u32) {
        self.pause_until = now + self.backoff.next(after, random);
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
