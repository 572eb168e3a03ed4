//! Waits until an instance is ready: it accepts connections, and answers 2xx where it shall.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use weft_proto::resource::ProbeSpec;

use super::{Exit, Failure, FailureKind, Instance};

/// The first pause; each is twice as long as the one before it.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(320);
/// For one question.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Last lines that are told of an instance that did not start.
const TAIL_LEN: usize = 20;

/// Hands an instance on when it is ready.
///
/// # Errors
///
/// When it ends before, or is not ready in time; with its last lines.
pub(super) async fn ready(mut instance: Instance, probe: &ProbeSpec) -> Result<Instance, Failure> {
    let address = instance.address;
    let budget = probe.initial_budget;
    let failure = tokio::select! {
        biased;
        exit = &mut instance.exit => match exit {
            Ok(Exit::Crashed(failure)) => failure,
            _ => Failure::engine("the instance went while it was started"),
        },
        answered = timeout(budget.0, answers(address, probe.path.as_deref())) => {
            if answered.is_ok() {
                return Ok(instance);
            }
            let what = match &probe.path {
                Some(path) => format!("GET {path} at {address} was not answered 2xx"),
                None => format!("nobody accepted connections at {address}"),
            };
            let message = format!("{what} within {budget} (probe.initial_budget)");
            Failure::new(FailureKind::StartTimeout, message)
        }
    };
    let mut tail: Vec<String> =
        std::iter::from_fn(|| instance.lines.try_recv().ok()).map(|line| line.text).collect();
    let tail = tail.split_off(tail.len().saturating_sub(TAIL_LEN));
    Err(failure.with_log_tail(tail))
}

async fn answers(address: SocketAddr, path: Option<&str>) {
    let mut pause = PAUSE_FIRST;
    loop {
        if let Ok(Some(())) = timeout(ANSWER_MAX, answers_once(address, path)).await {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn answers_once(address: SocketAddr, path: Option<&str>) -> Option<()> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let Some(path) = path else { return Some(()) };
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = [0; 10];
    stream.read_exact(&mut head).await.ok()?;
    (head.starts_with(b"HTTP/1.") && head.ends_with(b" 2")).then_some(())
}
