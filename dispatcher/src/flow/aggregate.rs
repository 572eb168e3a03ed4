//! Groups of events that become one.
//!
//! *Owns* which events wait for which others; the events themselves, and whose they are, the engine
//! keeps. *Never* depends on the order in which the members of a group came: what is made of the same
//! members is the same event.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;
use weft_proto::event::EventView;
use weft_proto::filter::{Candidate, Compiled};
use weft_proto::resource::flow::{AggregateStep, OnTimeout, Template};
use weft_proto::{QualifiedName, Timestamp};

use super::failure::Failure;
use super::parts::{HOP_COUNT, Parts, digest};
use super::render::{Escape, Scope};
use super::split::{SPLIT_COUNT, SPLIT_ID, SPLIT_INDEX};
use super::types::ItemId;

/// Why it fails, in a word.
pub(super) const REASON: &str = "aggregate";
/// Most members that `whole` waits for.
const WHOLE_MAX: usize = 10_000;
/// How many events a group was made of.
const COUNT: &str = "aggregatecount";

/// An aggregation, ready for use.
#[derive(Debug)]
pub(super) struct Aggregate {
    key: Option<Template>,
    count: Option<usize>,
    until: Option<Compiled>,
    after: std::time::Duration,
    pub(super) on_timeout: OnTimeout,
    bytes_max: usize,
    ty: Option<String>,
}

/// Events that wait for others.
#[derive(Debug, Default)]
pub(super) struct Groups {
    open: BTreeMap<String, Group>,
    by_age: BTreeSet<(Timestamp, String)>,
}

/// Events that belong together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: String,
    pub(super) members: Vec<Member>,
    opened: Timestamp,
    bytes: usize,
    expected: Option<usize>,
}

/// An event of a group, and how it is held: more than once if it came again.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) items: Vec<ItemId>,
    identity: (String, String),
    pub(super) event: Bytes,
}

impl Aggregate {
    pub(super) fn new(spec: &AggregateStep) -> Result<Self, String> {
        let until = Compiled::new(&spec.until).map_err(|error| error.message().to_owned())?;
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self {
            key: spec.key.as_deref().map(Template::parse).transpose()?,
            count: spec.count.map(size),
            until: Some(until).filter(|until| !until.is_empty()),
            after: spec.after.0,
            on_timeout: spec.on_timeout,
            bytes_max: size(spec.max_bytes),
            ty: spec.ty.clone(),
        })
    }

    /// Takes an event in; the groups that are complete now.
    pub(super) fn join(
        &self,
        groups: &mut Groups,
        item: ItemId,
        event: &Bytes,
        now: Timestamp,
    ) -> Result<Vec<Group>, Failure> {
        let scope = Scope::new(event)?;
        let (key, expected) = self.place(&scope)?;
        let view = *scope.view();
        let identity = (view.source.to_owned(), view.id.to_owned());
        let bytes = view.data_bytes().map_or(4, <[u8]>::len);
        let mut complete = Vec::new();
        let known = groups.open.get_mut(&key);
        let known = known
            .and_then(|group| group.members.iter_mut().find(|member| member.identity == identity));
        if let Some(member) = known {
            member.items.push(item);
            return Ok(complete);
        }
        let is_full = |group: &Group| group.bytes.saturating_add(bytes) > self.bytes_max;
        if groups.open.get(&key).is_some_and(is_full) {
            complete.extend(groups.take(&key));
        }
        let group = groups.open.entry(key.clone()).or_insert_with(|| {
            groups.by_age.insert((now, key.clone()));
            let (members, key) = (Vec::new(), key.clone());
            Group { key, members, opened: now, bytes: 0, expected }
        });
        group.members.push(Member { items: vec![item], identity, event: event.clone() });
        group.bytes = group.bytes.saturating_add(bytes).saturating_add(1);
        let count = group.members.len();
        let is_last = self.until.as_ref().is_some_and(|last| last.passes(&Candidate::new(view)));
        if is_last || group.expected.is_some_and(|expected| count >= expected) {
            complete.extend(groups.take(&key));
        }
        Ok(complete)
    }

    /// The group of an event, and how many it waits for.
    fn place(&self, scope: &Scope<'_>) -> Result<(String, Option<usize>), Failure> {
        if let Some(key) = &self.key {
            return Ok((scope.text(key, Escape::Nothing)?, self.count));
        }
        let attribute = |name: &str| {
            scope.view().attribute(name).ok_or_else(|| {
                let message = format!("{name} is missing: the event is no part of a split");
                Failure::permanent(REASON, message)
            })
        };
        let count = attribute(SPLIT_COUNT)?.parse::<usize>().ok();
        let count = count.filter(|count| (1..=WHOLE_MAX).contains(count));
        let wrong = || Failure::permanent(REASON, format!("{SPLIT_COUNT} is no number of parts"));
        Ok((attribute(SPLIT_ID)?.into_owned(), Some(count.ok_or_else(wrong)?)))
    }

    /// The groups whose time is over.
    pub(super) fn due(&self, groups: &mut Groups, now: Timestamp) -> Vec<Group> {
        let mut due = Vec::new();
        while let Some((opened, key)) = groups.by_age.first()
            && opened.saturating_add(self.after) <= now
        {
            let key = key.clone();
            due.extend(groups.take(&key));
        }
        due
    }

    /// When the next one is.
    pub(super) fn next_due(&self, groups: &Groups) -> Option<Timestamp> {
        groups.by_age.first().map(|(opened, _)| opened.saturating_add(self.after))
    }

    /// The one event that is made of a group.
    pub(super) fn output(
        &self,
        mut group: Group,
        function: &QualifiedName,
        step: &str,
    ) -> Result<Bytes, Failure> {
        let mut all = Vec::with_capacity(group.members.len());
        for member in group.members.drain(..) {
            let parts = Parts::read(&member.event)?;
            all.push((order(&member.event), parts));
        }
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let data = all.iter().map(|(_, parts)| parts.json()).collect::<Result<Vec<_>, _>>()?;
        let (count, data) = (data.len(), Value::Array(data));
        let name = function.to_string();
        let mut of = vec![name.as_str(), step, group.key.as_str()];
        for (_, parts) in &all {
            of.extend([parts.source.as_str(), parts.id.as_str()]);
        }
        let id = digest(&of);
        let mut whole = agreed(&all)?;
        whole.id = id;
        whole.source = format!("/functions/{name}");
        if let Some(ty) = &self.ty {
            whole.ty.clone_from(ty);
        }
        whole.set_number(COUNT, i32::try_from(count).unwrap_or(i32::MAX));
        whole.set_json(&data, REASON)?;
        whole.encode(REASON)
    }
}

