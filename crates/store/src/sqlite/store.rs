//! The trait, call by call: what goes to the writer and what to the readers.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use doorbell_core::breaker::Standing;
use doorbell_core::decision::{Decision, NewDecision};
use doorbell_core::event::{Admission, Event, Receipt};
use doorbell_core::keys::{Key, KeyHash, KeyId};
use doorbell_core::ports::{
    Child, Claim, Claimed, DecisionQuery, EventQuery, Finished, Flag, LogPiece, Notice, Page, PageRequest, Piece,
    QueueStats, Renewal, Retention, RunQuery, Stale, StaleRun, Store, StoreError, Swept,
};
use doorbell_core::registration::Registration;
use doorbell_core::run::{Lease, NewRun, Run, State, Transition};
use doorbell_core::seal::{Earlier, KeptSecret, NewSecret, OpenPairing, Sealed, SecretName};
use doorbell_core::{EventId, Name, RunId, StoreTag, Timestamp};
use tokio::sync::{Notify, broadcast};

use super::accept::Prepared;
use super::errors::Fail;
use super::writer::Tx;
use super::{
    SqliteStore, backup, claim, control, decisions, edge, finish, lists, pairings, read, registrations, retention,
    secrets,
};

#[async_trait]
impl Store for SqliteStore {
    fn tag(&self) -> StoreTag {
        self.shared.identity.tag
    }

    fn token_key(&self) -> [u8; 32] {
        self.shared.identity.token_key
    }

    async fn accept(&self, admission: Admission) -> Result<Vec<Receipt>, StoreError> {
        let prepared = Prepared::new(admission)?;
        // Before, too: a caller who hangs up does not come back here.
        self.settle_soon();
        let said = self.acks.admit(prepared).await;
        self.settle_soon();
        said
    }

    fn note(&self, decision: NewDecision) {
        self.note_behind(decision);
    }

    async fn record(&self, decision: NewDecision) -> Result<(), StoreError> {
        self.write(decision, decisions::record).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let taken = self.write(claim, claim::claim).await?;
        let next_due = taken.next_due;
        if let Some(work) = taken.work {
            return Ok(Claimed { work, next_due });
        }
        let work = self.claim_reader.read(move |view| read::work(view, &taken.leases)).await?;
        Ok(Claimed { work, next_due })
    }

    async fn renew(&self, leases: Vec<Lease>, until: Timestamp) -> Result<Vec<Renewal>, StoreError> {
        self.write((leases, until), finish::renew).await
    }

    async fn finish(&self, lease: Lease, transition: Transition, now: Timestamp) -> Result<Finished, StoreError> {
        self.write((lease, transition, now), finish::finish).await
    }

    async fn defer(&self, lease: Lease, until: Timestamp) -> Result<Finished, StoreError> {
        self.write((lease, until), finish::defer).await
    }

    async fn append_log(&self, lease: Lease, pieces: Vec<Piece>) -> Result<(), StoreError> {
        self.write((lease, pieces), finish::append_log).await
    }

    async fn note_child(&self, lease: Lease, child: Child) -> Result<(), StoreError> {
        self.write((lease, child), finish::note_child).await
    }

    async fn stale(&self, which: Stale, limit: usize) -> Result<Vec<StaleRun>, StoreError> {
        self.write((which, limit), finish::stale).await
    }

    async fn cancel(&self, run: RunId, by: String, now: Timestamp) -> Result<State, StoreError> {
        self.write((run, by, now), finish::cancel).await
    }

    async fn retry(&self, run: RunId, by: String, now: Timestamp) -> Result<(), StoreError> {
        self.write((run, by, now), finish::retry).await
    }

    async fn replay(&self, event: EventId, runs: Vec<NewRun>, now: Timestamp) -> Result<Vec<RunId>, StoreError> {
        self.write((event, runs, now), control::replay).await
    }

    async fn set_flag(&self, flag: Flag, value: bool, now: Timestamp) -> Result<(), StoreError> {
        self.write((flag, value, now), control::set_flag).await
    }

    async fn flags(&self) -> Result<Vec<(Flag, bool)>, StoreError> {
        self.read(read::flags).await
    }

    async fn event(&self, id: EventId) -> Result<Event, StoreError> {
        self.read(move |view| read::event(view, id)).await
    }

    async fn events(&self, query: EventQuery, page: PageRequest) -> Result<Page<Event>, StoreError> {
        self.read(move |view| lists::events(view, &query, page)).await
    }

    async fn run(&self, id: RunId) -> Result<Run, StoreError> {
        self.read(move |view| read::run(view, id)).await
    }

