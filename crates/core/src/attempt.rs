//! One try at a run: what an agent is given ([`Envelope`], [`Attempt`]) and what it says ([`Outcome`]).
//!
//! The worker makes attempts, a runner of `doorbell-agents` carries one out and returns its outcome; a runner never
//! sees the store. The envelope's shape is the agent contract of `docs/interface.md`, section 4.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::ids::{EventId, Name, RunId};
use crate::secret::Secret;

/// What an agent is told, as JSON: on stdin of a process, as the body of an HTTP request.
#[derive(Clone, Debug, Serialize)]
pub struct Envelope {
    /// The run.
    pub run: RunFacts,
    /// The event that started it.
    pub event: EventFacts,
    /// The prompt, rendered, with the payload fenced as untrusted data.
    pub prompt: String,
    /// All events, where several were joined in one run; else empty.
    pub events: Vec<EventFacts>,
    /// The event under the names by which agents of another system look for it; not there unless a contract asks for it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scenario_inputs: BTreeMap<String, Box<RawValue>>,
}

/// The run, as the agent sees it.
#[derive(Clone, Debug, Serialize)]
pub struct RunFacts {
    /// Stable over all attempts: deduplicate on it.
    pub id: RunId,
    /// From 1.
    pub attempt: u32,
    /// The agent's name.
    pub agent: Name,
    /// The trigger's name.
    pub trigger: Name,
    /// The lane key.
    pub key: Option<String>,
    /// When the attempt is ended.
    pub deadline: Timestamp,
    /// What to send on as `doorbell-hops` with whatever may ring a Doorbell: the runs before this one, and this one.
    pub hops: u32,
}

/// An event, as the agent sees it.
#[derive(Clone, Debug, Serialize)]
pub struct EventFacts {
    /// Its id.
    pub id: EventId,
    /// Where it came in.
    pub source: Name,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// What it is about.
    pub subject: Option<String>,
    /// Who did it, as the sender tells.
    pub actor: Option<String>,
    /// When it happened as the sender tells, else when it was accepted.
    pub time: Timestamp,
    /// Whether the sender was verified.
    pub verified: bool,
    /// The body: JSON as it came, a form as an object, text as a string; null if it is not text.
    pub data: Option<Box<RawValue>>,
    /// The body in base64, where it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// Kept headers.
    pub headers: serde_json::Map<String, serde_json::Value>,
    /// The query.
    pub query: serde_json::Map<String, serde_json::Value>,
}

/// One try, handed to a runner.
#[derive(Clone)]
pub struct Attempt {
    /// What the agent is told.
    pub envelope: Arc<Envelope>,
    /// How long it may take, from now.
    pub time_limit: Duration,
    /// May speak for this run only, until its deadline.
    pub run_token: Secret,
    /// Where the agent reaches our API, if it may.
    pub api_url: Option<String>,
    /// Where output and log go while they come.
    pub sink: Arc<dyn OutputSink>,
    /// Asks the runner to end it; see [`StopReason`].
    pub stop: Stop,
}

/// Where a runner puts what an agent prints while it runs. The worker's implementation batches into the store.
#[async_trait]
pub trait OutputSink: Send + Sync + 'static {
    /// Adds a piece; waits if the store is slower than the agent.
    async fn write(&self, stream: Stream, piece: Bytes);
    /// Notes a started child durably, before it is given any input, so that a later start can end it.
    async fn child(&self, child: Child);
}

/// Which of an agent's outputs a piece came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// The result as it comes.
    Output,
    /// What it logs.
    Log,
    /// What Doorbell notes: `output was cut at 1 MiB`.
    Note,
}

/// A process on this machine, told apart from a later one with the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its process id; it leads a process group of the same number.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub started: u64,
}

/// Tells a runner to end an attempt early, and why.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    reason: Arc<std::sync::OnceLock<StopReason>>,
}

/// Why an attempt is ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A person cancelled the run.
    Cancelled,
    /// The lease is lost or cannot be renewed: whatever it says would be dropped.
    LeaseLost,
    /// The program stops and its patience is over; the run is tried again later.
    Shutdown,
}

impl Stop {
    /// Asks for the end; the first reason counts.
    pub fn ask(&self, reason: StopReason) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Resolves once the end was asked for.
    pub async fn asked(&self) -> StopReason {
        self.token.cancelled().await;
        self.reason.get().copied().unwrap_or(StopReason::Shutdown)
    }

    /// The reason, if the end was asked for.
    pub fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }

    /// What an attempt that was ended for `reason` is to report.
    pub fn outcome(reason: StopReason) -> Outcome {
        match reason {
            StopReason::Cancelled => Outcome::Cancelled { why: "cancelled by an operator".into() },
            StopReason::LeaseLost => Outcome::Lost { why: "the lease on the run was lost".into() },
            StopReason::Shutdown => Outcome::Snoozed {
                after: Duration::ZERO,
                why: "the program stopped while it ran".into(),
                usage: Usage::default(),
            },
        }
    }
}

/// What an attempt says.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It ended well.
    Succeeded(Success),
    /// It ended badly.
    Failed(Failure),
    /// It asks to be called again later, without counting.
    Snoozed {
        /// From now.
        after: Duration,
        /// For the run's history.
        why: String,
        /// What it used.
        usage: Usage,
    },
    /// It needs a person's yes.
    Waiting(Approval, Usage),
    /// Its time was over; the whole process tree is dead.
    TimedOut {
        /// The limit it had.
        after: Duration,
    },
    /// A person ended it.
    Cancelled {
        /// For the run's history.
        why: String,
    },
    /// Nobody knows what it did: a crash, a lapsed lease.
    Lost {
        /// For the run's history.
        why: String,
    },
}

/// A good end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Success {
    /// The result: JSON or text, as the agent gave it, capped.
    pub output: Bytes,
    /// Steps it took, if it tells.
    pub steps: Option<u64>,
    /// What it used, if it tells.
    pub usage: Usage,
}

/// A bad end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failure {
    /// What went wrong, for people.
    pub error: String,
    /// Whether trying again may help.
    pub retry: bool,
    /// When to try again, if the agent tells.
    pub retry_after: Option<Duration>,
    /// What it had put out.
    pub output: Option<Bytes>,
    /// What it used.
    pub usage: Usage,
}

/// What an agent used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Model tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

impl Usage {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        fn add<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            }
        }
        Self {
            tokens: match (self.tokens, other.tokens) {
                (Some(a), Some(b)) => Some(a.saturating_add(b)),
                (a, b) => a.or(b),
            },
            cost_usd: add(self.cost_usd, other.cost_usd),
        }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a run waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// One line for the person who decides.
    pub title: String,
    /// More, if the agent tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}
