//! The embedded store: one `SQLite` file, one process, one thread that writes the tables. See `desk` and `acks` for how many
//! requests share one fsync, `session` for everything else that is written, `lane` for who may go next, `checkpoint` for how
//! the log stays short.

mod accept;
mod acklog;
mod acks;
mod backup;
mod book;
mod checkpoint;
mod claim;
mod control;
mod decisions;
mod dedup;
mod desk;
mod edge;
mod entry;
mod errors;
mod finish;
mod flush;
mod lane;
mod lists;
mod lock;
mod pairings;
mod read;
mod registrations;
mod retention;
mod rows;
mod schema;
mod secrets;
mod session;
mod sieve;
mod space;
mod store;
mod thread;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use doorbell_core::Clock;
use doorbell_core::decision::NewDecision;
use doorbell_core::ports::{Notice, Retention, StoreError};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

pub use backup::{copy as backup, restore};
pub use secrets::{all_in_file as all_secrets_of, in_file as secrets_of};

use acks::Acks;
use book::{Book, SharedNames};
use checkpoint::{Checkpointer, Wal};
use decisions::{Noted, Notes};
use dedup::Prints;
use desk::{Desk, SharedDesk};
use flush::Flusher;
use read::Readers;
use schema::Identity;
use space::Space;
use thread::Writer;
use writer::{Close, Effects, Job, Settle, Step, WAITING_MAX, Work};

/// Notices a slow listener may be behind before it misses some; it then polls.
const NOTICES_MAX: usize = 1024;

/// How the store behaves.
#[derive(Clone)]
pub struct SqliteOptions {
    /// Connections that serve lists and single things; one more serves claims.
    pub readers: usize,
    /// Page cache of the writer, in KiB.
    pub cache_kib: u32,
    /// Bytes set aside on disk for finishes and retention when the disk is full.
    pub reserve_bytes: u64,
    /// With less free space than this, in bytes, new events are refused.
    pub min_free_bytes: u64,
    /// The rows of acknowledged events, which the ack log has, are written after this time at the latest.
    pub settle_after: Duration,
    /// The database never grows over this many pages of 8 KiB, if set.
    pub max_pages: Option<u32>,
    /// Retention as known before the first sweep tells it: dedup keys count this long, rings are this large.
    pub retention: Retention,
    /// Told once when the store no longer knows what is on disk: the process must stop.
    pub on_fatal: Option<OnFatal>,
}

/// See [`SqliteOptions::on_fatal`].
pub type OnFatal = Arc<dyn Fn(&StoreError) + Send + Sync>;

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            readers: 4,
            cache_kib: 16 * 1024,
            reserve_bytes: 8 * 1024 * 1024,
            min_free_bytes: 32 * 1024 * 1024,
            settle_after: Duration::from_millis(100),
            max_pages: None,
            retention: Retention::default(),
            on_fatal: None,
        }
    }
}

/// What the writer, the readers, the checkpointer and the callers share.
struct Shared {
    identity: Identity,
    names: SharedNames,
    notices: broadcast::Sender<Notice>,
    ready: Arc<Notify>,
    notes: Notes,
    fatal: OnceLock<StoreError>,
    on_fatal: Option<OnFatal>,
    /// True once everything is closed and unlocked.
    closed: watch::Sender<bool>,
    commits: AtomicU64,
    /// Transactions of steps that were begun, and those of them that are on disk: a reader who may have seen one that is not
    /// yet there waits for it.
    committed: AtomicU64,
    durable: watch::Sender<u64>,
    /// Acknowledged requests whose rows are owed: a reader that must see them waits for the writer.
    pending: AtomicUsize,
    /// Somebody will see to it soon that the owed rows are written.
    settling: AtomicBool,
    settle_after: Duration,
    /// The checkpointer asks the writer to move the rest of the log.
    finish_checkpoint: AtomicBool,
    dedup_keep_ms: AtomicU64,
    ring: AtomicU64,
    progress: Mutex<retention::Progress>,
}

impl Shared {
    fn dedup_keep(&self) -> Duration {
        Duration::from_millis(self.dedup_keep_ms.load(Ordering::Relaxed))
    }

    fn ring(&self) -> u64 {
        self.ring.load(Ordering::Relaxed)
    }

    /// Retention as the last sweep told it.
    fn keep(&self, retention: &Retention) {
        let dedup_ms = u64::try_from(retention.dedup.as_millis()).unwrap_or(u64::MAX);
        self.dedup_keep_ms.store(dedup_ms, Ordering::Relaxed);
        self.ring.store(u64::from(retention.ring), Ordering::Relaxed);
    }

    /// From now on every call gets this error.
    fn fail_for_good(&self, error: &StoreError) {
        if self.fatal.set(error.clone()).is_ok() {
            tracing::error!(error = %error, "The store failed for good: the process must stop.");
            // Nobody waits any longer.
            self.durable.send_replace(u64::MAX);
            if let Some(tell) = &self.on_fatal {
                tell(error);
            }
        }
    }

