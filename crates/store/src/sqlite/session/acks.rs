//! The way of new events through the ack log: numbers first, then one append and one fsync for the batch; the rows are
//! owed from then on.

use doorbell_core::ports::StoreError;

use super::super::acklog::{Failed, Record};
use super::super::errors::Fail;
use super::super::space::Space;
use super::super::writer::{Step, Tx};
use super::{Effects, LOGGED_BYTES_MAX, Owed, PENDING_BYTES_MAX, PENDING_MAX, Session, Sync, accept};

/// Records whose rows are owed.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) records: Vec<Record>,
    bytes: usize,
}

impl Pending {
    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.events.len();
        self.records.push(record);
    }

    /// The numbers of the first event and the first run.
    pub(super) fn first(&self) -> Option<(u64, u64)> {
        self.records.first().map(|record| (record.first_event, record.first_run))
    }

    pub(super) fn is_much(&self) -> bool {
        self.records.len() >= PENDING_MAX || self.bytes >= PENDING_BYTES_MAX
    }
}

impl Session<'_> {
    /// Puts a batch of new events into the ack log. False if something else is in it: then nothing was done.
    pub(super) fn log(&mut self, batch: &mut [Box<dyn Step>], space: &mut Space) -> bool {
        let mut size = 0;
        for step in batch.iter_mut() {
            match step.admission() {
                Some(job) if job.input.bytes.len() <= LOGGED_BYTES_MAX => size += job.input.bytes.len() + 64,
                _ => return false,
            }
        }
        let short = space.is_short();
        if short || self.no_room || !self.make_room(size, space) {
            return false;
        }
        let before = self.book.upcoming();
        match self.admit(batch) {
            Ok(true) => {}
            Ok(false) => {
                self.take_back(batch, before);
                return false;
            }
            Err(_) => {
                self.log.forget();
                self.undo();
                return false;
            }
        }
        match self.log.commit() {
            Ok(()) => self.hot.dedup.logged(),
            Err(Failed::Write(error)) => {
                tracing::warn!(error = %error, "The ack log cannot be written; the tables take over.");
                self.take_back(batch, before);
                return false;
            }
            Err(Failed::Sync(error)) => {
                let error = StoreError::Fatal(format!("an fsync failed, so what is on disk is not known: {error}"));
                self.shared.fail_for_good(&error);
                self.take_back(batch, before);
                batch.iter_mut().for_each(|step| step.fail(error.clone()));
                return true;
            }
        }
        for job in batch.iter_mut().filter_map(|step| step.admission()) {
            if let Some((first_event, first_run)) = job.logged {
                let events = std::mem::take(&mut job.input.bytes);
                self.pending.push(Record { first_event, first_run, at: job.input.at.millis(), events });
            }
        }
        self.book.owed = self.pending.first();
        true
    }

    /// Numbers the batch's events and adds them to the log's buffer. False if a transaction must see to it.
    fn admit(&mut self, batch: &mut [Box<dyn Step>]) -> rusqlite::Result<bool> {
        // One transaction for all look-ups: each alone would lock and unlock.
        self.begin_reading.execute([])?;
        let said = self.admit_all(batch);
        self.commit.execute([])?;
        said
    }

    fn admit_all(&mut self, batch: &mut [Box<dyn Step>]) -> rusqlite::Result<bool> {
        for step in batch {
            let Some(job) = step.admission() else { return Ok(false) };
            let mut tx = Tx {
                conn: self.conn,
                hot: &mut self.hot,
                book: &mut self.book,
                effects: &mut self.effects,
                shared: self.shared,
                short: false,
                stuck: false,
            };
            match accept::admit(&mut tx, &job.input) {
                Ok(Some(admitted)) => {
                    let (event, run) = (admitted.first_event, admitted.first_run);
                    self.log.add(event, run, job.input.at.millis(), &job.input.bytes);
                    job.logged = Some((event, run));
                    job.result = Some(Ok(admitted.receipts));
                }
                Ok(None) => return Ok(false),
                Err(Fail::Refused(error)) => job.result = Some(Err(error)),
                Err(Fail::Sql(error)) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Forgets what [`Session::admit`] gave out. Without a look at the tables: a duplicate must not cost what all that is
    /// queued costs to count.
    fn take_back(&mut self, batch: &mut [Box<dyn Step>], before: (u64, u64)) {
        self.log.forget();
        self.effects = Effects::default();
        self.hot.dedup.forget();
        for job in batch.iter_mut().filter_map(|step| step.admission()) {
            if job.logged.take().is_some() {
                self.book.take_back(job.input.runs());
            }
        }
        self.book.go_back_to(before);
    }

    /// Sees to it that the log can take `bytes`, by going on in the other file if need be. False if the rows cannot be
    /// written.
    fn make_room(&mut self, bytes: usize, space: &mut Space) -> bool {
        if self.log.has_room(bytes) {
            return true;
        }
        if !self.write_pending(space) {
            return false;
        }
        let ticket = self.checkpointer.ask_sync();
        if !self.log.switch(self.checkpointer.synced(), ticket) {
            // The disk is behind: the rows of both files are waited for.
            if let Err(error) = self.checkpointer.sync_now() {
                self.shared.fail_for_good(&error);
                return false;
            }
            self.log.restart();
        }
        self.log.has_room(bytes)
    }

    /// Writes the rows that are owed, without waiting for the disk. False if they are still owed.
    pub(super) fn write_pending(&mut self, space: &mut Space) -> bool {
        if self.pending.records.is_empty() {
            return true;
        }
        let Err(error) = self.attempt(&mut [], &[], space, Sync::Later, Owed::First) else { return true };
        self.no_room = true;
        // They are in the log and are tried again; but if it is not for want of room, it never works.
        let sorted = self.took_ill(&error, space);
        if matches!(sorted, StoreError::Corrupt(_)) {
            self.shared.fail_for_good(&StoreError::Fatal(format!("acknowledged events cannot be stored: {sorted}")));
        }
        false
    }
}
