//! The HTTP port: health and metrics. Health is for everybody, metrics are for those who look after
//! the cluster.

mod serve;

use std::convert::Infallible;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_proto::Error;
use weft_proto::resource::Verb;

use crate::access::{Access, Admitted, authorize, tell_left};
use crate::listen::Listener;
use crate::raft::groups::Groups;
use crate::rpc::cluster_name;

/// What the port tells.
#[derive(Clone, Debug)]
pub struct Health {
    /// The groups of this node, once they run.
    pub groups: watch::Receiver<Option<Groups>>,
    /// Whether the catalog knows this node, and its replicas have caught up since it started.
    pub registered: watch::Receiver<bool>,
    /// The process's metrics.
    pub metrics: Option<PrometheusHandle>,
    /// Who may ask for metrics, once the catalog of this node says so.
    pub access: watch::Receiver<Option<Access>>,
}

impl Health {
    /// Why this node cannot serve yet; nothing when it can.
    fn missing(&self) -> Option<String> {
        let groups = self.groups.borrow();
        let Some(groups) = groups.as_ref() else {
            return Some("the groups are starting".to_owned());
        };
        let leaderless = groups.iter().find(|group| group.leader().is_none());
        if let Some(group) = leaderless {
            return Some(format!("group {} has no leader", group.id()));
        }
        (!*self.registered.borrow()).then(|| "the node still catches up with the others".to_owned())
    }
}

/// Serves until `stop`.
pub async fn serve(
    listener: Listener,
    health: Health,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    serve::serve(listener, router, stop).await
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    match health.missing() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
    }
}

async fn metrics(State(health): State<Health>, request: Request) -> Response {
    let access = health.access.borrow().clone();
    let Some(access) = access else {
        return (StatusCode::SERVICE_UNAVAILABLE, "this node is starting\n").into_response();
    };
    let admitted = access.admit(request.headers(), request.extensions()).await;
    let operates = admitted.and_then(|admitted| {
        authorize(&admitted.caller, Verb::Operate, &cluster_name()).map(|_allowed| admitted)
    });
    let Admitted { left, call: _open, .. } = match operates {
        Ok(admitted) => admitted,
        Err(error) => return problem(&error),
    };
    let mut response = match &health.metrics {
        Some(handle) => handle.render().into_response(),
        None => (StatusCode::NOT_FOUND, "this process records no metrics\n").into_response(),
    };
    if let Some(left) = left {
        tell_left(response.headers_mut(), left);
    }
    response
}

/// An error as an answer.
fn problem(error: &Error) -> Response {
    let status = StatusCode::from_u16(error.reason().http_status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, format!("{error}\n")).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(after) = error.retry_after() {
        // Whole seconds, and never too early.
        headers.insert(
            header::RETRY_AFTER,
            after
                .as_millis()
                .div_ceil(1_000)
                .max(1)
                .to_string()
                .parse()
                .unwrap_or(HeaderValue::from_static("1")),
        );
    }
    response
}
