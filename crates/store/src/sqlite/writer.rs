//! The one thread that writes. Callers hand it steps over a bounded channel; it drains what has come in, runs it in one
//! transaction, commits with one fsync, and only then answers each caller (semantics 12: group commit).
//!
//! If a step makes the batch fail, the batch is rolled back and its steps are tried one by one, so that only the culprit
//! gets the error.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use doorbell_core::StoreTag;
use doorbell_core::decision::NewDecision;
use doorbell_core::ports::{Notice, StoreError};
use rusqlite::{Connection, Statement};
use tokio::sync::{mpsc, oneshot};

use super::book::Book;
use super::checkpoint::{self, Checkpointer};
use super::errors::{Fail, is_full, sort};
use super::lock::OwnerLock;
use super::space::Space;
use super::{Shared, accept, decisions, dedup};

/// No transaction holds more steps; larger ones would make the first caller wait for the last.
const BATCH_MAX: usize = 512;
/// Steps that may wait for the writer before callers wait to hand theirs over.
pub(super) const WAITING_MAX: usize = 2048;

/// What a step works with.
pub(super) struct Tx<'t, 'c> {
    pub(super) conn: &'c Connection,
    pub(super) hot: &'t mut Hot<'c>,
    pub(super) book: &'t mut Book,
    pub(super) effects: &'t mut Effects,
    pub(super) shared: &'t Shared,
    /// Disk space is short: what may wait is refused.
    pub(super) short: bool,
}

impl Tx<'_, '_> {
    /// The store's tag.
    pub(super) fn tag(&self) -> StoreTag {
        self.shared.identity.tag
    }
}

/// Statements of the accepting path, prepared once.
pub(super) struct Hot<'c> {
    pub(super) accept: accept::Statements<'c>,
    pub(super) dedup: dedup::Prints<'c>,
}

/// What is told to the world once the transaction is on disk.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) notices: Vec<Notice>,
    /// Something became claimable.
    pub(super) ready: bool,
}

/// One caller's wish.
pub(super) trait Step: Send {
    /// Carries it out inside the transaction. May be called again after a rollback.
    fn run(&mut self, tx: &mut Tx<'_, '_>) -> rusqlite::Result<()>;
    /// It could not be carried out.
    fn fail(&mut self, error: StoreError);
    /// Tells the caller, after the commit.
    fn answer(self: Box<Self>);
    /// Whether the writer stops after this.
    fn closes(&self) -> bool {
        false
    }
}

/// What carries a step out.
pub(super) type Work<I, O> = fn(&mut Tx<'_, '_>, &I) -> Result<O, Fail>;

/// A step with its input, its work and the caller who waits.
pub(super) struct Job<I, O> {
    input: I,
    work: Work<I, O>,
    result: Option<Result<O, StoreError>>,
    reply: oneshot::Sender<Result<O, StoreError>>,
}

impl<I, O> Job<I, O> {
    /// A job and where its answer arrives.
    pub(super) fn new(input: I, work: Work<I, O>) -> (Box<Self>, oneshot::Receiver<Result<O, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { input, work, result: None, reply }), answer)
    }
}

impl<I: Send, O: Send> Step for Job<I, O> {
    fn run(&mut self, tx: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
        match (self.work)(tx, &self.input) {
            Ok(value) => self.result = Some(Ok(value)),
            Err(Fail::Refused(error)) => self.result = Some(Err(error)),
            Err(Fail::Sql(error)) => return Err(error),
        }
        Ok(())
    }

    fn fail(&mut self, error: StoreError) {
        self.result = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        // A caller that went away has nothing to learn.
        let _ = self.reply.send(self.result.unwrap_or(Err(StoreError::Closed)));
    }
}

/// Makes the writer look at its notes.
pub(super) struct Nudge;

impl Step for Nudge {
    fn run(&mut self, _: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
        Ok(())
    }
    fn fail(&mut self, _: StoreError) {}
    fn answer(self: Box<Self>) {}
}

/// Makes the writer stop after what is already waiting.
pub(super) struct Close;

impl Step for Close {
    fn run(&mut self, _: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
        Ok(())
    }
    fn fail(&mut self, _: StoreError) {}
    fn answer(self: Box<Self>) {}
    fn closes(&self) -> bool {
        true
    }
}

/// The thread's belongings.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) steps: mpsc::Receiver<Box<dyn Step>>,
    pub(super) shared: Arc<Shared>,
    pub(super) space: Space,
    pub(super) checkpointer: Checkpointer,
    pub(super) lock: OwnerLock,
}

impl Writer {
    /// Runs until the store is closed or every handle to it is gone.
    pub(super) fn run(self, book: Book) {
        let Self { conn, mut steps, shared, mut space, checkpointer, lock } = self;
        match Session::new(&conn, book, &shared) {
            Ok(mut session) => session.serve(&mut steps, &mut space),
            Err(error) => shared.fail_for_good(&sort(&error)),
        }
        steps.close();
        while let Ok(step) = steps.try_recv() {
            refuse(step, &StoreError::Closed);
        }
        checkpointer.stop();
        checkpoint::cut(&conn, &shared);
        if let Err((_, error)) = conn.close() {
            tracing::warn!(error = %error, "The database did not close cleanly; the next start recovers it from its log.");
        }
        drop(lock);
        shared.closed.send_replace(true);
    }
}

