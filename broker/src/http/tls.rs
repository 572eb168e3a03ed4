//! Encrypted connections for the HTTP port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::security::HANDSHAKE_TIMEOUT;

/// Connections that may be in their handshake; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 64;

type Connection = (TlsStream<TcpStream>, SocketAddr);

/// Hands out connections whose handshake is done; a slow one does not hold up the others.
pub(super) struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: FuturesUnordered<BoxFuture<'static, Option<Connection>>>,
}

impl TlsListener {
    pub(super) fn new(tcp: TcpListener, config: Arc<ServerConfig>) -> Self {
        Self { tcp, acceptor: config.into(), handshakes: FuturesUnordered::new() }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Connection {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.next(), if !self.handshakes.is_empty() => {
                    if let Some(connection) = done {
                        return connection;
                    }
                }
                (stream, address) = Listener::accept(&mut self.tcp),
                    if self.handshakes.len() < HANDSHAKES_MAX =>
                {
                    let handshake = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream));
                    self.handshakes.push(Box::pin(async move {
                        let stream = handshake.await.ok()?.inspect_err(|error| {
                            tracing::debug!(%address, %error, "TLS handshake failed");
                        });
                        Some((stream.ok()?, address))
                    }));
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}
