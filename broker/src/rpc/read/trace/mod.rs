//! `Read.TraceEvent`: the story of one event, from what the cluster keeps anyway.
//!
//! *Never* stores anything, and never tells of what the caller may not see: neither of events nor of
//! subscriptions, functions or streams.

mod fate;
mod letters;
mod related;

use std::collections::BTreeSet;

use weft_proto::event::EventView;
use weft_proto::filter::{Candidate, Finding};
use weft_proto::resource::{FunctionSpec, FunctionStatus, Kind, SubscriptionMode, Verb};
use weft_proto::{Error, GroupId, NodeId, Offset, PartitionId, QualifiedName, Result, v1};

use self::fate::Facts;
use self::letters::{Letter, Letters};
use self::related::Relatives;
use super::Service;
use crate::access::{Caller, authorize};
use crate::resources::{StreamView, SubscriptionStart, SubscriptionView};
use crate::rpc::find::{Budget, Found, Wanted};
use crate::rpc::stream_name;

/// Says which function a subscription serves.
const FUNCTION_LABEL: &str = "weft.function";

/// A function that a subscription serves, as far as the caller may see it.
struct Served {
    name: QualifiedName,
    reply: Option<QualifiedName>,
    last_errors: Vec<String>,
}

impl Service {
    /// Finds the event, and tells what became of it.
    pub(super) async fn trace(
        &self,
        caller: &Caller,
        request: v1::TraceEventRequest,
    ) -> Result<v1::TraceEventResponse> {
        let resources = self.ingest.resources();
        resources.wait_for(request.min_generation).await?;
        let visible = authorize(caller, Verb::Read, &stream_name(&request.stream)?)?;
        let stream = resources.stream_named(&request.stream)?;
        if request.id.is_empty() {
            return Err(Error::invalid("the id of an event is not empty").with_field("id"));
        }
        self.confirm(stream.placements.iter().copied().map(Ok)).await?;
        let mut budget = Budget::new();
        let wanted = Wanted { id: &request.id, source: &request.source, from: request.from };
        let (found, searched) = self.finder().find(&stream, &visible, &wanted, &mut budget).await?;
        let mut answer = v1::TraceEventResponse { events: Vec::new(), searched: vec![searched] };
        if found.is_empty() {
            return Ok(answer);
        }
        let subscriptions = self.subscriptions_of(caller, &stream);
        let letters = self.letters(&stream, &subscriptions, &found, &mut budget).await?;
        let mut streams = BTreeSet::from([stream.name.clone()]);
        for found in &found {
            let mut trace = self.described(found);
            for (view, served) in &subscriptions {
                let told = self.at(found, (view, served.as_ref()), &letters).await?;
                if told.state() != v1::EventState::FilteredOut {
                    streams.extend(served.as_ref().and_then(|served| served.reply.clone()));
                }
                trace.subscriptions.push(told);
            }
            answer.events.push(trace);
        }
        let mut relatives = Relatives::new(&found, &stream.name);
        for name in streams {
            let searched = self.relatives(caller, &name, &mut relatives, &mut budget).await?;
            answer.searched.extend(searched);
        }
        relatives.tell(&mut answer.events);
        Ok(answer)
    }

    fn described(&self, found: &Found) -> v1::EventTrace {
        let Found { placement, offset, time, schema, ingest, event } = found;
        v1::EventTrace {
            partition: placement.partition.get(),
            offset: offset.get(),
            append_time_us: time.as_micros(),
            event: event.clone(),
            schema: self.ingest.resources().schema_ref(*schema),
            ingest: ingest.map(NodeId::get),
            leader: self.leader(placement.group).map(NodeId::get),
            ..v1::EventTrace::default()
        }
    }

    fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.ingest.group(group).ok()?.raft.leader()
    }

    /// The subscriptions of a stream that the caller may see, and the functions that they serve.
    fn subscriptions_of(
        &self,
        caller: &Caller,
        stream: &StreamView,
    ) -> Vec<(SubscriptionView, Option<Served>)> {
        let resources = self.ingest.resources();
        let catalog = resources.snapshot();
        let mut views = Vec::new();
        for (name, stored) in catalog.of_kind(Kind::Subscription) {
            let is_of = catalog.subscription(name).is_some_and(|one| one.stream == stream.name);
            if !is_of || !caller.may(Verb::View, name) {
                continue;
            }
            let Ok(view) = resources.subscription_named(&name.to_string()) else { continue };
            let function = stored.labels.get(FUNCTION_LABEL).and_then(|label| {
                let name = label.parse().ok()?;
                let function = QualifiedName { namespace: view.name.namespace.clone(), name };
                if !caller.may(Verb::View, &function) {
                    return None;
                }
                let resource = catalog.get(Kind::Function, &function)?;
                let spec: FunctionSpec = serde_json::from_slice(&resource.spec).ok()?;
                let reply = spec.reply.and_then(|reply| reply.stream.parse().ok());
                let status = serde_json::from_slice::<FunctionStatus>(&resource.status);
                let last_errors = status.map(|status| status.last_errors).unwrap_or_default();
                Some(Served { name: function, reply, last_errors })
            });
            views.push((view, function));
        }
        views
    }

    /// What became of an event at a subscription.
    async fn at(
        &self,
        found: &Found,
        (view, served): (&SubscriptionView, Option<&Served>),
        letters: &Letters,
    ) -> Result<v1::SubscriptionTrace> {
        let mut told = v1::SubscriptionTrace {
            subscription: view.name.to_string(),
            function: served.map(|served| served.name.to_string()).unwrap_or_default(),
            ..v1::SubscriptionTrace::default()
        };
        let explained = EventView::parse(&found.event)
            .map(|event| view.filters.explain(&Candidate::new(event)));
        if let Some(explained) = explained.filter(|explained| !explained.passes) {
            told.set_state(v1::EventState::FilteredOut);
            told.reasons = explained.reasons.into_iter().map(finding).collect();
            return Ok(told);
        }
        let facts = self.facts(found, view, letters).await?;
        facts.tell(&mut told);
        let place =
            format!(", partition {}, offset {}, attempt ", found.placement.partition, found.offset);
        if let Some(served) = served {
            let own = served.last_errors.iter().filter(|line| line.contains(&place));
            told.attempts = own.cloned().collect();
        }
        Ok(told)
    }

    /// What the cluster knows of an event and a subscription.
    async fn facts(
        &self,
        found: &Found,
        view: &SubscriptionView,
        letters: &Letters,
    ) -> Result<Facts> {
        let Found { placement, offset, time, .. } = found;
        let letter = letters.of(&view.name, placement.partition, *offset).cloned();
        let group = self.ingest.group(placement.group)?;
        let mut facts = group.with_state(|state| {
            let cursor = state.cursors().get(view.uid, placement.uid);
            Facts {
                is_before: match view.start {
                    SubscriptionStart::Earliest => false,
                    SubscriptionStart::Offset(start) => *offset < start,
                    SubscriptionStart::Time(start) => *time < start,
                },
                watermark: cursor.map(crate::subscription::Cursor::watermark),
                is_settled: cursor.is_some_and(|cursor| {
                    *offset < cursor.watermark() || cursor.settled().contains(*offset)
                }),
                parked: cursor.and_then(|cursor| cursor.parked().get(offset).cloned()),
                holder: cursor
                    .filter(|_| view.mode == SubscriptionMode::Exclusive)
                    .map(|cursor| cursor.member().as_str().to_owned())
                    .filter(|member| !member.is_empty()),
                letter,
                desk: None,
            }
        });
        if facts.watermark.is_some() && !facts.is_settled {
            // Without an answer there is what is stored.
            facts.desk = self.lender.whereabouts(view.uid, placement, *offset).await.ok();
        }
        Ok(facts)
    }
}

fn finding(finding: Finding) -> v1::FilterFinding {
    v1::FilterFinding { path: finding.path, message: finding.message }
}

/// The name of a partition's place, to look events up by.
type Place = (PartitionId, Offset);
