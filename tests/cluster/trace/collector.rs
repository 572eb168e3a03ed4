//! A collector that keeps what it gets: OTLP by gRPC and by HTTP, from the official definitions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What came.
#[derive(Debug, Default)]
pub(crate) struct Came {
    /// Spans, and the service that sent them.
    pub(crate) spans: Vec<(String, Span)>,
    /// The services that sent each metric.
    pub(crate) metrics: BTreeMap<String, Vec<String>>,
    /// Values of the header `x-tenant`.
    pub(crate) tenants: Vec<String>,
}

/// Ends when it is dropped.
pub(crate) struct Collector {
    pub(crate) port: u16,
    came: Arc<Mutex<Came>>,
    _serving: JoinSet<()>,
}

impl Collector {
    pub(crate) async fn grpc() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let came = Arc::<Mutex<Came>>::default();
        let keeper = Keeper(Arc::clone(&came));
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(keeper.clone()))
            .add_service(MetricsServiceServer::new(keeper))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let mut serving = JoinSet::new();
        serving.spawn(async move { server.await.unwrap() });
        Self { port, came, _serving: serving }
    }

    pub(crate) async fn http() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let came = Arc::<Mutex<Came>>::default();
        let app = Router::new()
            .route("/base/v1/traces", post(traces))
            .route("/base/v1/metrics", post(metrics))
            .with_state(Keeper(Arc::clone(&came)));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, came, _serving: serving }
    }

    /// Looks at what came.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Came) -> T) -> T {
        look(&self.came.lock().unwrap())
    }

    /// The spans of this name in this trace.
    pub(crate) fn spans(&self, name: &str, trace: &[u8]) -> Vec<(String, Span)> {
        self.look(|came| {
            let own = came.spans.iter();
            own.filter(|(_, span)| span.name == name && span.trace_id == trace).cloned().collect()
        })
    }
}

/// An attribute that is a text.
pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    match found.value.clone()?.value? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[derive(Clone)]
struct Keeper(Arc<Mutex<Came>>);

impl Keeper {
    fn traces(&self, request: ExportTraceServiceRequest, tenant: Option<&str>) {
        let mut came = self.0.lock().unwrap();
        came.tenants.extend(tenant.map(str::to_owned));
        for of_process in request.resource_spans {
            let service = text(&of_process.resource.unwrap().attributes, "service.name").unwrap();
            let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            came.spans.extend(spans.map(|span| (service.clone(), span)));
        }
    }

    fn metrics(&self, request: ExportMetricsServiceRequest) {
        let mut came = self.0.lock().unwrap();
        for of_process in request.resource_metrics {
            let service = text(&of_process.resource.unwrap().attributes, "service.name").unwrap();
            for metric in of_process.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                came.metrics.entry(metric.name).or_default().push(service.clone());
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let tenant = request.metadata().get("x-tenant").map(|value| value.to_str().unwrap());
        let tenant = tenant.map(str::to_owned);
        self.traces(request.into_inner(), tenant.as_deref());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Keeper {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn traces(State(keeper): State<Keeper>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers.get("content-type").unwrap(), "application/x-protobuf");
    let tenant = headers.get("x-tenant").map(|value| value.to_str().unwrap());
    keeper.traces(ExportTraceServiceRequest::decode(body).unwrap(), tenant);
    StatusCode::OK
}

async fn metrics(State(keeper): State<Keeper>, body: Bytes) -> StatusCode {
    keeper.metrics(ExportMetricsServiceRequest::decode(body).unwrap());
    StatusCode::OK
}
