//! The bytes of a connection: plain or encrypted, and cut off when nobody proves who they are.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::connection::Connection;
use super::places::Place;
use super::refused;

/// An accepted connection; its place is free again when this is dropped.
pub struct Io {
    stream: Stream,
    connection: Arc<Connection>,
    /// None once somebody proved who they are.
    unproven: Option<Pin<Box<Sleep>>>,
    is_cut: bool,
    _place: Place,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Io {
    pub(super) fn plain(
        stream: TcpStream,
        connection: Arc<Connection>,
        prove_max: Duration,
        place: Place,
    ) -> Self {
        Self::new(Stream::Plain(stream), connection, prove_max, place)
    }

    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        connection: Arc<Connection>,
        prove_max: Duration,
        place: Place,
    ) -> Self {
        Self::new(Stream::Tls(Box::new(stream)), connection, prove_max, place)
    }

    fn new(stream: Stream, connection: Arc<Connection>, prove_max: Duration, place: Place) -> Self {
        let unproven = (!connection.is_proven()).then(|| Box::pin(sleep(prove_max)));
        Self { stream, connection, unproven, is_cut: false, _place: place }
    }

    /// What is known about it.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Fails once the time to prove something is over. A wait that began before stays registered,
    /// so that it is looked at even when the other end neither sends nor reads.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(unproven) = &mut self.unproven else { return Ok(()) };
        if self.connection.is_proven() {
            self.unproven = None;
            return Ok(());
        }
        if unproven.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        if !self.is_cut {
            self.is_cut = true;
            refused(self.connection.port(), "unproven");
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "nobody proved who they are"))
    }
}

impl Connected for Io {
    type ConnectInfo = Arc<Connection>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(&self.connection)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
