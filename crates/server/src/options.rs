//! What the caller decides about the server: tokens, limits, time-outs. The defaults are what a public endpoint wants;
//! tests shorten them.

use std::time::Duration;

use doorbell_core::Secret;
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;

/// See the module.
#[derive(Clone)]
pub struct Options {
    /// Opens the API. An empty one opens nothing.
    pub admin_token: Secret,
    /// Peers that may say in `X-Forwarded-For` whom they speak for.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether `/ready` says 503 while an agent's breaker is open.
    pub ready_includes_breakers: bool,
    /// How much.
    pub limits: Limits,
    /// How long.
    pub timeouts: Timeouts,
    /// What `/health` and the OpenAPI document call this program's version.
    pub version: String,
    /// Renders `/metrics`; none: only the gauges of the queue are there.
    pub metrics: Option<PrometheusHandle>,
}

impl Options {
    /// The defaults, with this token.
    pub fn new(admin_token: Secret) -> Self {
        Self {
            admin_token,
            trusted_proxies: Vec::new(),
            ready_includes_breakers: false,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            metrics: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("trusted_proxies", &self.trusted_proxies)
            .field("limits", &self.limits)
            .field("timeouts", &self.timeouts)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// How much one process takes at once. Each limit has a counter for when it is hit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once, over all listeners; beyond it new ones are closed at once. Each costs up to some 30 KiB.
    pub connections: usize,
    /// Bytes of one request's head; beyond it 431. What nginx and Node take by default lies between 8 and 32 KiB.
    pub head_bytes: usize,
    /// Headers of one request; beyond it 431. The number that hyper takes by default.
    pub headers: usize,
    /// Bytes of a body that the API reads. Webhooks have the limit of their source.
    pub api_body: usize,
    /// Bytes of bodies held while they are read, over all connections; beyond it 503. Small bodies are not counted.
    pub bodies_at_once: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Readers that follow a log at once; beyond it 503.
    pub followers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_bytes: 16 * 1024,
            headers: 100,
            api_body: 4 * 1024 * 1024,
            bodies_at_once: 128 * 1024 * 1024,
            streams: 100,
            followers: 256,
        }
    }
}

/// How long the server waits for a peer. A limit is kept to within a quarter of the shortest of `first_byte`, `head`,
/// `idle` and `write`: one coarse timer a connection watches all of them, so that a request costs none.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a whole TLS handshake.
    pub handshake: Duration,
    /// From the connection to its first byte.
    pub first_byte: Duration,
    /// From a request's first byte to the end of its head.
    pub head: Duration,
    /// Between two pieces of a body.
    pub body_idle: Duration,
    /// For a whole body.
    pub body_total: Duration,
    /// Between two requests of one connection.
    pub idle: Duration,
    /// For a peer that takes nothing of an answer.
    pub write: Duration,
    /// Between two looks at a log that is followed.
    pub follow: Duration,
    /// Between two signs of life on a quiet stream.
    pub heartbeat: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            first_byte: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body_idle: Duration::from_secs(10),
            body_total: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            follow: Duration::from_millis(250),
            heartbeat: Duration::from_secs(15),
        }
    }
}

impl Timeouts {
    /// How often a connection looks whether one of them is over.
    pub(crate) fn tick(&self) -> Duration {
        let shortest = self.first_byte.min(self.head).min(self.idle).min(self.write);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(5))
    }
}
