//! Logs, to standard error, so that results on standard output stay clean; metrics; and their export
//! with spans, where it is asked for.

mod figures;
mod otlp;
mod spans;
mod wire;

use anyhow::Context as _;
use metrics::{Unit, describe_counter};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;
use weft_broker::access::Announce;

pub(crate) use otlp::{beside, start as export};

/// Ended spans that were not exported, by reason: `queue` = it was full, `collector` = it did not take
/// them.
const LOST_SPANS: &str = "weft_otlp_lost_spans_total";
/// Exports that the collector did not take, by signal: `spans` or `metrics`.
const FAILED_EXPORTS: &str = "weft_otlp_failed_exports_total";

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
    let recorder = recorder();
    weft_broker::metrics::describe();
    weft_broker::Process {
        metrics: recorder,
        first_key: Announce::new(show_first_key),
        ..weft_broker::Process::default()
    }
}

/// Records metrics for this process. A second recorder is refused: the first one goes on.
pub(crate) fn recorder() -> Option<metrics_exporter_prometheus::PrometheusHandle> {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().ok()?;
    describe_counter!(LOST_SPANS, Unit::Count, "Ended spans that were not exported, by reason.");
    describe_counter!(FAILED_EXPORTS, Unit::Count, "Exports that the collector did not take.");
    Some(recorder)
}

/// The only thing that a broker writes to standard output: logs are kept by others, a key must not be.
#[expect(clippy::print_stdout, reason = "it is for whoever started the broker")]
fn show_first_key(key: &str) {
    println!(
        "The first key of this cluster, for its administrator. It is shown once: keep it now, make\n\
         keys of their own for everybody else (weft key create), and revoke it.\n\n    {key}\n"
    );
}
