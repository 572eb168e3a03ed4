//! `weft ready`: whether one broker is ready, for health checks where nothing else can ask.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a broker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// What it says is a few words.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Arguments of `weft ready`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit code 0: all its groups have a leader, and its replicas have what was agreed on. Needs no
credential; https needs the authority of the cluster, --ca-file FILE or $WEFT_CA_FILE.

Examples:
  weft ready
  weft ready https://broker-1:7500 --ca-file client-ca.pem")]
pub(crate) struct Args {
    /// Where the broker serves HTTP
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:7500")]
    url: Uri,
}

/// Asks; an error says why it is not ready.
pub(crate) async fn run(args: &Args, ca_file: Option<&Path>) -> anyhow::Result<()> {
    let answer = timeout(ANSWER_MAX, ask(&args.url, ca_file)).await;
    let (status, text) = answer
        .with_context(|| format!("{} does not answer", args.url))?
        .with_context(|| format!("{} cannot be asked", args.url))?;
    if status != StatusCode::OK {
        bail!("the broker is not ready: {}", text.trim());
    }
    Ok(())
}

async fn ask(url: &Uri, ca_file: Option<&Path>) -> anyhow::Result<(StatusCode, String)> {
    let host = url.host().context("it has no host")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let encrypted = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => bail!("it starts with neither http:// nor https://"),
    };
    let port = url.port_u16().context("it has no port")?;
    if !encrypted {
        return exchange(TcpStream::connect((bare, port)).await?, host).await;
    }
    let ca_file = ca_file.context("give the authority of the cluster: --ca-file FILE")?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(encryption(ca_file)?));
    let name = ServerName::try_from(bare.to_owned())?;
    let stream = TcpStream::connect((bare, port)).await?;
    exchange(connector.connect(name, stream).await?, host).await
}

/// One request on a connection of its own.
async fn exchange<S>(stream: S, host: &str) -> anyhow::Result<(StatusCode, String)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz").header(HOST, host).body(Empty::<Bytes>::new())?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let read = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let bytes = read.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok((head.status, String::from_utf8_lossy(&bytes).into_owned()))
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // It may end the connection with its answer.
        ended = connection => {
            ended?;
            answer.await
        }
    }
}

fn encryption(ca_file: &Path) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca_file);
    for certificate in certificates.with_context(|| format!("cannot read {}", ca_file.display()))? {
        roots.add(certificate.with_context(|| ca_file.display().to_string())?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What is said about a broker that answers so.
    async fn said(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let read = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..read]).into_owned()
        };
        let args = Args { url };
        let (said, asked) = tokio::join!(run(&args, None), serve);
        assert!(asked.starts_with("GET /readyz HTTP/1.1\r\n"), "{asked}");
        said.map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn what_a_broker_answers_is_what_is_said() {
        let ready = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nready\n";
        assert_eq!(said(ready).await, Ok(()));
        let missing = "HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nno leader";
        assert_eq!(said(missing).await.unwrap_err(), "the broker is not ready: no leader");
        assert!(said("nonsense\r\n\r\n").await.unwrap_err().contains("cannot be asked"));
    }

    #[tokio::test]
    async fn addresses_that_cannot_be_asked_are_named() {
        for (url, reason) in [
            ("https://127.0.0.1:1", "--ca-file"),
            ("ftp://127.0.0.1:1", "neither"),
            ("http://127.0.0.1", "no port"),
            ("/readyz", "no host"),
        ] {
            let args = Args { url: url.parse().unwrap() };
            let error = format!("{:#}", run(&args, None).await.unwrap_err());
            assert!(error.contains(url) && error.contains(reason), "{error}");
        }
    }
}
