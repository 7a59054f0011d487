//! The one thread that writes. Callers hand it steps over a bounded channel; it drains what has come in, makes it durable
//! with one fsync, and only then answers each caller (semantics 12: group commit).
//!
//! There are two ways to be durable. A batch of new events alone goes into the ack log (see `acklog`); its rows are
//! *pending* then, and follow before anything else is done, or once they are many. Everything else is one transaction,
//! the pending rows first, so that every step sees all that was acknowledged before it.
//!
//! If a step makes the batch fail, the batch is rolled back and its steps are tried one by one, so that only the culprit
//! gets the error.

mod acks;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use doorbell_core::decision::NewDecision;
use doorbell_core::ports::StoreError;
use rusqlite::{Connection, Statement};
use tokio::sync::mpsc;

use acks::Pending;

use super::acklog::{AckLog, Record};
use super::book::Book;
use super::checkpoint::{self, Checkpointer};
use super::errors::{is_full, sort};
use super::lock::OwnerLock;
use super::space::Space;
use super::writer::{Effects, Hot, Step, Tx};
use super::{Shared, accept, decisions, dedup};

/// No batch holds more steps; larger ones would make the first caller wait for the last.
const BATCH_MAX: usize = 512;
/// A batch is not held open longer for others to join.
const GATHER_MAX: Duration = Duration::from_micros(500);
/// Pending events whose rows are written although nobody asks for them: few enough not to hold the next batch up.
const PENDING_MAX: usize = 64;
/// The same in bytes.
const PENDING_BYTES_MAX: usize = 512 * 1024;
/// An admission that is longer goes into the tables at once.
const LOGGED_BYTES_MAX: usize = 256 * 1024;

/// The thread's belongings.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) steps: mpsc::Receiver<Box<dyn Step>>,
    pub(super) shared: Arc<Shared>,
    pub(super) space: Space,
    pub(super) checkpointer: Checkpointer,
    pub(super) log: AckLog,
    /// What the ack log held at opening.
    pub(super) logged: Vec<Record>,
    pub(super) lock: OwnerLock,
}

impl Writer {
    /// Runs until the store is closed or every handle to it is gone. Says over `opened` whether what the ack log held is
    /// in the tables.
    pub(super) fn run(self, book: Book, opened: &std::sync::mpsc::Sender<Result<(), StoreError>>) {
        let Self { conn, mut steps, shared, mut space, checkpointer, log, logged, lock } = self;
        let session = Session::new(&conn, book, &shared, &checkpointer, log);
        let log = match session.and_then(|mut session| session.recover(logged, &mut space).map(|()| session)) {
            Ok(session) => {
                let _ = opened.send(Ok(()));
                session.serve(&mut steps, &mut space)
            }
            Err(error) => {
                let _ = opened.send(Err(sort(&error)));
                Err(Kept)
            }
        };
        steps.close();
        while let Ok(step) = steps.try_recv() {
            refuse(step, &StoreError::Closed);
        }
        let durable = checkpointer.sync_now().is_ok();
        checkpointer.stop();
        checkpoint::cut(&conn, &shared);
        if let Ok(log) = log
            && durable
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

/// While the processor is busy with others that are about to ask, lets them: one fsync then does for all. With nobody else
/// to run this costs nothing.
fn gather(steps: &mut mpsc::Receiver<Box<dyn Step>>, batch: &mut Vec<Box<dyn Step>>) {
    let begun = Instant::now();
    loop {
        let before = batch.len();
        std::thread::yield_now();
        while batch.len() < BATCH_MAX
            && let Ok(step) = steps.try_recv()
        {
            batch.push(step);
        }
        if batch.len() == before || batch.len() == BATCH_MAX || begun.elapsed() > GATHER_MAX {
            return;
        }
    }
}

/// The ack log stays: the next opening reads it.
struct Kept;

fn refuse(mut step: Box<dyn Step>, error: &StoreError) {
    step.fail(error.clone());
    step.answer();
}

/// How a transaction is committed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// It is on disk afterwards, and all before it.
    Full,
    /// It is on disk some time later: the ack log has what is in it.
    Later,
}

/// What becomes of the rows that are owed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owed {
    /// They come first.
    First,
    /// There is no room for them: nothing that is given a number after theirs may come before them.
    Later,
}

