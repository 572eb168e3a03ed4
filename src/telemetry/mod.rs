//! Logs: to standard error, so that results on standard output stay clean.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;
use weft_broker::access::Announce;

/// Starts logging. `filter` is a level or a list as in `info,weft_broker=debug`.
pub(crate) fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .with_context(|| format!("{filter:?} is not a log filter; write info or weft=debug"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .finish()
        .try_init()
        .context("logging was started twice")
}

/// Records metrics for this process; the broker's HTTP port renders them.
pub(crate) fn process() -> weft_broker::Process {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder();
    weft_broker::metrics::describe();
    // A second recorder is refused: the first one goes on, and this broker shows none.
    weft_broker::Process {
        metrics: recorder.ok(),
        first_key: Announce::new(show_first_key),
        ..weft_broker::Process::default()
    }
}

/// The only thing that a broker writes to standard output: logs are kept by others, a key must not be.
#[expect(clippy::print_stdout, reason = "it is for whoever started the broker")]
fn show_first_key(key: &str) {
    println!(
        "The first key of this cluster, for its administrator. It is shown once: keep it now, make\n\
         keys of their own for everybody else (weft key create), and revoke it.\n\n    {key}\n"
    );
}
