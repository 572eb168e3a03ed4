//! What the leader looks identities up in.

use hashbrown::HashTable;
use weft_proto::{Offset, Timestamp};

use super::{IDS_MAX, WINDOW_TIME, Window};

/// A suspected repeat: the index of the event in its batch, and the offset of what it may repeat.
pub type Suspect = (u32, Offset);

/// Where each identity was seen last, applied or in flight.
///
/// Two generations: when the young one is full or old enough it becomes the old one, and the old one
/// is dropped whole. So nothing is ever removed one by one, and each identity stays for at least the
/// window and at most twice as long.
#[derive(Debug, Default)]
pub struct Table {
    young: HashTable<Slot>,
    old: HashTable<Slot>,
    /// Log time at which the young generation began.
    since: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    offset: Offset,
}

impl Table {
    /// The table of a leadership that begins.
    pub fn new(window: &Window) -> Self {
        let mut young = HashTable::with_capacity(window.len());
        for seen in window.iter() {
            put(&mut young, Slot { hash: seen.hash, offset: seen.offset });
        }
        Self { young, old: HashTable::new(), since: window.since().unwrap_or_default() }
    }

    /// How many identities it has.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// Where an identity was seen.
    pub fn find(&self, hash: u64) -> Option<Offset> {
        let slot = get(&self.young, hash).or_else(|| get(&self.old, hash));
        slot.map(|slot| slot.offset)
    }

    /// Takes the identities of a batch that begins at `base`, all or, where one is known already,
    /// none. An offset at or above `base` means an event of the same batch.
    pub fn claim(
        &mut self,
        hashes: &[u64],
        base: Offset,
        now: Timestamp,
    ) -> Result<(), Vec<Suspect>> {
        self.turn(now);
        let mut suspects = Vec::new();
        for (number, &hash) in (0_u32..).zip(hashes) {
            match self.find(hash) {
                Some(offset) => suspects.push((number, offset)),
                None => self.add(hash, base, number),
            }
        }
        if suspects.is_empty() {
            return Ok(());
        }
        self.release(hashes, base);
        Err(suspects)
    }

    /// Takes the identities of a batch, whatever is known of them.
    pub fn insert(&mut self, hashes: &[u64], base: Offset, now: Timestamp) {
        self.turn(now);
        for (number, &hash) in (0_u32..).zip(hashes) {
            self.add(hash, base, number);
        }
    }

    /// Gives back what a batch took: it is void, or was never proposed.
    pub fn release(&mut self, hashes: &[u64], base: Offset) {
        for (number, &hash) in (0_u32..).zip(hashes) {
            let offset = at(base, number);
            for table in [&mut self.young, &mut self.old] {
                let own = |slot: &Slot| slot.hash == hash && slot.offset == offset;
                if let Ok(slot) = table.find_entry(hash, own) {
                    slot.remove();
                }
            }
        }
    }

    fn add(&mut self, hash: u64, base: Offset, number: u32) {
        put(&mut self.young, Slot { hash, offset: at(base, number) });
    }

    /// Begins a new generation when the young one is full or has lasted for the window.
    fn turn(&mut self, now: Timestamp) {
        if self.since == Timestamp::default() {
            self.since = now;
        }
        if self.young.len() >= IDS_MAX || now.since(self.since) > WINDOW_TIME {
            // As large as the last one: growing step by step would stall publishers.
            let next = HashTable::with_capacity(self.young.len());
            self.old = std::mem::replace(&mut self.young, next);
            self.since = now;
        }
    }
}

fn at(base: Offset, number: u32) -> Offset {
    Offset(base.0.saturating_add(number.into()))
}

fn get(table: &HashTable<Slot>, hash: u64) -> Option<&Slot> {
    table.find(hash, |slot| slot.hash == hash)
}

fn put(table: &mut HashTable<Slot>, slot: Slot) {
    match table.entry(slot.hash, |known| known.hash == slot.hash, |known| known.hash) {
        hashbrown::hash_table::Entry::Occupied(mut known) => *known.get_mut() = slot,
        hashbrown::hash_table::Entry::Vacant(place) => {
            place.insert(slot);
        }
    }
}
