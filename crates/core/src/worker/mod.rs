//! The worker: claims due runs lane by lane within each agent's and trigger's places, has them carried out, and puts
//! what they said back into the store. It meets the door only in the store.
//!
//! Woken by notification, with a poll as the net; everything it needs to go on after a crash is in the store.

mod attempt;
mod complete;
mod leases;
mod output;
mod reaper;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use complete::{CompleteError, complete};
pub use leases::LeaseTimes;

use crate::attempt::StopReason;
use crate::breaker;
use crate::house::House;
use crate::ids::Name;
use crate::ports::{Claim, Notice, StoreError};
use crate::run::State;

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Where agents reach our API; none: they are not told.
    pub api_url: Option<String>,
    /// Leases and heartbeat.
    pub leases: LeaseTimes,
    /// How often it looks without being woken.
    pub poll: Duration,
    /// At most this many attempts at once, over all agents.
    pub max_attempts: usize,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { api_url: None, leases: LeaseTimes::default(), poll: Duration::from_secs(2), max_attempts: 1024 }
    }
}

/// A worker at work.
pub struct Worker {
    inner: Arc<Inner>,
    quit: CancellationToken,
    tasks: TaskTracker,
}

struct Inner {
    house: Arc<House>,
    options: WorkerOptions,
    holder: u64,
    slots: Arc<slots::Slots>,
    leases: Arc<leases::Leases>,
    attempts: TaskTracker,
    deferred: reaper::DeferredRuns,
}

impl Worker {
    /// Recovers what a dead process left, then starts to work.
    ///
    /// # Errors
    /// What the store says if the recovery could not be done; then nothing was started.
    pub async fn start(house: Arc<House>, options: WorkerOptions) -> Result<Self, StoreError> {
        let inner = Arc::new(Inner {
            holder: house.clock.random() | 1,
            slots: Arc::default(),
            leases: Arc::default(),
            attempts: TaskTracker::new(),
            deferred: reaper::DeferredRuns::default(),
            house,
            options,
        });
        reaper::recover(&inner).await?;
        let quit = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(until(quit.clone(), claim_loop(Arc::clone(&inner))));
        tasks.spawn(until(quit.clone(), listen(Arc::clone(&inner))));
        tasks.spawn(until(quit.clone(), reaper::watch(Arc::clone(&inner))));
        // The heartbeat outlives the claim loop: attempts that finish during a soft stop keep their leases.
        let beat = leases::heartbeat(Arc::clone(&inner.leases), Arc::clone(&inner.house), inner.options.leases);
        let attempts = inner.attempts.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = beat => {}
                () = attempts.wait() => {}
            }
        });
        Ok(Self { inner, quit, tasks })
    }

    /// How many attempts run now.
    pub fn running(&self) -> usize {
        self.inner.slots.all()
    }

    /// The runs that attempts are made at now.
    pub fn at_work(&self) -> Vec<crate::ids::RunId> {
        self.inner.leases.runs()
    }

    /// Stops: claims nothing more, lets attempts end for `patience`, then ends the rest (they are tried again after the
    /// next start) and waits until their process trees are gone.
    pub async fn stop(&self, patience: Duration) {
        self.quit.cancel();
        self.inner.attempts.close();
        if tokio::time::timeout(patience, self.inner.attempts.wait()).await.is_err() {
            tracing::info!(attempts = self.inner.attempts.len(), "ending the attempts that still run");
            self.inner.leases.ask_all(StopReason::Shutdown);
            self.inner.attempts.wait().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("running", &self.running()).finish_non_exhaustive()
    }
}

async fn until(quit: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = quit.cancelled() => {}
        () = work => {}
    }
}

/// Claims and starts, over and over. Registers for the wake-up before it looks, so that no notice falls between.
async fn claim_loop(inner: Arc<Inner>) {
    let ready = inner.house.store.ready();
    let mut changes = inner.house.changes();
    loop {
        let woken = ready.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let pause = match claim_once(&inner).await {
            Ok(Looked::Found) => continue,
            Ok(Looked::Nothing { next_due }) => {
                let until_due = next_due.map(|due| due.since(inner.house.clock.now()));
                until_due.map_or(inner.options.poll, |d| d.max(Duration::from_millis(1)).min(inner.options.poll))
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "could not claim work; trying again in a moment");
                inner.options.poll.min(Duration::from_secs(1))
            }
        };
        tokio::select! {
            () = &mut woken => {}
            () = inner.slots.freed() => {}
            _ = changes.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

enum Looked {
    Found,
    Nothing { next_due: Option<crate::clock::Timestamp> },
}

async fn claim_once(inner: &Arc<Inner>) -> Result<Looked, StoreError> {
    let catalog = inner.house.catalog();
    let limit = inner.options.max_attempts.saturating_sub(inner.slots.all());
    let agents: Vec<(Name, u32)> = catalog
        .agents
        .values()
        .filter(|agent| !inner.house.is_paused(agent))
        .map(|agent| {
            let free = agent.concurrency.saturating_sub(inner.slots.of_agent(&agent.name));
            (agent.name.clone(), inner.house.places(agent, free))
        })
        .filter(|(_, free)| *free > 0)
        .collect();
    let triggers: Vec<(Name, u32)> = catalog
        .triggers
        .values()
        .map(|t| {
            let cap = t.max_concurrent.unwrap_or(u32::MAX);
            (t.name.clone(), cap.saturating_sub(inner.slots.of_trigger(&t.name)))
        })
        .filter(|(_, free)| *free > 0)
        .collect();
    // A breaker that is open now lets a run go then, though nothing else stirs.
    let reopens = catalog.agents.values().filter_map(|agent| match inner.house.breaker(agent) {
        Some((breaker::State::Open(until), _)) => Some(until),
        _ => None,
    });
    let reopens = reopens.min();
    if limit == 0 || agents.is_empty() || triggers.is_empty() {
        return Ok(Looked::Nothing { next_due: reopens });
    }
    let now = inner.house.clock.now();
    let claimed_at = Instant::now();
    let claim =
        Claim { now, lease_until: now + inner.options.leases.term, holder: inner.holder, limit, agents, triggers };
    let claimed = inner.house.store.claim(claim).await?;
    if claimed.work.is_empty() {
        let next_due = claimed.next_due.into_iter().chain(reopens).min();
        return Ok(Looked::Nothing { next_due });
    }
    for work in claimed.work {
        attempt::start(inner, &catalog, work, claimed_at);
    }
    Ok(Looked::Found)
}

/// Carries notices to those they concern.
async fn listen(inner: Arc<Inner>) {
    let mut notices = inner.house.store.notices();
    loop {
        match notices.recv().await {
            Ok(Notice::CancelAsked(run)) => {
                inner.leases.ask(run, StopReason::Cancelled);
                inner.deferred.cancel(&inner, run).await;
            }
            Ok(Notice::Moved(run, state)) if state != State::Running => inner.deferred.release(run),
            Ok(Notice::Moved(..)) => {}
            Ok(Notice::Flags) => {
                if let Err(error) = inner.house.reload_flags().await {
                    tracing::warn!(%error, "could not read the switches again");
                }
            }
            // Nothing is lost: heartbeats learn of cancels, and the reaper of ended runs.
            Err(RecvError::Lagged(_)) => inner.deferred.look(&inner).await,
            Err(RecvError::Closed) => return,
        }
    }
}
