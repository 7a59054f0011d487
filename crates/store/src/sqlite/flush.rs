//! The last part of a commit: what the writer committed is put on disk, and only then told. An fsync takes as long as dozens of
//! transactions, so the writer does not wait for it while there is more to write: it hands answers over to a thread that
//! does the fsync, one for all that is committed by then. With nothing more to write it does that itself, since waking a
//! thread would make the one who waits wait longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use doorbell_core::ports::StoreError;

use super::checkpoint::Wal;
use super::thread::Watch;
use super::writer::{Effects, Step};
use super::{Shared, tell};

/// Batches that may wait for the disk; the writer waits once there are more.
const WAITING_MAX: usize = 16;

/// Steps of one transaction that is committed and may not be on disk yet.
pub(super) struct Committed {
    pub(super) steps: Vec<Box<dyn Step>>,
    pub(super) effects: Effects,
    /// Its number among the commits whose callers wait for the disk.
    pub(super) number: u64,
    /// When the transaction began.
    pub(super) begun: Instant,
    /// It is on disk.
    pub(super) is_durable: bool,
}

/// Where committed steps wait for the disk.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    wal: Arc<Wal>,
    queue: SyncSender<Committed>,
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Flusher {
    /// Starts the thread.
    pub(super) fn start(wal: Arc<Wal>, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let waiting = Arc::new(AtomicUsize::new(0));
        let (queue, committed) = sync_channel(WAITING_MAX);
        let thread = {
            let (shared, wal, waiting) = (shared.clone(), wal.clone(), waiting.clone());
            std::thread::Builder::new().name("doorbell-flush".into()).spawn(move || {
                let _watch = Watch(&shared);
                run(&committed, &waiting, &wal, &shared);
            })
        };
        let thread = thread.map_err(|e| StoreError::Unavailable(format!("cannot start a thread: {e}")))?;
        Ok(Self { shared, wal, queue, waiting, thread })
    }

    /// What is put on disk here.
    pub(super) fn wal(&self) -> Arc<Wal> {
        self.wal.clone()
    }

    /// Puts everything committed so far on disk. An error is fatal, and is told the store.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.wal.sync(&self.shared)
    }

    /// Answers the steps once they are on disk, in the order of these calls. `more` is waiting to be written: then this does
    /// not wait for the disk.
    pub(super) fn answer(&self, committed: Committed, more: bool) {
        if !more && self.waiting.load(Ordering::Acquire) == 0 {
            return finish(&mut vec![committed], &self.wal, &self.shared);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The thread ends before this only if it broke off, which is fatal: the steps' callers see their channels closed.
        drop(self.queue.send(committed));
    }

    /// Answers all that waits, and ends the thread.
    pub(super) fn stop(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("The thread that answers had panicked; who waited was told that the store is closed.");
        }
    }
}

fn run(committed: &Receiver<Committed>, waiting: &AtomicUsize, wal: &Wal, shared: &Shared) {
    let mut batches = Vec::with_capacity(WAITING_MAX);
    while let Ok(first) = committed.recv() {
        batches.push(first);
        batches.extend(committed.try_iter().take(WAITING_MAX));
        let count = batches.len();
        finish(&mut batches, wal, shared);
        waiting.fetch_sub(count, Ordering::Release);
    }
}

/// One fsync for all of them; then they are told, in their order.
fn finish(batches: &mut Vec<Committed>, wal: &Wal, shared: &Shared) {
    let is_durable = batches.iter().all(|committed| committed.is_durable);
    let said = match (is_durable, shared.fatal.get()) {
        (_, Some(error)) => Err(error.clone()),
        (true, None) => Ok(()),
        (false, None) => wal.sync(shared),
    };
    if let (Ok(()), Some(last)) = (&said, batches.last()) {
        // Not back from the end of everything, which an error on another thread may have brought meanwhile.
        shared.durable.send_modify(|durable| *durable = last.number.max(*durable));
    }
    for Committed { mut steps, effects, begun, .. } in batches.drain(..) {
        match &said {
            // Notices first: whoever listens from after an answer on hears nothing that went before it.
            Ok(()) => tell(shared, effects),
            Err(error) => steps.iter_mut().for_each(|step| step.fail(error.clone())),
        }
        metrics::histogram!("doorbell_commit_size").record(steps.len() as f64);
        steps.into_iter().for_each(Step::answer);
        metrics::histogram!("doorbell_commit_seconds").record(begun.elapsed().as_secs_f64());
    }
}
