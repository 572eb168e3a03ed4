//! TLS handshakes that are under way, at most so many of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::{AbortHandle, BoxFuture, abortable};
use futures::stream::FuturesUnordered;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::ClientCertificate;
use super::io::Io;
use crate::security::HANDSHAKE_TIMEOUT;

/// An honest handshake takes milliseconds: when so many are under way, the oldest is given up for
/// the newest, so that no number of silent connections keeps others out.
pub(super) const HANDSHAKES_MAX: usize = 256;

type Done = (u64, Option<Io>);

#[derive(Default)]
pub(super) struct Handshakes {
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// By age.
    handles: BTreeMap<u64, AbortHandle>,
    started: u64,
}

impl Handshakes {
    /// Starts one; true when the oldest had to go for it.
    pub(super) fn start(
        &mut self,
        config: Arc<ServerConfig>,
        stream: TcpStream,
        finish: impl FnOnce(TlsStream<TcpStream>, Option<ClientCertificate>) -> Io + Send + 'static,
    ) -> bool {
        let number = self.started;
        self.started += 1;
        let handshake = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream));
        let whole = async move {
            let stream = match handshake.await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return debug(&error),
                Err(error) => return debug(&error),
            };
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            match shown.map(ClientCertificate::read).transpose() {
                Ok(certificate) => Some(finish(stream, certificate)),
                Err(error) => debug(&error),
            }
        };
        let (whole, handle) = abortable(whole);
        self.handles.insert(number, handle);
        self.running.push(Box::pin(async move { (number, whole.await.ok().flatten()) }));
        let is_full = self.handles.len() > HANDSHAKES_MAX;
        if is_full && let Some((_number, oldest)) = self.handles.pop_first() {
            oldest.abort();
        }
        is_full
    }

    /// Waits for the next one to end; nothing if it failed.
    pub(super) async fn next(&mut self) -> Option<Io> {
        while let Some((number, io)) = self.running.next().await {
            // One that had to go is counted already.
            if self.handles.remove(&number).is_some() {
                return io;
            }
        }
        std::future::pending().await
    }
}

fn debug(error: &(dyn std::error::Error + 'static)) -> Option<Io> {
    tracing::debug!(error, "TLS handshake failed");
    None
}