    /// Waits until all that can be read by now is on disk.
    async fn once_durable(&self) -> Result<(), StoreError> {
        let seen = self.committed.load(Ordering::Acquire);
        if *self.durable.borrow() < seen {
            let _ = self.durable.subscribe().wait_for(|durable| *durable >= seen).await;
        }
        match self.fatal.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

/// The embedded store. Cheap to share behind an `Arc`; closes when [`close`](doorbell_core::ports::Store::close) is called,
/// or when the last handle goes.
pub struct SqliteStore {
    path: PathBuf,
    shared: Arc<Shared>,
    acks: Acks,
    steps: mpsc::Sender<Box<dyn Step>>,
    readers: Arc<Readers>,
    /// Reads what claims took, so that no long list holds the worker up.
    claim_reader: Arc<Readers>,
}

impl SqliteStore {
    /// Opens the database at `path`, making it if it is not there, and takes it for this process alone. Blocks for as
    /// long as migrations and recovery take.
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions, clock: &Clock) -> Result<Arc<Self>, StoreError> {
        let path = path.as_ref().to_owned();
        let mut lock = lock::OwnerLock::take(&path, clock.now())?;
        backup::create_private(&path)?;
        lock.take_database(&path)?;
        let conn = schema::open_writer(&path, options.cache_kib, options.max_pages)?;
        let failed = |e: rusqlite::Error| errors::sort(&e);
        let names = SharedNames::default();
        let book = Book::read(&conn, names.clone()).map_err(failed)?;
        let prints = Prints::read(&conn).map_err(failed)?;
        let shared = Arc::new(Shared {
            identity: schema::identity(&conn, clock).map_err(failed)?,
            names,
            notices: broadcast::Sender::new(NOTICES_MAX),
            ready: Arc::new(Notify::new()),
            notes: Notes::default(),
            fatal: OnceLock::new(),
            on_fatal: options.on_fatal,
            closed: watch::Sender::new(false),
            commits: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            durable: watch::Sender::new(0),
            pending: AtomicUsize::new(0),
            settling: AtomicBool::new(false),
            settle_after: options.settle_after,
            finish_checkpoint: AtomicBool::new(false),
            dedup_keep_ms: AtomicU64::new(0),
            ring: AtomicU64::new(0),
            progress: Mutex::default(),
        });
        shared.keep(&options.retention);
        let claim_reader = Arc::new(Readers::new(&path, 1, shared.clone()));
        let (steps, waiting) = mpsc::channel(WAITING_MAX);
        let (log, logged) = acklog::AckLog::open(&path, shared.identity.tag)?;
        log.fill();
        let wal = Wal::of(&path);
        let checkpointer = Checkpointer::start(&path, wal.clone(), shared.clone())?;
        let flusher = Flusher::start(wal, shared.clone())?;
        let space = Space::new(&path, options.reserve_bytes, options.min_free_bytes);
        let look_up = schema::open_reader(&path)?;
        let desk = SharedDesk::new(Desk::new(book, prints, space, log, look_up, checkpointer.synced()));
        let writer = Writer {
            path: path.clone(),
            conn,
            steps: waiting,
            shared: shared.clone(),
            desk: desk.clone(),
            checkpointer,
            flusher,
            logged,
            lock,
        };
        let (opened, said) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("doorbell-writer".into())
            .spawn(move || writer.run(&opened))
            .map_err(|e| StoreError::Unavailable(format!("cannot start a thread: {e}")))?;
        said.recv().map_err(|_| StoreError::Closed)??;
        let readers = Arc::new(Readers::new(&path, options.readers.max(1), shared.clone()));
        let acks = Acks::start(shared.clone(), desk, steps.clone())?;
        Ok(Arc::new(Self { path, shared, acks, steps, readers, claim_reader }))
    }

    /// Hands work to the writer and waits until it is on disk.
    async fn write<I: Send + 'static, O: Send + 'static>(&self, input: I, work: Work<I, O>) -> Result<O, StoreError> {
        if let Some(error) = self.shared.fatal.get() {
            return Err(error.clone());
        }
        let (job, answer) = Job::new(input, work);
        self.steps.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?.result
    }

    /// Reads what is in the tables, and what was acknowledged before.
    async fn read<O: Send + 'static>(
        &self,
        work: impl FnOnce(&read::View<'_>) -> Result<O, errors::Fail> + Send + 'static,
    ) -> Result<O, StoreError> {
        self.settled().await;
        let read = self.readers.read(work).await?;
        self.shared.once_durable().await?;
        Ok(read)
    }

    /// Waits until what was acknowledged can be read.
    async fn settled(&self) {
        if self.shared.pending.load(Ordering::Acquire) > 0 {
            let (told, settled) = oneshot::channel();
            // If the rows cannot be written now, readers see what is there.
            if self.steps.send(Box::new(Settle(Some(told)))).await.is_ok() {
                let _ = settled.await;
            }
        }
    }

    /// Sees to it that owed rows are written soon, also if nobody asks for them.
    fn settle_soon(&self) {
        if self.shared.settling.swap(true, Ordering::AcqRel) {
            return;
        }
        let (shared, steps, after) = (self.shared.clone(), self.steps.downgrade(), self.shared.settle_after);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            shared.settling.store(false, Ordering::Release);
            if shared.pending.load(Ordering::Acquire) > 0
                && let Some(steps) = steps.upgrade()
            {
                let _ = steps.try_send(Box::new(Settle(None)));
            }
        });
    }

    fn note_behind(&self, decision: NewDecision) {
        let Noted { first, dropped } = self.shared.notes.add(decision);
        if first {
            // A full channel is no loss: its next batch takes the notes along.
            drop(self.steps.try_send(Box::new(Settle(None))));
        }
        if dropped {
            metrics::counter!("doorbell_notes_dropped_total").increment(1);
        }
    }

    async fn shut(&self) {
        let mut closed = self.shared.closed.subscribe();
        let _ = self.steps.send(Box::new(Close)).await;
        let _ = closed.wait_for(|closed| *closed).await;
        self.readers.close();
        self.claim_reader.close();
    }
}

/// Tells the world what is on disk now.
fn tell(shared: &Shared, effects: Effects) {
    for notice in effects.notices {
        let _ = shared.notices.send(notice);
    }
    if effects.ready {
        shared.ready.notify_one();
    }
}
