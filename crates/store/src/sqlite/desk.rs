//! The desk: where new events get their numbers and are put on disk, whoever does it. What this needs is in memory or in
//! the ack log, but for a print that the filter cannot tell, so it waits for no transaction of the tables but those that hold
//! the desk: numbers first, then one append and one fsync for all wishes at hand. Their rows are *owed* from then on.
//!
//! Two kinds of transaction follow (see `session`). One writes the rows that are owed and nothing else; the desk goes on
//! meanwhile. Every other one holds the desk from its beginning to its end, and writes what is owed first, so that each step
//! sees all that was acknowledged before it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use doorbell_core::event::Receipt;
use doorbell_core::ports::StoreError;
use rusqlite::Connection;

use super::accept::{self, Counter, Prepared};
use super::acklog::{AckLog, Failed, Record};
use super::book::Book;
use super::dedup::{Prints, Slice};
use super::errors::Fail;
use super::space::Space;
use super::writer::Effects;
use super::{Shared, checkpoint};

/// Owed records whose rows are written although nobody asks for them.
const OWED_MAX: usize = 64;
/// The same in bytes.
const OWED_BYTES_MAX: usize = 512 * 1024;
/// An admission that is longer goes into the tables at once.
const LOGGED_BYTES_MAX: usize = 256 * 1024;
/// Rows that were written, in bytes of the ack log, after which they are put on disk although nobody needs it yet: whoever
/// waits for the ack log's fsync waits behind what is left in one piece.
const UNSYNCED_BYTES_MAX: usize = 64 * 1024;
/// What takes longer is no matter for a thread that has others to serve.
const QUICK: Duration = Duration::from_millis(1);
/// Nor are more bytes than this, in one admission: it may hold thousands of events.
const QUICK_BYTES: usize = 16 * 1024;

/// The desk, or none once the store is closed.
pub(super) struct SharedDesk(Mutex<Option<Desk>>);

impl SharedDesk {
    pub(super) fn new(desk: Desk) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(desk))))
    }

    /// Waits for the desk. An error if somebody broke off while they held it: its memory may be half changed then.
    pub(super) fn lock(&self, shared: &Shared) -> Result<MutexGuard<'_, Option<Desk>>, StoreError> {
        self.0.lock().map_err(|_| {
            let error = StoreError::Fatal("an admission broke off half way: this is a defect".into());
            shared.fail_for_good(&error);
            error
        })
    }

    /// The desk, if nobody holds it and nobody broke off.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Option<Desk>>> {
        self.0.try_lock().ok()
    }
}

/// Somebody's new events, and what became of them.
pub(super) struct Wish {
    pub(super) input: Prepared,
    /// None: a transaction of the tables has to see to it.
    pub(super) outcome: Option<Result<Vec<Receipt>, StoreError>>,
    /// The first event's and the first run's number, once it is in the ack log.
    logged: Option<(u64, u64)>,
}

impl Wish {
    pub(super) fn new(input: Prepared) -> Self {
        Self { input, outcome: None, logged: None }
    }

    /// Whether the ack log takes it.
    fn fits(&self) -> bool {
        self.input.bytes.len() <= LOGGED_BYTES_MAX
    }
}

impl AsMut<Wish> for Wish {
    fn as_mut(&mut self) -> &mut Wish {
        self
    }
}

/// Records whose rows are owed.
#[derive(Default)]
pub(super) struct Owed {
    pub(super) records: Vec<Record>,
    bytes: usize,
}

impl Owed {
    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.events.len();
        self.records.push(record);
    }

    /// The numbers of the first event and the first run.
    fn first(&self) -> Option<(u64, u64)> {
        self.records.first().map(|record| (record.first_event, record.first_run))
    }
}

/// Rows on their way into the tables, apart from the desk.
pub(super) struct Batch {
    pub(super) owed: Owed,
    pub(super) prints: Slice,
}

/// What new events need, in one place. Who holds it holds them up.
pub(super) struct Desk {
    pub(super) book: Book,
    pub(super) prints: Prints,
    pub(super) effects: Effects,
    pub(super) space: Space,
    pub(super) log: AckLog,
    /// Acknowledged, and not yet in the tables nor on the way there.
    pub(super) owed: Owed,
    /// Records on the way into the tables.
    on_the_way: usize,
    /// Bytes of records that were written into the tables since a sync of rows was asked for.
    unsynced: usize,
    /// What is owed could not be written, for want of room or for another reason: until it can, nothing more is promised.
    pub(super) no_room: bool,
    /// Somebody was told to write what is owed.
    told: bool,
    /// Looks prints up.
    conn: Connection,
    /// The last sync of rows that is done.
    synced: Arc<AtomicU64>,
    /// How long the last wishes held the desk.
    took: Duration,
}

