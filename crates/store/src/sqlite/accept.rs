//! Accepting: events, their runs, their prints and the decisions on duplicates, all or nothing. The hot path.
//!
//! What needs no order (facts as JSON, compressing the body) is done by the caller's task in [`Prepared::new`]. Then there
//! are two ways: [`admit`] gives new events their numbers, for the ack log to keep until [`write_event`] puts them into the
//! tables; [`accept`] does both at once inside a transaction, and knows what to do with duplicates and unknown names.

use std::collections::HashMap;

use doorbell_core::decision::Kind;
use doorbell_core::event::{Admission, Dedup, NewEvent, OnDuplicateFailed, Receipt, SeenBy};
use doorbell_core::lane::LaneId;
use doorbell_core::ports::StoreError;
use doorbell_core::run::{NewRun, State};
use doorbell_core::{EventId, Name, RunId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::acklog::Record;
use super::book::{Book, Names};
use super::dedup::{Prints, Seen};
use super::entry::{self, Entry, RunEntry};
use super::errors::{Fail, corrupt};
use super::lane::Joined;
use super::writer::{Effects, Hot, Tx};
use super::{Shared, decisions, lane, rows};
use crate::record::within;

/// An admission made ready outside the writer's thread.
pub(super) struct Prepared {
    pub(super) at: Timestamp,
    /// Without their bodies, which are in `bytes`.
    events: Vec<NewEvent>,
    /// As the ack log keeps them.
    pub(super) bytes: Vec<u8>,
}

impl Prepared {
    /// Serialises and compresses.
    pub(super) fn new(admission: Admission) -> Result<Self, StoreError> {
        let Admission { at, mut events } = admission;
        let size: usize = events.iter().map(|event| event.body.len() / 2 + 1024).sum();
        let mut bytes = Vec::with_capacity(size);
        for event in &mut events {
            bytes = entry::encode(event, bytes)?;
            event.body = bytes::Bytes::new();
        }
        Ok(Self { at, events, bytes })
    }

    /// The runs of all its events.
    pub(super) fn runs(&self) -> impl Iterator<Item = &NewRun> {
        self.events.iter().flat_map(|event| &event.runs)
    }
}

/// Statements of the accepting path.
pub(super) struct Statements<'c> {
    event: Statement<'c>,
    run: Statement<'c>,
}

impl<'c> Statements<'c> {
    pub(super) fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            event: conn.prepare(
                "INSERT INTO events (seq, at, verdict, source, first_run, runs, prints, event_type, subject, remote,
                                     body_format, body_len, body_codec, facts, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            )?,
            run: conn.prepare(
                "INSERT INTO runs (seq, event, queue, state, blocked, passed, shared, due_at, ord, lane, created_at,
                                   source, event_type, key, title, flag)
                 VALUES (?1, ?2, ?3, 0, ?4, 0, ?5, ?6, ?1, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?,
        })
    }
}

/// What an event turned out to be: new, or a copy of one that came before (maybe earlier in the same admission).
enum Standing {
    New,
    Copy { of: Seen, by: SeenBy },
    CopyOfEarlier { index: usize, by: SeenBy },
}

/// What new events are numbered with: the tables to look prints up in, and what is kept in memory.
pub(super) struct Counter<'t> {
    pub(super) conn: &'t Connection,
    pub(super) book: &'t mut Book,
    pub(super) prints: &'t mut Prints,
    pub(super) effects: &'t mut Effects,
    pub(super) shared: &'t Shared,
}

impl<'t> Counter<'t> {
    fn of(tx: &'t mut Tx<'_, '_>) -> Self {
        Self { conn: tx.conn, book: tx.book, prints: tx.prints, effects: tx.effects, shared: tx.shared }
    }
}

/// The numbers and receipts of an admission of new events.
pub(super) struct Admitted {
    pub(super) first_event: u64,
    pub(super) first_run: u64,
    pub(super) receipts: Vec<Receipt>,
}

