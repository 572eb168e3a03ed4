//! Lets nothing but gRPC through to services that look at the path alone.
//!
//! tonic takes any method and any content for a call: a page in a browser could make one, by a
//! request that needs nobody's leave.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use futures::future::Either;
use tower::Service;

/// Answers what is no gRPC itself.
#[derive(Clone, Debug)]
pub struct OnlyGrpc<S>(S);

impl<S> OnlyGrpc<S> {
    /// Stands before a service.
    pub fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S, In, Out> Service<Request<In>> for OnlyGrpc<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    Out: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let Some(status) = refusal(&request) else { return Either::Left(self.0.call(request)) };
        let mut response = Response::new(Out::default());
        *response.status_mut() = status;
        Either::Right(ready(Ok(response)))
    }
}

fn refusal<T>(request: &Request<T>) -> Option<StatusCode> {
    if request.method() != Method::POST {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    let content = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = content.map(HeaderValue::as_bytes).is_some_and(is_grpc);
    (!is_grpc).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

fn is_grpc(content: &[u8]) -> bool {
    let rest = content.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_is_grpc() {
        let asked = |method: Method, content: &str| {
            let request = Request::builder().method(method).header("content-type", content);
            refusal(&request.body(()).unwrap()).map(|status| status.as_u16())
        };

        for content in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert_eq!(asked(Method::POST, content), None, "{content}");
            assert_eq!(asked(Method::GET, content), Some(405), "{content}");
        }
        for content in ["", "application/grpc-web", "application/grpcx", "text/plain"] {
            assert_eq!(asked(Method::POST, content), Some(415), "{content}");
        }
        assert_eq!(refusal(&Request::post("/").body(()).unwrap()).unwrap().as_u16(), 415);
    }
}
