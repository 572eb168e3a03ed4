//! Whether a broker says that it can serve.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PROBE_MAX: Duration = Duration::from_secs(2);

/// Whether `GET /readyz` is answered with 200.
pub(crate) async fn answers_ready(http_address: &str) -> bool {
    let probe = async { asks_ready(TcpStream::connect(http_address).await?).await };
    matches!(timeout(PROBE_MAX, probe).await, Ok(Ok(true)))
}

/// The same over a connection that is there.
pub(crate) async fn asks_ready(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> std::io::Result<bool> {
    let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.take(1 << 16).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}
