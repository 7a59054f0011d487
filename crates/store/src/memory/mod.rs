//! The reference store: everything in memory, one lock, no I/O. Tests and `doorbell demo` may run on it; the conformance
//! suite and the model test compare the others with it. Nothing survives the process.

mod edge;
mod secrets;
mod show;
mod state;

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use doorbell_core::breaker::Standing;
use doorbell_core::decision::{Decision, NewDecision};
use doorbell_core::event::{Admission, Event, Receipt};
use doorbell_core::keys::{Key, KeyHash, KeyId};
use doorbell_core::ports::{
    Child, Claim, Claimed, DecisionQuery, EventQuery, Finished, Flag, LeaseStatus, LogPiece, Notice, Page, PageFrom,
    PageRequest, Piece, QueueStats, Renewal, Retention, RunQuery, Stale, StaleRun, Store, StoreError, Swept, Work,
};
use doorbell_core::registration::Registration;
use doorbell_core::run::{Lease, NewRun, Run, State, Transition};
use doorbell_core::seal::{Earlier, KeptSecret, NewSecret, OpenPairing, Sealed, SecretName};
use doorbell_core::{Clock, EventId, Name, RunId, StoreTag, Timestamp};
use tokio::sync::{Notify, broadcast};

use crate::filter;
use state::Tables;

/// The store in memory.
pub struct MemoryStore {
    tag: StoreTag,
    token_key: [u8; 32],
    /// None: closed.
    tables: Mutex<Option<Tables>>,
    notices: broadcast::Sender<Notice>,
    ready: Arc<Notify>,
}

impl MemoryStore {
    /// An empty store; tag and key are drawn from the clock's dice.
    pub fn new(clock: &Clock) -> Arc<Self> {
        let tag = StoreTag::new(clock.random());
        let mut token_key = [0; 32];
        for chunk in token_key.chunks_mut(8) {
            chunk.copy_from_slice(&clock.random().to_be_bytes());
        }
        Arc::new(Self {
            tag,
            token_key,
            tables: Mutex::new(Some(Tables::new(tag))),
            notices: broadcast::Sender::new(1024),
            ready: Arc::new(Notify::new()),
        })
    }

    /// Works on the tables under the lock, then tells the world what moved.
    fn with<O>(&self, work: impl FnOnce(&mut Tables) -> Result<O, StoreError>) -> Result<O, StoreError> {
        let mut guard =
            self.tables.lock().map_err(|_| StoreError::Fatal("a call panicked while it changed the store".into()))?;
        let tables = guard.as_mut().ok_or(StoreError::Closed)?;
        let said = work(tables);
        let notices = std::mem::take(&mut tables.notices);
        let ready = std::mem::take(&mut tables.ready);
        drop(guard);
        for notice in notices {
            let _ = self.notices.send(notice);
        }
        if ready {
            self.ready.notify_one();
        }
        said
    }
}

/// A page of `all`, which are in order of their places, oldest first.
fn page_of<T>(all: Vec<(u64, T)>, request: PageRequest) -> Page<T> {
    let wanted = filter::wanted(request);
    let found = match request.from {
        PageFrom::Start => all.into_iter().rev().take(wanted).collect(),
        PageFrom::Before(place) => all.into_iter().rev().filter(|(at, _)| *at < place).take(wanted).collect(),
        PageFrom::After(place) => all.into_iter().filter(|(at, _)| *at > place).take(wanted).collect(),
    };
    filter::page(request, found, None)
}

fn lost(lease: Lease) -> StoreError {
    StoreError::Conflict(format!("the lease on run {} is no longer held", lease.run))
}

#[async_trait]
impl Store for MemoryStore {
    fn tag(&self) -> StoreTag {
        self.tag
    }

    fn token_key(&self) -> [u8; 32] {
        self.token_key
    }

    async fn accept(&self, admission: Admission) -> Result<Vec<Receipt>, StoreError> {
        self.with(|tables| tables.accept(&admission))
    }

    fn note(&self, decision: NewDecision) {
        // A closed store drops notes, as its contract allows.
        let _ = self.with(|tables| {
            tables.decide(&decision, true);
            Ok(())
        });
    }

    async fn record(&self, decision: NewDecision) -> Result<(), StoreError> {
        self.with(|tables| {
            tables.decide(&decision, false);
            Ok(())
        })
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        self.with(|tables| {
            let (leases, next_due) = tables.claim(&claim);
            let mut work = Vec::new();
            for lease in leases {
                let run = tables.run(lease.run)?;
                let event = tables.events.get(&run.event.seq).map(|stored| stored.event.clone());
                let event = event.ok_or_else(|| StoreError::NotFound(format!("event {}", run.event)))?;
                work.push(Work { lease, run, event });
            }
            Ok(Claimed { work, next_due })
        })
    }

