//! The seams: what the middle asks of the adapters. Three traits matter: [`Store`] moves state and never decides,
//! [`Runner`] executes an agent and never sees the store, [`Fetch`] is the one guarded way out over HTTP.
//!
//! Every method that needs the hour is told it. All are `dyn`, coarse and few.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use ipnet::IpNet;
use tokio::sync::broadcast;

use crate::attempt::{Attempt, Outcome};
pub use crate::attempt::{Child, OutputSink, Stream};
use crate::breaker;
use crate::clock::Timestamp;
use crate::decision::{Decision, NewDecision};
use crate::event::{Admission, Event, Receipt};
use crate::ids::{EventId, Name, RunId, StoreTag};
use crate::keys::{Key, KeyHash, KeyId};
pub use crate::lists::{
    DecisionQuery, EventQuery, Page, PageFrom, PageRequest, QueueStats, Retention, RunQuery, Swept,
};
use crate::registration::Registration;
use crate::run::{Lease, NewRun, Run, State, Transition};
use crate::seal::{Earlier, KeptSecret, NewSecret, OpenPairing, Sealed, SecretName};

/// Executes an agent. One implementation a runner kind, in `doorbell-agents`; embedders bring their own.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Carries out one attempt. Must end soon after [`Attempt::stop`] asks, and within [`Attempt::time_limit`] by itself
    /// (then the outcome is `TimedOut`), and must leave no process behind. A panic is taken as a failure to try again.
    async fn run(&self, attempt: Attempt) -> Verdict;

    /// Whether its agents may take the work and call back ([`Verdict::Deferred`]). For others a call back is refused: the
    /// lane must not go on while the agent still runs.
    fn calls_back(&self) -> bool {
        false
    }

    /// Ends what an attempt of a process that is gone left behind on this machine. `children` is what the attempt
    /// reported through [`OutputSink::child`]. Called before the run is tried again; must be safe to call twice.
    async fn reap(&self, run: RunId, children: &[Child]) {
        let _ = (run, children);
    }
}

/// What a runner returns.
#[derive(Debug)]
pub enum Verdict {
    /// The attempt ended.
    Ended(Outcome),
    /// The agent took the work and will call back with the run token before the deadline. The attempt keeps its lease
    /// and its place until then, also across a restart.
    Deferred,
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        Self::Ended(outcome)
    }
}

/// What went wrong in the store, by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot write now (disk full, read-only, locked); nothing was written, and the same call may be made again.
    #[error("the store cannot write now: {0}")]
    Unavailable(String),
    /// A trigger's `max_queued` is reached; nothing was written.
    #[error("the queue of trigger `{trigger}` is full ({limit} runs)")]
    QueueFull {
        /// Whose queue.
        trigger: Name,
        /// Its limit.
        limit: u32,
    },
    /// There is no such thing (or retention took it).
    #[error("there is no {0}")]
    NotFound(String),
    /// The thing is not in a state that allows this.
    #[error("{0}")]
    Conflict(String),
    /// The store is closing; try again after the restart.
    #[error("the store is closing")]
    Closed,
    /// It no longer knows what is on disk (an fsync failed, the file is damaged): the process must stop.
    #[error("the store failed and must be reopened: {0}")]
    Fatal(String),
    /// What was read back makes no sense: a defect, or a damaged file.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
}

/// What the store tells those who wait. A missed notice is no loss: everybody also polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Somebody asked to cancel a running run.
    CancelAsked(RunId),
    /// A run came to another state. That a new one is queued is no notice: [`Store::ready`] tells workers, and nobody else
    /// knows of it yet.
    Moved(RunId, State),
    /// A pause or disable flag changed.
    Flags,
}

