//! When to stop: SIGTERM or SIGINT, whichever comes first.

use tokio::signal::unix::{SignalKind, signal};

/// A future that ends when this process is asked to stop. From the call on, the signals no longer
/// end the process by themselves.
pub(crate) fn stop() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Ends when whoever holds the other end of standard input is gone.
///
/// The read cannot be cancelled: end the runtime with `shutdown_background`.
pub(crate) async fn stdin_closed() {
    let read = || std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    // Whether it ends or fails: nobody is there any more.
    _ = tokio::task::spawn_blocking(read).await;
}