impl Desk {
    /// `conn` reads the tables.
    pub(super) fn new(
        book: Book,
        prints: Prints,
        space: Space,
        log: AckLog,
        conn: Connection,
        synced: Arc<AtomicU64>,
    ) -> Self {
        Self {
            book,
            prints,
            effects: Effects::default(),
            space,
            log,
            owed: Owed::default(),
            on_the_way: 0,
            unsynced: 0,
            no_room: false,
            told: false,
            conn,
            synced,
            took: Duration::ZERO,
        }
    }

    /// Whether this is sure to be short, as far as one can tell: then whoever asks may do it on a thread that serves others.
    pub(super) fn is_quick(&self, prepared: &Prepared) -> bool {
        self.took < QUICK && prepared.bytes.len() <= QUICK_BYTES
    }

    /// Whether somebody should be told to write what is owed; true once until they begin.
    pub(super) fn wants_rows(&mut self) -> bool {
        let is_much = self.owed.records.len() >= OWED_MAX || self.owed.bytes >= OWED_BYTES_MAX;
        is_much && !std::mem::replace(&mut self.told, true)
    }

    /// Puts new events into the ack log, as many wishes as it can take. What it cannot take keeps no outcome.
    pub(super) fn serve<W: AsMut<Wish>>(&mut self, wishes: &mut [W], shared: &Shared) {
        let begun = Instant::now();
        let committed = self.take_in(wishes, shared);
        self.took = begun.elapsed();
        if committed {
            shared.commits.fetch_add(1, Ordering::Relaxed);
            metrics::histogram!("doorbell_commit_size").record(wishes.len() as f64);
            metrics::histogram!("doorbell_commit_seconds").record(self.took.as_secs_f64());
        }
    }

    /// True if something of it is on disk now.
    fn take_in<W: AsMut<Wish>>(&mut self, wishes: &mut [W], shared: &Shared) -> bool {
        if let Some(error) = shared.fatal.get() {
            wishes.iter_mut().for_each(|wish| wish.as_mut().outcome = Some(Err(error.clone())));
            return false;
        }
        let size =
            wishes.iter_mut().map(|wish| wish.as_mut()).filter(|wish| wish.fits()).map(|w| w.input.bytes.len() + 64);
        let size = size.sum();
        if self.space.is_short() || self.no_room || !self.make_room(size) {
            return false;
        }
        let before = self.book.upcoming();
        if let Err(error) = self.admit(wishes, shared) {
            tracing::warn!(error = %error, "Earlier deliveries could not be looked up; the tables take over.");
            self.take_back(wishes, before);
            return false;
        }
        if !wishes.iter_mut().any(|wish| wish.as_mut().logged.is_some()) {
            return false;
        }
        match self.log.commit() {
            Ok(()) => self.prints.logged(),
            Err(Failed::Write(error)) => {
                tracing::warn!(error = %error, "The ack log cannot be written; the tables take over.");
                self.take_back(wishes, before);
                return false;
            }
            Err(Failed::Sync(error)) => {
                let error = StoreError::Fatal(format!("an fsync failed, so what is on disk is not known: {error}"));
                shared.fail_for_good(&error);
                self.take_back(wishes, before);
                wishes.iter_mut().for_each(|wish| wish.as_mut().outcome = Some(Err(error.clone())));
                return false;
            }
        }
        for wish in wishes.iter_mut().map(AsMut::as_mut) {
            if let Some((first_event, first_run)) = wish.logged {
                let events = std::mem::take(&mut wish.input.bytes);
                self.owed.push(Record { first_event, first_run, at: wish.input.at.millis(), events });
            }
        }
        self.count_owed(shared);
        true
    }

    /// Numbers the wishes' events and adds them to the log's buffer.
    fn admit<W: AsMut<Wish>>(&mut self, wishes: &mut [W], shared: &Shared) -> rusqlite::Result<()> {
        wishes.iter_mut().try_for_each(|wish| self.admit_one(wish.as_mut(), shared))
    }

