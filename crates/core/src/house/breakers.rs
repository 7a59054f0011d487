//! The breakers of the agents: their state in memory, what has to survive in the store. The worker asks for places and tells
//! how attempts ended; the door, `/ready` and the API look.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::House;
use crate::agent::Agent;
use crate::breaker::{Breaker, Sign, Standing, State};
use crate::ids::{Name, RunId};
use crate::ports::StoreError;

/// Those that were ever looked at.
#[derive(Debug, Default)]
pub(super) struct Breakers(Mutex<BTreeMap<Name, Breaker>>);

impl Breakers {
    pub(super) fn new(kept: Vec<(Name, Standing)>) -> Self {
        Self(Mutex::new(kept.into_iter().map(|(name, standing)| (name, Breaker::new(standing))).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Breaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl House {
    /// How the agent's breaker stands, and its failures; none if it is not to have one.
    pub fn breaker(&self, agent: &Agent) -> Option<(State, u32)> {
        agent.breaker?;
        let breaker = self.breakers.lock().get(&agent.name).copied().unwrap_or_default();
        Some((breaker.state(self.clock.now()), breaker.standing().failures))
    }

    /// Whether the agent's breaker holds runs back.
    pub fn is_broken(&self, agent: &Agent) -> bool {
        self.breaker(agent).is_some_and(|(state, _)| state != State::Closed)
    }

    /// How many of `free` places the agent's breaker lets runs have.
    pub(crate) fn places(&self, agent: &Agent, free: u32) -> u32 {
        match (agent.breaker, self.breakers.lock().get(&agent.name)) {
            (Some(_), Some(breaker)) => breaker.places(free, self.clock.now()),
            _ => free,
        }
    }

    /// A run of the agent was taken up.
    pub(crate) fn attempt_started(&self, agent: &Agent, run: RunId) {
        if agent.breaker.is_some()
            && let Some(breaker) = self.breakers.lock().get_mut(&agent.name)
        {
            breaker.started(run, self.clock.now());
        }
    }

    /// The agent will call back on a run of its own.
    pub(crate) fn attempt_deferred(&self, agent: &Agent, run: RunId) {
        let is_moved = self.breakers.lock().get_mut(&agent.name).is_some_and(|breaker| {
            let before = *breaker;
            breaker.deferred(run);
            before != *breaker
        });
        if is_moved {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// An attempt of the agent ended.
    pub(crate) async fn attempt_ended(&self, agent: &Agent, run: RunId, sign: Sign) {
        let Some(settings) = agent.breaker else { return };
        let now = self.clock.now();
        let (before, after) = {
            let mut breakers = self.breakers.lock();
            let breaker = breakers.entry(agent.name.clone()).or_default();
            let before = *breaker;
            breaker.ended(run, sign, settings, now);
            (before, *breaker)
        };
        if before.standing() == after.standing() {
            // A probe that said nothing: the next one may go.
            if before != after {
                self.changed.send_modify(|n| *n += 1);
            }
            return;
        }
        match after.state(now) {
            State::Open(until) => {
                metrics::counter!("doorbell_breaker_opened_total", "agent" => agent.name.to_string()).increment(1);
                tracing::warn!(agent = %agent.name, failures = after.standing().failures, %until, "An agent failed too often in a row; its runs are held");
            }
            State::Closed if before.standing().open_until.is_some() => {
                tracing::info!(agent = %agent.name, "An agent works again; its runs go on");
            }
            _ => {}
        }
        self.changed.send_modify(|n| *n += 1);
        // What is in memory counts; without this the count begins anew after a restart.
        if let Err(error) = self.store.set_breaker(agent.name.clone(), after.standing()).await {
            tracing::warn!(agent = %agent.name, %error, "how a breaker stands could not be stored");
        }
    }

    /// Closes the agent's breaker: a person says that it works again.
    ///
    /// # Errors
    /// What the store says if it cannot be written; then nothing changed.
    pub async fn close_breaker(&self, agent: &Agent) -> Result<(), StoreError> {
        if agent.breaker.is_none() {
            return Ok(());
        }
        self.store.set_breaker(agent.name.clone(), Standing::default()).await?;
        self.breakers.lock().insert(agent.name.clone(), Breaker::default());
        self.changed.send_modify(|n| *n += 1);
        Ok(())
    }
}