/// Gives new events their numbers, and writes nothing. None: a duplicate or a name that the tables do not have yet is
/// among them, which [`accept`] has to see to; nothing was given then.
pub(super) fn admit(counter: &mut Counter<'_>, prepared: &Prepared) -> Result<Option<Admitted>, Fail> {
    let known = |event: &NewEvent| {
        let names = counter.book.names();
        let queue = |run: &NewRun| names.queue_of(run.agent.as_str(), run.trigger.as_str());
        names.id(&event.source).is_some() && event.runs.iter().all(|run| queue(run).is_some())
    };
    if !prepared.events.iter().all(known) {
        return Ok(None);
    }
    let standings = stand(counter, prepared)?;
    if standings.iter().any(|standing| !matches!(standing, Standing::New)) {
        return Ok(None);
    }
    check_limits(counter.book, prepared, &standings)?;
    let (first_event, first_run) = counter.book.upcoming();
    let receipts = prepared.events.iter().map(|event| allot(counter, event, prepared.at));
    let receipts = receipts.collect::<rusqlite::Result<Vec<_>>>()?;
    counter.effects.ready = true;
    Ok(Some(Admitted { first_event, first_run, receipts }))
}

fn refuse_short(tx: &Tx<'_, '_>) -> Result<(), StoreError> {
    match tx.short {
        true => Err(StoreError::Unavailable("disk space is short; make room, then send again".into())),
        false => Ok(()),
    }
}

/// Carries an admission out.
pub(super) fn accept(tx: &mut Tx<'_, '_>, prepared: &Prepared) -> Result<Vec<Receipt>, Fail> {
    refuse_short(tx)?;
    let standings = stand(&Counter::of(tx), prepared)?;
    check_limits(tx.book, prepared, &standings)?;
    let mut receipts: Vec<Receipt> = Vec::with_capacity(standings.len());
    let mut places: Vec<u64> = Vec::with_capacity(standings.len());
    let entries = entry::decode(&prepared.bytes);
    for ((event, entry), standing) in prepared.events.iter().zip(entries).zip(&standings) {
        let (place, receipt) = match standing {
            Standing::New => {
                let (seq, first_run) = tx.book.upcoming();
                let entry = entry?;
                let receipt = allot(&mut Counter::of(tx), event, prepared.at)?;
                let numbers = Numbers::given(tx.book, tx.conn, &entry)?;
                let place = Place { at: prepared.at.millis(), seq, first_run };
                tx.effects.ready |= write_event(tx.conn, tx.hot, &numbers, &entry, place)?;
                (seq, receipt)
            }
            Standing::Copy { of, by } => (of.event, duplicate(tx, event, of.event, *by, prepared.at)?),
            Standing::CopyOfEarlier { index, by } => {
                let first = places.get(*index).copied().unwrap_or_default();
                (first, duplicate(tx, event, first, *by, prepared.at)?)
            }
        };
        places.push(place);
        receipts.push(receipt);
    }
    Ok(receipts)
}

/// Finds the duplicates, before anything is written.
fn stand(counter: &Counter<'_>, prepared: &Prepared) -> rusqlite::Result<Vec<Standing>> {
    let keep = counter.shared.dedup_keep();
    let mut earlier = HashMap::new();
    let several = prepared.events.len() > 1;
    let mut standings = Vec::with_capacity(prepared.events.len());
    for (index, event) in prepared.events.iter().enumerate() {
        let Dedup { key, replay, .. } = event.dedup;
        let checks = [key.map(|k| (k, keep, SeenBy::Key)), replay.map(|(r, w)| (r, w.min(keep), SeenBy::Replay))];
        let mut standing = Standing::New;
        for (print, window, by) in checks.into_iter().flatten() {
            if let Some(first) = earlier.get(&print) {
                standing = Standing::CopyOfEarlier { index: *first, by };
                break;
            }
            if let Some(of) =
                counter.prints.get(counter.conn, print)?.filter(|seen| within(seen.at, prepared.at, window))
            {
                standing = Standing::Copy { of, by };
                break;
            }
        }
        if several && matches!(standing, Standing::New) && event.verdict == Kind::Accepted {
            for (print, _, _) in checks.into_iter().flatten() {
                earlier.insert(print, index);
            }
        }
        standings.push(standing);
    }
    Ok(standings)
}

/// Refuses the whole admission if a trigger's queue is full. Exact: whoever asks holds the desk.
fn check_limits(book: &Book, prepared: &Prepared, standings: &[Standing]) -> Result<(), StoreError> {
    let new = prepared.events.iter().zip(standings).filter(|(_, s)| matches!(s, Standing::New));
    refuse_over_limit(book, new.flat_map(|(event, _)| &event.runs))
}

