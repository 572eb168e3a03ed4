//! The spans of a request to a receiver: one for each of its events, in the trace in which that began.
//! Without a recorder they are nothing.

use weft_proto::QualifiedName;
use weft_proto::event::EventView;
use weft_proto::trace::{Role, Span, TraceContext, Tracer};

use super::post::{Outcome, Posted};
use super::runner::Item;

/// Those of one attempt.
pub(super) struct Spans(Vec<(usize, Span)>);

impl Spans {
    /// Begins them, and says what the request names as the span before the receiver's own: that of its
    /// only event, or, if nobody records it, the one in which the event began. Several events have no
    /// common one.
    ///
    /// Of several, only those that belong to a trace have a span: the others would begin one each, for
    /// a request that is the same. If none does, the request itself has one.
    pub(super) fn begin(
        tracer: &Tracer,
        webhook: &QualifiedName,
        group: &[Item],
    ) -> (Self, Option<TraceContext>) {
        if let [item] = group {
            let began = context_of(item);
            let span = begin(tracer, webhook, item, 1, || began.clone());
            let state = || began.as_ref().and_then(TraceContext::tracestate).map(str::to_owned);
            let own = span.context().map(|own| TraceContext::new(own, state()));
            return (Self(vec![(0, span)]), own.or(began));
        }
        if !tracer.is_on() {
            return (Self(Vec::new()), None);
        }
        let mut spans = Vec::new();
        for (place, item) in group.iter().enumerate() {
            if let Some(began) = context_of(item) {
                let span = begin(tracer, webhook, item, group.len(), || Some(began));
                spans.push((place, span));
            }
        }
        if let (true, Some(first)) = (spans.is_empty(), group.first()) {
            spans.push((0, begin(tracer, webhook, first, group.len(), || None)));
        }
        (Self(spans), None)
    }

    /// The answer is there, or there is none.
    pub(super) fn end(self, posted: &Posted, group: &[Item]) {
        for (place, mut span) in self.0 {
            if let Some(status) = posted.status {
                span.number("http.response.status_code", status.into());
            }
            let item = group.get(place);
            let is_left = |item: &Item, untaken: &[crate::push::payload::Untaken]| {
                untaken.iter().any(|one| one.is(&item.event))
            };
            match &posted.outcome {
                Outcome::Done(untaken) if item.is_some_and(|item| is_left(item, untaken)) => {
                    span.text("weft.outcome", || "not taken".to_owned());
                    span.fail(|| "the receiver took others of its batch".to_owned());
                }
                outcome => span.text("weft.outcome", || outcome.word().to_owned()),
            }
            if !matches!(posted.outcome, Outcome::Done(_)) {
                span.fail(|| posted.error.clone());
            }
        }
    }
}

fn begin(
    tracer: &Tracer,
    webhook: &QualifiedName,
    item: &Item,
    events: usize,
    parent: impl FnOnce() -> Option<TraceContext>,
) -> Span {
    let mut span = tracer.begin("webhook", Role::Client, parent);
    span.text("weft.webhook", || webhook.to_string());
    span.text("messaging.destination.partition.id", || item.partition.to_string());
    span.number("weft.offset", item.offset);
    span.number("weft.attempt", item.attempt.into());
    if events > 1 {
        span.number("messaging.batch.message_count", events as u64);
    }
    if span.context().is_some()
        && let Some(event) = EventView::parse(&item.event)
    {
        span.text("cloudevents.event_id", || event.id.to_owned());
        span.text("cloudevents.event_source", || event.source.to_owned());
        span.text("cloudevents.event_type", || event.ty.to_owned());
    }
    span
}

fn context_of(item: &Item) -> Option<TraceContext> {
    TraceContext::of_event(&EventView::parse(&item.event)?)
}
