//! Moves pages from the write-ahead log into the database file, off the path of answers: a thread with a connection of its
//! own does the bulk with passive checkpoints, which never hold the writer up.
//!
//! A passive checkpoint alone never resets the log while the writer keeps appending, so the log would grow without end
//! under load. Once the thread has caught up but for a little, it asks the writer to do that little between two batches;
//! the writer's next write then starts the log from its beginning. When nothing is written for a while, the thread cuts
//! the log to nothing.
//!
//! The same thread makes rows durable that were written without waiting for the disk (see `acklog`), when asked.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use doorbell_core::ports::StoreError;
use rusqlite::Connection;

use super::lock::beside;
use super::{Shared, schema};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Frames (pages) not yet moved that make a passive checkpoint worth its fsyncs: 1 MiB. Small on purpose: the disk is busy
/// while they are written, and whoever waits for the ack log's fsync waits behind them.
const WORTH_MOVING: i64 = 128;
/// Frames the writer may be asked to move between two batches: some milliseconds.
const LITTLE: i64 = 1_000;
/// Log size from which it is worth resetting: 64 MiB.
const WORTH_RESETTING: i64 = 8_000;
/// Log size at which the writer must reset it, whatever is left to move: 512 MiB.
const TOO_LONG: i64 = 64_000;
/// Looks without a commit after which the log is cut.
const IDLE_LOOKS: u32 = 20;

/// The thread; stops when told.
pub(super) struct Checkpointer {
    /// Tickets of syncs that are asked for; dropped to stop the thread.
    wishes: Sender<u64>,
    thread: JoinHandle<()>,
    asked: AtomicU64,
    synced: Arc<AtomicU64>,
}

impl Checkpointer {
    /// Starts the thread on the database at `path`.
    pub(super) fn start(path: &Path, wal: Arc<Wal>, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let conn = Connection::open(path).map_err(|e| super::errors::sort(&e))?;
        conn.busy_timeout(Duration::from_millis(50)).map_err(|e| super::errors::sort(&e))?;
        conn.pragma_update(None, "synchronous", "full").map_err(|e| super::errors::sort(&e))?;
        conn.pragma_update(None, "cache_size", -64).map_err(|e| super::errors::sort(&e))?;
        let synced = Arc::new(AtomicU64::new(0));
        let (wishes, asked) = channel::<u64>();
        let done = synced.clone();
        let thread = std::thread::Builder::new()
            .name("doorbell-checkpoint".into())
            .spawn(move || {
                let (mut state, mut looked) = (State::default(), Instant::now());
                loop {
                    match asked.recv_timeout(LOOK_EVERY.saturating_sub(looked.elapsed())) {
                        Ok(ticket) => {
                            let ticket = asked.try_iter().last().unwrap_or(ticket);
                            if wal.sync(&shared).is_ok() {
                                done.store(ticket, Ordering::Release);
                            }
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                    // Also when tickets come all the time: the log would grow without end.
                    if looked.elapsed() >= LOOK_EVERY {
                        state.look(&conn, &shared);
                        looked = Instant::now();
                    }
                }
            })
            .map_err(|e| StoreError::Unavailable(format!("cannot start a thread: {e}")))?;
        Ok(Self { wishes, thread, asked: AtomicU64::new(0), synced })
    }

    /// Asks for everything committed so far to be put on disk. It is, once [`Checkpointer::synced`] has come to the answer.
    pub(super) fn ask_sync(&self) -> u64 {
        let ticket = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        // A thread that ended serves no more tickets: events then go into the tables, whose commits sync.
        let _ = self.wishes.send(ticket);
        ticket
    }

    /// The last sync that was asked for and is done, as it goes on.
    pub(super) fn synced(&self) -> Arc<AtomicU64> {
        self.synced.clone()
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(self) {
        drop(self.wishes);
        if self.thread.join().is_err() {
            tracing::error!("The checkpoint thread had panicked; the log is moved at the next opening.");
        }
    }
}

/// The write-ahead log as what is to be put on disk. One handle for all, one sync at a time: Linux tells of a write that
/// failed only once to each handle that was open then, and takes the pages for clean afterwards, so that a later sync through a
/// fresh handle would say that all is well.
pub(super) struct Wal {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl Wal {
    /// Of the database at `path`.
    pub(super) fn of(path: &Path) -> Arc<Self> {
        Arc::new(Self { path: beside(path, "-wal"), file: Mutex::new(None) })
    }

    /// Makes the log durable, and with it every commit that a checkpoint has not moved; what it moved is durable already.
    /// An error is fatal, is told the store, and comes again with each further call.
    pub(super) fn sync(&self, shared: &Shared) -> Result<(), StoreError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = shared.fatal.get() {
            return Err(error.clone());
        }
        let said = match &*file {
            Some(file) => file.sync_data(),
            None => File::open(&self.path).and_then(|opened| file.insert(opened).sync_data()),
        };
        match said {
            // Nothing was ever written.
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => {
                let why =
                    format!("an fsync of {} failed, so what is on disk is not known: {error}", self.path.display());
                let error = StoreError::Fatal(why);
                shared.fail_for_good(&error);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }
}

#[derive(Default)]
struct State {
    commits: u64,
    idle_looks: u32,
    cut: bool,
}

impl State {
    fn look(&mut self, conn: &Connection, shared: &Shared) {
        let commits = shared.commits.load(Ordering::Relaxed);
        if commits == self.commits {
            self.idle_looks = self.idle_looks.saturating_add(1);
            if self.idle_looks >= IDLE_LOOKS && !self.cut {
                self.cut = run(conn, "TRUNCATE", shared).is_some_and(|now| now.log <= 0);
            }
            return;
        }
        self.commits = commits;
        self.idle_looks = 0;
        self.cut = false;
        let Some(mut now) = run(conn, "NOOP", shared) else { return };
        metrics::gauge!("doorbell_wal_bytes").set(now.log as f64 * f64::from(schema::PAGE_BYTES));
        if now.log - now.moved >= WORTH_MOVING {
            let Some(after) = run(conn, "PASSIVE", shared) else { return };
            now = after;
        }
        let soon = now.log >= WORTH_RESETTING && now.log - now.moved <= LITTLE;
        if soon || now.log >= TOO_LONG {
            shared.finish_checkpoint.store(true, Ordering::Release);
        }
    }
}

/// Frames in the log, and those of them already moved.
#[derive(Clone, Copy)]
struct Frames {
    log: i64,
    moved: i64,
}

fn checkpoint(conn: &Connection, how: &str) -> rusqlite::Result<Frames> {
    let sql = format!("PRAGMA wal_checkpoint({how})");
    conn.query_row(&sql, [], |row| Ok(Frames { log: row.get(1)?, moved: row.get(2)? }))
}

fn run(conn: &Connection, how: &str, shared: &Shared) -> Option<Frames> {
    match checkpoint(conn, how) {
        Ok(frames) => Some(frames),
        Err(error) => {
            let sorted = super::errors::sort(&error);
            match sorted {
                StoreError::Fatal(_) => shared.fail_for_good(&sorted),
                _ => tracing::debug!(error = %sorted, "A checkpoint was put off."),
            }
            None
        }
    }
}

/// Moves what is left, between two batches of the writer: nobody appends meanwhile.
pub(super) fn finish(conn: &Connection, shared: &Shared) {
    run(conn, "PASSIVE", shared);
}

/// Moves everything and cuts the log to nothing, at closing.
pub(super) fn cut(conn: &Connection, shared: &Shared) {
    run(conn, "TRUNCATE", shared);
}
