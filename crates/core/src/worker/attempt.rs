//! One attempt from claim to verdict: tell the agent, let it run under its lease, put what it said into the store.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use super::Inner;
use super::output::StoreSink;
use super::slots::Slot;
use crate::agent::Agent;
use crate::attempt::{Attempt, Failure, Outcome, Stop};
use crate::breaker::Sign;
use crate::clock::Timestamp;
use crate::envelope;
use crate::house::{Catalog, House};
use crate::ids::Name;
use crate::ports::{Finished, StoreError, Verdict, Work};
use crate::run::{Lease, Policy, Standing, State, Transition, decide};
use crate::trigger::Trigger;

/// A runner that has not ended this long after its time limit is dropped: it broke its contract.
const OVERTIME: Duration = Duration::from_secs(60);

/// Starts the attempt in a task of its own. A claim names only agents and triggers of the catalog it was made with.
pub(super) fn start(inner: &Arc<Inner>, catalog: &Catalog, work: Work, claimed_at: Instant) {
    let slot = inner.slots.take(&work.run.agent, &work.run.trigger);
    if let Some(agent) = catalog.agents.get(&work.run.agent) {
        inner.house.attempt_started(agent, work.run.id);
    }
    let stop = Stop::default();
    inner.leases.add(work.lease, stop.clone(), claimed_at);
    let waited = inner.house.clock.now().since(work.run.due_at);
    metrics::histogram!("doorbell_run_wait_seconds").record(waited.as_secs_f64());
    let agent = catalog.agents.get(&work.run.agent).cloned();
    let trigger = catalog.triggers.get(&work.run.trigger).cloned();
    let inner = Arc::clone(inner);
    let tracker = inner.attempts.clone();
    tracker.spawn(async move {
        let (Some(agent), Some(trigger)) = (agent, trigger) else {
            // Cannot be: but if it is, the run goes back and is held.
            let why = "its agent or trigger is no longer configured".to_owned();
            let snooze = Outcome::Snoozed { after: Duration::ZERO, why, usage: crate::attempt::Usage::default() };
            let end = End { agent: None, lease: work.lease, standing: standing(&work), policy: &held_policy() };
            conclude(&inner.house, end, snooze).await;
            inner.leases.remove(work.lease);
            return;
        };
        carry_out(&inner, &agent, &trigger, work, stop, slot).await;
    });
}

async fn carry_out(inner: &Inner, agent: &Agent, trigger: &Trigger, work: Work, stop: Stop, slot: Slot) {
    let began = Instant::now();
    let (lease, standing) = (work.lease, standing(&work));
    let house = &inner.house;
    let deadline = house.clock.now() + agent.time_limit;
    let sink = StoreSink::new(Arc::clone(&house.store), lease, house.clock.clone());
    tracing::info!(run.id = %lease.run, event.id = %work.run.event, agent = %work.run.agent, attempt = work.run.attempt, "an attempt started");
    let verdict = match envelope::for_run(&work.run, &work.event, trigger, deadline, &house.clock) {
        Ok(envelope) => {
            let attempt = Attempt {
                envelope: Arc::new(envelope),
                time_limit: agent.time_limit,
                run_token: house.tokens().make(lease, deadline),
                api_url: inner.options.api_url.clone(),
                sink: sink.clone(),
                stop,
            };
            run_guarded(agent, attempt).await
        }
        Err(error) => Verdict::Ended(Outcome::Failed(Failure { error, retry: false, ..Failure::default() })),
    };
    sink.flush().await;
    let policy = agent.policy(trigger.passing);
    let end = End { agent: Some(agent), lease, standing, policy: &policy };
    match verdict {
        Verdict::Ended(outcome) => {
            let ended = conclude(house, end, outcome).await;
            inner.leases.remove(lease);
            tell(&work.run.agent, lease, ended, began.elapsed());
        }
        Verdict::Deferred => match house.store.defer(lease, deadline).await {
            Ok(Finished::Done) => {
                inner.leases.remove(lease);
                inner.deferred.add(lease.run, slot);
                house.attempt_deferred(agent, lease.run);
            }
            // It called back before we had noted that it would.
            Ok(Finished::Fenced) => inner.leases.remove(lease),
            Err(error) => {
                let why = format!("the store could not note that the agent will call back: {error}");
                conclude(house, end, Outcome::Lost { why }).await;
                inner.leases.remove(lease);
            }
        },
    }
}

