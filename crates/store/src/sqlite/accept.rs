//! Accepting: events, their runs, their prints and the decisions on duplicates, all or nothing. The hot path.
//!
//! What needs no order (facts as JSON, compressing the body) is done by the caller's task in [`Prepared::new`]; the
//! writer's thread only looks up prints and inserts rows.

use std::collections::HashMap;

use doorbell_core::decision::Kind;
use doorbell_core::event::{Admission, Dedup, NewEvent, OnDuplicateFailed, Receipt, SeenBy};
use doorbell_core::ports::{Notice, StoreError};
use doorbell_core::run::{NewRun, State};
use doorbell_core::{EventId, Name, RunId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::dedup::Seen;
use super::errors::Fail;
use super::rows::{self, bytes_of};
use super::writer::Tx;
use super::{decisions, lane};
use crate::record::within;

/// Bodies shorter than this are not worth compressing.
const COMPRESS_FROM: usize = 128;

/// An admission made ready outside the writer's thread.
pub(super) struct Prepared {
    at: Timestamp,
    events: Vec<Ready>,
}

struct Ready {
    event: NewEvent,
    facts: Vec<u8>,
    /// Its fingerprints in a row; none unless it was accepted, since a redelivery of an ignored event is evaluated afresh.
    prints: Option<Vec<u8>>,
    codec: u8,
    body: Option<Vec<u8>>,
}

impl Prepared {
    /// Serialises and compresses.
    pub(super) fn new(admission: Admission) -> Result<Self, StoreError> {
        let events = admission.events.into_iter().map(Ready::new).collect::<Result<_, _>>()?;
        Ok(Self { at: admission.at, events })
    }
}

impl Ready {
    fn new(event: NewEvent) -> Result<Self, StoreError> {
        let facts = serde_json::to_vec(&event.facts)
            .map_err(|e| StoreError::Corrupt(format!("an event's facts cannot be written as JSON: {e}")))?;
        let packed = (event.body.len() >= COMPRESS_FROM).then(|| lz4_flex::block::compress(&event.body));
        let body = packed.filter(|packed| packed.len() < event.body.len());
        let Dedup { key, replay, .. } = event.dedup;
        let prints: Vec<u8> = key.into_iter().chain(replay.map(|(print, _)| print)).flat_map(|p| p.0).collect();
        let prints = Some(prints).filter(|p| !p.is_empty() && event.verdict == Kind::Accepted);
        Ok(Self { codec: u8::from(body.is_some()), event, facts, prints, body })
    }

    fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or(&self.event.body)
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
                "INSERT INTO runs (seq, event, queue, state, blocked, passed, due_at, ord, lane, created_at, source,
                                   event_type, key, title, flag)
                 VALUES (?1, ?2, ?3, 0, ?4, 0, ?5, ?1, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
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

/// Carries an admission out.
pub(super) fn accept(tx: &mut Tx<'_, '_>, prepared: &Prepared) -> Result<Vec<Receipt>, Fail> {
    if tx.short {
        return Err(StoreError::Unavailable("disk space is short; make room, then send again".into()).into());
    }
    let standings = stand(tx, prepared)?;
    check_limits(tx, prepared, &standings)?;
    let mut receipts: Vec<Receipt> = Vec::with_capacity(standings.len());
    let mut places: Vec<u64> = Vec::with_capacity(standings.len());
    for (ready, standing) in prepared.events.iter().zip(&standings) {
        let (place, receipt) = match standing {
            Standing::New => insert(tx, ready, prepared.at)?,
            Standing::Copy { of, by } => (of.event, duplicate(tx, ready, of.event, *by, prepared.at)?),
            Standing::CopyOfEarlier { index, by } => {
                let first = places.get(*index).copied().unwrap_or_default();
                (first, duplicate(tx, ready, first, *by, prepared.at)?)
            }
        };
        places.push(place);
        receipts.push(receipt);
    }
    Ok(receipts)
}

/// Finds the duplicates, before anything is written.
fn stand(tx: &mut Tx<'_, '_>, prepared: &Prepared) -> rusqlite::Result<Vec<Standing>> {
    let keep = tx.shared.dedup_keep();
    let mut earlier = HashMap::new();
    let several = prepared.events.len() > 1;
    let mut standings = Vec::with_capacity(prepared.events.len());
    for (index, ready) in prepared.events.iter().enumerate() {
        let Dedup { key, replay, .. } = ready.event.dedup;
        let checks = [key.map(|k| (k, keep, SeenBy::Key)), replay.map(|(r, w)| (r, w.min(keep), SeenBy::Replay))];
        let mut standing = Standing::New;
        for (print, window, by) in checks.into_iter().flatten() {
            if let Some(first) = earlier.get(&print) {
                standing = Standing::CopyOfEarlier { index: *first, by };
                break;
            }
            if let Some(of) = tx.hot.dedup.get(print)?.filter(|seen| within(seen.at, prepared.at, window)) {
                standing = Standing::Copy { of, by };
                break;
            }
        }
        if several && matches!(standing, Standing::New) && ready.event.verdict == Kind::Accepted {
            for (print, _, _) in checks.into_iter().flatten() {
                earlier.insert(print, index);
            }
        }
        standings.push(standing);
    }
    Ok(standings)
}

/// Refuses the whole admission if a trigger's queue is full. Exact: the writer alone counts.
fn check_limits(tx: &Tx<'_, '_>, prepared: &Prepared, standings: &[Standing]) -> Result<(), StoreError> {
    let new = prepared.events.iter().zip(standings).filter(|(_, s)| matches!(s, Standing::New));
    refuse_over_limit(tx, new.flat_map(|(ready, _)| &ready.event.runs))
}

/// Refuses runs that would go over their trigger's `max_queued`.
pub(super) fn refuse_over_limit<'r>(tx: &Tx<'_, '_>, runs: impl Iterator<Item = &'r NewRun>) -> Result<(), StoreError> {
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
            && tx.book.queued_of(&run.trigger) + joining[place].1 >= u64::from(limit)
        {
            return Err(StoreError::QueueFull { trigger: run.trigger.clone(), limit });
        }
        joining[place].1 += 1;
    }
    Ok(())
}

