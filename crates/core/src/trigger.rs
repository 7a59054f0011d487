//! A trigger: which events of which source start which agent, in which lane, with which prompt.

use crate::filter::Filter;
use crate::ids::Name;
use crate::lane::{LaneId, Passing};
use crate::limits::Meters;
use crate::template::Template;

/// A trigger as resolved from the configuration.
#[derive(Debug)]
pub struct Trigger {
    /// Its name.
    pub name: Name,
    /// Whose events.
    pub source: Name,
    /// Who runs.
    pub agent: Name,
    /// Which of them; none: all.
    pub filter: Option<Filter>,
    /// The lane key; none: every run a lane of its own.
    pub key: Option<Template>,
    /// The name of a lane shared with other triggers of the same agent, if wanted.
    pub lane: Option<String>,
    /// What the agent is asked; none: a plain sentence and the fenced event.
    pub prompt: Option<Template>,
    /// Whether others of a lane pass a run that waits.
    pub passing: Passing,
    /// Runs at once, over all lanes; none: only the agent's concurrency.
    pub max_concurrent: Option<u32>,
    /// What happens to an event that comes while `max_concurrent` runs are running.
    pub when_full: WhenFull,
    /// Runs that may be queued; beyond it the sender gets 503.
    pub max_queued: Option<u32>,
    /// How many runs of one lane may start in a time; events beyond it are ignored, with that reason. None: any number.
    pub storm_cap: Option<Meters>,
    /// How many characters of an event stand in the prompt; none: all of them. The envelope has the whole event.
    pub max_payload_chars: Option<usize>,
    /// Under which name an agent looks for the event among its inputs, where the contract that serves the trigger says so.
    pub input: Option<Input>,
    /// Whether the file says that it takes events. A flag in the store wins.
    pub enabled: bool,
    /// What the API shows: the filter's, key's and prompt's own text.
    pub shown: serde_json::Value,
}

impl Trigger {
    /// What the storm cap tells its runs apart by: the lane, or for those without a key the trigger as a whole.
    pub fn storm_key(lane: Option<LaneId>) -> u128 {
        lane.map_or(u128::MAX, |lane| u128::from(lane.0.cast_unsigned()))
    }
}

/// How an event stands among an agent's inputs (Aether Forge: `scenario_inputs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// `{NAME: data}`.
    Data(String),
    /// `{NAME: type, "payload": data}`.
    Typed(String),
}

/// See [`Trigger::when_full`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Queue it.
    #[default]
    Hold,
    /// Refuse it with 429.
    Reject,
}
