//! The HTTP port: events in and out for clients that speak nothing else, health, metrics. What each
//! route is for is in [`Route`]; what it does is done where gRPC does it.

mod body;
mod follow;
mod ingress;
mod openapi;
mod problem;
mod pull;
mod route;
mod serve;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_proto::Error;
use weft_proto::resource::Verb;

use self::body::Bodies;
use self::problem::Problem;
use crate::access::{Access, Admitted, Caller, Refused, Taken, authorize, tell_left};
use crate::ingest::Ingest;
use crate::lend::Lender;
use crate::listen::Listener;
use crate::raft::groups::Groups;
use crate::rpc::{PublishService, ReadService, cluster_name};
use crate::tasks::Tasks;

#[cfg(feature = "fuzzing")]
pub use follow::cursor_again;
pub use problem::Refusal;
#[cfg(feature = "fuzzing")]
pub use pull::lock_again;
pub use route::{Found, Missing, Query, Route};

/// A request must be answered by then, its body included; an answer may go on for longer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What the port tells.
#[derive(Clone, Debug)]
pub struct Health {
    /// The groups of this node, once they run.
    pub groups: watch::Receiver<Option<Groups>>,
    /// Whether the catalog knows this node, and its replicas have caught up since it started.
    pub registered: watch::Receiver<bool>,
    /// The process's metrics.
    pub metrics: Option<PrometheusHandle>,
    /// Who may do what, once the catalog of this node says so.
    pub access: watch::Receiver<Option<Access>>,
    /// What does the work, once it can.
    pub services: watch::Receiver<Option<Arc<Services>>>,
}

/// What does the work of the routes: the same as for gRPC.
#[derive(Debug)]
pub struct Services {
    ingest: Ingest,
    publish: PublishService,
    read: ReadService,
    lender: Lender,
    tasks: Tasks,
    stop: CancellationToken,
    bodies: Bodies,
}

impl Services {
    /// The services of this node; what is under way when `tasks` are told to stop ends then.
    pub fn new(
        ingest: Ingest,
        (publish, read): (PublishService, ReadService),
        lender: Lender,
        tasks: Tasks,
    ) -> Self {
        let (stop, bodies) = (tasks.token(), Bodies::default());
        Self { ingest, publish, read, lender, tasks, stop, bodies }
    }
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
    serve::serve(listener, Site { health: Arc::new(health) }, stop).await
}

/// All routes; clones share them.
#[derive(Clone, Debug)]
struct Site {
    health: Arc<Health>,
}

/// A request of somebody who is known.
struct Call {
    caller: Caller,
    /// The names in its path.
    names: Vec<String>,
    query: Query,
    headers: HeaderMap,
    body: Body,
    /// Open until this is dropped.
    taken: Taken,
}

impl Call {
    /// A name in its path.
    fn name(&self, place: usize) -> &str {
        self.names.get(place).map_or("", String::as_str)
    }
}

impl Site {
    /// Answers a request.
    async fn answer(&self, request: Request<Body>) -> Response {
        let found = match Route::find(request.method().as_str(), request.uri().path()) {
            Ok(found) => found,
            Err(Missing::Path) => {
                let detail = "there is nothing at this path; /openapi.json has all that there is";
                return Problem::refusal(Refusal::UnknownRoute, detail).into_response();
            }
            Err(Missing::Method(allow)) => return Problem::method(allow).into_response(),
        };
        let route = found.route;
        let limit = match route {
            Route::PullReceive => pull::WAIT_MAX + ANSWER_MAX,
            _ => ANSWER_MAX,
        };
        let (problem, head) = match timeout(limit, self.admitted(found, request)).await {
            Ok((Ok(mut response), head)) => {
                response.headers_mut().extend(head);
                return response;
            }
            Ok((Err(problem), head)) => (problem, head),
            Err(_late) => {
                let detail = "the request did not come, or was not answered, in time";
                let late = Problem::refusal(Refusal::RequestTimeout, detail);
                (late.with_open_fate(), HeaderMap::new())
            }
        };
        let problem = if route.is_pull() { problem.for_grid() } else { problem };
        let mut response = problem.into_response();
        response.headers_mut().extend(head);
        response
    }

    /// Lets a request in, and says what its caller has left.
    async fn admitted(
        &self,
        found: Found,
        request: Request<Body>,
    ) -> (Result<Response, Problem>, HeaderMap) {
        let mut head = HeaderMap::new();
        if found.route.needs().is_empty() {
            return (self.open(found.route), head);
        }
        let (parts, body) = request.into_parts();
        let admitted = match self.admit(&parts).await {
            Ok(admitted) => admitted,
            Err(Refused { error, left }) => {
                if let Some(left) = left {
                    tell_left(&mut head, left);
                }
                return (Err(error.into()), head);
            }
        };
        let Admitted { caller, left, call: taken } = admitted;
        if let Some(left) = left {
            tell_left(&mut head, left);
        }
        let query = Query::of(parts.uri.query());
        let call = Call { caller, names: found.names, query, headers: parts.headers, body, taken };
        (self.routed(found.route, call).await, head)
    }

    async fn admit(&self, request: &Parts) -> Result<Admitted, Refused> {
        let access = self.health.access.borrow().clone();
        let access = access.ok_or_else(starting)?;
        access.admit(&request.headers, &request.extensions).await
    }

    /// What everybody is answered.
    fn open(&self, route: Route) -> Result<Response, Problem> {
        match route {
            Route::Ready => match self.health.missing() {
                None => Ok("ok\n".into_response()),
                Some(missing) => Err(Error::unavailable(missing).with_not_applied().into()),
            },
            Route::OpenApi => Ok(json(StatusCode::OK, openapi::document())),
            _ => Ok("ok\n".into_response()),
        }
    }

    async fn routed(&self, route: Route, call: Call) -> Result<Response, Problem> {
        if route == Route::Metrics {
            return self.metrics(&call);
        }
        let services = self.health.services.borrow().clone();
        let services = services.ok_or_else(starting)?;
        match route {
            Route::Live | Route::Ready | Route::OpenApi | Route::Metrics => self.open(route),
            Route::PublishEvents => ingress::publish(&services, call).await,
            Route::FollowEvents => follow::follow(&services, call).await,
            Route::PullPublish
            | Route::PullReceive
            | Route::PullAcknowledge
            | Route::PullRelease
            | Route::PullReject
            | Route::PullRenewLock => pull::answer(&services, route, call).await,
        }
    }

    fn metrics(&self, call: &Call) -> Result<Response, Problem> {
        authorize(&call.caller, Verb::Operate, &cluster_name())?;
        let none = || {
            let reason = weft_proto::Reason::UnknownResource;
            Error::new(reason, "this process records no metrics")
        };
        let handle = self.health.metrics.as_ref().ok_or_else(none)?;
        Ok(handle.render().into_response())
    }
}

fn starting() -> Error {
    Error::unavailable("this node is starting").with_not_applied()
}

/// An answer in JSON.
fn json(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
