//! Who is attached, who wants events, and who is gone but may come back.

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::Timestamp;

/// One attachment of a member; a newer one has a higher number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberId(pub u64);

/// A name that holds leases; never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HolderId(u64);

#[derive(Debug)]
struct Holder {
    name: String,
    attached: Option<MemberId>,
    /// Among members of which one is served.
    rank: u64,
    /// When a member that is gone loses its leases.
    grace_end: Timestamp,
    /// Its leases need no attachment.
    lingers: bool,
    lent: u64,
}

/// The members of the subscription; one that is gone stays while it holds leases.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_name: BTreeMap<String, HolderId>,
    holders: BTreeMap<HolderId, Holder>,
    attached: BTreeMap<MemberId, HolderId>,
    wanting: BTreeSet<MemberId>,
    /// Whose turn it was last.
    turn: MemberId,
    graces: BTreeSet<(Timestamp, HolderId)>,
    /// Those that are attached, by rank.
    ranked: BTreeSet<(u64, HolderId)>,
    last: HolderId,
}

impl Members {
    /// A member attaches; an older attachment of its name ends.
    pub(super) fn attach(&mut self, id: MemberId, name: &str, rank: u64) -> HolderId {
        // A number stands for one attachment.
        if let Some(&known) = self.attached.get(&id) {
            return known;
        }
        let holder_id = self.by_name.get(name).copied().unwrap_or_else(|| {
            self.last = HolderId(self.last.0.saturating_add(1));
            self.by_name.insert(name.to_owned(), self.last);
            self.last
        });
        let holder = self.holders.entry(holder_id).or_insert_with(|| Holder {
            name: name.to_owned(),
            attached: None,
            rank,
            grace_end: Timestamp::default(),
            lingers: false,
            lent: 0,
        });
        holder.lingers = false;
        self.graces.remove(&(holder.grace_end, holder_id));
        if let Some(older) = holder.attached.replace(id) {
            self.attached.remove(&older);
            self.wanting.remove(&older);
        }
        self.ranked.insert((holder.rank, holder_id));
        self.attached.insert(id, holder_id);
        holder_id
    }

    /// The leases of an attached member stay without it.
    pub(super) fn linger(&mut self, id: MemberId) {
        if let Some(holder) = self.attached.get(&id).and_then(|id| self.holders.get_mut(id)) {
            holder.lingers = true;
        }
    }

    /// An attachment ended; its leases stay until `grace_end`, or for their own time if they linger.
    pub(super) fn detach(&mut self, id: MemberId, grace_end: Timestamp) {
        self.wanting.remove(&id);
        let Some(holder_id) = self.attached.remove(&id) else {
            return;
        };
        if let Some(holder) = self.holders.get_mut(&holder_id) {
            holder.attached = None;
            self.ranked.remove(&(holder.rank, holder_id));
            holder.grace_end = grace_end;
            if !holder.lingers {
                self.graces.insert((grace_end, holder_id));
            }
        }
        self.forget_idle(holder_id);
    }

    pub(super) fn want(&mut self, id: MemberId, wants: bool) {
        if wants && self.attached.contains_key(&id) {
            self.wanting.insert(id);
        } else {
            self.wanting.remove(&id);
        }
    }

    pub(super) fn wants(&self, id: MemberId) -> bool {
        self.wanting.contains(&id)
    }

    /// The next wanting member in rotation.
    pub(super) fn next_wanting(&mut self) -> Option<MemberId> {
        let after = MemberId(self.turn.0.saturating_add(1));
        let next = self.wanting.range(after..).next().or_else(|| self.wanting.first()).copied()?;
        self.turn = next;
        Some(next)
    }

    /// The attachment of a name, if it wants events.
    pub(super) fn wanting(&self, holder: HolderId) -> Option<MemberId> {
        let id = self.holders.get(&holder)?.attached?;
        self.wanting.contains(&id).then_some(id)
    }

    pub(super) fn holder(&self, id: MemberId) -> Option<HolderId> {
        self.attached.get(&id).copied()
    }

    pub(super) fn named(&self, name: &str) -> Option<HolderId> {
        self.by_name.get(name).copied()
    }

    /// How the holder of leases is called.
    pub(super) fn name(&self, holder: HolderId) -> Option<&str> {
        self.holders.get(&holder).map(|holder| holder.name.as_str())
    }

    pub(super) fn is_known(&self, holder: HolderId) -> bool {
        self.holders.contains_key(&holder)
    }

    pub(super) fn is_attached(&self, holder: HolderId) -> bool {
        self.holders.get(&holder).is_some_and(|holder| holder.attached.is_some())
    }

    /// The newest attachment.
    pub(super) fn newest(&self) -> Option<HolderId> {
        self.attached.last_key_value().map(|(_, &holder)| holder)
    }

    /// The attachment that ranks highest.
    pub(super) fn first(&self) -> Option<MemberId> {
        let (_, holder) = self.ranked.last()?;
        self.holders.get(holder)?.attached
    }

    pub(super) fn lent(&self, holder: HolderId) -> u64 {
        self.holders.get(&holder).map_or(0, |holder| holder.lent)
    }

    /// So many events were lent to the member.
    pub(super) fn lend(&mut self, holder: HolderId, events: u64) {
        if let Some(holder) = self.holders.get_mut(&holder) {
            holder.lent = holder.lent.saturating_add(events);
        }
    }

    /// So many leases of the member ended; who is gone and has none is forgotten.
    pub(super) fn end(&mut self, holder: HolderId, leases: u64) {
        if let Some(known) = self.holders.get_mut(&holder) {
            known.lent = known.lent.saturating_sub(leases);
            self.forget_idle(holder);
        }
    }

    /// Somebody who did not come back in time.
    pub(super) fn pop_gone(&mut self, now: Timestamp) -> Option<HolderId> {
        let &(end, holder) = self.graces.first()?;
        (end <= now).then(|| {
            self.graces.pop_first();
            holder
        })
    }

    pub(super) fn next_grace_end(&self) -> Option<Timestamp> {
        self.graces.first().map(|&(end, _)| end)
    }

    fn forget_idle(&mut self, id: HolderId) {
        if let Some(holder) = self.holders.get(&id)
            && holder.attached.is_none()
            && holder.lent == 0
        {
            self.graces.remove(&(holder.grace_end, id));
            self.by_name.remove(&holder.name);
            self.holders.remove(&id);
        }
    }
}
