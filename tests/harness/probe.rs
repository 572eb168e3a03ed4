//! Whether a broker says that it can serve.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PROBE_MAX: Duration = Duration::from_secs(2);

/// Whether `GET /readyz` is answered with 200.
pub(crate) async fn answers_ready(http_address: &str) -> bool {
    let probe = async {
        let mut stream = TcpStream::connect(http_address).await?;
        let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        stream.take(1 << 16).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.1 200 "))
    };
    matches!(timeout(PROBE_MAX, probe).await, Ok(Ok(true)))
}
