//! `/metrics` in Prometheus text, and what every metric of the program means. The app installs the recorder; the state
//! of the queues is asked of the store when somebody looks, and written here, so that a queue that is gone leaves no
//! number behind.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use doorbell_core::Timestamp;
use doorbell_core::ports::QueueStats;
use http::{HeaderMap, HeaderValue, Uri, Version, header};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use crate::auth;
use crate::front::Front;
use crate::local::{is_from_a_page, is_on_this_machine};
use crate::peer::{self, Peer};

const COUNTERS: &[(&str, &str)] = &[
    ("doorbell_acks_total", "Events answered after their commit, by source and kind of decision"),
    ("doorbell_rejects_total", "Requests that made no event, by source, kind and reason"),
    ("doorbell_forwards_total", "Requests passed on to agents, by agent (as source) and outcome"),
    ("doorbell_handshakes_total", "Proof-of-endpoint requests answered, by source"),
    ("doorbell_filter_errors_total", "Filters that could not be evaluated, by trigger"),
    ("doorbell_limit_table_full_total", "Requests measured in a shared meter, because too many addresses came at once"),
    ("doorbell_storms_total", "Events that started no run because of a storm_cap, by trigger"),
    (
        "doorbell_notes_dropped_total",
        "Decisions on refused requests that were dropped under flood, or on a disk that was full for long",
    ),
    ("doorbell_attempts_total", "Attempts that ended, by agent and the run's next state"),
    ("doorbell_attempts_dropped_total", "Attempts whose result came after their lease was lost, by agent"),
    ("doorbell_breaker_opened_total", "Breakers that opened because an agent kept failing, by agent"),
    ("doorbell_swept_total", "Things deleted because their retention was over, by what they were"),
    ("doorbell_api_unauthorized_total", "API requests without a good token"),
    ("doorbell_api_forbidden_total", "API requests with a key that does not open the call"),
    ("doorbell_connections_total", "Connections taken"),
    ("doorbell_connections_refused_total", "Connections closed at once because the cap was reached"),
    ("doorbell_connections_cut_total", "Connections ended because the peer was too slow, by what it was slow at"),
    ("doorbell_accept_errors_total", "Failures to accept a connection, such as too many open files"),
    ("doorbell_handshake_errors_total", "TLS handshakes that failed or were too slow"),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    ("doorbell_ack_seconds", "From a webhook's head to its answer"),
    ("doorbell_attempt_seconds", "How long attempts took, by agent"),
    ("doorbell_run_wait_seconds", "From a run's due time to its claim"),
    ("doorbell_commit_seconds", "How long group commits took"),
];

/// Says what every metric means to the recorder that is installed. Call it once, after installing.
pub fn describe() {
    for (name, text) in COUNTERS {
        describe_counter!(*name, *text);
    }
    for (name, text) in HISTOGRAMS {
        describe_histogram!(*name, Unit::Seconds, *text);
    }
    describe_histogram!("doorbell_commit_size", Unit::Count, "Requests committed together");
    describe_gauge!("doorbell_connections_open", "Connections open now");
    describe_gauge!("doorbell_wal_bytes", Unit::Bytes, "Length of the SQLite write-ahead log");
}

/// Prometheus text; for programs on this machine, or with the admin token.
pub(crate) async fn render(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
) -> Response {
    let via = peer::via(peer.socket, &front.options.trusted_proxies);
    let is_local = is_on_this_machine(peer.socket, via, (&uri, version), &headers) && !is_from_a_page(&headers);
    if !is_local && !auth::is_admin(&front, &headers) {
        return auth::unauthorized(&front, Some(peer.remote)).into_response();
    }
    let mut text = front.options.metrics.as_ref().map(|handle| handle.render()).unwrap_or_default();
    match front.probe.stats(&front).await {
        Ok(stats) => queues(&mut text, &stats, front.house.clock.now()),
        Err(error) => tracing::warn!(error, "The queues could not be counted for /metrics"),
    }
    let mut response = text.into_response();
    let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

/// A gauge of the queues: name, help, and its value if there is one.
type Gauge = (&'static str, &'static str, fn(&QueueStats, Timestamp) -> Option<f64>);

#[allow(clippy::cast_precision_loss, reason = "queues are shorter than 2^52")]
const GAUGES: &[Gauge] = &[
    ("doorbell_runs_queued", "Runs queued, due or not", |s, _| Some(s.queued as f64)),
    ("doorbell_runs_running", "Runs running", |s, _| Some(s.running as f64)),
    ("doorbell_runs_waiting", "Runs waiting for a person", |s, _| Some(s.waiting as f64)),
    ("doorbell_queue_age_seconds", "How long the oldest run that could start has been due", |s, now| {
        s.oldest_due.map(|due| now.since(due).as_secs_f64())
    }),
];

fn queues(text: &mut String, stats: &[QueueStats], now: Timestamp) {
    for (name, help, value) in GAUGES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for queue in stats {
            // Names hold nothing that would have to be escaped.
            if let Some(value) = value(queue, now) {
                let (agent, trigger) = (&queue.agent, &queue.trigger);
                let _ = writeln!(text, "{name}{{agent=\"{agent}\",trigger=\"{trigger}\"}} {value}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_core::Name;

    /// What the crates' sources write between `metrics::…!(` and the name.
    fn used() -> std::collections::BTreeSet<String> {
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut names = std::collections::BTreeSet::new();
        let mut open: Vec<_> = vec![crates];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for kind in ["counter", "histogram", "gauge"] {
                        for part in text.split(&format!("metrics::{kind}!(")).skip(1) {
                            names.extend(
                                part.trim_start()
                                    .strip_prefix('"')
                                    .and_then(|p| p.split('"').next())
                                    .map(str::to_owned),
                            );
                        }
                    }
                }
            }
        }
        names
    }

    #[test]
    fn every_metric_that_is_recorded_is_described() {
        let own = ["doorbell_commit_size", "doorbell_connections_open", "doorbell_wal_bytes"];
        let known: Vec<&str> = COUNTERS.iter().chain(HISTOGRAMS).map(|(name, _)| *name).chain(own).collect();
        let unknown: Vec<_> = used().into_iter().filter(|n| !known.contains(&n.as_str())).collect();
        assert!(unknown.is_empty(), "describe these in metrics.rs: {unknown:?}");
    }

    #[test]
    fn a_queue_is_counted_by_agent_and_trigger() {
        let now = Timestamp::from_secs(100);
        let name = |t| Name::new(t).unwrap();
        let queue = QueueStats {
            agent: name("a"),
            trigger: name("t"),
            queued: 3,
            running: 1,
            waiting: 0,
            oldest_due: Some(Timestamp::from_secs(90)),
        };
        let mut text = String::new();
        queues(&mut text, &[queue], now);
        assert!(text.contains("doorbell_runs_queued{agent=\"a\",trigger=\"t\"} 3\n"), "{text}");
        assert!(text.contains("doorbell_queue_age_seconds{agent=\"a\",trigger=\"t\"} 10\n"), "{text}");
    }
}
