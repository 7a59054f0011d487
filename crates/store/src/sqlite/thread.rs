//! The thread that writes the tables, from its beginning to its end: what it owns, and in which order that is closed. `session`
//! is what it does in between.

use std::path::PathBuf;
use std::sync::Arc;

use doorbell_core::ports::StoreError;
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::Shared;
use super::acklog::Record;
use super::checkpoint::{self, Checkpointer};
use super::desk::SharedDesk;
use super::errors::sort;
use super::flush::Flusher;
use super::lock::OwnerLock;
use super::session::Session;
use super::writer::Step;

/// The thread's belongings.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) conn: Connection,
    pub(super) steps: mpsc::Receiver<Box<dyn Step>>,
    pub(super) shared: Arc<Shared>,
    pub(super) desk: Arc<SharedDesk>,
    pub(super) checkpointer: Checkpointer,
    pub(super) flusher: Flusher,
    /// What the ack log held at opening.
    pub(super) logged: Vec<Record>,
    pub(super) lock: OwnerLock,
}

impl Writer {
    /// Runs until the store is closed or every handle to it is gone. Says over `opened` whether what the ack log held is
    /// in the tables.
    pub(super) fn run(self, opened: &std::sync::mpsc::Sender<Result<(), StoreError>>) {
        let wal = self.flusher.wal();
        let Self { path, conn, mut steps, shared, desk, checkpointer, flusher, logged, lock } = self;
        let _watch = Watch(&shared);
        let lock = Held(Some(lock));
        let session = Session::new(&path, &conn, &shared, &desk, &checkpointer, &flusher).map_err(|e| sort(&e));
        let log = match session.and_then(|mut session| session.recover(logged).map(|()| session)) {
            Ok(session) => {
                let _ = opened.send(Ok(()));
                session.serve(&mut steps)
            }
            Err(error) => {
                let _ = opened.send(Err(error));
                Err(Kept)
            }
        };
        steps.close();
        while let Ok(step) = steps.try_recv() {
            refuse(step, &StoreError::Closed);
        }
        flusher.stop();
        checkpointer.stop();
        let durable = wal.sync(&shared).is_ok();
        checkpoint::cut(&conn, &shared);
        if let Ok(log) = log
            && durable
            && shared.fatal.get().is_none()
        {
            log.remove();
        }
        if let Err((_, error)) = conn.close() {
            tracing::warn!(error = %error, "The database did not close cleanly; the next start recovers it from its log.");
        }
        drop(lock);
        shared.closed.send_replace(true);
    }
}

/// Says that the store failed for good if its thread breaks off: nobody would answer from then on.
pub(super) struct Watch<'s>(pub(super) &'s Shared);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail_for_good(&StoreError::Fatal("a thread of the store broke off: this is a defect".into()));
        }
    }
}

/// The lock, which a thread that breaks off does not give up: others of this process may still write.
struct Held(Option<OwnerLock>);

impl Drop for Held {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

/// The ack log stays: the next opening reads it.
pub(super) struct Kept;

/// Tells a caller that nothing was done.
pub(super) fn refuse(mut step: Box<dyn Step>, error: &StoreError) {
    step.fail(error.clone());
    step.answer();
}