fn insert(tx: &mut Tx<'_, '_>, ready: &Ready, at: Timestamp) -> Result<(u64, Receipt), Fail> {
    let event = &ready.event;
    let seq = tx.book.next_seq();
    let source = tx.book.intern(tx.conn, &event.source)?;
    let runs = insert_runs(tx, &Parent { event: seq, source, event_type: &event.event_type }, &event.runs, at)?;
    let first_run = runs.first().map_or(0, |run| run.seq);
    let remote = event.remote.map(bytes_of);
    tx.hot.accept.event.execute(params![
        seq.cast_signed(),
        at.millis(),
        event.verdict.code(),
        source,
        first_run.cast_signed(),
        runs.len() as i64,
        ready.prints,
        event.event_type,
        event.subject,
        remote.as_deref(),
        event.body_format,
        event.body.len() as i64,
        ready.codec,
        ready.facts,
        ready.body(),
    ])?;
    // Only what was accepted leaves prints: a redelivery of an ignored event is evaluated afresh.
    if event.verdict == Kind::Accepted {
        let seen = Seen { event: seq, at };
        for print in event.dedup.key.into_iter().chain(event.dedup.replay.map(|(print, _)| print)) {
            tx.hot.dedup.put(print, seen);
        }
    }
    Ok((seq, Receipt::Stored { event: EventId::new(seq, tx.tag()), runs }))
}

/// What new runs take from their event.
pub(super) struct Parent<'e> {
    pub(super) event: u64,
    pub(super) source: u32,
    pub(super) event_type: &'e str,
}

/// Inserts runs at the tails of their lanes.
pub(super) fn insert_runs(
    tx: &mut Tx<'_, '_>,
    parent: &Parent<'_>,
    runs: &[NewRun],
    at: Timestamp,
) -> Result<Vec<RunId>, Fail> {
    let mut ids = Vec::with_capacity(runs.len());
    for run in runs {
        let queue = tx.book.queue(tx.conn, &run.agent, &run.trigger)?;
        let blocked = match run.lane {
            Some(lane) => lane::is_held(tx.conn, lane)?,
            None => false,
        };
        let seq = tx.book.next_run();
        tx.hot.accept.run.execute(params![
            seq.cast_signed(),
            parent.event.cast_signed(),
            queue,
            blocked,
            run.due_at.millis(),
            run.lane.map(|lane| lane.0),
            at.millis(),
            parent.source,
            parent.event_type,
            run.key,
            run.title,
            run.flag,
        ])?;
        tx.book.moved(queue, None, State::Queued)?;
        tx.effects.ready |= !blocked;
        let id = RunId::new(seq, tx.tag());
        if tx.shared.is_watched() {
            tx.effects.notices.push(Notice::Moved(id, State::Queued));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// Answers with the first one's runs, retries them if so asked, and records the decision.
fn duplicate(tx: &mut Tx<'_, '_>, ready: &Ready, first: u64, by: SeenBy, at: Timestamp) -> Result<Receipt, Fail> {
    let mut runs = Vec::new();
    let sql = "SELECT first_run, runs FROM events WHERE seq = ?1";
    let span = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    // Dedup keys outlive events: then there are no runs to tell of.
    if let Some((from, count)) = tx.conn.prepare_cached(sql)?.query_row([first.cast_signed()], span).optional()? {
        for seq in from..from + count {
            let Some(mut record) = rows::load(tx.conn, seq.cast_unsigned())? else { continue };
            if record.state == State::Failed && ready.event.dedup.on_failed == OnDuplicateFailed::Retry {
                lane::requeue(tx, &mut record, "the sender delivered it again".into(), at)?;
            }
            let (_, trigger) = tx.book.names().queue_names(record.queue)?;
            runs.push((trigger, RunId::new(record.seq, tx.tag()), record.state));
        }
    }
    let event = EventId::new(first, tx.tag());
    decisions::write(tx, &crate::record::duplicate_decision(&ready.event, event, by, at), decisions::Kept::ByAge)?;
    Ok(Receipt::Duplicate { event, runs, by })
}

/// Unpacks a kept body.
pub(super) fn unpack(codec: u8, body: Vec<u8>, len: usize) -> rusqlite::Result<Vec<u8>> {
    match codec {
        0 => Ok(body),
        _ => lz4_flex::block::decompress(&body, len)
            .map_err(|e| super::errors::corrupt(format!("a body cannot be unpacked: {e}"))),
    }
}