/// Refuses runs that would go over their trigger's `max_queued`.
pub(super) fn refuse_over_limit<'r>(book: &Book, runs: impl Iterator<Item = &'r NewRun>) -> Result<(), StoreError> {
    let mut joining: Vec<(&Name, u64)> = Vec::new();
    for run in runs {
        let place = match joining.iter().position(|(name, _)| *name == &run.trigger) {
            Some(place) => place,
            None => {
                joining.push((&run.trigger, 0));
                joining.len() - 1
            }
        };
        if let Some(limit) = run.max_queued
            && book.queued_of(&run.trigger) + joining[place].1 >= u64::from(limit)
        {
            return Err(StoreError::QueueFull { trigger: run.trigger.clone(), limit });
        }
        joining[place].1 += 1;
    }
    Ok(())
}

/// Gives an event and its runs their numbers, and remembers its prints.
fn allot(counter: &mut Counter<'_>, event: &NewEvent, at: Timestamp) -> rusqlite::Result<Receipt> {
    let (seq, tag) = (counter.book.next_seq(), counter.shared.identity.tag);
    let runs = event.runs.iter().map(|run| allot_run(counter, &run.agent, &run.trigger));
    let runs = runs.collect::<rusqlite::Result<_>>()?;
    // Only what was accepted leaves prints: a redelivery of an ignored event is evaluated afresh.
    if event.verdict == Kind::Accepted {
        let seen = Seen { event: seq, at };
        for print in event.dedup.key.into_iter().chain(event.dedup.replay.map(|(print, _)| print)) {
            counter.prints.put(print, seen);
        }
    }
    Ok(Receipt::Stored { event: EventId::new(seq, tag), runs })
}

/// Of names that are known this writes nothing.
fn allot_run(counter: &mut Counter<'_>, agent: &Name, trigger: &Name) -> rusqlite::Result<RunId> {
    let Counter { conn, book, shared, .. } = counter;
    let queue = book.queue(conn, agent, trigger)?;
    book.moved(queue, None, State::Queued)?;
    Ok(RunId::new(book.next_run(), shared.identity.tag))
}

/// The small numbers that stand for an event's names in its rows.
pub(super) struct Numbers {
    source: u32,
    /// Of each run.
    queues: Vec<u32>,
}

impl Numbers {
    /// Of names that the tables have.
    pub(super) fn known(names: &Names, entry: &Entry<'_>) -> Option<Self> {
        let queues = entry.runs.iter().map(|run| names.queue_of(run.agent, run.trigger));
        Some(Self { source: names.id_of(entry.source)?, queues: queues.collect::<Option<_>>()? })
    }

    /// Of any names: new ones are written down.
    pub(super) fn given(book: &mut Book, conn: &Connection, entry: &Entry<'_>) -> rusqlite::Result<Self> {
        let source = book.intern_str(conn, entry.source)?;
        let queues = entry.runs.iter().map(|run| book.queue_str(conn, run.agent, run.trigger));
        Ok(Self { source, queues: queues.collect::<rusqlite::Result<_>>()? })
    }
}

/// Writes the rows of a record of the ack log. `numbers` knows the names.
pub(super) fn write_record(
    conn: &Connection,
    hot: &mut Hot<'_>,
    record: &Record,
    mut numbers: impl FnMut(&Entry<'_>) -> rusqlite::Result<Numbers>,
) -> rusqlite::Result<()> {
    let (mut seq, mut first_run) = (record.first_event, record.first_run);
    for entry in entry::decode(&record.events) {
        let entry = entry.map_err(|e| corrupt(e.to_string()))?;
        write_event(conn, hot, &numbers(&entry)?, &entry, Place { at: record.at, seq, first_run })?;
        seq += 1;
        first_run += entry.runs.len() as u64;
    }
    Ok(())
}

/// Counts the runs of a record that was read back from the ack log, and remembers its prints.
pub(super) fn readmit(tx: &mut Tx<'_, '_>, record: &Record) -> rusqlite::Result<()> {
    let (mut seq, mut run) = (record.first_event, record.first_run);
    for entry in entry::decode(&record.events) {
        let entry = entry.map_err(|e| corrupt(e.to_string()))?;
        let name = |text: &str| Name::new(text).map_err(|e| corrupt(e.to_string()));
        for new in &entry.runs {
            let queue = tx.book.queue(tx.conn, &name(new.agent)?, &name(new.trigger)?)?;
            tx.book.moved(queue, None, State::Queued)?;
        }
        let seen = Seen { event: seq, at: Timestamp::from_millis(record.at) };
        tx.prints.put_row(entry.prints, seen);
        seq += 1;
        run += entry.runs.len() as u64;
        tx.book.pass(seq, run);
    }
    Ok(())
}

/// When an event was decided on, and the numbers that it was given.
#[derive(Clone, Copy)]
struct Place {
    at: i64,
    seq: u64,
    first_run: u64,
}

/// Inserts an event and its runs under the numbers they were given. True if one of them can be claimed.
fn write_event(
    conn: &Connection,
    hot: &mut Hot<'_>,
    numbers: &Numbers,
    entry: &Entry<'_>,
    place: Place,
) -> rusqlite::Result<bool> {
    let Place { at, seq, first_run } = place;
    let source = numbers.source;
    let none_if_empty = |bytes: &'_ [u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
    hot.accept.event.execute(params![
        seq.cast_signed(),
        at,
        entry.verdict,
        source,
        if entry.runs.is_empty() { 0 } else { first_run.cast_signed() },
        entry.runs.len() as i64,
        none_if_empty(entry.prints),
        entry.event_type,
        entry.subject,
        none_if_empty(entry.remote),
        entry.body_format,
        entry.body_len.cast_signed(),
        entry.body_codec,
        entry.facts,
        entry.body,
    ])?;
    let parent = Parent { event: seq, source, event_type: entry.event_type };
    let mut claimable = false;
    for ((run, queue), seq) in entry.runs.iter().zip(&numbers.queues).zip(first_run..) {
        claimable |= write_run(conn, hot, &parent, (run, *queue), at, seq)?;
    }
    Ok(claimable)
}

/// What new runs take from their event.
pub(super) struct Parent<'e> {
    pub(super) event: u64,
    pub(super) source: u32,
    pub(super) event_type: &'e str,
}

