//! A secret from whoever types it, or from a pipe.

use std::io::{IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;
use weft_client::Secret;

use crate::signals;

/// No credential is longer; what comes from the wrong pipe may be.
const BYTES_MAX: u64 = 64 << 10;

/// The terminal, while it does not show what is typed.
struct Hushed(Termios);

impl Hushed {
    fn new() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut hushed = before.clone();
        hushed.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &hushed)?;
        Ok(Self(before))
    }
}

impl Drop for Hushed {
    fn drop(&mut self) {
        // There is nothing else to try.
        _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        // The line end was not shown either.
        _ = std::io::stderr().write_all(b"\n");
    }
}

/// Reads a secret from standard input: from a terminal one line, without showing it.
pub(crate) async fn secret(prompt: &str) -> anyhow::Result<Secret> {
    let is_terminal = std::io::stdin().is_terminal();
    let mut hushed = None;
    let stop = signals::stop()?;
    if is_terminal {
        std::io::stderr().write_all(prompt.as_bytes())?;
        hushed =
            Some(Hushed::new().context("cannot keep the terminal from showing what is typed")?);
    }
    let (text_tx, text_rx) = oneshot::channel();
    let read = move || {
        let mut text = String::new();
        let stdin = std::io::stdin();
        let done = if is_terminal {
            stdin.read_line(&mut text)
        } else {
            stdin.lock().take(BYTES_MAX).read_to_string(&mut text)
        };
        // Nobody waits any more when the command was interrupted.
        _ = text_tx.send(done.map(|_bytes| Secret::new(text)));
    };
    // The read cannot be cancelled, and a runtime waits for its own threads when it ends.
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read)?;
    let text = tokio::select! {
        biased;
        text = text_rx => text.context("standard input is closed")?,
        () = stop => bail!("interrupted"),
    };
    drop(hushed);
    let text = text.context("cannot read standard input")?;
    Ok(Secret::new(text.expose().trim()))
}