/// Runs the agent; a panic and a runner that never returns become failures.
async fn run_guarded(agent: &Agent, attempt: Attempt) -> Verdict {
    let limit = attempt.time_limit;
    let run = AssertUnwindSafe(agent.runner.run(attempt)).catch_unwind();
    match tokio::time::timeout(limit + OVERTIME, run).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(panic)) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".into());
            let error = format!("the agent's runner panicked: {text}");
            Verdict::Ended(Outcome::Failed(Failure { error, retry: true, ..Failure::default() }))
        }
        Err(_) => Verdict::Ended(Outcome::TimedOut { after: limit }),
    }
}

/// How an attempt ended in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The run is in this state now; if it is queued, when and why it is tried again.
    As(State, Option<(Timestamp, Option<String>)>),
    /// The lease was not the run's any more: the result was dropped.
    Fenced,
    /// The store is closed or failed: the next start takes the run up.
    Unknown,
}

/// What is to be ended.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    /// Whose breaker hears of it; none: nobody's.
    pub agent: Option<&'a Agent>,
    pub lease: Lease,
    pub standing: Standing,
    pub policy: &'a Policy,
}

/// Ends the attempt in the store, and tells the agent's breaker.
pub(crate) async fn conclude(house: &House, end: End<'_>, outcome: Outcome) -> Ended {
    let sign = Sign::of(&outcome);
    let ended = put(house, end, outcome).await;
    if let Some(agent) = end.agent {
        // A result that came too late tells nothing, but a probe that gave it is over.
        let sign = if matches!(ended, Ended::As(..)) { sign } else { Sign::None };
        house.attempt_ended(agent, end.lease.run, sign).await;
    }
    ended
}

/// Decides and puts the decision into the store, however long that takes: what an agent did must not be lost because the
/// disk is full for a while.
async fn put(house: &House, end: End<'_>, outcome: Outcome) -> Ended {
    let End { lease, standing, policy, .. } = end;
    let transition = decide(standing, outcome, policy, &house.clock);
    let mut pause = Duration::from_millis(50);
    loop {
        match house.store.finish(lease, transition.clone(), house.clock.now()).await {
            Ok(Finished::Done) => {
                let again = (transition.to == State::Queued).then_some((transition.due_at, transition.why));
                return Ended::As(transition.to, again);
            }
            Ok(Finished::Fenced) => return Ended::Fenced,
            Err(StoreError::Unavailable(error)) => {
                tracing::warn!(run.id = %lease.run, error, "a result could not be stored; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(error) => {
                log_lost(lease, &transition, &error);
                return Ended::Unknown;
            }
        }
    }
}

fn log_lost(lease: Lease, transition: &Transition, error: &StoreError) {
    tracing::error!(run.id = %lease.run, state = %transition.to, %error, "a result could not be stored; the run is tried again after the next start");
}

fn tell(agent: &Name, lease: Lease, ended: Ended, took: Duration) {
    let Ended::As(state, again) = ended else {
        tracing::warn!(run.id = %lease.run, agent = %agent, "an attempt's result was dropped: its lease was no longer the run's");
        metrics::counter!("doorbell_attempts_dropped_total", "agent" => agent.to_string()).increment(1);
        return;
    };
    match (state, again) {
        (_, Some((due, why))) => {
            // What follows the first line is the end of the agent's own log, which `runs show` has.
            let why = why.as_deref().and_then(|why| why.lines().next()).unwrap_or_default();
            tracing::info!(run.id = %lease.run, agent = %agent, %state, duration_ms = took.as_millis(), why, due_at = %due, "an attempt ended; the run is tried again");
        }
        (State::Failed, None) => {
            tracing::warn!(run.id = %lease.run, agent = %agent, duration_ms = took.as_millis(), "a run failed for good; `doorbell runs show` tells why");
        }
        (_, None) => {
            tracing::info!(run.id = %lease.run, agent = %agent, %state, duration_ms = took.as_millis(), "an attempt ended");
        }
    }
    metrics::counter!("doorbell_attempts_total", "agent" => agent.to_string(), "state" => state.as_str()).increment(1);
    metrics::histogram!("doorbell_attempt_seconds", "agent" => agent.to_string()).record(took.as_secs_f64());
}

fn standing(work: &Work) -> Standing {
    Standing { attempt: work.run.attempt, created_at: work.run.created_at }
}

/// For runs whose agent is gone: they wait for it.
pub(super) fn held_policy() -> Policy {
    Policy {
        retries: crate::retry::Retries::default(),
        max_age: Duration::from_secs(365 * 86_400),
        passing: crate::lane::Passing::default(),
    }
}