    async fn runs(&self, query: RunQuery, page: PageRequest) -> Result<Page<Run>, StoreError> {
        self.read(move |view| lists::runs(view, &query, page)).await
    }

    async fn decisions(&self, query: DecisionQuery, page: PageRequest) -> Result<Page<Decision>, StoreError> {
        self.read(move |view| lists::decisions(view, &query, page)).await
    }

    async fn log(&self, run: RunId, after: u64, limit: usize) -> Result<Vec<LogPiece>, StoreError> {
        self.read(move |view| read::log(view, run, after, limit)).await
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, StoreError> {
        self.write((), claim::stats).await
    }

    async fn sweep(&self, retention: Retention, now: Timestamp) -> Result<Swept, StoreError> {
        self.write((retention, now), retention::sweep).await
    }

    async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        self.settled().await;
        let (from, to) = (self.path.clone(), to.to_owned());
        let copied = tokio::task::spawn_blocking(move || backup::copy(&from, &to)).await;
        copied.map_err(|e| StoreError::Unavailable(format!("the copying task broke off: {e}")))?
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.write((), probe).await
    }

    fn notices(&self) -> broadcast::Receiver<Notice> {
        self.shared.notices.subscribe()
    }

    fn ready(&self) -> Arc<Notify> {
        self.shared.ready.clone()
    }

    async fn close(&self) {
        self.shut().await;
    }

    async fn breakers(&self) -> Result<Vec<(Name, Standing)>, StoreError> {
        self.readers.read(edge::breakers).await
    }

    async fn set_breaker(&self, agent: Name, standing: Standing) -> Result<(), StoreError> {
        self.write((agent, standing), edge::set_breaker).await
    }

    async fn add_key(&self, key: Key) -> Result<(), StoreError> {
        self.write(key, edge::add_key).await
    }

    async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        self.readers.read(edge::keys).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<Key>, StoreError> {
        self.readers.read(move |view| edge::key(view, &id)).await
    }

    async fn rotate_key(&self, id: KeyId, hash: KeyHash, until: Timestamp) -> Result<Key, StoreError> {
        self.write((id, hash, until), edge::rotate_key).await
    }

    async fn remove_key(&self, id: KeyId) -> Result<(), StoreError> {
        self.write(id, edge::remove_key).await
    }

    async fn key_used(&self, id: KeyId, at: Timestamp) -> Result<(), StoreError> {
        self.write((id, at), edge::key_used).await
    }

    async fn put_secret(&self, secret: NewSecret, earlier: Earlier) -> Result<(), StoreError> {
        self.write((secret, earlier), secrets::put).await
    }

    async fn secret(&self, name: SecretName) -> Result<Vec<KeptSecret>, StoreError> {
        self.readers.read(move |view| secrets::of_name(view, &name)).await
    }

    async fn secrets(&self) -> Result<Vec<KeptSecret>, StoreError> {
        self.readers.read(secrets::all).await
    }

    async fn reseal_secret(&self, id: u64, sealed: Sealed) -> Result<(), StoreError> {
        self.write((id, sealed), secrets::reseal).await
    }

    async fn open_pairing(&self, pairing: OpenPairing) -> Result<(), StoreError> {
        self.write(pairing, pairings::open).await
    }

    async fn pairings(&self) -> Result<Vec<OpenPairing>, StoreError> {
        self.readers.read(pairings::all).await
    }

    async fn close_pairing(&self, source: Name) -> Result<(), StoreError> {
        self.write(source, pairings::close).await
    }

    async fn take_paired(&self, source: Name, secret: NewSecret) -> Result<bool, StoreError> {
        self.write((source, secret), pairings::take).await
    }

    async fn remove_secret(&self, name: SecretName) -> Result<(), StoreError> {
        self.write(name, secrets::remove).await
    }

    async fn put_registration(&self, agent: Registration) -> Result<Registration, StoreError> {
        self.write(agent, registrations::put).await
    }

    async fn registration(&self, agent: Name) -> Result<Option<Registration>, StoreError> {
        self.readers.read(move |view| registrations::one(view, &agent)).await
    }

    async fn registrations(&self) -> Result<Vec<Registration>, StoreError> {
        self.readers.read(registrations::all).await
    }

    async fn remove_registration(&self, agent: Name) -> Result<(), StoreError> {
        self.write(agent, registrations::remove).await
    }
}

/// Really writes: a read-only file system is not noticed otherwise.
fn probe(tx: &mut Tx<'_, '_>, (): &()) -> Result<(), Fail> {
    if tx.short {
        return Err(StoreError::Unavailable("disk space is short: new events are refused".into()).into());
    }
    Ok(tx.book.save_floors(tx.conn)?)
}
