//! What became of attempts that nobody speaks for any more: those of a dead process at start, those whose lease lapsed,
//! and those whose agent promised to call back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Inner;
use super::attempt::{End, conclude, held_policy};
use super::slots::Slot;
use crate::attempt::{Outcome, Usage};
use crate::ids::RunId;
use crate::ports::{PageFrom, PageRequest, RunQuery, Stale, StaleRun, StoreError};
use crate::run::{Lease, Standing, State};

/// How many stale runs are taken up in one go.
const AT_ONCE: usize = 256;

/// Places kept for agents that will call back.
#[derive(Debug, Default)]
pub(super) struct DeferredRuns(Mutex<HashMap<RunId, Slot>>);

impl DeferredRuns {
    pub(super) fn add(&self, run: RunId, slot: Slot) {
        self.lock().insert(run, slot);
    }

    /// The run moved on: its place is free.
    pub(super) fn release(&self, run: RunId) {
        self.lock().remove(&run);
    }

    /// A person cancelled a run whose agent has not called back: nobody is there to stop, so it ends now, and a late
    /// call finds its token stale.
    pub(super) async fn cancel(&self, inner: &Arc<Inner>, run: RunId) {
        if !self.lock().contains_key(&run) {
            return;
        }
        match inner.house.store.run(run).await {
            Ok(found) if found.state == State::Running => {
                let lease = Lease { run, token: found.lease };
                let standing = Standing { attempt: found.attempt, created_at: found.created_at };
                let outcome = Outcome::Cancelled { why: "cancelled by an operator".into() };
                let (catalog, policy) = (inner.house.catalog(), held_policy());
                let agent = catalog.agents.get(&found.agent).map(AsRef::as_ref);
                conclude(&inner.house, End { agent, lease, standing, policy: &policy }, outcome).await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(run.id = %run, %error, "could not look at a run that is to be cancelled"),
        }
        self.release(run);
    }

    /// Looks at every one again, for when notices were missed.
    pub(super) async fn look(&self, inner: &Inner) {
        let runs: Vec<RunId> = self.lock().keys().copied().collect();
        for run in runs {
            match inner.house.store.run(run).await {
                Ok(found) if found.state == State::Running => {}
                Ok(_) | Err(StoreError::NotFound(_)) => self.release(run),
                Err(error) => tracing::warn!(run.id = %run, %error, "could not look at a deferred run"),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At start, in a store that one process owns: every other holder is dead. Ends what it left behind and queues its runs
/// again; takes the places of runs whose agents will still call back.
pub(super) async fn recover(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let mut voided = 0usize;
    loop {
        let stale = inner.house.store.stale(Stale::NotHeldBy(inner.holder), AT_ONCE).await?;
        if stale.is_empty() {
            break;
        }
        voided += stale.len();
        for run in stale {
            take_up(inner, run, "the program stopped or crashed while it ran").await?;
        }
    }
    if voided > 0 {
        tracing::info!(runs = voided, "took up the runs that a dead process left");
    }
    let mut from = PageFrom::Start;
    loop {
        let query = RunQuery { states: vec![State::Running], ..RunQuery::default() };
        let page = inner.house.store.runs(query, PageRequest { limit: AT_ONCE, from }).await?;
        for run in page.items {
            inner.deferred.add(run.id, inner.slots.take(&run.agent, &run.trigger));
        }
        match page.next {
            Some(place) => from = PageFrom::Before(place),
            None => return Ok(()),
        }
    }
}

/// Takes up runs whose lease lapsed. Our own attempts are left to the monotonic clock: a jump of the wall clock must not
/// start a second attempt beside a living one.
pub(super) async fn watch(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(inner.options.poll);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = inner.house.clock.now();
        let stale = match inner.house.store.stale(Stale::LapsedBefore(now), AT_ONCE).await {
            Ok(stale) => stale,
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "could not look for lapsed leases");
                continue;
            }
        };
        for run in stale.into_iter().filter(|s| !inner.leases.holds(s.lease.run)) {
            let id = run.lease.run;
            if let Err(error) = take_up(&inner, run, "its lease lapsed").await {
                tracing::warn!(run.id = %id, %error, "could not take up a run whose lease lapsed");
            }
            inner.deferred.release(id);
        }
    }
}

async fn take_up(inner: &Inner, stale: StaleRun, why: &str) -> Result<(), StoreError> {
    let catalog = inner.house.catalog();
    let agent = catalog.agents.get(&stale.agent);
    let passing = catalog.triggers.get(&stale.trigger).map(|t| t.passing).unwrap_or_default();
    if let Some(agent) = agent {
        agent.runner.reap(stale.lease.run, &stale.children).await;
    }
    let outcome = match agent {
        _ if stale.cancelling => Outcome::Cancelled { why: "cancelled by an operator".into() },
        Some(agent) if stale.deferred => Outcome::TimedOut { after: agent.time_limit },
        Some(_) => Outcome::Lost { why: why.into() },
        None => Outcome::Snoozed { after: std::time::Duration::ZERO, why: why.into(), usage: Usage::default() },
    };
    let policy = agent.map_or_else(held_policy, |agent| agent.policy(passing));
    let standing = Standing { attempt: stale.attempt, created_at: stale.created_at };
    let end = End { agent: agent.map(AsRef::as_ref), lease: stale.lease, standing, policy: &policy };
    match conclude(&inner.house, end, outcome).await {
        super::attempt::Ended::Unknown => Err(StoreError::Unavailable("a stale run could not be moved".into())),
        _ => Ok(()),
    }
}
