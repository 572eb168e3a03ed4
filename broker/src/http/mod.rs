//! The HTTP port: health and metrics. Health is for everybody, metrics are for those who show the
//! credential.

mod tls;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::tls::TlsListener;
use crate::raft::groups::Groups;
use crate::rpc::Credential;

/// What the port tells.
#[derive(Clone, Debug)]
pub struct Health {
    /// The groups of this node, once they run.
    pub groups: watch::Receiver<Option<Groups>>,
    /// Whether the catalog knows this node, and its replicas have caught up since it started.
    pub registered: watch::Receiver<bool>,
    /// The process's metrics.
    pub metrics: Option<PrometheusHandle>,
    /// What whoever asks for metrics must show.
    pub credential: Credential,
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

/// Serves until `stop`; in plain text without `tls`.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    health: Health,
    stop: CancellationToken,
) -> Result<(), std::io::Error> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    let stopped = stop.cancelled_owned();
    match tls {
        Some(tls) => {
            let listener = TlsListener::new(listener, tls);
            axum::serve(listener, router).with_graceful_shutdown(stopped).await
        }
        None => axum::serve(listener, router).with_graceful_shutdown(stopped).await,
    }
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    match health.missing() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
    }
}

async fn metrics(State(health): State<Health>, headers: HeaderMap) -> impl IntoResponse {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Err(error) = health.credential.check_header(shown) {
        return (StatusCode::UNAUTHORIZED, format!("{error}\n"));
    }
    match &health.metrics {
        Some(handle) => (StatusCode::OK, handle.render()),
        None => (StatusCode::NOT_FOUND, "this process records no metrics\n".to_owned()),
    }
}
