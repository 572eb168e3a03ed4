//! Progress on standard error, only when a person looks at it.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line that shows how many events have passed; nothing unless standard error is a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(verb: &'static str) -> Self {
        // Two writers on one terminal would mix lines.
        if !std::io::stderr().is_terminal() || std::io::stdout().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::no_length().with_message(verb);
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {msg} {human_pos} events, {per_sec}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(crate) fn add(&self, events: usize) {
        self.0.inc(events as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
