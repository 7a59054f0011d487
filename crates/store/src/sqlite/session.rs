//! The one thread that writes the tables. Callers hand it steps over a bounded channel; it drains what has come in and commits
//! it as one transaction; each caller is answered after the fsync, which is one for many (semantics 12: group commit; `flush`).
//!
//! New events are durable in the ack log before they come here (see `desk`); their rows are *owed* then. These alone are
//! written while the desk goes on. Everything else is one transaction that holds the desk, the owed rows first, so that every
//! step sees all that was acknowledged before it.
//!
//! If a step makes the batch fail, the batch is rolled back and its steps are tried one by one, so that only the culprit
//! gets the error.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use doorbell_core::decision::NewDecision;
use doorbell_core::ports::StoreError;
use rusqlite::{Connection, Statement};
use tokio::sync::mpsc;

use super::accept::Numbers;
use super::acklog::{AckLog, Record};
use super::book::{Book, Names};
use super::checkpoint::{self, Checkpointer};
use super::desk::{Batch, Desk, SharedDesk};
use super::errors::{corrupt, is_full, sort};
use super::flush::{Committed, Flusher};
use super::lane::Lanes;
use super::thread::{Kept, refuse};
use super::writer::{Effects, Hot, Step, Tx};
use super::{Shared, accept, decisions, dedup, sieve};

/// No batch holds more steps; larger ones would make the first caller wait for the last.
const BATCH_MAX: usize = 512;
/// The thread that writes rows makes way for others after each record: a sender may wait for this processor. Once others had
/// it for so long it takes its share: busy neighbours take milliseconds each time, and whoever reads waits for these rows.
const MAKE_WAY: Duration = Duration::from_millis(4);

/// What becomes of the rows that are owed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owed {
    /// They come first.
    First,
    /// There is no room for them: nothing that is given a number after theirs may come before them.
    Later,
}

/// What one transaction that holds the desk writes.
struct Turn<'t> {
    steps: &'t mut [Box<dyn Step>],
    notes: &'t [NewDecision],
    owed: Owed,
}

impl Turn<'_> {
    /// Nothing but the rows that are owed.
    fn of_rows() -> Self {
        Self { steps: &mut [], notes: &[], owed: Owed::First }
    }
}

/// The loop, with its statements borrowed from the connection.
pub(super) struct Session<'c> {
    path: &'c Path,
    conn: &'c Connection,
    shared: &'c Arc<Shared>,
    desk: &'c Arc<SharedDesk>,
    checkpointer: &'c Checkpointer,
    flusher: &'c Flusher,
    hot: Hot<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
}

impl<'c> Session<'c> {
    pub(super) fn new(
        path: &'c Path,
        conn: &'c Connection,
        shared: &'c Arc<Shared>,
        desk: &'c Arc<SharedDesk>,
        checkpointer: &'c Checkpointer,
        flusher: &'c Flusher,
    ) -> rusqlite::Result<Self> {
        // A commit does not wait for the disk: the ack log has what is in it, or its callers wait at the flusher.
        conn.pragma_update(None, "synchronous", "normal")?;
        Ok(Self {
            path,
            conn,
            shared,
            desk,
            checkpointer,
            flusher,
            hot: Hot {
                accept: accept::Statements::new(conn)?,
                prints: dedup::Writes::new(conn)?,
                lanes: Lanes::read(conn)?,
            },
            begin: conn.prepare("BEGIN IMMEDIATE")?,
            commit: conn.prepare("COMMIT")?,
        })
    }

    /// Writes what the ack log held and the tables do not have, and makes sure of the rows that a killed process left to
    /// the system.
    pub(super) fn recover(&mut self, logged: Vec<Record>) -> Result<(), StoreError> {
        let mut guard = self.desk.lock(self.shared)?;
        let desk = guard.as_mut().ok_or(StoreError::Closed)?;
        let (next, _) = desk.book.upcoming();
        for record in logged.into_iter().filter(|record| record.first_event >= next) {
            desk.owed.push(record);
        }
        if !desk.owed.records.is_empty() {
            tracing::info!(requests = desk.owed.records.len(), "Taking over from the ack log what a stop cut off.");
            self.readmit(desk).map_err(|e| sort(&e))?;
            let mut said = self.attempt(desk, Turn::of_rows());
            // The reserve is there for this: without it nobody could start on a full disk and have retention make room.
            if said.as_ref().is_err_and(is_full) {
                desk.space.ran_out();
                said = self.attempt(desk, Turn::of_rows());
            }
            said.map_err(|e| sort(&e))?;
        }
        self.flusher.sync()?;
        desk.settled(self.shared);
        desk.log.restart();
        Ok(())
    }

