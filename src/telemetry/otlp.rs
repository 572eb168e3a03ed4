//! Export of spans and metrics to a collector, beside whatever the process does.
//!
//! *Owns* the queue of ended spans. *Never* makes anybody wait: what finds no room is lost and counted,
//! and a collector that does not answer is told of in one line a minute.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::warn;
use weft_broker::clock;
use weft_proto::Timestamp;
use weft_proto::trace::{Telemetry, Tracer};

use super::spans::Spans;
use super::wire::Wire;
use super::{FAILED_EXPORTS, LOST_SPANS, figures};

/// Ended spans that wait.
const QUEUE_LEN: usize = 4_096;
/// Spans of one export.
const BATCH_LEN: usize = 512;
/// A span waits so long for others.
const SPANS_EVERY: Duration = Duration::from_secs(1);
/// Attempts to export the same spans.
const TRIES: u32 = 3;
/// What is left when the process ends is sent by then, or lost.
const FLUSH_MAX: Duration = Duration::from_secs(3);
/// Between two lines about a collector that does not answer.
const TOLD_EVERY: Duration = Duration::from_mins(1);
const NAME: &str = "weft";

/// What a process exports.
pub(crate) struct Export {
    wire: Wire,
    resource: ResourceAttributesWithSchema,
    queue: mpsc::Receiver<SpanData>,
    ended: Vec<SpanData>,
    /// What is sent again, and how often it was tried.
    unsent: Option<(ExportTraceServiceRequest, u32)>,
    metrics: Option<(PrometheusHandle, Duration)>,
    /// When metrics began to count.
    began: Timestamp,
    told: Option<Instant>,
}

/// Reads the settings of an export; nothing when nothing is exported. `service` and `instance` say what
/// this process is.
///
/// # Errors
///
/// A file or variable that the settings name cannot be used.
pub(crate) fn start(
    settings: &Telemetry,
    (service, instance): (&'static str, &str),
    metrics: Option<PrometheusHandle>,
) -> anyhow::Result<(Tracer, Option<Export>)> {
    let otlp = &settings.otlp;
    if otlp.endpoint.is_empty() {
        return Ok((Tracer::default(), None));
    }
    let own =
        settings.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", service),
            KeyValue::new("service.instance.id", instance.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .with_attributes(own)
        .build();
    let (ended, queue) = mpsc::channel(QUEUE_LEN);
    let every = Duration::from_millis(otlp.metrics_ms);
    let export = Export {
        wire: Wire::new(otlp)?,
        resource: (&resource).into(),
        queue,
        ended: Vec::with_capacity(BATCH_LEN),
        unsent: None,
        metrics: metrics.map(|handle| (handle, every)).filter(|_| !every.is_zero()),
        began: clock::now(),
        told: None,
    };
    Ok((Tracer::new(Arc::new(Spans::new(ended, otlp.sample, resource))), Some(export)))
}

/// Does the work, exports meanwhile, and sends what is left when the work is done.
pub(crate) async fn beside<T>(export: Option<Export>, work: impl Future<Output = T>) -> T {
    let Some(mut export) = export else { return work.await };
    let done = {
        let work = pin!(work);
        tokio::select! {
            done = work => done,
            never = export.run() => match never {},
        }
    };
    // Late spans are lost: the process shall end.
    _ = timeout(FLUSH_MAX, export.flush()).await;
    done
}

impl Export {
    async fn run(&mut self) -> Infallible {
        let mut spans = interval(SPANS_EVERY);
        let every = self.metrics.as_ref().map(|(_, every)| *every);
        let mut metrics = interval(every.unwrap_or(TOLD_EVERY));
        for timer in [&mut spans, &mut metrics] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let room = BATCH_LEN.saturating_sub(self.ended.len());
            let takes = room > 0;
            tokio::select! {
                _ = self.queue.recv_many(&mut self.ended, room), if takes => {
                    if self.ended.len() >= BATCH_LEN && self.unsent.is_none() {
                        self.send_spans().await;
                    }
                }
                _ = spans.tick() => self.send_spans().await,
                _ = metrics.tick() => self.send_metrics().await,
            }
        }
    }

    async fn flush(&mut self) {
        self.queue.close();
        self.send_metrics().await;
        loop {
            self.send_spans().await;
            let room = BATCH_LEN.saturating_sub(self.ended.len());
            let more = self.queue.recv_many(&mut self.ended, room).await;
            if more == 0 && self.ended.is_empty() && self.unsent.is_none() {
                return;
            }
        }
    }

    /// Sends what was not sent before, or else what has ended since.
    async fn send_spans(&mut self) {
        if self.unsent.is_none() && !self.ended.is_empty() {
            let spans = std::mem::take(&mut self.ended);
            let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
            self.unsent = Some((ExportTraceServiceRequest { resource_spans }, 0));
        }
        let Some((request, tries)) = &mut self.unsent else { return };
        *tries += 1;
        let (request, is_last) = (request.clone(), *tries >= TRIES);
        let count = count(&request);
        match self.wire.spans(request).await {
            Ok(rejected) => {
                self.unsent = None;
                lost(u64::try_from(rejected).unwrap_or_default());
            }
            Err(error) => {
                self.failed("spans", &error);
                if is_last {
                    self.unsent = None;
                    lost(count);
                }
            }
        }
    }

    async fn send_metrics(&mut self) {
        let Some((handle, _)) = &self.metrics else { return };
        let span = figures::Span { began: nanos(self.began), now: nanos(clock::now()) };
        let metrics = figures::read(&handle.render(), span);
        let scope =
            InstrumentationScope { name: NAME.to_owned(), ..InstrumentationScope::default() };
        let scope = ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() };
        let attributes = self.resource.attributes.0.clone();
        let resource = opentelemetry_proto::tonic::resource::v1::Resource {
            attributes,
            ..opentelemetry_proto::tonic::resource::v1::Resource::default()
        };
        let of_process = ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![scope],
            ..ResourceMetrics::default()
        };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![of_process] };
        // Cumulative: the next export has all that this one had.
        if let Err(error) = self.wire.metrics(request).await {
            self.failed("metrics", &error);
        }
    }

    fn failed(&mut self, signal: &'static str, error: &anyhow::Error) {
        metrics::counter!(FAILED_EXPORTS, "signal" => signal).increment(1);
        let now = Instant::now();
        if self.told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY) {
            self.told = Some(now);
            warn!(signal, error = format!("{error:#}"), "the collector takes no export");
        }
    }
}

fn lost(spans: u64) {
    if spans > 0 {
        metrics::counter!(LOST_SPANS, "reason" => "collector").increment(spans);
    }
}

fn count(request: &ExportTraceServiceRequest) -> u64 {
    let scopes = request.resource_spans.iter().flat_map(|of_process| &of_process.scope_spans);
    scopes.map(|scope| scope.spans.len() as u64).sum()
}

const fn nanos(time: Timestamp) -> u64 {
    time.as_micros().saturating_mul(1_000)
}
