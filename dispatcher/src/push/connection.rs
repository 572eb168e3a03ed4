//! Kept-alive connections to one instance, or to one address outside.
//!
//! Own pool: delivery must know whether any byte of a request was sent, and no library may repeat
//! a request behind its back.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

/// Longest wait for a connection to an instance: it is on this host or near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Most bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The function cannot have seen the event.
    NotSent(String),
    /// The function may have seen it; the connection broke.
    Broken(String),
    /// The function may have seen it; no answer in time.
    TimedOut,
}

/// What bytes go through.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How a connection is made.
pub(crate) trait Dial: std::fmt::Debug + Send + Sync {
    /// Makes one. The error is a sentence for whoever defined the target.
    fn dial(&self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;
    /// Longest wait for it.
    fn timeout(&self) -> Duration;
}

/// An instance on this host or near.
#[derive(Debug)]
struct Near(SocketAddr);

impl Dial for Near {
    fn dial(&self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async {
            let say = |error| io::Error::other(format!("{}: {error}", self.0));
            let stream = TcpStream::connect(self.0).await.map_err(say)?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn timeout(&self) -> Duration {
        CONNECT_TIMEOUT
    }
}

#[derive(Debug)]
pub(crate) struct Connections {
    dial: Box<dyn Dial>,
    tasks: TaskTracker,
    /// As many as pushes were ever open at once: permits bound it.
    idle: Mutex<Vec<Sender>>,
}

impl Connections {
    pub(super) fn new(address: SocketAddr, tasks: TaskTracker) -> Self {
        Self::by(Box::new(Near(address)), tasks)
    }

    pub(crate) fn by(dial: Box<dyn Dial>, tasks: TaskTracker) -> Self {
        Self { dial, tasks, idle: Mutex::new(Vec::new()) }
    }

    pub(crate) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Sender), Failure> {
        loop {
            let (mut sender, is_fresh) = match self.take() {
                Some(sender) => (sender, false),
                None => (self.connect(deadline).await?, true),
            };
            match timeout_at(deadline, sender.ready()).await {
                Err(_) => return Err(Failure::NotSent("not ready in time".to_owned())),
                Ok(Err(error)) if is_fresh => return Err(Failure::NotSent(error.to_string())),
                Ok(Err(_)) => continue,
                Ok(Ok(())) => {}
            }
            match timeout_at(deadline, sender.try_send_request(request)).await {
                Err(_) => return Err(Failure::TimedOut),
                Ok(Ok(response)) => return Ok((response, sender)),
                Ok(Err(mut error)) => match error.take_message() {
                    // An idle connection was closed meanwhile, and no byte went out.
                    Some(unsent) if !is_fresh => request = unsent,
                    Some(_) => return Err(Failure::NotSent(describe(error.error()))),
                    None => return Err(Failure::Broken(describe(error.error()))),
                },
            }
        }
    }

    pub(crate) fn keep(&self, sender: Sender) {
        if !sender.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed())
    }

    async fn connect(&self, deadline: Instant) -> Result<Sender, Failure> {
        let limit = deadline.min(Instant::now() + self.dial.timeout());
        let connecting = async { self.shake_hands(self.dial.dial().await?).await };
        match timeout_at(limit, connecting).await {
            Err(_) => Err(Failure::NotSent("no connection in time".to_owned())),
            Ok(Err(error)) => Err(Failure::NotSent(error.to_string())),
            Ok(Ok(sender)) => Ok(sender),
        }
    }

    async fn shake_hands(&self, stream: Box<dyn Stream>) -> io::Result<Sender> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX);
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Ends with the last handle on it; its error reaches whoever sends.
        self.tasks.spawn(async move { connection.await.ok() });
        Ok(sender)
    }
}

fn describe(error: &hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
