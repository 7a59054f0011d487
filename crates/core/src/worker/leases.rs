//! The leases this process holds, and their heartbeat. One renewal call for all; whoever is told that a lease is lost,
//! or cannot renew in time, ends its attempt before the lease lapses, so that no two attempts overlap.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::attempt::{Stop, StopReason};
use crate::house::House;
use crate::ids::RunId;
use crate::ports::LeaseStatus;
use crate::run::Lease;

/// How long a lease lasts, how often it is renewed, and how long before its end an attempt is ended.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTimes {
    /// From a renewal to the lapse.
    pub term: Duration,
    /// Between renewals.
    pub beat: Duration,
    /// Kept for ending a process tree before the lapse.
    pub margin: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { term: Duration::from_secs(30), beat: Duration::from_secs(8), margin: Duration::from_secs(10) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<RunId, Held>>);

#[derive(Debug)]
struct Held {
    lease: Lease,
    stop: Stop,
    renewed: Instant,
}

impl Leases {
    /// Adds a lease that was claimed at `claimed` (monotonic, taken before the claim was asked for).
    pub(super) fn add(&self, lease: Lease, stop: Stop, claimed: Instant) {
        self.lock().insert(lease.run, Held { lease, stop, renewed: claimed });
    }

    pub(super) fn remove(&self, lease: Lease) {
        let mut held = self.lock();
        if held.get(&lease.run).is_some_and(|h| h.lease == lease) {
            held.remove(&lease.run);
        }
    }

    pub(super) fn holds(&self, run: RunId) -> bool {
        self.lock().contains_key(&run)
    }

    /// The runs that attempts are made at now, in the order of their ids.
    pub(super) fn runs(&self) -> Vec<RunId> {
        let mut runs: Vec<RunId> = self.lock().keys().copied().collect();
        runs.sort_unstable();
        runs
    }

    /// Asks the attempt on `run` to end, if it is ours.
    pub(super) fn ask(&self, run: RunId, reason: StopReason) {
        if let Some(held) = self.lock().get(&run) {
            held.stop.ask(reason);
        }
    }

    /// Asks all attempts to end.
    pub(super) fn ask_all(&self, reason: StopReason) {
        for held in self.lock().values() {
            held.stop.ask(reason);
        }
    }

    /// One heartbeat: renews all, ends what is lost, cancelled or about to lapse.
    pub(super) async fn beat(&self, house: &House, times: LeaseTimes) {
        let leases: Vec<Lease> = self.lock().values().map(|h| h.lease).collect();
        if leases.is_empty() {
            return;
        }
        let asked = Instant::now();
        match house.store.renew(leases, house.clock.now() + times.term).await {
            Ok(renewals) => {
                let mut held = self.lock();
                for renewal in renewals {
                    let Some(mine) = held.get_mut(&renewal.lease.run).filter(|h| h.lease == renewal.lease) else {
                        continue;
                    };
                    match renewal.status {
                        LeaseStatus::Held => mine.renewed = asked,
                        LeaseStatus::CancelAsked => {
                            mine.renewed = asked;
                            mine.stop.ask(StopReason::Cancelled);
                        }
                        LeaseStatus::Lost => mine.stop.ask(StopReason::LeaseLost),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "leases could not be renewed; attempts are ended if this goes on");
            }
        }
        let latest = times.term.saturating_sub(times.margin);
        for held in self.lock().values().filter(|h| h.renewed.elapsed() > latest) {
            held.stop.ask(StopReason::LeaseLost);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beats until dropped.
pub(super) async fn heartbeat(leases: Arc<Leases>, house: Arc<House>, times: LeaseTimes) {
    let mut ticks = tokio::time::interval(times.beat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        leases.beat(&house, times).await;
    }
}
