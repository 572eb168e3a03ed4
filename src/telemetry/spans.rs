//! Spans: begun through the port of the parts, made by the OpenTelemetry SDK, queued for export.

use std::time::Duration;

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor,
};
use tokio::sync::mpsc;
use weft_proto::trace::{Live, Recorder, Role, TraceContext, TraceParent};

use super::LOST_SPANS;

/// Makes spans of what the parts begin.
#[derive(Debug)]
pub(super) struct Spans {
    tracer: SdkTracer,
}

impl Spans {
    /// Spans that end are put into the queue; when it is full they are lost and counted.
    pub(super) fn new(queue: mpsc::Sender<SpanData>, sample: f64, resource: Resource) -> Self {
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Queue(queue))
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample))))
            .with_resource(resource)
            .build();
        Self { tracer: provider.tracer("weft") }
    }
}

impl Recorder for Spans {
    fn begin(
        &self,
        name: &'static str,
        role: Role,
        parent: Option<&TraceContext>,
    ) -> Option<Box<dyn Live>> {
        let kind = match role {
            Role::Server => SpanKind::Server,
            Role::Client => SpanKind::Client,
            Role::Internal => SpanKind::Internal,
        };
        let parent = parent.map_or_else(Context::new, remote);
        let builder = self.tracer.span_builder(name).with_kind(kind);
        let span = self.tracer.build_with_context(builder, &parent);
        span.is_recording().then(|| Box::new(Recorded(span)) as Box<dyn Live>)
    }
}

fn remote(context: &TraceContext) -> Context {
    let parent = context.parent();
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let state = context.tracestate().and_then(|state| state.parse::<TraceState>().ok());
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from_bytes(parent.trace),
        SpanId::from_bytes(parent.span),
        flags,
        true,
        state.unwrap_or_default(),
    ))
}

/// Ends when it is dropped, as spans of the SDK do.
#[derive(Debug)]
struct Recorded(Span);

impl Live for Recorded {
    fn context(&self) -> TraceParent {
        let context = self.0.span_context();
        TraceParent {
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
            sampled: context.is_sampled(),
        }
    }

    fn text(&mut self, name: &'static str, value: String) {
        self.0.set_attribute(KeyValue::new(name, value));
    }

    fn number(&mut self, name: &'static str, value: i64) {
        self.0.set_attribute(KeyValue::new(name, value));
    }

    fn fail(&mut self, why: String) {
        self.0.set_status(Status::error(why));
    }
}

/// Hands over what ended, and never waits.
#[derive(Debug)]
struct Queue(mpsc::Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            metrics::counter!(LOST_SPANS, "reason" => "queue").increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// Whoever owns the other end of the queue sends what is left.
    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn spans(len: usize, sample: f64) -> (Spans, mpsc::Receiver<SpanData>) {
        let (queue, ended) = mpsc::channel(len);
        (Spans::new(queue, sample, Resource::builder_empty().build()), ended)
    }

    #[test]
    fn a_span_below_a_sampled_parent_is_of_its_trace_whatever_the_share() {
        let (spans, mut ended) = spans(4, 0.0);
        let parent = TraceContext::read(PARENT, Some("a=1")).unwrap();

        let mut live = spans.begin("publish", Role::Server, Some(&parent)).unwrap();
        live.text("x", "y".to_owned());
        live.number("n", 7);
        live.fail("because".to_owned());
        let own = live.context();
        drop(live);

        let span = ended.try_recv().unwrap();
        assert_eq!(span.name, "publish");
        assert_eq!(span.span_kind, SpanKind::Server);
        assert_eq!(span.parent_span_id.to_bytes(), parent.parent().span);
        assert_eq!(own.trace, parent.parent().trace);
        assert_eq!(span.span_context.span_id().to_bytes(), own.span);
        assert_eq!(span.span_context.trace_state().header(), "a=1");
        assert_eq!(span.status, Status::error("because"));
        assert_eq!(span.attributes.len(), 2);
        assert!(own.sampled && ended.try_recv().is_err());
    }

    #[test]
    fn what_is_not_sampled_costs_no_span() {
        let (none, _ended) = spans(4, 0.0);
        assert!(none.begin("publish", Role::Server, None).is_none());
        let (all, _ended) = spans(4, 1.0);
        let parent = TraceContext::read(NOT_SAMPLED, None).unwrap();
        assert!(all.begin("publish", Role::Server, Some(&parent)).is_none());
        assert!(all.begin("publish", Role::Server, None).is_some());
    }

    #[test]
    fn a_full_queue_makes_nobody_wait() {
        let (spans, mut ended) = spans(1, 1.0);
        for _ in 0..3 {
            drop(spans.begin("publish", Role::Server, None));
        }
        assert!(ended.try_recv().is_ok());
        assert!(ended.try_recv().is_err());
    }
}