    fn admit_one(&mut self, wish: &mut Wish, shared: &Shared) -> rusqlite::Result<()> {
        let (book, prints, effects) = (&mut self.book, &mut self.prints, &mut self.effects);
        let mut counter = Counter { conn: &self.conn, book, prints, effects, shared };
        if !wish.fits() {
            return Ok(());
        }
        match accept::admit(&mut counter, &wish.input) {
            Ok(Some(admitted)) => {
                let (event, run) = (admitted.first_event, admitted.first_run);
                self.log.add(event, run, wish.input.at.millis(), &wish.input.bytes);
                wish.logged = Some((event, run));
                wish.outcome = Some(Ok(admitted.receipts));
            }
            Ok(None) => {}
            Err(Fail::Refused(error)) => wish.outcome = Some(Err(error)),
            Err(Fail::Sql(error)) => return Err(error),
        }
        Ok(())
    }

    /// Forgets what [`Desk::admit`] gave out, for the tables to see to. Without a look at them: a write that failed must not
    /// cost what all that is queued costs to count.
    fn take_back<W: AsMut<Wish>>(&mut self, wishes: &mut [W], before: (u64, u64)) {
        self.log.forget();
        self.effects = Effects::default();
        self.prints.forget();
        for wish in wishes.iter_mut().map(AsMut::as_mut) {
            if wish.logged.take().is_some() {
                self.book.take_back(wish.input.runs());
                wish.outcome = None;
            }
        }
        self.book.go_back_to(before);
    }

    /// Sees to it that the log can take `bytes`, by going on in the other file if need be. False if that one's rows are not
    /// on disk yet: then a transaction of the tables brings all rows there.
    fn make_room(&mut self, bytes: usize) -> bool {
        if self.log.has_room(bytes) || !self.log.could_have_room(bytes) {
            return self.log.has_room(bytes);
        }
        let (next, _) = self.book.upcoming();
        self.log.switch(self.synced.load(Ordering::Acquire), next.saturating_sub(1)) && self.log.has_room(bytes)
    }

    // ---- rows ----

    /// Takes what is owed, to be written while the desk goes on; none if nothing is.
    pub(super) fn take_rows(&mut self) -> Option<Batch> {
        self.told = false;
        if self.owed.records.is_empty() {
            return None;
        }
        self.prints.begin();
        let owed = std::mem::take(&mut self.owed);
        self.on_the_way = owed.records.len();
        Some(Batch { owed, prints: self.prints.slice_apart() })
    }

    /// What was taken is in the tables, on disk some time later.
    pub(super) fn rows_written(&mut self, batch: &Batch, shared: &Shared, checkpointer: &checkpoint::Checkpointer) {
        self.on_the_way = 0;
        self.no_room = false;
        self.prints.keep();
        self.unsynced += batch.owed.bytes;
        let first = self.owed.first().map(|(event, _)| event);
        if self.log.rows_written(first, || checkpointer.ask_sync()) {
            self.unsynced = 0;
        } else if self.unsynced >= UNSYNCED_BYTES_MAX {
            self.unsynced = 0;
            checkpointer.ask_sync();
        }
        self.count_owed(shared);
    }

    /// What was taken is not in the tables: it is owed again, before all that came since.
    pub(super) fn put_back(&mut self, batch: Batch, shared: &Shared) {
        let Batch { mut owed, prints } = batch;
        std::mem::take(&mut self.owed).records.into_iter().for_each(|record| owed.push(record));
        self.owed = owed;
        self.on_the_way = 0;
        self.no_room = true;
        self.prints.put_back(&prints);
        self.count_owed(shared);
    }

    /// A transaction that held the desk is committed, what was owed with it.
    pub(super) fn settled(&mut self, shared: &Shared) {
        self.owed = Owed::default();
        self.told = false;
        self.no_room = false;
        self.count_owed(shared);
    }

    /// Tells readers how much they would not see, and the counters' floors where to stay. While rows are on the way, the
    /// floors stay before these.
    pub(super) fn count_owed(&mut self, shared: &Shared) {
        if self.on_the_way == 0 {
            self.book.owed = self.owed.first();
        }
        shared.pending.store(self.owed.records.len() + self.on_the_way, Ordering::Release);
    }
}