/// The loop, with its statements borrowed from the connection.
struct Session<'c> {
    conn: &'c Connection,
    shared: &'c Shared,
    checkpointer: &'c Checkpointer,
    hot: Hot<'c>,
    book: Book,
    effects: Effects,
    log: AckLog,
    /// Acknowledged, and not yet in the tables.
    pending: Pending,
    /// What is owed could not be written: until it can, nothing more is promised.
    no_room: bool,
    begin: Statement<'c>,
    begin_reading: Statement<'c>,
    commit: Statement<'c>,
}

impl<'c> Session<'c> {
    fn new(
        conn: &'c Connection,
        book: Book,
        shared: &'c Shared,
        checkpointer: &'c Checkpointer,
        log: AckLog,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            conn,
            shared,
            checkpointer,
            hot: Hot { accept: accept::Statements::new(conn)?, dedup: dedup::Prints::new(conn)? },
            book,
            effects: Effects::default(),
            log,
            pending: Pending::default(),
            no_room: false,
            begin: conn.prepare("BEGIN IMMEDIATE")?,
            begin_reading: conn.prepare("BEGIN")?,
            commit: conn.prepare("COMMIT")?,
        })
    }

    /// Writes what the ack log held and the tables do not have, and makes sure of the rows that a killed process left to
    /// the system.
    fn recover(&mut self, logged: Vec<Record>, space: &mut Space) -> rusqlite::Result<()> {
        let (next, _) = self.book.upcoming();
        for record in logged.into_iter().filter(|record| record.first_event >= next) {
            self.pending.push(record);
        }
        if !self.pending.records.is_empty() {
            tracing::info!(requests = self.pending.records.len(), "Taking over from the ack log what a stop cut off.");
            self.readmit()?;
            let full = match self.attempt(&mut [], &[], space, Sync::Full, Owed::First) {
                Err(error) if is_full(&error) => true,
                said => said.map(|()| false)?,
            };
            // The reserve is there for this: without it nobody could start on a full disk and have retention make room.
            if full {
                space.ran_out();
                self.attempt(&mut [], &[], space, Sync::Full, Owed::First)?;
            }
        }
        self.checkpointer.sync_now().map_err(|e| super::errors::corrupt(e.to_string()))?;
        self.settled(Sync::Full);
        Ok(())
    }

    /// The loop. Gives the ack log back if nothing in it is needed any more.
    fn serve(mut self, steps: &mut mpsc::Receiver<Box<dyn Step>>, space: &mut Space) -> Result<AckLog, Kept> {
        let mut batch: Vec<Box<dyn Step>> = Vec::with_capacity(BATCH_MAX);
        let mut closing = false;
        while steps.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            // Before anything is looked for in the batch: the step that closes may be among those that join.
            gather(steps, &mut batch);
            if !closing && batch.iter().any(|step| step.closes()) {
                closing = true;
                steps.close();
            }
            if let Some(error) = self.shared.fatal.get() {
                drop(self.shared.notes.take());
                batch.drain(..).for_each(|step| refuse(step, error));
                continue;
            }
            let settling: Vec<_> = batch.extract_if(.., |step| step.only_settles()).collect();
            if !batch.is_empty() {
                self.commit_batch(&mut batch, space);
            }
            if !settling.is_empty() {
                self.write_behind(space);
                settling.into_iter().for_each(Step::answer);
            } else if self.pending.is_much() {
                self.write_pending(space);
            }
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            if self.shared.finish_checkpoint.swap(false, Ordering::AcqRel) {
                checkpoint::finish(self.conn, self.shared);
            }
        }
        let notes = self.shared.notes.take();
        if !notes.is_empty() || !self.pending.records.is_empty() {
            self.settle(&mut batch, &notes, space);
        }
        if let Err(error) = self.book.save_floors(self.conn) {
            tracing::debug!(error = %error, "The counters were not written down at closing; the tables tell them too.");
        }
        if self.pending.records.is_empty() && self.shared.fatal.get().is_none() { Ok(self.log) } else { Err(Kept) }
    }

    /// Makes the batch durable and answers it.
    fn commit_batch(&mut self, batch: &mut Vec<Box<dyn Step>>, space: &mut Space) {
        let begun = Instant::now();
        let size = batch.len();
        let logged = self.log(batch, space);
        if !logged {
            let notes = self.shared.notes.take();
            self.settle(batch, &notes, space);
        }
        let took = begun.elapsed();
        self.shared.pending.store(self.pending.records.len(), Ordering::Release);
        if logged {
            // Senders first: each wake-up before theirs takes the processor from their answers. All that is told of new
            // events is that their runs are queued, which misleads nobody who hears it late.
            batch.drain(..).for_each(Step::answer);
            self.tell();
        } else {
            // Notices first: whoever listens from after an answer on hears nothing that went before it.
            self.tell();
            batch.drain(..).for_each(Step::answer);
        }
        metrics::histogram!("doorbell_commit_size").record(size as f64);
        metrics::histogram!("doorbell_commit_seconds").record(took.as_secs_f64());
    }

    /// Writes what is noted and what is owed. Nobody waits for the disk here: the ack log has the one, and the other may be
    /// lost with the power.
    fn write_behind(&mut self, space: &mut Space) {
        let notes = self.shared.notes.take();
        if notes.is_empty() {
            self.write_pending(space);
        } else if let Err(error) = self.attempt(&mut [], &notes, space, Sync::Later, Owed::First) {
            metrics::counter!("doorbell_notes_dropped_total").increment(notes.len() as u64);
            self.took_ill(&error, space);
            self.write_pending(space);
        }
    }

    // ---- transactions ----

    /// Commits the batch; if that fails, its steps one by one.
    fn settle(&mut self, batch: &mut [Box<dyn Step>], notes: &[NewDecision], space: &mut Space) {
        // It may have come to that since the batch began: then nothing is promised any more.
        if let Some(error) = self.shared.fatal.get() {
            batch.iter_mut().for_each(|step| step.fail(error.clone()));
            return;
        }
        let Err(error) = self.attempt(batch, notes, space, Sync::Full, Owed::First) else { return };
        if !notes.is_empty() {
            metrics::counter!("doorbell_notes_dropped_total").increment(notes.len() as u64);
        }
        // With notes or owed rows in the transaction even a single step is not proved guilty.
        if let [only] = batch
            && notes.is_empty()
            && self.pending.records.is_empty()
        {
            only.fail(self.took_ill(&error, space));
            return;
        }
        // If the owed rows find no room, what ends runs and makes room goes on without them.
        let owed = if self.write_pending(space) { Owed::First } else { Owed::Later };
        for step in batch {
            let said = match self.shared.fatal.get() {
                Some(fatal) => Err(fatal.clone()),
                None => self
                    .attempt(std::slice::from_mut(step), &[], space, Sync::Full, owed)
                    .map_err(|e| self.took_ill(&e, space)),
            };
            if let Err(error) = said {
                step.fail(error);
            }
        }
    }

    /// One transaction. After an error everything in memory is as the tables and the log are.
    fn attempt(
        &mut self,
        steps: &mut [Box<dyn Step>],
        notes: &[NewDecision],
        space: &mut Space,
        sync: Sync,
        owed: Owed,
    ) -> rusqlite::Result<()> {
        let short = space.is_short();
        let said = self.transaction(steps, notes, short, sync, owed);
        if said.is_err() {
            self.undo();
        }
        said
    }

    fn transaction(
        &mut self,
        steps: &mut [Box<dyn Step>],
        notes: &[NewDecision],
        short: bool,
        sync: Sync,
        owed: Owed,
    ) -> rusqlite::Result<()> {
        let stuck = owed == Owed::Later && !self.pending.records.is_empty();
        let short = short || stuck;
        // A commit is sure to wait for the disk only if it dirtied a page; new rows do, and an update that changes nothing
        // does not, though it counts as a change.
        let wrote = !stuck && !self.pending.records.is_empty();
        self.hot.dedup.begin();
        if sync == Sync::Later {
            self.synchronous(Sync::Later)?;
        }
        self.begin.execute([])?;
        let mut tx = Tx {
            conn: self.conn,
            hot: &mut self.hot,
            book: &mut self.book,
            effects: &mut self.effects,
            shared: self.shared,
            short,
            stuck,
        };
        for record in self.pending.records.iter().filter(|_| !stuck) {
            accept::write_record(&mut tx, record)?;
        }
        if !stuck {
            // From here on the tables have them: what a step deletes of them must not be written again by a recovery.
            tx.book.owed = None;
        }
        for step in steps {
            step.run(&mut tx)?;
        }
        match short {
            true => metrics::counter!("doorbell_notes_dropped_total").increment(notes.len() as u64),
            false => decisions::write_notes(&mut tx, notes)?,
        }
        tx.hot.dedup.settle()?;
        self.commit.execute([])?;
        self.hot.dedup.keep();
        if !stuck {
            self.settled(if wrote { sync } else { Sync::Later });
        }
        if sync == Sync::Later {
            self.synchronous(Sync::Full)?;
        }
        Ok(())
    }

    /// From now on commits wait for the disk, or do not. Not a prepared statement: SQLite carries this one out while it
    /// prepares it.
    fn synchronous(&self, sync: Sync) -> rusqlite::Result<()> {
        self.conn.execute_batch(match sync {
            Sync::Full => "PRAGMA synchronous = FULL",
            Sync::Later => "PRAGMA synchronous = NORMAL",
        })
    }

    /// A transaction is committed, the owed rows with it.
    fn settled(&mut self, sync: Sync) {
        self.pending = Pending::default();
        self.no_room = false;
        self.book.owed = None;
        self.shared.pending.store(0, Ordering::Release);
        if sync == Sync::Full {
            self.log.restart();
        }
    }

    /// After an error: everything in memory becomes what the tables and the log say.
    fn undo(&mut self) {
        self.effects = Effects::default();
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            self.shared.fail_for_good(&StoreError::Fatal(format!("a rollback failed: {error}")));
        }
        self.hot.dedup.forget();
        let read = self.synchronous(Sync::Full).and_then(|()| Book::read(self.conn, self.shared.names.clone()));
        let said = read.and_then(|book| {
            self.book = book;
            self.readmit()
        });
        if let Err(error) = said {
            // Without its memory the writer would give numbers twice.
            self.shared.fail_for_good(&StoreError::Fatal(format!("cannot read after a rollback: {error}")));
        }
    }

    /// Counts what is owed as if it were in the tables.
    fn readmit(&mut self) -> rusqlite::Result<()> {
        let mut tx = Tx {
            conn: self.conn,
            hot: &mut self.hot,
            book: &mut self.book,
            effects: &mut self.effects,
            shared: self.shared,
            short: false,
            stuck: false,
        };
        for record in &self.pending.records {
            accept::readmit(&mut tx, record)?;
        }
        self.hot.dedup.logged();
        self.book.owed = self.pending.first();
        Ok(())
    }

    fn took_ill(&self, error: &rusqlite::Error, space: &mut Space) -> StoreError {
        if is_full(error) {
            space.ran_out();
        }
        let sorted = sort(error);
        match &sorted {
            StoreError::Fatal(_) => self.shared.fail_for_good(&sorted),
            StoreError::Corrupt(_) => tracing::error!(error = %sorted, "A write failed; this is a defect."),
            _ => tracing::warn!(error = %sorted, "A write failed; it was refused and can be tried again."),
        }
        sorted
    }

    fn tell(&mut self) {
        for notice in self.effects.notices.drain(..) {
            let _ = self.shared.notices.send(notice);
        }
        if std::mem::take(&mut self.effects.ready) {
            self.shared.ready.notify_one();
        }
    }
}
