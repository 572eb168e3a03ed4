//! The one place where the library starts tasks.

use tracing::Instrument as _;

/// Starts a task that ends with the handle it serves: its channel closes.
#[expect(
    clippy::disallowed_methods,
    reason = "a library has no supervisor; each task ends with its handle, and a task that dies \
              closes the channels of its handle, which reports it"
)]
pub(crate) fn spawn(name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    // Nobody waits for the task itself.
    drop(tokio::spawn(task.instrument(tracing::debug_span!("task", name))));
}