    async fn renew(&self, leases: Vec<Lease>, until: Timestamp) -> Result<Vec<Renewal>, StoreError> {
        self.with(|tables| {
            let renew = |lease: Lease| {
                let status = match tables.held(lease) {
                    None => LeaseStatus::Lost,
                    Some(run) => {
                        run.record.lease_until = run.record.lease_until.max(Some(until));
                        match run.record.cancel_by {
                            Some(_) => LeaseStatus::CancelAsked,
                            None => LeaseStatus::Held,
                        }
                    }
                };
                Renewal { lease, status }
            };
            Ok(leases.into_iter().map(renew).collect())
        })
    }

    async fn finish(&self, lease: Lease, transition: Transition, now: Timestamp) -> Result<Finished, StoreError> {
        self.with(|tables| Ok(tables.finish(lease, &transition, now)))
    }

    async fn defer(&self, lease: Lease, until: Timestamp) -> Result<Finished, StoreError> {
        self.with(|tables| {
            let Some(run) = tables.held(lease) else { return Ok(Finished::Fenced) };
            run.record.deferred = true;
            run.record.lease_until = Some(until);
            Ok(Finished::Done)
        })
    }

    async fn append_log(&self, lease: Lease, pieces: Vec<Piece>) -> Result<(), StoreError> {
        self.with(|tables| {
            let run = tables.held(lease).ok_or_else(|| lost(lease))?;
            for piece in pieces {
                let n = run.log.len() as u64 + 1;
                let Piece { at, stream, bytes } = piece;
                run.log.push(LogPiece { n, attempt: run.record.attempt, at, stream, bytes });
            }
            Ok(())
        })
    }

    async fn note_child(&self, lease: Lease, child: Child) -> Result<(), StoreError> {
        self.with(|tables| {
            let children = &mut tables.held(lease).ok_or_else(|| lost(lease))?.record.children;
            if !children.contains(&child) {
                children.push(child);
            }
            Ok(())
        })
    }

    async fn stale(&self, which: Stale, limit: usize) -> Result<Vec<StaleRun>, StoreError> {
        self.with(|tables| Ok(tables.stale(which, limit)))
    }

    async fn cancel(&self, run: RunId, by: String, now: Timestamp) -> Result<State, StoreError> {
        self.with(|tables| tables.cancel(run, &by, now))
    }

    async fn retry(&self, run: RunId, by: String, now: Timestamp) -> Result<(), StoreError> {
        self.with(|tables| tables.requeue(run, format!("retried by {by}"), now))
    }

    async fn replay(&self, event: EventId, runs: Vec<NewRun>, now: Timestamp) -> Result<Vec<RunId>, StoreError> {
        self.with(|tables| tables.replay(event, &runs, now))
    }

    async fn set_flag(&self, flag: Flag, value: bool, _now: Timestamp) -> Result<(), StoreError> {
        self.with(|tables| {
            let key = match &flag {
                Flag::AgentPaused(name) => (0, name.clone()),
                Flag::TriggerDisabled(name) => (1, name.clone()),
            };
            tables.flags.insert(key, (flag, value));
            tables.notices.push(Notice::Flags);
            tables.ready = true;
            Ok(())
        })
    }

    async fn flags(&self) -> Result<Vec<(Flag, bool)>, StoreError> {
        self.with(|tables| Ok(tables.flags.values().cloned().collect()))
    }

    async fn event(&self, id: EventId) -> Result<Event, StoreError> {
        self.with(|tables| {
            let stored = tables.events.get(&id.seq).filter(|_| id.store == tables.tag);
            stored.map(|s| s.event.clone()).ok_or_else(|| StoreError::NotFound(format!("event {id}")))
        })
    }

    async fn events(&self, query: EventQuery, page: PageRequest) -> Result<Page<Event>, StoreError> {
        self.with(|tables| {
            let shown = tables.events.values().map(|stored| Event { body: None, ..stored.event.clone() });
            Ok(page_of(shown.filter(|e| filter::event(&query, e)).map(|e| (e.id.seq, e)).collect(), page))
        })
    }

    async fn run(&self, id: RunId) -> Result<Run, StoreError> {
        self.with(|tables| tables.run(id))
    }

    async fn runs(&self, query: RunQuery, page: PageRequest) -> Result<Page<Run>, StoreError> {
        self.with(|tables| {
            let shown = tables.all_runs().into_iter().filter(|run| filter::run(&query, run));
            Ok(page_of(shown.map(|run| (run.id.seq, run)).collect(), page))
        })
    }

    async fn decisions(&self, query: DecisionQuery, page: PageRequest) -> Result<Page<Decision>, StoreError> {
        self.with(|tables| {
            let of_events = tables.events.values().map(|stored| crate::record::decision_of(stored.event.clone()));
            let others = tables.decisions.values().map(|stored| stored.decision.clone());
            let mut all: Vec<_> =
                of_events.chain(others).filter(|d| filter::decision(&query, d)).map(|d| (d.id.seq, d)).collect();
            all.sort_by_key(|(place, _)| *place);
            Ok(page_of(all, page))
        })
    }

