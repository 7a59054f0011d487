//! Logs and metrics of the process: set up once, by the binary; a library leaves both to the program that embeds it.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is logged unless `DOORBELL_LOG` says otherwise.
/// The migrations' own words are of no use to a person.
const DEFAULT_FILTER: &str = "info,refinery_core=warn";
/// Bounds of what is measured in seconds: from a fast acknowledgement to a long run.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 1800.0];
/// How often the recorder drops what it no longer needs.
const UPKEEP: Duration = Duration::from_secs(10);

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// The filter of the environment cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "DOORBELL_LOG is `{filter}`, which is no filter: {why}; write for example `info` or `doorbell_core=debug,info`"
)]
pub struct BadFilter {
    filter: String,
    why: String,
}

/// Writes logs to standard error from now on. Does nothing if the program has a subscriber already.
///
/// # Errors
/// If `filter` (that of `DOORBELL_LOG`) cannot be read.
pub fn logs(filter: Option<&str>, format: LogFormat) -> Result<(), BadFilter> {
    let text = filter.unwrap_or(DEFAULT_FILTER);
    let bad = |why: &dyn std::fmt::Display| BadFilter { filter: text.to_owned(), why: why.to_string() };
    // Not an `EnvFilter`: we have no spans that it could look into, and its regular expressions stay in memory for good.
    let filter: Targets = text.parse().map_err(|e| bad(&e))?;
    let lines = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::stderr().is_terminal());
    // Another subscriber is the embedding program's; it is left alone.
    let _ = match format {
        LogFormat::Text => lines.with_target(false).finish().with(filter).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().with(filter).try_init(),
    };
    Ok(())
}

/// The process' metrics, counted from the first call on. None if the program counts them elsewhere.
///
/// Call from within a runtime: it keeps the recorder tidy.
pub fn metrics() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(SECONDS).ok()?;
        builder.install_recorder().map_err(|error| tracing::warn!(%error, "Metrics are counted elsewhere")).ok()
    });
    let kept = handle.clone()?;
    doorbell_server::describe_metrics();
    let tidied = kept.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            tidied.run_upkeep();
        }
    });
    Some(kept)
}