/// Where events, runs and decisions live. Moves state, never decides.
///
/// Contracts, each held by the conformance suite of `doorbell-store`:
/// * What a method returned `Ok` for survives a crash (only [`Store::note`] may be lost).
/// * `accept` is all or nothing, and two copies of one delivery never both make runs.
/// * A run is claimed by one holder at a time; `finish` with a token that is not the run's latest, or after the run
///   left `running`, changes nothing and says [`Finished::Fenced`].
/// * At most one run of a lane is running, the oldest unfinished first, but for those that passing lets by.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// This store's tag, in every id.
    fn tag(&self) -> StoreTag;

    /// 32 random bytes made with the store, for run tokens.
    fn token_key(&self) -> [u8; 32];

    /// Commits the events of one request with their runs and decisions (duplicates' too), or nothing. Receipts come in
    /// the order of [`Admission::events`], after the commit is on disk.
    async fn accept(&self, admission: Admission) -> Result<Vec<Receipt>, StoreError>;

    /// Notes a decision on a request that was not verified: written behind, kept in a ring a source, may be dropped
    /// under flood (counted) or in a crash. Never waits.
    fn note(&self, decision: NewDecision);

    /// Records a decision that made no event; on disk when this returns.
    async fn record(&self, decision: NewDecision) -> Result<(), StoreError>;

    /// Takes due runs for a holder, oldest first, within the given limits.
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError>;

    /// Extends leases to `until`; says for each whether it still holds.
    async fn renew(&self, leases: Vec<Lease>, until: Timestamp) -> Result<Vec<Renewal>, StoreError>;

    /// Ends an attempt: moves the run as decided, if the lease is still the run's latest.
    async fn finish(&self, lease: Lease, transition: Transition, now: Timestamp) -> Result<Finished, StoreError>;

    /// Notes that the agent will call back: the lease holds until `until` without being renewed, also across restarts.
    async fn defer(&self, lease: Lease, until: Timestamp) -> Result<Finished, StoreError>;

    /// Adds pieces to the run's log; they are numbered from 1 over all attempts.
    async fn append_log(&self, lease: Lease, pieces: Vec<Piece>) -> Result<(), StoreError>;

    /// Notes a child process of the attempt.
    async fn note_child(&self, lease: Lease, child: Child) -> Result<(), StoreError>;

    /// Running runs whose lease lapsed, or whose holder is known to be dead. At most `limit`.
    async fn stale(&self, which: Stale, limit: usize) -> Result<Vec<StaleRun>, StoreError>;

    /// Cancels: queued and waiting runs at once, running ones as soon as their attempt ends ([`Notice::CancelAsked`]).
    async fn cancel(&self, run: RunId, by: String, now: Timestamp) -> Result<State, StoreError>;

    /// Queues a failed or cancelled run again, at the tail of its lane, with fresh attempts.
    async fn retry(&self, run: RunId, by: String, now: Timestamp) -> Result<(), StoreError>;

    /// Makes new runs of a stored event.
    async fn replay(&self, event: EventId, runs: Vec<NewRun>, now: Timestamp) -> Result<Vec<RunId>, StoreError>;

    /// Sets or clears a flag; it wins over the configuration file and survives restarts.
    async fn set_flag(&self, flag: Flag, value: bool, now: Timestamp) -> Result<(), StoreError>;

    /// All flags ever set.
    async fn flags(&self) -> Result<Vec<(Flag, bool)>, StoreError>;

    /// One event, with its body.
    async fn event(&self, id: EventId) -> Result<Event, StoreError>;

    /// Events, newest first unless asked otherwise, without bodies.
    async fn events(&self, query: EventQuery, page: PageRequest) -> Result<Page<Event>, StoreError>;

    /// One run, with its output.
    async fn run(&self, id: RunId) -> Result<Run, StoreError>;

    /// Runs, newest first unless asked otherwise, without outputs.
    async fn runs(&self, query: RunQuery, page: PageRequest) -> Result<Page<Run>, StoreError>;

    /// Decisions, newest first: those of events and those that made none.
    async fn decisions(&self, query: DecisionQuery, page: PageRequest) -> Result<Page<Decision>, StoreError>;

    /// A run's log after piece `after`, at most `limit` pieces.
    async fn log(&self, run: RunId, after: u64, limit: usize) -> Result<Vec<LogPiece>, StoreError>;

    /// What is queued and running now, by agent and trigger.
    async fn stats(&self) -> Result<Vec<QueueStats>, StoreError>;

    /// Deletes a bounded share of what has outlived its retention; call again while `more`.
    async fn sweep(&self, retention: Retention, now: Timestamp) -> Result<Swept, StoreError>;

    /// Writes a consistent copy to a new file while running.
    async fn backup(&self, to: &Path) -> Result<(), StoreError>;

    /// Whether it can write; the text says why not.
    async fn health(&self) -> Result<(), StoreError>;

    /// Notices from now on.
    fn notices(&self) -> broadcast::Receiver<Notice>;

    /// Woken whenever a run may have become claimable. One waiter: the worker.
    fn ready(&self) -> Arc<tokio::sync::Notify>;

    /// Finishes what is under way and closes; later calls get [`StoreError::Closed`].
    async fn close(&self);

    /// How the agents' breakers stood when [`Store::set_breaker`] was last called.
    async fn breakers(&self) -> Result<Vec<(Name, breaker::Standing)>, StoreError>;

    /// Keeps how an agent's breaker stands.
    async fn set_breaker(&self, agent: Name, standing: breaker::Standing) -> Result<(), StoreError>;

    /// Keeps a new API key. [`StoreError::Conflict`] if its agent has one of this kind and name, also where two are made at
    /// the same time.
    async fn add_key(&self, key: Key) -> Result<(), StoreError>;

    /// All API keys, oldest first.
    async fn keys(&self) -> Result<Vec<Key>, StoreError>;

    /// One API key, as it is now: one that was removed is none from then on.
    async fn key(&self, id: KeyId) -> Result<Option<Key>, StoreError>;

    /// Gives a key another secret; the present one stays good until `until`, and one before that no longer.
    async fn rotate_key(&self, id: KeyId, hash: KeyHash, until: Timestamp) -> Result<Key, StoreError>;

    /// Removes a key.
    async fn remove_key(&self, id: KeyId) -> Result<(), StoreError>;

    /// Notes that a key was used; one that is gone is let be.
    async fn key_used(&self, id: KeyId, at: Timestamp) -> Result<(), StoreError>;

    /// Keeps a sealed secret as the newest value of its name, and forgets values that have expired by then.
    /// [`StoreError::Conflict`] if there is one where there must be none, also where two come at the same time, or if the
    /// name has [`VALUES_MAX`](crate::seal::VALUES_MAX) values already; then nothing changed.
    async fn put_secret(&self, secret: NewSecret, earlier: Earlier) -> Result<(), StoreError>;

    /// The values of a name, newest first, as they are now; those that have expired may be among them.
    async fn secret(&self, name: SecretName) -> Result<Vec<KeptSecret>, StoreError>;

    /// All sealed secrets, newest first.
    async fn secrets(&self) -> Result<Vec<KeptSecret>, StoreError>;

    /// Puts the same secret sealed anew in a value's place; one that is gone is let be.
    async fn reseal_secret(&self, id: u64, sealed: Sealed) -> Result<(), StoreError>;

    /// Opens a source for pairing, in the place of how it stood.
    async fn open_pairing(&self, pairing: OpenPairing) -> Result<(), StoreError>;

    /// Sources that were opened and not closed since; their time may be over.
    async fn pairings(&self) -> Result<Vec<OpenPairing>, StoreError>;

    /// Closes a source for pairing; one that is not open is let be.
    async fn close_pairing(&self, source: Name) -> Result<(), StoreError>;

    /// Keeps the secret that a sender handed over, and closes the source for pairing, if it is open when the secret was made:
    /// both or nothing, and once. Says whether it was.
    async fn take_paired(&self, source: Name, secret: NewSecret) -> Result<bool, StoreError>;

    /// Removes every value of a name.
    async fn remove_secret(&self, name: SecretName) -> Result<(), StoreError>;

    /// Keeps an agent that registered itself, in the place of what it said before; `created_at` stays the first one's.
    async fn put_registration(&self, agent: Registration) -> Result<Registration, StoreError>;

    /// One of them, as it is now.
    async fn registration(&self, agent: Name) -> Result<Option<Registration>, StoreError>;

    /// All of them, by name.
    async fn registrations(&self) -> Result<Vec<Registration>, StoreError>;

    /// Forgets one.
    async fn remove_registration(&self, agent: Name) -> Result<(), StoreError>;
}

