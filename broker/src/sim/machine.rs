//! A data group's state machine under observation, and the bugs that can be planted in it.

use std::collections::HashSet;
use std::hash::{BuildHasher, DefaultHasher, Hasher as _};
use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, Bytes, BytesMut};
use weft_proto::GroupId;

use super::observer::Observer;
use super::plant::Plant;
use super::process;
use crate::clock;
use crate::data::{DataMachine, lock};
use crate::entry::{Content, Entry, with_time};
use crate::partition::BatchReply;
use crate::raft::machine::{Applied, Machine, Unreadable};
use crate::raft::types::Reply;
use crate::state;

/// The whole state is compared after every so many entries, and each reply.
const STATE_EVERY: u64 = 8;
/// How many numbers the planted hash map holds.
const HASHED: u64 = 16;

pub(crate) struct Watched {
    pub(crate) node: u64,
    pub(crate) group: GroupId,
    pub(crate) machine: Arc<Mutex<DataMachine>>,
    pub(crate) observer: Arc<Observer>,
    /// The last entry applied, if it was not restored.
    pub(crate) last: Option<u64>,
}

impl Machine for Watched {
    fn apply(&mut self, entry: &Applied<'_>) -> Reply {
        self.last = Some(entry.index);
        let late = (self.observer.plant == Some(Plant::WallTimeInApply))
            .then(|| with_time(entry.payload.clone(), clock::now()).unwrap());
        let seen = Applied { payload: late.as_ref().unwrap_or(entry.payload), ..*entry };
        let mut machine = lock(&self.machine);
        let mut reply = machine.apply(&seen);
        if self.observer.plant == Some(Plant::StampedOffset) {
            reply = stamped(&reply, entry.payload);
        }
        let hash = entry.index.is_multiple_of(STATE_EVERY).then(|| machine.state().state_hash());
        drop(machine);
        self.observer.applied(self.node, self.group, entry, &reply);
        if let Some(hash) = hash {
            self.observer.state(self.group, entry.index, hash);
        }
        reply
    }

    fn applied_upto(&mut self, index: u64) {
        lock(&self.machine).applied_upto(index);
    }

    fn floor(&self) -> u64 {
        Machine::floor(&*lock(&self.machine))
    }

    fn installed(&mut self, index: u64) {
        lock(&self.machine).installed(index);
    }

    fn checkpoint(&self) -> Bytes {
        let mut state = lock(&self.machine).checkpoint();
        if self.observer.plant == Some(Plant::HashOrder) {
            state = with_hashed(&state);
        }
        if let Some(last) = self.last {
            self.observer.checkpoint(self.node, self.group, last, &state);
        }
        state
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), Unreadable> {
        self.last = None;
        let planted = self.observer.plant == Some(Plant::HashOrder);
        let hashed = if planted { usize::try_from(HASHED).unwrap() } else { 0 };
        let state = state.map(|state| &state[..state.len() - hashed]);
        lock(&self.machine).restore(state)
    }
}

/// Every void batch is said to be where its leader wanted it.
fn stamped(reply: &Reply, payload: &Bytes) -> Reply {
    let (Ok(state::Reply::Batches { time, mut batches }), Ok(entry)) =
        (state::Reply::decode(&reply.0), Entry::decode(payload))
    else {
        return reply.clone();
    };
    let Content::Batches(wanted) = entry.content else { return reply.clone() };
    for (reply, wanted) in batches.iter_mut().zip(wanted) {
        if matches!(reply, BatchReply::Void { .. }) {
            *reply = BatchReply::Appended { base: wanted.header.expected };
        }
    }
    Reply(state::Reply::Batches { time, batches }.encode())
}

/// Hashes by a key that differs from process to process, as the standard library does.
struct Keyed(u64);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

#[expect(clippy::iter_over_hash_type, reason = "that is the bug")]
fn with_hashed(state: &Bytes) -> Bytes {
    let key = process::current().map_or(0, |process| process.random().next());
    let mut numbers = HashSet::with_hasher(Keyed(key));
    numbers.extend(0..HASHED);
    let mut bytes = BytesMut::from(&state[..]);
    for number in numbers {
        bytes.put_u8(u8::try_from(number).unwrap());
    }
    bytes.freeze()
}
