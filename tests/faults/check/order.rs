//! Real time: what was published after something was acknowledged stands behind it.

use std::collections::BTreeMap;

use super::history::{Key, Micros, Process, Record};
use super::sends::Sends;
use super::{Class, Found};

#[derive(Clone, Copy)]
struct Span {
    invoked: Micros,
    acked: Micros,
    process: Process,
    first: u64,
    last: u64,
}

/// The greatest offsets of two different processes.
#[derive(Default)]
struct Greatest {
    most: Option<(u64, Process)>,
    next: Option<(u64, Process)>,
}

impl Greatest {
    fn add(&mut self, offset: u64, process: Process) {
        let new = Some((offset, process));
        match self.most {
            Some((_, holder)) if holder == process => self.most = self.most.max(new),
            Some((most, _)) if most > offset => self.next = self.next.max(new),
            before => (self.most, self.next) = (new, before),
        }
    }

    fn of_another(&self, process: Process) -> Option<u64> {
        let other = [self.most, self.next].into_iter().flatten().find(|(_, p)| *p != process);
        other.map(|(offset, _)| offset)
    }
}

pub(super) fn check(sends: &Sends, found: &mut Found) {
    for (key, spans) in spans(sends) {
        check_key(key, spans, found);
    }
}

/// Whoever asks for the end and all that was acknowledged gets it.
pub(super) fn check_ends(history: &[Record], sends: &Sends, found: &mut Found) {
    let mut asked: BTreeMap<Key, Vec<(Micros, u64, usize)>> = BTreeMap::new();
    for record in history {
        if let Record::End { node, key, from, end, .. } = record {
            asked.entry(*key).or_default().push((*from, *end, *node));
        }
    }
    let mut spans = spans(sends);
    for (key, mut asked) in asked {
        let mut ended = spans.remove(&key).unwrap_or_default();
        ended.sort_unstable_by_key(|span| span.acked);
        asked.sort_unstable();
        let mut ended = ended.into_iter().peekable();
        let mut least = 0;
        for (from, end, node) in asked {
            while let Some(before) = ended.next_if(|before| before.acked < from) {
                least = least.max(before.last + 1);
            }
            if end < least {
                let what = format!("node {node} ends at {end}, {least} was acknowledged before");
                found.add(Class::StaleRead, Some(key), what);
            }
        }
    }
}

fn spans(sends: &Sends) -> BTreeMap<Key, Vec<Span>> {
    let mut keys: BTreeMap<Key, Vec<Span>> = BTreeMap::new();
    for op in &sends.ops {
        let Some((acked, key, offsets)) = &op.acked else { continue };
        let (Some(&first), Some(&last)) = (offsets.iter().min(), offsets.iter().max()) else {
            continue;
        };
        let span = Span { invoked: op.invoked, acked: *acked, process: op.process, first, last };
        keys.entry(*key).or_default().push(span);
    }
    keys
}

fn check_key(key: Key, mut begun: Vec<Span>, found: &mut Found) {
    let mut ended = begun.clone();
    begun.sort_unstable_by_key(|span| span.invoked);
    ended.sort_unstable_by_key(|span| span.acked);
    let mut ended = ended.into_iter().peekable();
    let mut greatest = Greatest::default();
    for span in begun {
        while let Some(before) = ended.next_if(|before| before.acked < span.invoked) {
            greatest.add(before.last, before.process);
        }
        // Its own sends have their own rule.
        if let Some(before) =
            greatest.of_another(span.process).filter(|before| *before > span.first)
        {
            let what = format!(
                "{before} was acknowledged before {} of process {} was published",
                span.first, span.process
            );
            found.add(Class::KeyOrder, Some(key), what);
        }
    }
}
