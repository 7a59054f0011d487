//! An agent: a named thing that can be run, with its limits.

use std::sync::Arc;
use std::time::Duration;

use crate::breaker;
use crate::ids::Name;
use crate::lane::Passing;
use crate::ports::Runner;
use crate::retry::Retries;
use crate::run::Policy;

/// An agent as resolved from the configuration. A run uses the agent as it is when it is claimed.
#[derive(Clone)]
pub struct Agent {
    /// Its name.
    pub name: Name,
    /// The runner kind: `process`, `http`, …
    pub kind: String,
    /// Executes it.
    pub runner: Arc<dyn Runner>,
    /// How long one attempt may take.
    pub time_limit: Duration,
    /// How many attempts at once.
    pub concurrency: u32,
    /// Whether the file says that its runs are held. A flag in the store wins.
    pub paused: bool,
    /// How often and when to try again.
    pub retries: Retries,
    /// How long a run may live unfinished.
    pub max_age: Duration,
    /// When its runs are held because it keeps failing; none: never.
    pub breaker: Option<breaker::Settings>,
    /// What the API shows of its settings: no secrets.
    pub shown: serde_json::Value,
}

impl Agent {
    /// What `decide` needs, joined with the trigger's part.
    pub fn policy(&self, passing: Passing) -> Policy {
        Policy { retries: self.retries, max_age: self.max_age, passing }
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}