/// Parts of a split as they were; others by time. Never by when they came.
type Order = (i64, Option<Timestamp>, String, String);

fn order(bytes: &Bytes) -> Order {
    let Some(view) = EventView::parse(bytes) else { return Order::default() };
    let index = view.attribute(SPLIT_INDEX).and_then(|text| text.parse().ok()).unwrap_or(0);
    (index, super::parts::time(&view), view.source.to_owned(), view.id.to_owned())
}

/// The first of them, with the attributes on which all agree, and the latest time.
fn agreed(all: &[(Order, Parts)]) -> Result<Parts, Failure> {
    let Some((first, rest)) = all.split_first() else {
        return Err(Failure::permanent(REASON, "a group without events"));
    };
    let mut whole = first.1.clone();
    whole.data = None;
    whole.attributes.retain(|name, value| {
        !matches!(name.as_str(), SPLIT_ID | SPLIT_INDEX | SPLIT_COUNT | HOP_COUNT)
            && rest.iter().all(|(_, other)| other.attributes.get(name) == Some(value))
    });
    let latest = all.iter().filter_map(|((_, time, ..), parts)| {
        time.and_then(|time| Some((time, parts.attributes.get("time")?)))
    });
    if let Some((_, time)) = latest.max_by_key(|(time, _)| *time) {
        whole.attributes.insert("time".to_owned(), time.clone());
    }
    if !whole.attributes.contains_key("causationid") {
        // Of several causes one is named: the same whatever the order.
        whole.set_text("causationid", first.1.id.as_str());
    }
    Ok(whole)
}

impl Groups {
    fn take(&mut self, key: &str) -> Option<Group> {
        let group = self.open.remove(key)?;
        self.by_age.remove(&(group.opened, group.key.clone()));
        Some(group)
    }

    /// The one that waits longest.
    pub(super) fn take_oldest(&mut self) -> Option<Group> {
        let (_, key) = self.by_age.first()?.clone();
        self.take(&key)
    }

    /// When the oldest began to wait.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.by_age.first().map(|(opened, _)| *opened)
    }

    /// Lets go of an event that is not there any more.
    pub(super) fn forget(&mut self, item: ItemId) {
        let found = self.open.values_mut().find_map(|group| {
            let holds = |member: &Member| member.items.contains(&item);
            let place = group.members.iter().position(holds)?;
            let member = group.members.get_mut(place)?;
            member.items.retain(|other| *other != item);
            if member.items.is_empty() {
                group.members.remove(place);
            }
            Some((group.key.clone(), group.members.is_empty()))
        });
        if let Some((key, true)) = found {
            self.take(&key);
        }
    }
}
