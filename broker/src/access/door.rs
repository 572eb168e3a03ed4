//! The door of the gRPC port: every call passes here, before any service sees it.
//!
//! *Owns* nothing. It finds out who calls, counts the call against the caller's limits, and ends
//! calls that go on once their caller may not do any more what they do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use weft_proto::resource::Verb;
use weft_proto::{Error, Method};

use super::{Access, Caller, Certificate, Left, Refused, Shown, Taken, whole_seconds};
use crate::listen::Connection;

/// Health checks come from machines without credentials, and tell nothing else.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A credential; what is shown depends on who asks.
    Credential,
    /// To be allowed this with the resource that the request names.
    Verb(Verb),
    /// To be allowed to see the resource, or this with a grant or a limit.
    ViewOr(Verb),
    /// To be allowed to edit the resource, or this with a grant or a limit; and what a resource does
    /// with others that it names: a function reads the streams of its triggers.
    EditOr(Verb),
    /// To be allowed this with the whole cluster.
    Cluster(Verb),
}

/// What each method asks. A new method does not compile before somebody has decided.
pub const fn needs(method: Method) -> Need {
    match method {
        // Whoever may publish an event may take it back until it is delivered.
        Method::PublishPublish | Method::PublishPublishStream | Method::PublishCancelDelayed => {
            Need::Verb(Verb::Publish)
        }
        Method::ReadRead
        | Method::ReadLocate
        | Method::ReadTestFilter
        | Method::ReadTraceEvent
        | Method::ReadListDelayed => Need::Verb(Verb::Read),
        Method::SubscribeSubscribe | Method::SubscribeListDeadLetters => {
            Need::Verb(Verb::Subscribe)
        }
        Method::SubscribeSeek | Method::SubscribeRedrive => Need::Verb(Verb::Edit),
        Method::CatalogGet => Need::ViewOr(Verb::Govern),
        Method::CatalogPut | Method::CatalogDelete => Need::EditOr(Verb::Govern),
        Method::CatalogSetStatus => Need::Verb(Verb::Report),
        Method::ClusterRoute | Method::SubscribeGetProgress => Need::Verb(Verb::View),
        Method::ClusterStatus | Method::ClusterRemoveNode | Method::ClusterDrain => {
            Need::Cluster(Verb::Operate)
        }
        Method::AccessCreateKey | Method::AccessRevokeKey => Need::Verb(Verb::Govern),
        Method::CatalogList
        | Method::CatalogWatch
        | Method::AccessListKeys
        | Method::AccessWhoAmI
        | Method::AccessExplain => Need::Credential,
    }
}

/// Puts the door in front of all services.
#[derive(Clone, Debug)]
pub struct DoorLayer(pub Access);

impl<S> Layer<S> for DoorLayer {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        Door { access: self.0.clone(), inner }
    }
}

/// The door.
#[derive(Clone, Debug)]
pub struct Door<S> {
    access: Access,
    inner: S,
}

impl<S> Service<Request<Body>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that was asked whether it is ready is the one that is called.
        let inner = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, inner);
        if request.uri().path().starts_with(HEALTH) {
            return inner.call(request).boxed();
        }
        let access = self.access.clone();
        async move {
            let method = Method::from_path(request.uri().path());
            let goes_on = method
                .is_none_or(|method| method.is_client_streaming() || method.is_server_streaming());
            let admitted = match access.admit(request.headers(), request.extensions()).await {
                Ok(admitted) => admitted,
                Err(refused) => return Ok(refused.into_http()),
            };
            let Admitted { caller, left, call } = admitted;
            let caller = if goes_on { caller.standing() } else { caller };
            let lost = goes_on.then(|| caller.clone().until_lost().boxed());
            let shows_events =
                matches!(method, Some(Method::ReadRead | Method::SubscribeSubscribe));
            let paced = shows_events.then(|| caller.clone());
            request.extensions_mut().insert(caller);
            let (mut parts, inner) = inner.call(request).await?.into_parts();
            if let Some(left) = left {
                tell_left(&mut parts.headers, left);
            }
            let body = Guarded { inner, lost, paced, pause: None, ended: false, _call: call };
            Ok(Response::from_parts(parts, Body::new(body)))
        }
        .boxed()
    }
}

/// A call that may begin.
#[derive(Debug)]
pub struct Admitted {
    /// Who calls.
    pub caller: Caller,
    /// What is left of its rate of requests.
    pub left: Option<Left>,
    /// Open until it is dropped.
    pub call: Taken,
}

