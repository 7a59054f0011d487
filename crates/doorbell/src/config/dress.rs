//! What the wire contracts promise of the triggers and agents that they serve, where the file says nothing else. Asked by
//! the parts of the resolution that make those.

use std::time::Duration;

use doorbell_core::breaker::Settings;
use doorbell_core::limits::Quota;
use doorbell_core::trigger::{Input, WhenFull};

use super::agentex;
use super::section::At;
use super::values::PatternWord;
use super::written::{ServeTable, Written};

/// A queue this long is a flood or a dead agent: senders are told to come back rather than the disk be filled.
const MAX_QUEUED: u32 = 100_000;
/// For how long the caller of Aether's `/trigger` waits for its tick: the `tick_timeout_seconds` of its page.
const TICK_WAIT: Duration = Duration::from_secs(60);

/// What is promised of a trigger.
pub(super) struct Dress {
    /// Runs that may wait.
    pub(super) max_queued: u32,
    /// Characters of an event in a prompt.
    pub(super) max_payload_chars: Option<usize>,
    /// Whether a body is JSON if it can be, and text if not.
    pub(super) is_json_or_text: bool,
    /// Whether a body is JSON whatever its content type says.
    pub(super) is_json: bool,
    /// Runs at once.
    pub(super) max_concurrent: Option<u32>,
    /// What happens beyond it, and while the breaker is open.
    pub(super) when_full: WhenFull,
    /// For how long the sender waits for the result.
    pub(super) respond: Option<Duration>,
    /// The event among the agent's inputs.
    pub(super) input: Option<Input>,
    /// Whether the senders are those that the contract with agents knows.
    pub(super) is_of_agents: bool,
    /// Requests a minute.
    per_minute: Option<u32>,
}

impl Dress {
    /// Requests in a time.
    pub(super) fn rate(&self) -> Option<Quota> {
        let count = self.per_minute?;
        Quota::new(count, Duration::from_secs(60), format!("{count}/min"))
    }
}

/// The promises for the trigger of this name.
pub(super) fn dress(written: &Written, trigger: &str) -> Dress {
    let serving = |contract| serving(written, contract, trigger);
    let is = |contract| serving(contract).is_some();
    let (promptise, almyty, aether) = (is("promptise"), is("almyty"), serving("aether"));
    let pattern = aether.map(|table| table.value.pattern.as_ref().map_or(PatternWord::Trigger, |at| at.value));
    let is_tick = pattern == Some(PatternWord::Trigger);
    Dress {
        max_queued: if promptise { 1000 } else { MAX_QUEUED },
        max_payload_chars: promptise.then_some(20_000),
        is_json_or_text: promptise,
        is_json: is_tick,
        max_concurrent: almyty.then_some(10),
        when_full: if almyty || aether.is_some() { WhenFull::Reject } else { WhenFull::Hold },
        respond: is_tick.then_some(TICK_WAIT),
        input: aether.zip(pattern).map(|(table, pattern)| input(table, pattern)),
        is_of_agents: agentex::rings(written, trigger),
        per_minute: almyty.then_some(100),
    }
}

/// The breaker of an agent that a contract promises one for.
pub(super) fn breaker(written: &Written, agent: &str) -> Option<Settings> {
    let mut mine = written.triggers.iter().filter(|t| t.table.trigger.agent.as_ref().is_some_and(|a| a.value == agent));
    mine.any(|t| serving(written, "aether", &t.name.value).is_some()).then(Settings::default)
}

/// The first table of this contract that serves the trigger.
fn serving<'w>(written: &'w Written, contract: &str, trigger: &str) -> Option<&'w At<ServeTable>> {
    let mut tables = written.contracts.iter().filter(|c| c.name.value == contract);
    tables.find_map(|c| {
        let mut served = c.table.serve.iter().flat_map(|s| s.value.values());
        served.find(|at| at.value.trigger.as_ref().is_some_and(|t| t.value == trigger))
    })
}

fn input(table: &At<ServeTable>, pattern: PatternWord) -> Input {
    let name = table.value.input.as_ref().map(|at| at.value.clone());
    match pattern {
        PatternWord::Trigger => Input::Data(name.unwrap_or_else(|| "webhookEvent".into())),
        PatternWord::Github => Input::Typed(name.unwrap_or_else(|| "githubEvent".into())),
    }
}