fn refuse(mut step: Box<dyn Step>, error: &StoreError) {
    step.fail(error.clone());
    step.answer();
}

/// The loop, with its statements borrowed from the connection.
struct Session<'c> {
    conn: &'c Connection,
    shared: &'c Shared,
    hot: Hot<'c>,
    book: Book,
    effects: Effects,
    begin: Statement<'c>,
    commit: Statement<'c>,
}

impl<'c> Session<'c> {
    fn new(conn: &'c Connection, book: Book, shared: &'c Shared) -> rusqlite::Result<Self> {
        Ok(Self {
            conn,
            shared,
            hot: Hot { accept: accept::Statements::new(conn)?, dedup: dedup::Prints::new(conn)? },
            book,
            effects: Effects::default(),
            begin: conn.prepare("BEGIN IMMEDIATE")?,
            commit: conn.prepare("COMMIT")?,
        })
    }

    fn serve(&mut self, steps: &mut mpsc::Receiver<Box<dyn Step>>, space: &mut Space) {
        let mut batch: Vec<Box<dyn Step>> = Vec::with_capacity(BATCH_MAX);
        let mut closing = false;
        while steps.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            if !closing && batch.iter().any(|step| step.closes()) {
                closing = true;
                steps.close();
            }
            let notes = self.shared.notes.take();
            if let Some(error) = self.shared.fatal.get() {
                batch.drain(..).for_each(|step| refuse(step, error));
                continue;
            }
            self.settle(&mut batch, &notes, space);
            // Notices first: whoever listens from after an answer on hears nothing that went before it.
            self.tell();
            for step in batch.drain(..) {
                step.answer();
            }
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            if self.shared.finish_checkpoint.swap(false, Ordering::AcqRel) {
                checkpoint::finish(self.conn, self.shared);
            }
        }
        let notes = self.shared.notes.take();
        if !notes.is_empty() {
            self.settle(&mut batch, &notes, space);
        }
        if let Err(error) = self.book.save_floors(self.conn) {
            tracing::debug!(error = %error, "The counters were not written down at closing; the tables tell them too.");
        }
    }

    /// Commits the batch; if that fails, its steps one by one.
    fn settle(&mut self, batch: &mut [Box<dyn Step>], notes: &[NewDecision], space: &mut Space) {
        let begun = Instant::now();
        let size = batch.len();
        let failed = self.attempt(batch, notes, space);
        metrics::histogram!("doorbell_commit_size").record(size as f64);
        metrics::histogram!("doorbell_commit_seconds").record(begun.elapsed().as_secs_f64());
        let Err(error) = failed else { return };
        if !notes.is_empty() {
            metrics::counter!("doorbell_notes_dropped_total").increment(notes.len() as u64);
        }
        // With notes in the transaction even a single step is not proved guilty.
        if let [only] = batch
            && notes.is_empty()
        {
            only.fail(self.took_ill(&error, space));
            return;
        }
        for step in batch {
            let said = match self.shared.fatal.get() {
                Some(fatal) => Err(fatal.clone()),
                None => self.attempt(std::slice::from_mut(step), &[], space).map_err(|e| self.took_ill(&e, space)),
            };
            if let Err(error) = said {
                step.fail(error);
            }
        }
    }

    /// One transaction. After an error everything in memory is as the tables are.
    fn attempt(
        &mut self,
        steps: &mut [Box<dyn Step>],
        notes: &[NewDecision],
        space: &mut Space,
    ) -> rusqlite::Result<()> {
        let short = space.is_short();
        let said = self.transaction(steps, notes, short);
        if said.is_err() {
            self.undo();
        }
        said
    }

    fn transaction(&mut self, steps: &mut [Box<dyn Step>], notes: &[NewDecision], short: bool) -> rusqlite::Result<()> {
        self.hot.dedup.begin();
        self.begin.execute([])?;
        let mut tx = Tx {
            conn: self.conn,
            hot: &mut self.hot,
            book: &mut self.book,
            effects: &mut self.effects,
            shared: self.shared,
            short,
        };
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
        Ok(())
    }

    fn undo(&mut self) {
        self.effects = Effects::default();
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            self.shared.fail_for_good(&StoreError::Fatal(format!("a rollback failed: {error}")));
        }
        self.hot.dedup.forget();
        match Book::read(self.conn, self.shared.names.clone()) {
            Ok(book) => self.book = book,
            // Without its memory the writer would give numbers twice.
            Err(error) => {
                self.shared.fail_for_good(&StoreError::Fatal(format!("cannot read after a rollback: {error}")))
            }
        }
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
