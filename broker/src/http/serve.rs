//! The HTTP port's loop: each connection within limits, HTTP/1.1 or HTTP/2 as the client begins.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, header};
use axum::response::Response;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_proto::{Error, Reason};

use super::Site;
use super::problem::{Problem, Refusal};
use crate::listen::{Connection, Io, Listener};

/// The head of a request must be there by then; a connection without a request is closed as soon.
const HEAD_MAX: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// As a message of gRPC; requests have smaller limits of their own, which answer first.
const BODY_BYTES_MAX: usize = 4 << 20;
/// As on the gRPC port.
const STREAMS_MAX: u32 = 100;
const FRAME_BYTES_MAX: u32 = 16 << 10;
const WINDOW_BYTES: u32 = 1 << 20;
/// How long connections may take to end once this node stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `stop`.
pub(super) async fn serve(
    mut listener: Listener,
    site: Site,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let (connections, builder) = (TaskTracker::new(), builder());
    loop {
        let io = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            io = listener.accept() => io,
        };
        connections.spawn(connection(io, builder.clone(), site.clone(), stop.clone()));
    }
    drop(listener);
    connections.close();
    // A connection that does not end is left to the end of the process.
    _ = timeout(CLOSE_TIMEOUT, connections.wait()).await;
    Ok(())
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_local_error_reset_streams(Some(1024))
        .max_pending_accept_reset_streams(Some(20))
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(WINDOW_BYTES as usize)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    builder
}

async fn connection(io: Io, builder: Builder<TokioExecutor>, site: Site, stop: CancellationToken) {
    let known = Arc::clone(io.connection());
    let service = service_fn(move |request| answer(site.clone(), Arc::clone(&known), request));
    let mut serving = pin!(builder.serve_connection(TokioIo::new(io), service));
    let served = tokio::select! {
        biased;
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(error = &*error as &dyn std::error::Error, "a connection broke");
    }
}

async fn answer(
    site: Site,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    if let Some(refusal) = refuse(&request) {
        let mut response = refusal.into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Ok(response);
    }
    // Routes that read the body count it while it comes; the others do not read it.
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(connection);
    Ok(site.answer(request).await)
}

/// What no route takes.
fn refuse(request: &Request<Incoming>) -> Option<Problem> {
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        let message = format!("the body has more than {BODY_BYTES_MAX} bytes");
        return Some(Error::new(Reason::TooLarge, message).into());
    }
    // This is no proxy: who takes it for one is told so, and no route ever sees another host.
    if request.method() == Method::CONNECT {
        return Some(Problem::refusal(Refusal::MethodNotAllowed, "this is no proxy"));
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    (hosts > 1).then(|| Error::invalid("the request has more than one host").into())
}
