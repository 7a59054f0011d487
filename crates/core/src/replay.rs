//! A stored event's runs anew, by today's configuration: what the API's and the console's "replay" makes. Pure but for
//! the switches it reads; the caller hands the runs to [`crate::ports::Store::replay`], or shows them only (a dry run).

use std::sync::Arc;

use crate::agent::Agent;
use crate::envelope;
use crate::event::Event;
use crate::filter::Verdict;
use crate::house::{Catalog, House};
use crate::ids::Name;
use crate::ingest::{run_of, title_of};
use crate::lane::{LaneId, LaneOf};
use crate::payload::Body;
use crate::run::NewRun;
use crate::source::Source;
use crate::trigger::Trigger;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Run this agent in place of each trigger's own.
    pub agent: Option<Name>,
    /// Start this trigger, whatever its filter says; none: all of the source whose filters want the event.
    pub trigger: Option<Name>,
}

/// Why an event cannot be replayed so. Asking again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Retention took the body.
    #[error("the event's body is no longer kept: it cannot be replayed")]
    NoBody,
    /// The body cannot be read any more.
    #[error("the event's body cannot be read: {0}")]
    Unreadable(String),
    /// No such agent.
    #[error("there is no agent `{0}`")]
    NoAgent(Name),
    /// No such trigger.
    #[error("there is no trigger `{0}`")]
    NoTrigger(Name),
    /// Its source is not configured any more.
    #[error("source `{0}` is no longer configured: name a trigger of another source only after adding it again")]
    NoSource(Name),
    /// A trigger of another source: an unverified event must not enter a verified one's lanes.
    #[error("trigger `{trigger}` takes events of source `{takes}`, and this one came in through `{came}`")]
    OtherSource {
        /// Which trigger.
        trigger: Name,
        /// Its source.
        takes: Name,
        /// The event's source.
        came: Name,
    },
    /// It is switched off.
    #[error("trigger `{0}` is disabled: enable it first")]
    Disabled(Name),
    /// No filter wants it.
    #[error("no enabled trigger of source `{0}` wants this event: name a trigger to start it anyway")]
    NotWanted(Name),
}

/// The runs that replaying `event` starts, at least one.
///
/// # Errors
/// See [`ReplayError`].
pub fn plan(house: &House, catalog: &Catalog, event: &Event, asked: &Replay) -> Result<Vec<NewRun>, ReplayError> {
    let source = catalog.sources.get(&event.source).ok_or_else(|| ReplayError::NoSource(event.source.clone()))?;
    let agent = match &asked.agent {
        Some(name) => Some(catalog.agents.get(name).ok_or_else(|| ReplayError::NoAgent(name.clone()))?),
        None => None,
    };
    let bytes = event.body.clone().ok_or(ReplayError::NoBody)?;
    let value = Body::restore(event.body_format, bytes)
        .and_then(|body| body.project(&source.paths))
        .map_err(|e| ReplayError::Unreadable(e.to_string()))?;
    let scope = envelope::scope(event, &value);
    let triggers = match &asked.trigger {
        Some(name) => vec![named(house, catalog, event, name)?],
        None => wanting(house, source, &scope),
    };
    if triggers.is_empty() {
        return Err(ReplayError::NotWanted(source.name.clone()));
    }
    let title = title_of(&event.event_type, event.subject.as_deref(), source);
    let now = house.clock.now();
    let runs = triggers.into_iter().map(|trigger| {
        let mut run = run_of(trigger, &scope, now, &title);
        // A person asks for it: the bound on what senders may queue does not hold.
        run.max_queued = None;
        match agent {
            Some(agent) => given_to(agent, trigger, run),
            None => run,
        }
    });
    Ok(runs.collect())
}

fn named<'c>(house: &House, catalog: &'c Catalog, event: &Event, name: &Name) -> Result<&'c Trigger, ReplayError> {
    let trigger = catalog.triggers.get(name).ok_or_else(|| ReplayError::NoTrigger(name.clone()))?;
    if trigger.source != event.source {
        let (trigger, takes) = (name.clone(), trigger.source.clone());
        return Err(ReplayError::OtherSource { trigger, takes, came: event.source.clone() });
    }
    if !house.is_enabled(trigger) {
        return Err(ReplayError::Disabled(name.clone()));
    }
    Ok(trigger)
}

fn wanting<'s>(house: &House, source: &'s Source, scope: &crate::scope::Scope<'_>) -> Vec<&'s Trigger> {
    let wants = |t: &&Arc<Trigger>| t.filter.as_ref().is_none_or(|f| matches!(f.eval(scope), Verdict::Pass));
    source.triggers.iter().filter(|t| house.is_enabled(t)).filter(wants).map(AsRef::as_ref).collect()
}

/// The run for another agent: in that agent's lane.
fn given_to(agent: &Agent, trigger: &Trigger, mut run: NewRun) -> NewRun {
    let of = trigger.lane.as_deref().map_or(LaneOf::Trigger(&trigger.name), LaneOf::Shared);
    run.lane = run.key.as_deref().map(|key| LaneId::of(&agent.name, of, key));
    run.agent = agent.name.clone();
    run
}