/// Gives runs their numbers and inserts them at the tails of their lanes.
pub(super) fn insert_runs(
    tx: &mut Tx<'_, '_>,
    parent: &Parent<'_>,
    runs: &[NewRun],
    at: Timestamp,
) -> Result<Vec<RunId>, Fail> {
    let mut ids = Vec::with_capacity(runs.len());
    for run in runs {
        let id = allot_run(&mut Counter::of(tx), &run.agent, &run.trigger)?;
        let queue = tx.book.queue(tx.conn, &run.agent, &run.trigger)?;
        tx.effects.ready |= write_run(tx.conn, tx.hot, parent, (&RunEntry::of(run), queue), at.millis(), id.seq)?;
        ids.push(id);
    }
    Ok(ids)
}

/// True if it can be claimed.
fn write_run(
    conn: &Connection,
    hot: &mut Hot<'_>,
    parent: &Parent<'_>,
    (run, queue): (&RunEntry<'_>, u32),
    at: i64,
    seq: u64,
) -> rusqlite::Result<bool> {
    let Joined { blocked, shared } = match run.lane {
        Some(lane) => hot.lanes.join(conn, LaneId(lane), seq)?,
        None => Joined::default(),
    };
    hot.accept.run.execute(params![
        seq.cast_signed(),
        parent.event.cast_signed(),
        queue,
        blocked,
        shared,
        run.due_at,
        run.lane,
        at,
        parent.source,
        parent.event_type,
        run.key,
        run.title,
        run.flag,
    ])?;
    Ok(!blocked)
}

/// Answers with the first one's runs, retries them if so asked, and records the decision.
fn duplicate(tx: &mut Tx<'_, '_>, copy: &NewEvent, first: u64, by: SeenBy, at: Timestamp) -> Result<Receipt, Fail> {
    let mut runs = Vec::new();
    let sql = "SELECT first_run, runs FROM events WHERE seq = ?1";
    let span = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    // Dedup keys outlive events: then there are no runs to tell of.
    if let Some((from, count)) = tx.conn.prepare_cached(sql)?.query_row([first.cast_signed()], span).optional()? {
        for seq in from..from + count {
            let Some(mut record) = rows::load(tx.conn, seq.cast_unsigned())? else { continue };
            if record.state == State::Failed && copy.dedup.on_failed == OnDuplicateFailed::Retry {
                lane::requeue(tx, &mut record, "the sender delivered it again".into(), at)?;
            }
            let (_, trigger) = tx.book.names().queue_names(record.queue)?;
            runs.push((trigger, RunId::new(record.seq, tx.tag()), record.state));
        }
    }
    let event = EventId::new(first, tx.tag());
    decisions::write(tx, &crate::record::duplicate_decision(copy, event, by, at), decisions::Kept::ByAge)?;
    Ok(Receipt::Duplicate { event, runs, by })
}