/// A holder asks for work.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The time now.
    pub now: Timestamp,
    /// When the leases lapse unless renewed.
    pub lease_until: Timestamp,
    /// Who asks: drawn at random at each start, so that a dead process' leases are told from ours.
    pub holder: u64,
    /// At most this many in all.
    pub limit: usize,
    /// Agents with free places. Others are held.
    pub agents: Vec<(Name, u32)>,
    /// Triggers with free places. Others are held.
    pub triggers: Vec<(Name, u32)>,
}

/// What a claim gave.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Runs with their events (body included), and the right to work on them.
    pub work: Vec<Work>,
    /// When the next run that is queued now falls due, if nothing more is due before.
    pub next_due: Option<Timestamp>,
}

/// One claimed run.
#[derive(Debug)]
pub struct Work {
    /// The right to it.
    pub lease: Lease,
    /// The run, already `running`, its attempt counted.
    pub run: Run,
    /// Its event, with body.
    pub event: Event,
}

/// Whether a lease still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Which.
    pub lease: Lease,
    /// How it stands.
    pub status: LeaseStatus,
}

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStatus {
    /// Extended.
    Held,
    /// Extended, but somebody asked to cancel the run.
    CancelAsked,
    /// Somebody else has the run, or it is final.
    Lost,
}

/// Whether a finish took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It did.
    Done,
    /// The lease was no longer the run's: nothing was changed.
    Fenced,
}