impl Access {
    /// Finds out who calls and counts the call.
    ///
    /// # Errors
    ///
    /// `Unauthenticated`, `LimitReached`.
    pub async fn admit(
        &self,
        headers: &HeaderMap,
        extensions: &http::Extensions,
    ) -> Result<Admitted, Refused> {
        let connection = extensions.get::<Arc<Connection>>();
        let certificate = connection.and_then(|connection| connection.certificate());
        let shown = Shown {
            authorization: authorization(headers),
            certificate: certificate.map(|shown| Certificate {
                uris: &shown.uris,
                not_after: shown.not_after,
                thumbprint: shown.thumbprint,
            }),
            remote: connection.map(|connection| connection.remote().ip()),
        };
        let caller = self.authenticate(shown).await?;
        let limits = caller.limits();
        if let Some(connection) = connection.filter(|connection| !connection.is_proven()) {
            // It counts for whoever comes first; refused, it is closed like one that proves nothing.
            connection.hold(caller.meter().connection(caller.principal(), &limits)?);
            connection.prove();
        }
        let left = caller.meter().request(caller.principal(), &limits)?;
        let call = caller.meter().call(caller.principal(), &limits);
        let call = call.map_err(|error| Refused { error, left })?;
        Ok(Admitted { caller, left, call })
    }
}

impl Refused {
    /// As an answer over gRPC: what is left of the rate and when to come again is in its metadata, too.
    fn into_http(self) -> Response<Body> {
        let wait = self.error.retry_after();
        let mut response = Status::from(self.error).into_http();
        let headers = response.headers_mut();
        if let Some(left) = self.left {
            tell_left(headers, left);
        }
        if let Some(wait) = wait {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
        }
        response
    }
}

/// The one header `authorization`. Of two, whoever stands in front may have looked at the other: they
/// are none, like what is no text.
fn authorization(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let first = all.next()?;
    let only = if all.next().is_none() { first.to_str().ok() } else { None };
    Some(only.unwrap_or_default())
}

/// Tells what is left of a rate. Source: draft-ietf-httpapi-ratelimit-headers-10.
pub fn tell_left(headers: &mut HeaderMap, Left { per_second, left, seconds }: Left) {
    let policy = HeaderValue::try_from(format!("\"requests\";q={per_second};w=1"));
    let rest = HeaderValue::try_from(format!("\"requests\";r={left};t={seconds}"));
    if let (Ok(policy), Ok(rest)) = (policy, rest) {
        headers.insert("ratelimit-policy", policy);
        headers.insert("ratelimit", rest);
    }
}

/// The answer of a call, until its caller may not have more of it.
struct Guarded {
    inner: Body,
    lost: Option<BoxFuture<'static, Error>>,
    /// Whose rate of bytes counts.
    paced: Option<Caller>,
    pause: Option<Pin<Box<Sleep>>>,
    ended: bool,
    _call: Taken,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(lost) = &mut self.lost
            && let Poll::Ready(error) = Pin::new(lost).poll(context)
        {
            self.ended = true;
            self.lost = None;
            // What the service still has is dropped with the body.
            self.inner = Body::empty();
            let mut trailers = HeaderMap::new();
            Status::from(error).add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        self.ended = frame.is_none();
        if let Some(caller) = &self.paced
            && let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            // This one goes; the next one waits until its time has come.
            let wait = caller.meter().read(&caller.limits(), data.len() as u64);
            self.pause = (!wait.is_zero()).then(|| Box::pin(sleep(wait)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // An answer that is only a status has to be one frame, or other clients do not take it for one.
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.lost.is_none() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use weft_proto::Principal;

    use super::*;
    use crate::access::Limits;
    use crate::access::meter::Meter;

    #[test]
    fn a_refusal_tells_when_to_come_again_and_what_is_left() {
        let meter = Meter::default();
        let limits = Limits { requests_per_second: Some(0), ..Limits::default() };
        let refused = meter.request(&Principal::anonymous(), &limits).unwrap_err();

        let response = refused.into_http();

        let told = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(told("grpc-status"), "8");
        assert_eq!(told("ratelimit-policy"), "\"requests\";q=0;w=1");
        assert_eq!(told("ratelimit"), "\"requests\";r=0;t=60");
        assert_eq!(told("retry-after"), "60");
        let unknown = Refused::from(Error::new(weft_proto::Reason::Unauthenticated, "who"));
        let unknown = unknown.into_http();
        assert!(
            ["ratelimit", "retry-after"].iter().all(|name| !unknown.headers().contains_key(*name))
        );
    }

    #[test]
    fn an_answer_that_is_only_a_status_ends_with_its_head() {
        let guarded = Guarded {
            inner: Body::empty(),
            lost: Some(std::future::pending().boxed()),
            paced: None,
            pause: None,
            ended: false,
            _call: Arc::new(Meter::default())
                .call(&Principal::anonymous(), &Limits::default())
                .unwrap(),
        };

        assert!(guarded.is_end_stream());
    }
}