    /// The loop. Gives the ack log back if nothing in it is needed any more.
    pub(super) fn serve(mut self, steps: &mut mpsc::Receiver<Box<dyn Step>>) -> Result<AckLog, Kept> {
        let mut batch: Vec<Box<dyn Step>> = Vec::with_capacity(BATCH_MAX);
        let mut closing = false;
        while steps.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
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
            // First: rows that are written apart are none that the desk is held for.
            if !settling.is_empty() {
                self.write_behind();
                settling.into_iter().for_each(Step::answer);
            }
            if !batch.is_empty() {
                let committed = self.commit_batch(std::mem::take(&mut batch));
                self.flusher.answer(committed, !steps.is_empty());
            }
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            if self.shared.finish_checkpoint.swap(false, Ordering::AcqRel) {
                checkpoint::finish(self.conn, self.shared);
            }
        }
        self.end()
    }

    /// Writes what is left, and takes the desk away.
    fn end(mut self) -> Result<AckLog, Kept> {
        let mut desk = self.desk.lock(self.shared).ok().and_then(|mut desk| desk.take()).ok_or(Kept)?;
        let notes = self.notes(&mut desk);
        if !notes.is_empty() || !desk.owed.records.is_empty() {
            self.settle(&mut desk, &mut [], notes);
        }
        let lost = self.shared.notes.take().len();
        if lost > 0 {
            tracing::warn!(
                decisions = lost,
                "Refusals were not recorded: there was no room on the disk until the end."
            );
        }
        if let Err(error) = desk.book.save_floors(self.conn) {
            tracing::debug!(error = %error, "The counters were not written down at closing; the tables tell them too.");
        }
        let is_all_there = desk.owed.records.is_empty() && self.shared.fatal.get().is_none();
        if is_all_there { Ok(desk.log) } else { Err(Kept) }
    }

    /// Commits the batch; its callers are answered once it is on disk.
    fn commit_batch(&mut self, mut steps: Vec<Box<dyn Step>>) -> Committed {
        let begun = Instant::now();
        // Before the commit: who sees that one sees this.
        let number = self.shared.committed.fetch_add(1, Ordering::AcqRel) + 1;
        let (mut effects, mut is_durable) = (Effects::default(), false);
        let said = self.desk.lock(self.shared).and_then(|mut guard| {
            let desk = guard.as_mut().ok_or(StoreError::Closed)?;
            let before = desk.book.upcoming();
            let notes = self.notes(desk);
            self.settle(desk, &mut steps, notes);
            effects = std::mem::take(&mut desk.effects);
            // Who comes to the desk next may be told that an event is known, so it must be on disk by then.
            if desk.book.upcoming() != before {
                self.flusher.sync()?;
                is_durable = true;
            }
            Ok(())
        });
        if let Err(error) = said {
            effects = Effects::default();
            steps.iter_mut().for_each(|step| step.fail(error.clone()));
        }
        Committed { steps, effects, number, begun, is_durable }
    }

    /// Writes what is noted and what is owed. Nobody waits for the disk here: the ack log has the one, and the other may be
    /// lost with the power.
    fn write_behind(&mut self) {
        self.write_rows();
        if self.shared.notes.are_none() {
            return;
        }
        let Ok(mut guard) = self.desk.lock(self.shared) else { return };
        let Some(desk) = guard.as_mut() else { return };
        let notes = self.notes(desk);
        if notes.is_empty() {
            return;
        }
        if let Err(error) = self.attempt(desk, Turn { notes: &notes, ..Turn::of_rows() }) {
            self.not_noted(notes, &error);
            self.took_ill(desk, &error);
        }
    }

    /// The notes that are to be written now.
    fn notes(&self, desk: &mut Desk) -> Vec<NewDecision> {
        if desk.space.is_tight() {
            self.shared.notes.wait();
            return Vec::new();
        }
        self.shared.notes.take()
    }

    /// Notes were in a transaction that failed. Where that was for want of room they wait for some; otherwise they may be why.
    fn not_noted(&self, notes: Vec<NewDecision>, error: &rusqlite::Error) {
        let dropped = if is_full(error) { self.shared.notes.put_back(notes) } else { notes.len() };
        metrics::counter!("doorbell_notes_dropped_total").increment(dropped as u64);
    }

    // ---- transactions ----

    /// Writes the rows that are owed, while the desk goes on, and without waiting for the disk. They may still be owed
    /// afterwards.
    fn write_rows(&mut self) {
        let said = self.desk.lock(self.shared);
        let Some(batch) = said.ok().and_then(|mut desk| desk.as_mut().and_then(Desk::take_rows)) else { return };
        let names = self.shared.names.read().map(|names| names.clone()).unwrap_or_default();
        let said = self.rows(&batch, &names);
        match said {
            Ok(()) => self.hot.lanes.keep(),
            Err(_) => self.roll_back(),
        }
        let Ok(mut guard) = self.desk.lock(self.shared) else { return };
        let Some(desk) = guard.as_mut() else { return };
        match said {
            Ok(()) => {
                desk.space.keep_reserve();
                desk.rows_written(&batch, self.shared, self.checkpointer);
                let wants_sieve = desk.prints.wants_sieve();
                drop(guard);
                if wants_sieve {
                    sieve::make_behind(self.path, self.shared, self.desk);
                }
            }
            Err(error) => {
                desk.put_back(batch, self.shared);
                self.rows_took_ill(desk, &error);
            }
        }
    }

    fn rows(&mut self, batch: &Batch, names: &Names) -> rusqlite::Result<()> {
        self.begin.execute([])?;
        let mut gone = Duration::ZERO;
        for record in &batch.owed.records {
            if gone < MAKE_WAY {
                let begun = Instant::now();
                std::thread::yield_now();
                gone += begun.elapsed();
            }
            accept::write_record(self.conn, &mut self.hot, record, |entry| {
                Numbers::known(names, entry).ok_or_else(|| corrupt("a name is not in the tables"))
            })?;
        }
        self.hot.prints.write(&batch.prints)?;
        self.commit.execute([])?;
        Ok(())
    }

    /// Writes the rows that are owed, the desk in hand. False if they are still owed.
    fn write_owed(&mut self, desk: &mut Desk) -> bool {
        if desk.owed.records.is_empty() {
            return true;
        }
        let Err(error) = self.attempt(desk, Turn::of_rows()) else { return true };
        desk.no_room = true;
        self.rows_took_ill(desk, &error);
        false
    }

    /// They are in the log and are tried again; but if it is not for want of room, it never works.
    fn rows_took_ill(&self, desk: &mut Desk, error: &rusqlite::Error) {
        let sorted = self.took_ill(desk, error);
        if matches!(sorted, StoreError::Corrupt(_)) {
            self.shared.fail_for_good(&StoreError::Fatal(format!("acknowledged events cannot be stored: {sorted}")));
        }
    }

    /// Commits the batch; if that fails, its steps one by one.
    fn settle(&mut self, desk: &mut Desk, batch: &mut [Box<dyn Step>], notes: Vec<NewDecision>) {
        // It may have come to that since the batch began: then nothing is promised any more.
        if let Some(error) = self.shared.fatal.get() {
            batch.iter_mut().for_each(|step| step.fail(error.clone()));
            return;
        }
        let turn = Turn { steps: batch, notes: &notes, owed: Owed::First };
        let Err(error) = self.attempt(desk, turn) else { return };
        // With notes or owed rows in the transaction even a single step is not proved guilty.
        let is_alone = notes.is_empty() && desk.owed.records.is_empty();
        self.not_noted(notes, &error);
        if let [only] = batch
            && is_alone
        {
            only.fail(self.took_ill(desk, &error));
            return;
        }
        // If the owed rows find no room, what ends runs and makes room goes on without them.
        let owed = if self.write_owed(desk) { Owed::First } else { Owed::Later };
        // An error takes back what the desk has to tell: what is committed is told all the same.
        let mut effects = std::mem::take(&mut desk.effects);
        for step in batch {
            let said = match self.shared.fatal.get() {
                Some(fatal) => Err(fatal.clone()),
                None => {
                    let turn = Turn { steps: std::slice::from_mut(step), notes: &[], owed };
                    self.attempt(desk, turn).map_err(|e| self.took_ill(desk, &e))
                }
            };
            match said {
                Ok(()) => effects.append(std::mem::take(&mut desk.effects)),
                Err(error) => step.fail(error),
            }
        }
        desk.effects = effects;
    }

    /// One transaction. After an error everything in memory is as the tables and the log are.
    fn attempt(&mut self, desk: &mut Desk, turn: Turn<'_>) -> rusqlite::Result<()> {
        let said = self.transaction(desk, turn);
        if said.is_err() {
            self.undo(desk);
        }
        said
    }

    fn transaction(&mut self, desk: &mut Desk, turn: Turn<'_>) -> rusqlite::Result<()> {
        let Turn { steps, notes, owed } = turn;
        let stuck = owed == Owed::Later && !desk.owed.records.is_empty();
        let short = desk.space.is_short() || stuck;
        desk.space.keep_reserve();
        desk.prints.begin();
        self.begin.execute([])?;
        let mut tx = Tx {
            conn: self.conn,
            hot: &mut self.hot,
            prints: &mut desk.prints,
            book: &mut desk.book,
            effects: &mut desk.effects,
            shared: self.shared,
            short,
            stuck,
        };
        for record in desk.owed.records.iter().filter(|_| !stuck) {
            accept::write_record(tx.conn, tx.hot, record, |entry| Numbers::given(tx.book, tx.conn, entry))?;
        }
        if !stuck {
            // From here on the tables have them: what a step deletes of them must not be written again by a recovery.
            tx.book.owed = None;
        }
        for step in steps {
            step.run(&mut tx)?;
        }
        decisions::write_notes(&mut tx, notes)?;
        tx.hot.prints.write(&tx.prints.slice())?;
        self.commit.execute([])?;
        desk.prints.keep();
        self.hot.lanes.keep();
        if !stuck {
            self.settled(desk);
        }
        Ok(())
    }

    /// A transaction is committed, the owed rows with it.
    fn settled(&self, desk: &mut Desk) {
        desk.settled(self.shared);
        desk.log.rows_written(None, || self.checkpointer.ask_sync());
    }

    fn roll_back(&mut self) {
        self.hot.lanes.forget();
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            self.shared.fail_for_good(&StoreError::Fatal(format!("a rollback failed: {error}")));
        }
    }

    /// After an error: everything in memory becomes what the tables and the log say.
    fn undo(&mut self, desk: &mut Desk) {
        desk.effects = Effects::default();
        self.roll_back();
        desk.prints.forget();
        let said = Book::read(self.conn, self.shared.names.clone()).and_then(|book| {
            desk.book = book;
            self.readmit(desk)
        });
        if let Err(error) = said {
            // Without its memory the writer would give numbers twice.
            self.shared.fail_for_good(&StoreError::Fatal(format!("cannot read after a rollback: {error}")));
        }
    }

    /// Counts what is owed as if it were in the tables.
    fn readmit(&mut self, desk: &mut Desk) -> rusqlite::Result<()> {
        let mut tx = Tx {
            conn: self.conn,
            hot: &mut self.hot,
            prints: &mut desk.prints,
            book: &mut desk.book,
            effects: &mut desk.effects,
            shared: self.shared,
            short: false,
            stuck: false,
        };
        for record in &desk.owed.records {
            accept::readmit(&mut tx, record)?;
        }
        desk.prints.logged();
        desk.count_owed(self.shared);
        Ok(())
    }

    fn took_ill(&self, desk: &mut Desk, error: &rusqlite::Error) -> StoreError {
        if is_full(error) {
            desk.space.ran_out();
        }
        let sorted = sort(error);
        match &sorted {
            StoreError::Fatal(_) => self.shared.fail_for_good(&sorted),
            StoreError::Corrupt(_) => tracing::error!(error = %sorted, "A write failed; this is a defect."),
            _ => tracing::warn!(error = %sorted, "A write failed; it was refused and can be tried again."),
        }
        sorted
    }
}
