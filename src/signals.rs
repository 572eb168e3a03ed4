//! When to stop: SIGTERM or SIGINT, whichever comes first.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

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
pub(crate) async fn stdin_closed() {
    let (closed_tx, closed_rx) = oneshot::channel::<()>();
    let read = move || {
        // Whether it ends or fails: nobody is there any more.
        _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(closed_tx);
    };
    // The read cannot be cancelled, and a runtime waits for its own threads when it ends.
    let watch = std::thread::Builder::new().name("stdin".to_owned()).spawn(read);
    if let Err(error) = watch {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot watch standard input");
    }
    _ = closed_rx.await;
}