    async fn log(&self, run: RunId, after: u64, limit: usize) -> Result<Vec<LogPiece>, StoreError> {
        self.with(|tables| {
            let stored = tables.runs.get(&run.seq).filter(|_| run.store == tables.tag);
            let stored = stored.ok_or_else(|| StoreError::NotFound(format!("run {run}")))?;
            Ok(stored.log.iter().filter(|piece| piece.n > after).take(limit).cloned().collect())
        })
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, StoreError> {
        self.with(|tables| Ok(tables.stats()))
    }

    async fn sweep(&self, retention: Retention, now: Timestamp) -> Result<Swept, StoreError> {
        self.with(|tables| Ok(tables.sweep(&retention, now)))
    }

    async fn backup(&self, _to: &Path) -> Result<(), StoreError> {
        Err(StoreError::Conflict("a store in memory cannot be backed up: use a database file".into()))
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.with(|_| Ok(()))
    }

    fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    fn ready(&self) -> Arc<Notify> {
        self.ready.clone()
    }

    async fn close(&self) {
        if let Ok(mut tables) = self.tables.lock() {
            tables.take();
        }
    }

    async fn breakers(&self) -> Result<Vec<(Name, Standing)>, StoreError> {
        self.with(|tables| Ok(tables.edge.breakers.clone().into_iter().collect()))
    }

    async fn set_breaker(&self, agent: Name, standing: Standing) -> Result<(), StoreError> {
        self.with(|tables| {
            tables.edge.breakers.insert(agent, standing);
            Ok(())
        })
    }

    async fn add_key(&self, key: Key) -> Result<(), StoreError> {
        self.with(|tables| tables.edge.add_key(key))
    }

    async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        self.with(|tables| Ok(tables.edge.keys.clone()))
    }

    async fn key(&self, id: KeyId) -> Result<Option<Key>, StoreError> {
        self.with(|tables| Ok(tables.edge.keys.iter().find(|k| k.id == id).cloned()))
    }

    async fn rotate_key(&self, id: KeyId, hash: KeyHash, until: Timestamp) -> Result<Key, StoreError> {
        self.with(|tables| tables.edge.rotate_key(&id, hash, until))
    }

    async fn remove_key(&self, id: KeyId) -> Result<(), StoreError> {
        self.with(|tables| tables.edge.remove_key(&id))
    }

    async fn key_used(&self, id: KeyId, at: Timestamp) -> Result<(), StoreError> {
        self.with(|tables| {
            tables.edge.key_used(&id, at);
            Ok(())
        })
    }

    async fn put_secret(&self, secret: NewSecret, earlier: Earlier) -> Result<(), StoreError> {
        self.with(|tables| tables.secrets.put(secret, earlier))
    }

    async fn secret(&self, name: SecretName) -> Result<Vec<KeptSecret>, StoreError> {
        self.with(|tables| Ok(tables.secrets.all().filter(|k| k.secret.name == name).cloned().collect()))
    }

    async fn secrets(&self) -> Result<Vec<KeptSecret>, StoreError> {
        self.with(|tables| Ok(tables.secrets.all().cloned().collect()))
    }

    async fn reseal_secret(&self, id: u64, sealed: Sealed) -> Result<(), StoreError> {
        self.with(|tables| {
            tables.secrets.reseal(id, sealed);
            Ok(())
        })
    }

    async fn open_pairing(&self, pairing: OpenPairing) -> Result<(), StoreError> {
        self.with(|tables| {
            tables.secrets.pairings.insert(pairing.source.clone(), pairing);
            Ok(())
        })
    }

    async fn pairings(&self) -> Result<Vec<OpenPairing>, StoreError> {
        self.with(|tables| Ok(tables.secrets.pairings.values().cloned().collect()))
    }

    async fn close_pairing(&self, source: Name) -> Result<(), StoreError> {
        self.with(|tables| {
            tables.secrets.pairings.remove(&source);
            Ok(())
        })
    }

    async fn take_paired(&self, source: Name, secret: NewSecret) -> Result<bool, StoreError> {
        self.with(|tables| tables.secrets.take(&source, secret))
    }

    async fn remove_secret(&self, name: SecretName) -> Result<(), StoreError> {
        self.with(|tables| tables.secrets.remove(&name))
    }

    async fn put_registration(&self, agent: Registration) -> Result<Registration, StoreError> {
        self.with(|tables| Ok(tables.edge.put_registration(agent)))
    }

    async fn registration(&self, agent: Name) -> Result<Option<Registration>, StoreError> {
        self.with(|tables| Ok(tables.edge.registrations.get(&agent).cloned()))
    }

    async fn registrations(&self) -> Result<Vec<Registration>, StoreError> {
        self.with(|tables| Ok(tables.edge.registrations.values().cloned().collect()))
    }

    async fn remove_registration(&self, agent: Name) -> Result<(), StoreError> {
        self.with(|tables| tables.edge.remove_registration(&agent))
    }
}