/// Which running runs are stale.
#[derive(Clone, Copy, Debug)]
pub enum Stale {
    /// Those whose lease lapsed before this time.
    LapsedBefore(Timestamp),
    /// Those that this holder does not hold and that were not deferred: at start, in a store that one process owns.
    NotHeldBy(u64),
}

/// A running run that nobody works on any more.
#[derive(Clone, Debug)]
pub struct StaleRun {
    /// The last lease, to finish it with.
    pub lease: Lease,
    /// Its agent.
    pub agent: Name,
    /// Its trigger.
    pub trigger: Name,
    /// Attempts so far.
    pub attempt: u32,
    /// When the run was made.
    pub created_at: Timestamp,
    /// Whether the agent had promised to call back.
    pub deferred: bool,
    /// Whether somebody had asked to cancel it.
    pub cancelling: bool,
    /// The children it noted.
    pub children: Vec<Child>,
}

/// A piece of output or log on its way in.
#[derive(Clone, Debug)]
pub struct Piece {
    /// When it came.
    pub at: Timestamp,
    /// Where from.
    pub stream: Stream,
    /// The bytes.
    pub bytes: Bytes,
}

/// A piece of output or log as kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    /// Its number in the run, from 1.
    pub n: u64,
    /// The attempt it belongs to.
    pub attempt: u32,
    /// When it came.
    pub at: Timestamp,
    /// Where from.
    pub stream: Stream,
    /// The bytes.
    pub bytes: Bytes,
}

/// A switch that a person sets while the program runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// The agent's runs are held.
    AgentPaused(Name),
    /// The trigger takes no events.
    TriggerDisabled(Name),
}

/// The guarded HTTP client: refuses private addresses (also after redirects and DNS changes) unless the operator allowed
/// them, caps time and size. `doorbell-net` has the one implementation.
#[async_trait]
pub trait Fetch: Send + Sync + 'static {
    /// Sends a request; the answer's body is read up to `max_body` bytes. Redirects are not followed.
    async fn fetch(
        &self,
        request: http::Request<Bytes>,
        limits: FetchLimits,
    ) -> Result<http::Response<Bytes>, FetchError>;

    /// The same way out, where [`Reach::Public`] also takes in these networks; none: this one cannot.
    fn reaching(&self, _networks: &[IpNet]) -> Option<Arc<dyn Fetch>> {
        None
    }

    /// Sends a request whose answer is handed on while it comes, byte for byte. The time limit holds to its head, and then
    /// between two pieces of its body. An implementation that cannot stream hands on the whole in one piece.
    async fn stream(
        &self,
        request: http::Request<Bytes>,
        limits: FetchLimits,
    ) -> Result<http::Response<Pieces>, FetchError> {
        let whole = self.fetch(request, limits).await?;
        Ok(whole.map(|body| futures::stream::once(async { Ok(body) }).boxed()))
    }
}

/// An answer's body as it comes.
pub type Pieces = BoxStream<'static, Result<Bytes, FetchError>>;

/// What one exchange may cost.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// From connecting to the last byte.
    pub time_limit: Duration,
    /// The answer's body, in bytes; a longer one is an error.
    pub max_body: usize,
    /// Whether loopback and private addresses may be called: only for what the operator's configuration names.
    pub reach: Reach,
}

/// Which addresses may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Public ones only: for URLs that came from outside.
    Public,
    /// Any: for URLs that the operator wrote.
    Any,
}

/// Why an exchange failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// Not allowed; trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// No connection; trying again may help.
    #[error("no connection to {host}: {why}")]
    Connect {
        /// Where to.
        host: String,
        /// What went wrong.
        why: String,
    },
    /// No answer in time; it may have been carried out.
    #[error("no answer from {host} within {limit:?}")]
    TimedOut {
        /// Where to.
        host: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer is longer than allowed.
    #[error("the answer of {host} is longer than {limit} bytes")]
    TooLarge {
        /// Where to.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// The exchange broke off; it may have been carried out.
    #[error("the exchange with {host} broke off: {why}")]
    Broken {
        /// Where to.
        host: String,
        /// What went wrong.
        why: String,
    },
}
